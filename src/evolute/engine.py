"""The loop: rollout and learn, evaluate, evolve, record."""

import contextlib
import math
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from evolute import optimizers
from evolute.algorithms import td3
from evolute.algorithms.base import Algorithm, Sums
from evolute.config import Run
from evolute.environments.gym import Environment
from evolute.errors import EnvironmentFault, RunStopped, UserError
from evolute.evolution import pbt
from evolute.evolution.pbt import Exploit
from evolute.policy import Policy
from evolute.runs import cautions, changes, checkpoint, rows
from evolute.runs.folder import CONFIG_FILE, RunFolder, check_outs
from evolute.state import PHASES, Best, Note, Observer, Progress, Result, State
from evolute.training import evaluate, health, placement, randomness
from evolute.training.evaluate import Evaluation
from evolute.training.health import Health
from evolute.training.member import Member
from evolute.training.placement import Group
from evolute.training.quarantine import divergence
from evolute.training.randomness import POPULATION, Purpose
from evolute.training.replay import ReplayBuffer, Sample, bucket

# Seconds between two reports of progress.
PROGRESS_PERIOD = 0.25

# A group and its members.
Crew = tuple[Group, list[Member]]


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
        evaluations = evaluate_members(state, sums)
    except RunStopped:
        write(state, folder, [], rows.trouble_rows(state, state.interval + 1))
        raise
    state.interval += 1
    state.evolved = False
    if folder is not None:
        save(state, folder, lambda: checkpoint.save_replay(folder.path, state))
    examined = examine_members(state)
    exploits = evolve_members(state) if state.interval < state.intervals else []
    metrics, events = rows.interval_rows(state, sums, evaluations, examined, exploits)
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


# -------------------------------------------------------------------------------------------------------------- start


def start(runs: Sequence[Run]) -> list[State]:
    """Return populations before their first step; their runs differ by the seed alone, and they share groups."""
    run, size = runs[0], len(runs[0].kinds)
    members = [
        [new_member(one, slot, kind, number * size + slot) for slot, kind in enumerate(run.kinds)]
        for number, one in enumerate(runs)
    ]
    algorithms = {kind: algorithm_of(run, kind, members[0][0].environment) for kind in run.mix}
    programs = {kind: placement.make_programs(algorithm, run.precision, kind) for kind, algorithm in algorithms.items()}
    groups = []
    for kind, lanes, device in placement.deal(run.kinds * len(runs), run.placement):
        rngs = [stream(runs[lane // size], lane % size, 0, Purpose.INITIALISE) for lane in lanes]
        learners = [algorithms[kind].init(rng) for rng in rngs]
        groups.append(Group(lanes, kind, programs[kind], device, learners, run.steps_per_round))
    return [State(one, own, groups, Environment(run.env, run.time_limit)) for one, own in zip(runs, members, strict=True)]


def new_member(run: Run, slot: int, kind: str, lane: int) -> Member:
    """Return a member before its first step."""
    environment = Environment(run.env, run.time_limit)
    buffer = ReplayBuffer(min(run.buffer_size, run.steps), environment.shape.observations, environment.shape.actions)
    member = Member(slot, kind, run.initial_hyperparameters(kind), environment, buffer, lane)
    member.max_faults, member.stops_on_faults = run.max_faults, run.on_faults == "stop"
    return member


def stream(run: Run, slot: int, interval: int, purpose: Purpose) -> np.random.Generator:
    """Return one of a run's random streams."""
    return randomness.generator(run.seed, slot, interval, purpose)


def algorithm_of(run: Run, kind: str, environment: Environment) -> Algorithm:
    """Return what members of a kind learn by."""
    actor, critic = optimizers.networks_of(kind)
    return td3.make(
        td3.Settings(
            observations=environment.shape.observations,
            actions=environment.shape.actions,
            actor_layers=run.actor_layers,
            critic_layers=run.critic_layers,
            policy_delay=run.policy_delay,
            actor_optimizer=optimizers.build(actor, run.optimizers[actor]["actor"]),
            critic_optimizer=optimizers.build(critic, run.optimizers[critic]["critic"]),
        )
    )


# -------------------------------------------------------------------------------------------------- rollout and learn


def rollout_and_learn(states: list[State], tell: Callable[[int], None]) -> list[list[Sums]]:
    """Let every member take its steps of this interval, one update per step once it learns.

    Returns:
        Reports by population and slot.
    """
    clock, run, groups = states[0], states[0].run, states[0].groups
    length = min(run.interval, run.steps - clock.steps_done)
    by_lane = {member.lane: member for state in states for member in state.members}
    crews = [(group, [by_lane[lane] for lane in group.lanes]) for group in groups]
    for state in states:
        for member in state.members:
            member.begin_interval(partial(stream, state.run, member.slot, state.interval))
    for group, members in crews:
        group.begin_interval([member.hyperparameters for member in members])
        if members[0].environment_steps >= run.learning_starts:
            group.act(observations(members), noises(members))
    seconds: dict[str, float] = dict.fromkeys(PHASES, 0.0)
    told = time.perf_counter()
    # Two watches take turns: while one's environments step here, the other's updates run on their devices. Not each group by
    # itself: products sweep the caches, and the first environment of a watch fetches its code for all of them.
    watches = crews[: len(crews) // 2], crews[len(crews) // 2 :]
    for tick in range(length):
        for watch in watches:
            advance(run, watch, tick, length, seconds)
        if (now := time.perf_counter()) - told > PROGRESS_PERIOD:
            tell(clock.steps_done + tick + 1)
            told = now
    began = time.perf_counter()
    sums = {lane: one for group in groups for lane, one in zip(group.lanes, group.sums(), strict=True)}
    seconds["learn"] += time.perf_counter() - began
    for state in states:
        for phase, spent in seconds.items():
            # Populations side by side share these phases.
            state.seconds[phase] += spent
    return [[sums[member.lane] for member in state.members] for state in states]


def observations(members: list[Member]) -> np.ndarray:
    """Return the members' observations [M, O]."""
    return np.stack([member.observation for member in members])


def noises(members: list[Member]) -> np.ndarray:
    """Return exploration noise of the members [M, A]."""
    return np.stack([member.noise() for member in members])


def advance(run: Run, watch: Sequence[Crew], tick: int, length: int, seconds: dict[str, float]) -> None:
    """Take one environment step of the members of some groups and start their next update or action, at a tick of an interval."""
    # Members of a group share kind and schedule, so one's count speaks for all.
    began = time.perf_counter()
    steps = {group: run.interval_steps(group.kind, length) for group, _ in watch}
    crews = [crew for crew in watch if run.shrink == "gradient" or tick < steps[crew[0]]]
    actions = [next_actions(run, group, members) for group, members in crews]
    acted = time.perf_counter()
    for (_, members), own in zip(crews, actions, strict=True):
        for member, action in zip(members, own, strict=True):
            member.advance(action)
    stepped = time.perf_counter()
    for group, members in crews:
        # Fewer gradient steps than ticks are spread over the interval.
        due = run.shrink != "gradient" or (tick + 1) * steps[group] // length > tick * steps[group] // length
        if due and members[0].environment_steps > run.learning_starts:
            learn(group, members)
        elif members[0].environment_steps >= run.learning_starts:
            group.act(observations(members), noises(members))
    seconds["rollout"] += stepped - acted
    seconds["learn"] += time.perf_counter() - stepped + acted - began


def next_actions(run: Run, group: Group, members: list[Member]) -> Sequence[np.ndarray]:
    """Return the members' next actions, each [A] in [-1, 1]."""
    if members[0].environment_steps < run.learning_starts:
        noise = run.exploration_noise if run.warm_up_noise else 0.0
        return [member.warm_up_action(noise) for member in members]
    return list(group.actions())


def learn(group: Group, members: list[Member]) -> None:
    """Start one update of a group's members, gathering the curvature first of those whose optimizer is new."""
    padded = bucket(max(member.hyperparameters.batch_size for member in members))
    for member in members:
        # An empty buffer has no curvature, and is a failing environment's; the burn-in waits for it to work.
        if member.needs_burn_in and len(member.replay):
            burn_in(group, member, padded)
    samples = [member.sample(padded) for member in members]
    group.learn(Sample(*(np.stack(part) for part in zip(*samples, strict=True))), observations(members), noises(members))
    for member in members:
        member.gradient_steps += 1


def burn_in(group: Group, member: Member, padded: int) -> None:
    """Fill the factors of a curvature optimizer from the member's replay, before its first step."""
    group.burn_in(member.lane, [member.sample(padded, member.burn_in_rng) for _ in range(group.burn_in_batches)])
    member.needs_burn_in = False


# ----------------------------------------------------------------------------------------------------------- evaluate


def evaluate_members(state: State, sums: list[Sums]) -> list[Evaluation]:
    """Play deterministic episodes with every member, on seeds common to all and fresh each interval; keep the best policy.

    A member that has diverged, or whose environment keeps failing, is put into quarantine: it has no fitness.
    """
    began = time.perf_counter()
    run, environment = state.run, state.evaluation_environment
    rng = stream(run, POPULATION, state.interval, Purpose.EVALUATE)
    seeds = rng.integers(2**31, size=run.episodes).tolist()
    evaluations = []
    for member in state.members:
        group = state.group_of(member)
        policy = Policy(group.actor(member.lane), environment.low, environment.high, run.env)
        broken = health.not_finite(group.networks(member.lane))
        member.quarantined = member.quarantined or divergence(broken, sums[member.slot])
        evaluation = Evaluation([], []) if member.quarantined else fitness(environment, policy, seeds, member)
        member.fitness = math.nan if member.quarantined else evaluation.mean
        state.quarantines += member.quarantined is not None
        evaluations.append(evaluation)
        if math.isfinite(member.fitness) and (state.best is None or member.fitness > state.best.fitness):
            state.best = Best(policy, member.fitness, member.slot, member.kind, member.environment_steps)
    state.seconds["evaluate"] += time.perf_counter() - began
    return evaluations


def fitness(environment: Environment, policy: Policy, seeds: list[int], member: Member) -> Evaluation:
    """Return a member's evaluation; one that fails puts the member into quarantine."""
    faulted = member.note_in_evaluation
    try:
        # Anew for each: what an environment keeps through a seeded reset must not carry over from the member before.
        evaluate.rebuild(environment, faulted)
        evaluation = evaluate.by_episodes(environment, policy.unit_action, seeds, faulted)
    except EnvironmentFault:
        return Evaluation([], [])
    if not math.isfinite(evaluation.mean):
        member.quarantine("its evaluation's return is not finite")
    return evaluation


def examine_members(state: State) -> list[Health]:
    """Look at every member's networks, before an evolution replaces some."""
    began = time.perf_counter()
    examined = [
        health.examine(state.group_of(member).learner(member.lane), member.replay, *member.environment.shape)
        for member in state.members
    ]
    state.seconds["evaluate"] += time.perf_counter() - began
    return examined


# ------------------------------------------------------------------------------------------------------------- evolve


def evolve_members(state: State) -> list[Exploit]:
    """Let the worst members become perturbed copies of the best ones, and return who copied whom."""
    began = time.perf_counter()
    run, exploits = state.run, []
    # Before every member has learnt, fitness says nothing of optimizers or hyperparameters.
    if all(member.gradient_steps for member in state.members):
        select_rng = stream(run, POPULATION, state.interval, Purpose.SELECT)
        explore_rngs = [stream(run, member.slot, state.interval, Purpose.EXPLORE) for member in state.members]
        exploits = pbt.evolve([member.standing for member in state.members], run, select_rng, explore_rngs)
        for exploit in exploits:
            copy_member(state, exploit)
    state.evolved = True
    state.seconds["evolve"] += time.perf_counter() - began
    return exploits


def copy_member(state: State, exploit: Exploit) -> None:
    """Carry out an exploit: networks, targets and replay always; the optimizer's state between equal kinds if configured."""
    child, parent = state.members[exploit.child.slot], state.members[exploit.parent.slot]
    reset = not (exploit.same_kind and state.run.copy_optimizer_state)
    learner = state.group_of(parent).take(parent.lane)
    state.group_of(child).put(child.lane, learner, reset_optimizers=reset)
    child.replay.copy_from(parent.replay)
    child.hyperparameters = exploit.hyperparameters
    child.parent = parent.slot
    child.needs_burn_in = reset or parent.needs_burn_in


# ------------------------------------------------------------------------------------------------------------- record


def write(state: State, folder: RunFolder | None, metrics: list[dict[str, Any]], events: list[dict[str, Any]]) -> None:
    """Write rows of metrics, events and the best policy."""
    began = time.perf_counter()
    state.lineage += [event for event in events if event["event"] == "exploit"]
    if folder is not None:
        folder.append_events(events)
        if state.best is not None:
            folder.write_best(state.best.policy, rows.describe(state.best))
        state.seconds["record"] += time.perf_counter() - began
        folder.append_metrics([{**row, "seconds": state.seconds} for row in metrics])
    state.seconds = dict.fromkeys(PHASES, 0.0)


def save(state: State, folder: RunFolder, write: Callable[[], None]) -> None:
    """Write a part of a checkpoint. What comes after the rows of metrics counts towards the next interval's."""
    began = time.perf_counter()
    folder.check_still_there()
    write()
    state.seconds["checkpoint"] += time.perf_counter() - began


def finish(state: State, folder: RunFolder | None, wall_seconds: float) -> Result:
    """Evaluate the best policy on fresh episodes and write the result."""
    run, best = state.run, state.best
    assert best is not None, "a run in which every member was in quarantine has stopped"
    rng = stream(run, POPULATION, 0, Purpose.FINAL_EVALUATION)
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
