"""The loop: rollout and learn, evaluate, evolve, record."""

import contextlib
import math
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from evolute import evolution
from evolute.algorithms.base import Sums
from evolute.config import Run
from evolute.environments.gym import Environment
from evolute.errors import RunStopped, UserError
from evolute.evolution.base import Exploit, Streams
from evolute.runs import cautions, changes, checkpoint, rows
from evolute.runs.folder import CONFIG_FILE, RunFolder, check_outs
from evolute.runs.writing import save, write
from evolute.state import Best, Note, Observer, Progress, Result, State
from evolute.training import evaluate, host, placement
from evolute.training.host import Outcome
from evolute.training.randomness import POPULATION, Purpose


def train(run: Run, out: str | Path | None = None, observer: Observer | None = None, note: Note = warnings.warn) -> Result:
    """Train a population from start to end.

    Args:
        run: what to train.
        out: a folder for the run's records and checkpoints, which must not hold a run yet; None writes nothing.
        observer: is told of progress. What it raises stops the run between two steps; `resume` goes on from the last checkpoint.
        note: is told what somebody should know of the environment and the settings, one sentence each.

    Returns:
        The result; the best policy's final evaluation is on fresh episodes.

    Raises:
        UserError: the environment cannot be used, or the folder already holds a run.
        RunStopped: the run cannot go on, although nothing is wrong with its settings.
    """
    return train_seeds(run, [run.seed], None if out is None else [out], observer, note)[0]


def train_seeds(
    run: Run,
    seeds: Sequence[int],
    outs: Sequence[str | Path] | None = None,
    observer: Observer | None = None,
    note: Note = warnings.warn,
) -> list[Result]:
    """Train independent populations side by side in one program, which differ by their seed alone.

    Each has its own evolution, lineage and run folder; on a CPU each equals, bit by bit, what `train` makes of its seed.

    Args:
        run: what to train; its own seed is not used.
        seeds: one for each population.
        outs: a folder for each, as in `train`; None writes nothing.
        observer: is told of the progress of each.
        note: as in `train`.

    Returns:
        The results, in the order of the seeds.

    Raises:
        UserError, RunStopped: as in `train`. Where one population cannot go on all stop, and each of the others can be resumed.
    """
    if len(seeds) == 0 or len(set(seeds)) < len(seeds):
        raise UserError(f"seeds are {list(seeds)}; name each once, and at least one, such as 0 1 2.")
    # Absolute, because an environment may change the working folder.
    paths = [] if outs is None else [path.absolute() for path in check_outs(outs, len(seeds))]
    runs = [replace(run, seed=seed) for seed in seeds]
    with contextlib.ExitStack() as stack:
        placement.use_all_cores(len(run.kinds) * len(runs))
        states = start(runs)
        for state in states:
            stack.callback(close, state)
        notes = cautions.at_start(run, states[0].evaluation_environment.facts)
        folders = [stack.enter_context(RunFolder.create(path, one, notes)) for path, one in zip(paths, runs, strict=bool(paths))]
        for sentence in folders[0].notes if folders else notes:
            note(sentence)
        return go_on(states, folders or [None] * len(runs), observer, note)


def go_on(
    states: list[State], folders: Sequence[RunFolder | None], observer: Observer | None, note: Note = warnings.warn
) -> list[Result]:
    """Train populations that stand at the same interval from there to the end."""
    clock = states[0]
    began = time.perf_counter() - clock.earlier_seconds

    def tell(state: State, steps: int, metrics: list[dict[str, Any]], events: list[dict[str, Any]]) -> None:
        for sentence in cautions.messages(events):
            note(sentence)
        if observer is not None:
            observer(Progress(state, steps, time.perf_counter() - began, metrics, events, len(states)))

    def tick(steps: int) -> None:
        for state in states:
            tell(state, steps, [], [])

    for state, folder in zip(states, folders, strict=True):
        if not state.evolved and state.interval < state.intervals:
            # The run had ended here and was extended: nobody was left to be trained by this evolution then.
            events = [rows.event_row(state, exploit) for exploit in evolve_members(state)]
            write(state, folder, [], events)
            tell(state, state.steps_done, [], events)
    while clock.interval < clock.intervals:
        try:
            sums = rollout_and_learn(states, tick)
        except RunStopped:
            for state, folder in zip(states, folders, strict=True):
                write(state, folder, [], rows.trouble_rows(state, state.interval + 1))
            raise
        stops = []
        for state, folder, of_state in zip(states, folders, sums, strict=True):
            try:
                end_interval(state, folder, of_state, tell, began)
            except RunStopped as stop:
                # The others' checkpoints are written first.
                stops.append(stop)
        if stops:
            raise stops[0]
    return [finish(state, folder, time.perf_counter() - began) for state, folder in zip(states, folders, strict=True)]


def end_interval(state: State, folder: RunFolder | None, sums: list[Sums], tell: Any, began: float) -> None:
    """Evaluate, evolve, record and checkpoint one population after its members took their steps.

    Raises:
        RunStopped: nobody is left in it, or a file cannot be written.
    """
    try:
        outcomes = evaluate_members(state, sums)
    except RunStopped:
        write(state, folder, [], rows.trouble_rows(state, state.interval + 1))
        raise
    state.interval += 1
    state.evolved = False
    if folder is not None:
        save(state, folder, lambda: checkpoint.save_replay(folder.path, state))
    exploits = evolve_members(state) if state.interval < state.intervals else []
    metrics, events = rows.interval_rows(state, outcomes, exploits)
    write(state, folder, metrics, events)
    if all(member.quarantined is not None for member in state.members):
        tell(state, state.steps_done, metrics, events)
        # Before a checkpoint: there is nothing in it that could go on.
        if folder is None:
            raise RunStopped(rows.nobody_left(state.members))
        folder.append_events([rows.nobody_left_row(state, state.interval, changes.digest_without_length(state.run))])
        raise RunStopped(rows.nobody_left(state.members, f" in {str(folder.path / CONFIG_FILE)!r}"))
    if folder is not None and (state.interval % state.run.checkpoint_every == 0 or state.interval == state.intervals):
        state.earlier_seconds = time.perf_counter() - began
        save(state, folder, lambda: checkpoint.save(folder.path, state, folder.carried(state.run)))
    tell(state, state.steps_done, metrics, events)


def start(runs: Sequence[Run]) -> list[State]:
    """Return populations before their first step; their runs differ by the seed alone, and they share groups."""
    size = len(runs[0].kinds)
    members = [
        [host.new_member(run, slot, kind, number * size + slot) for slot, kind in enumerate(run.kinds)]
        for number, run in enumerate(runs)
    ]
    groups = host.make_groups(runs, [member for own in members for member in own])
    return [
        State(run, own, groups, Environment(run.env, run.time_limit), evolution.build(run).init())
        for run, own in zip(runs, members, strict=True)
    ]


def rollout_and_learn(states: list[State], tell: Callable[[int], None]) -> list[list[Sums]]:
    """Let every member take its steps of this interval; return the updates' sums by population and slot."""
    clock, run = states[0], states[0].run
    members = [member for state in states for member in state.members]
    crews = host.begin_interval([state.run for state in states], members, clock.groups, clock.interval)
    length = min(run.interval, run.steps - clock.steps_done)
    sums, seconds = host.rollout_and_learn(run, crews, length, lambda done: tell(clock.steps_done + done))
    for state in states:
        for phase, spent in seconds.items():
            # Populations side by side share these phases.
            state.seconds[phase] += spent
    return [[sums[member.lane] for member in state.members] for state in states]


def evaluate_members(state: State, sums: list[Sums]) -> list[Outcome]:
    """Play deterministic episodes with every member, on seeds common to all and fresh each interval; keep the best policy."""
    began = time.perf_counter()
    rng = host.stream(state.run, POPULATION, state.interval, Purpose.EVALUATE)
    seeds = rng.integers(2**31, size=state.run.episodes).tolist()
    outcomes = []
    for member, learnt in zip(state.members, sums, strict=True):
        group, environment = state.group_of(member), state.evaluation_environment
        outcome = host.evaluate_member(member, group, state.run.env, environment, seeds, learnt)
        outcomes.append(outcome)
        state.quarantines += member.quarantined is not None
        if math.isfinite(member.fitness) and (state.best is None or member.fitness > state.best.fitness):
            state.best = Best(outcome.policy, member.fitness, member.slot, member.kind, member.environment_steps)
    state.seconds["evaluate"] += time.perf_counter() - began
    return outcomes


def evolve_members(state: State) -> list[Exploit]:
    """Let the worst members become perturbed copies of the best ones, and return who copied whom."""
    began = time.perf_counter()
    run, exploits = state.run, []
    # Before every member has learnt, fitness says nothing of optimizers or hyperparameters.
    if all(member.gradient_steps for member in state.members):
        select = host.stream(run, POPULATION, state.interval, Purpose.SELECT)
        explore = [host.stream(run, member.slot, state.interval, Purpose.EXPLORE) for member in state.members]
        standings = [member.standing for member in state.members]
        state.memory, exploits = evolution.build(run).evolve(state.memory, standings, Streams(select, explore))
        for exploit in exploits:
            copy_member(state, exploit)
    state.evolved = True
    state.seconds["evolve"] += time.perf_counter() - began
    return exploits


def copy_member(state: State, exploit: Exploit) -> None:
    """Carry out an exploit; the optimizer's state is copied between equal kinds if configured."""
    child, parent = state.members[exploit.child.slot], state.members[exploit.parent.slot]
    reset = not (exploit.same_kind and state.run.copy_optimizer_state)
    host.copy(state.run, state.interval, child, state.group_of(child), parent, state.group_of(parent), reset)
    child.hyperparameters = exploit.hyperparameters


def finish(state: State, folder: RunFolder | None, wall_seconds: float) -> Result:
    """Evaluate the best policy on fresh episodes and write the result."""
    run, best = state.run, state.best
    assert best is not None, "a run in which every member was in quarantine has stopped"
    rng = host.stream(run, POPULATION, 0, Purpose.FINAL_EVALUATION)
    seeds = rng.integers(2**31, size=run.final_episodes).tolist()
    faulted = evaluate.tolerate(run.max_faults)
    evaluate.rebuild(state.evaluation_environment, faulted)
    evaluation = evaluate.by_episodes(state.evaluation_environment, best.policy.unit_action, seeds, faulted)
    leaderboard = rows.leaderboard(state.members)
    summary = rows.summary(state, best, evaluation, leaderboard, len(state.lineage), wall_seconds)
    if folder is not None:
        folder.write_result(summary)
    return Result(best.policy, evaluation, leaderboard, state.lineage, summary, folder.path if folder is not None else None)


def close(state: State) -> None:
    """Release the environments."""
    for member in state.members:
        member.environment.close()
    state.evaluation_environment.close()
