"""The loop between intervals: train, rank, evolve, record."""

import contextlib
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from evolute import evolution
from evolute.config import Run
from evolute.errors import RunStopped, UserError
from evolute.evolution.base import Exploit, Streams
from evolute.runs import cautions, changes, rows
from evolute.runs.folder import CONFIG_FILE, RunFolder, check_outs
from evolute.runs.writing import save_checkpoint, save_replay, write
from evolute.state import Note, Observer, Progress, Result, State, new_profile
from evolute.training import needs, processes, starting, worker
from evolute.training.randomness import POPULATION, Purpose, stream
from evolute.training.worker import Hire, Orders, Trained, Worker


def train(
    run: Run,
    out: str | Path | None = None,
    observer: Observer | None = None,
    note: Note = warnings.warn,
    workers: int | Hire = 1,
) -> Result:
    """Train a population from start to end.

    Args:
        run: what to train.
        out: a folder for the run's records and checkpoints, which must not hold a run yet; None writes nothing.
        observer: is told of progress. What it raises stops the run between two steps; `resume` goes on from the last checkpoint.
        note: is told what somebody should know of the environment and the settings, one sentence each.
        workers: processes of this machine over which the members are dealt; on a CPU the numbers do not depend on it. 1 trains
            in this process. A script that asks for more begins under `if __name__ == "__main__":`. Or what hires them.

    Returns:
        The result; the best policy's final evaluation is on fresh episodes.

    Raises:
        UserError: the environment cannot be used, or the folder already holds a run.
        RunStopped: the run cannot go on, although nothing is wrong with its settings.
    """
    return train_seeds(run, [run.seed], None if out is None else [out], observer, note, workers)[0]


def train_seeds(
    run: Run,
    seeds: Sequence[int],
    outs: Sequence[str | Path] | None = None,
    observer: Observer | None = None,
    note: Note = warnings.warn,
    workers: int | Hire = 1,
) -> list[Result]:
    """Train independent populations side by side in one program, which differ by their seed alone.

    Each has its own evolution, lineage and run folder; on a CPU each equals, bit by bit, what `train` makes of its seed.

    Args:
        run: what to train; its own seed is not used.
        seeds: one for each population.
        outs: a folder for each, as in `train`; None writes nothing.
        observer: is told of the progress of each.
        note: as in `train`.
        workers: as in `train`.

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
        states, crew = start(runs, workers, note, paths)
        stack.callback(close, crew)
        notes = cautions.at_start(run, states[0].facts)
        folders = [stack.enter_context(RunFolder.create(path, one, notes)) for path, one in zip(paths, runs, strict=bool(paths))]
        for sentence in folders[0].notes if folders else notes:
            note(sentence)
        return go_on(states, crew, folders or [None] * len(runs), observer, note)


def go_on(
    states: list[State],
    crew: Sequence[Worker],
    folders: Sequence[RunFolder | None],
    observer: Observer | None,
    note: Note = warnings.warn,
) -> list[Result]:
    """Train populations that stand at the same interval from there to the end."""
    clock = states[0]
    began = time.perf_counter() - clock.earlier_seconds

    def tell(state: State, steps: int, metrics: list[dict[str, Any]], events: list[dict[str, Any]]) -> None:
        for sentence in cautions.messages(events):
            note(sentence)
        if observer is not None:
            observer(Progress(state, steps, time.perf_counter() - began, metrics, events, len(states)))

    def tick(done: int) -> None:
        for state in states:
            tell(state, clock.steps_done + done, [], [])

    for state, folder in zip(states, folders, strict=True):
        if not state.evolved and state.interval < state.intervals:
            # The run had ended here and was extended: nobody was left to be trained by this evolution then.
            events = [rows.event_row(state, exploit) for exploit in evolve_members(state, crew)]
            write(state, folder, [], events)
            tell(state, state.steps_done, [], events)
    while clock.interval < clock.intervals:
        trained, stops = train_interval(states, crew, tick), []
        for state, folder in zip(states, folders, strict=True):
            try:
                end_interval(state, crew, folder, trained, tell, began)
            except RunStopped as stop:
                # The others' checkpoints are written first.
                stops.append(stop)
        if stops:
            raise stops[0]
    return [finish(state, crew, folder, time.perf_counter() - began) for state, folder in zip(states, folders, strict=True)]


def start(
    runs: Sequence[Run], workers: int | Hire = 1, note: Note = warnings.warn, folders: Sequence[Path] = (), restored: bool = False
) -> tuple[list[State], list[Worker]]:
    """Return populations before their first step, and their crew, the workers that train them.

    Args:
        runs: they differ by their seed alone.
        workers: as in `train`.
        note: is told where a process was lost and replaced.
        folders: of the runs, where there are any: only what is checkpointed of a lost process can be restored.
        restored: whether they are brought to a checkpoint next, so that it does not matter what they start from.

    Raises:
        UserError: the environment cannot be made, or the runs take more than this machine has.
    """
    crew = processes.start(runs, workers, note, folders, None if restored else starting.policy_of(runs[0]))
    try:
        takes = needs.needs(runs[0], len(runs), crew[0].facts.shape, len(crew))
        needs.check(runs[0], takes, folders, processes.count_here(workers) is not None)
    except UserError:
        close(crew)
        raise
    states = []
    for number, run in enumerate(runs):
        members = [new_profile(run, slot, kind) for slot, kind in enumerate(run.kinds)]
        states.append(State(run, members, crew[0].facts, evolution.build(run).init(), number))
    return states, crew


def train_interval(states: Sequence[State], crew: Sequence[Worker], tick: Callable[[int], None]) -> Trained:
    """Let every member take its steps of this interval, and evaluate it; return what came of it."""
    clock, orders = states[0], {}
    for state in states:
        # Common to all members of a population, and fresh each interval.
        seeds = episode_seeds(state, state.interval, Purpose.EVALUATE, state.run.episodes)
        orders |= {state.lane(member.slot): Orders(member.hyperparameters, seeds) for member in state.members}
    waits = [one.train(clock.interval, {lane: orders[lane] for lane in one.lanes}, tick) for one in worker.late_last(crew)]
    return worker.together([wait() for wait in waits])


def end_interval(
    state: State, crew: Sequence[Worker], folder: RunFolder | None, trained: Trained, tell: Any, began: float
) -> None:
    """Rank, evolve, record and checkpoint one population after an interval.

    Raises:
        RunStopped: a member could not end the interval, nobody is left, or a file cannot be written.
    """
    ended = state.take_in(trained)
    if len(ended) < len(state.present):
        write(state, folder, [], rows.trouble_rows(state, state.interval + 1))
        raise RunStopped(trained.stops[0])
    state.interval += 1
    state.evolved = False
    if folder is not None:
        save_replay(state, folder, crew)
    exploits = evolve_members(state, crew) if state.interval < state.intervals else []
    metrics, events = rows.interval_rows(state, ended, exploits)
    write(state, folder, metrics, events)
    if all(member.quarantined is not None for member in state.members):
        tell(state, state.steps_done, metrics, events)
        # Before a checkpoint: there is nothing in it that could go on.
        if folder is None:
            raise RunStopped(rows.nobody_left(state))
        folder.append_events([rows.nobody_left_row(state, state.interval, changes.digest_without_length(state.run))])
        raise RunStopped(rows.nobody_left(state, f" in {str(folder.path / CONFIG_FILE)!r}"))
    if folder is not None and (state.interval % state.run.checkpoint_every == 0 or state.interval == state.intervals):
        state.earlier_seconds = time.perf_counter() - began
        save_checkpoint(state, folder, crew)
    tell(state, state.steps_done, metrics, events)


def evolve_members(state: State, crew: Sequence[Worker]) -> list[Exploit]:
    """Let the worst members become perturbed copies of the best ones, and return who copied whom."""
    began, run, exploits = time.perf_counter(), state.run, []
    # Before every member has learnt, fitness says nothing of optimizers or hyperparameters.
    if run.schedule or all(member.gradient_steps for member in state.present):
        select = stream(run, POPULATION, state.interval, Purpose.SELECT)
        explore = [stream(run, member.slot, state.interval, Purpose.EXPLORE) for member in state.members]
        standings = [member.standing for member in state.present]
        state.memory, exploits = evolution.build(run).evolve(state.memory, standings, Streams(select, explore))
        for exploit in exploits:
            copy_member(state, crew, exploit)
    state.evolved = True
    state.seconds["evolve"] += time.perf_counter() - began
    return exploits


def copy_member(state: State, crew: Sequence[Worker], exploit: Exploit) -> None:
    """Carry out an exploit; the optimizer's state is copied between equal kinds if configured."""
    child, parent = state.lane(exploit.child.slot), state.lane(exploit.parent.slot)
    reset = not (exploit.same_kind and state.run.copy_optimizer_state)
    worker.copy(crew, child, parent, None if exploit.same_kind else exploit.child.kind, reset, state.interval)
    profile = state.members[exploit.child.slot]
    profile.kind, profile.hyperparameters = exploit.child.kind, exploit.hyperparameters
    profile.parent = exploit.parent.slot if child != parent else None


def finish(state: State, crew: Sequence[Worker], folder: RunFolder | None, wall_seconds: float) -> Result:
    """Evaluate the best policy on fresh episodes and write the result."""
    best, seeds = state.best, episode_seeds(state, 0, Purpose.FINAL_EVALUATION, state.run.final_episodes)
    assert best is not None, "a run in which every member was in quarantine has stopped"
    evaluation = worker.late_last(crew)[0].play(best.policy, seeds)
    summary = rows.summary(state, best, evaluation, rows.leaderboard(state.members), len(state.lineage), wall_seconds)
    if folder is not None:
        folder.write_result(summary)
    path = folder.path if folder is not None else None
    return Result(best.policy, evaluation, summary["leaderboard"], state.lineage, summary, path)


def episode_seeds(state: State, interval: int, purpose: Purpose, count: int) -> list[int]:
    """Return seeds of episodes that a population plays."""
    return stream(state.run, POPULATION, interval, purpose).integers(2**31, size=count).tolist()


def close(crew: Sequence[Worker]) -> None:
    """Release environments and processes."""
    for one in crew:
        one.close()
