"""Members that are stepped in this process: their environments here, their updates on this machine's devices."""

import math
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import numpy as np

from evolute import algorithms, kinds
from evolute.algorithms.base import Sums
from evolute.config import Run
from evolute.environments.gym import Environment
from evolute.errors import EnvironmentFault
from evolute.hyperparameters import drawn
from evolute.policy import Policy
from evolute.training import evaluate, health, placement, randomness
from evolute.training.evaluate import Evaluation
from evolute.training.health import Health
from evolute.training.member import Member
from evolute.training.placement import Group
from evolute.training.quarantine import divergence
from evolute.training.randomness import Purpose
from evolute.training.replay import ReplayBuffer, Sample, bucket

# Seconds between two reports of progress.
PROGRESS_PERIOD = 0.25

# A group and its members.
Crew = tuple[Group, list[Member]]


# -------------------------------------------------------------------------------------------------------------- start


def stream(run: Run, slot: int, interval: int, purpose: Purpose) -> np.random.Generator:
    """Return one of a run's random streams."""
    return randomness.generator(run.seed, slot, interval, purpose)


def new_member(run: Run, slot: int, kind: str, lane: int) -> Member:
    """Return a member before its first step."""
    environment = Environment(run.env, run.time_limit)
    buffer = ReplayBuffer(min(run.buffer_size, run.steps), environment.shape.observations, environment.shape.actions)
    hyper = drawn(run.initial_hyperparameters(kind), run.starts_of(kind), stream(run, slot, 0, Purpose.START))
    member = Member(slot, kind, hyper, environment, buffer, lane)
    member.max_faults, member.stops_on_faults = run.max_faults, run.on_faults == "stop"
    return member


def make_groups(runs: Sequence[Run], members: Sequence[Member]) -> list[Group]:
    """Return the groups in which new members learn.

    Args:
        runs: of populations side by side, which differ by their seed alone.
        members: of all of them, by lane.
    """
    run, size, shape = runs[0], len(runs[0].kinds), members[0].environment.shape
    built = {kind: algorithms.build(run, kind, shape.observations, shape.actions) for kind in run.mix}
    programs = {kind: placement.make_programs(algorithm, run.precision, kind) for kind, algorithm in built.items()}
    groups = []
    for kind, lanes, device in placement.deal(run.kinds * len(runs), run.placement):
        rngs = [stream(runs[lane // size], lane % size, 0, Purpose.INITIALISE) for lane in lanes]
        learners = [built[kind].init(rng) for rng in rngs]
        groups.append(Group(lanes, kind, programs[kind], device, learners, run.steps_per_round))
    return groups


# -------------------------------------------------------------------------------------------------- rollout and learn


def begin_interval(runs: Sequence[Run], members: Sequence[Member], groups: Sequence[Group], interval: int) -> list[Crew]:
    """Start an interval of members, given by lane, and return them by group."""
    run = runs[0]
    for member in members:
        member.begin_interval(partial(stream, runs[member.lane // len(run.kinds)], member.slot, interval))
    crews = [(group, [members[lane] for lane in group.lanes]) for group in groups]
    for group, own in crews:
        group.begin_interval([member.hyperparameters for member in own])
        if own[0].environment_steps >= run.learning_starts:
            group.act(observations(own), noises(own))
    return crews


def rollout_and_learn(
    run: Run, crews: Sequence[Crew], length: int, tell: Callable[[int], None]
) -> tuple[dict[int, Sums], dict[str, float]]:
    """Let every member take its steps of an interval, one update per step once it learns.

    Args:
        run: of the members; where there are several, they differ by their seed alone.
        crews: that began the interval.
        length: steps of the interval.
        tell: is told now and then how many are done.

    Returns:
        The updates' sums by lane, and the seconds that rolling out and learning took.
    """
    seconds = {"rollout": 0.0, "learn": 0.0}
    told = time.perf_counter()
    # Two watches take turns: while one's environments step here, the other's updates run on their devices. Not each group by
    # itself: products sweep the caches, and the first environment of a watch fetches its code for all of them.
    watches = crews[: len(crews) // 2], crews[len(crews) // 2 :]
    for tick in range(length):
        for watch in watches:
            advance(run, watch, tick, length, seconds)
        if (now := time.perf_counter()) - told > PROGRESS_PERIOD:
            tell(tick + 1)
            told = now
    began = time.perf_counter()
    sums = {lane: one for group, _ in crews for lane, one in zip(group.lanes, group.sums(), strict=True)}
    seconds["learn"] += time.perf_counter() - began
    return sums, seconds


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
        own = run.settings_of(group.kind)
        noise = own["exploration_noise"] if own.get("warm_up_noise") else 0.0
        return [member.warm_up_action(noise) for member in members]
    return list(group.actions())


def learn(group: Group, members: list[Member]) -> None:
    """Start one update of a group's members, gathering the curvature first of those whose optimizer is new."""
    padded = bucket(max(member.hyperparameters.batch_size for member in members))
    for member in members:
        # An empty buffer has no curvature, and is a failing environment's; the burn-in waits for it to work.
        if member.needs_burn_in and len(member.replay):
            burn_in(group, member, padded)
    samples = [member.sample(padded, group.noise) for member in members]
    group.learn(Sample(*(np.stack(part) for part in zip(*samples, strict=True))), observations(members), noises(members))
    for member in members:
        member.gradient_steps += 1


def burn_in(group: Group, member: Member, padded: int) -> None:
    """Fill the factors of a curvature optimizer from the member's replay, before its first step."""
    group.burn_in(member.lane, [member.sample(padded, group.noise, member.burn_in_rng) for _ in range(group.burn_in_batches)])
    member.needs_burn_in = False


# ----------------------------------------------------------------------------------------------------------- evaluate


class Outcome(NamedTuple):
    """What came of a member's interval."""

    sums: Sums  # of its updates
    evaluation: Evaluation
    health: Health
    policy: Policy


def evaluate_member(member: Member, group: Group, env: str, environment: Environment, seeds: list[int], sums: Sums) -> Outcome:
    """Measure a member's fitness and look at its networks.

    A member that has diverged, or whose environment keeps failing, is put into quarantine: it has no fitness.

    Args:
        member: whose interval has ended.
        group: that it learns in.
        env: the environment's id.
        environment: where the episodes are played.
        seeds: of the episodes.
        sums: of the member's updates in the interval.
    """
    learner = group.learner(member.lane)
    policy = Policy([(layer.w, layer.b) for layer in group.policy_of(learner)], environment.low, environment.high, env)
    member.quarantined = member.quarantined or divergence(health.not_finite(group.networks_of(learner)), sums)
    evaluation = Evaluation([], []) if member.quarantined else fitness(environment, policy, seeds, member)
    member.fitness = math.nan if member.quarantined else evaluation.mean
    return Outcome(sums, evaluation, health.examine(learner, member.replay, *member.environment.shape), policy)


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


# -------------------------------------------------------------------------------------------------------------- copy


def copy(run: Run, interval: int, child: Member, to: Group, parent: Member, source: Group, reset: bool) -> None:
    """Make a member a copy of another one: replay always; of its own algorithm networks and targets, too.

    The optimizers' state is copied unless `reset`. Of another algorithm's member the networks are copied as far as they are
    alike, and the rest starts anew.
    """
    if kinds.of(child.kind).algorithm == kinds.of(parent.kind).algorithm:
        to.put(child.lane, source.take(parent.lane), reset_optimizers=reset)
    else:
        to.graft(child.lane, source.learner(parent.lane), stream(run, child.slot, interval, Purpose.GRAFT))
    child.replay.copy_from(parent.replay)
    child.parent = parent.slot
    child.needs_burn_in = reset or parent.needs_burn_in
