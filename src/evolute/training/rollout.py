"""Rolling out and learning: members step their environments here while their updates run on this machine's devices."""

import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial

import numpy as np

from evolute.algorithms.base import Sums
from evolute.config import Run
from evolute.training.member import Member
from evolute.training.placement import Group
from evolute.training.randomness import stream
from evolute.training.replay import Sample, bucket

# Seconds between two reports of progress.
PROGRESS_PERIOD = 0.25

# A group and its members.
Squad = tuple[Group, list[Member]]


def begin_interval(runs: Sequence[Run], members: Mapping[int, Member], groups: Sequence[Group], interval: int) -> list[Squad]:
    """Start an interval of members, given by lane, and return them by group."""
    run = runs[0]
    for member in members.values():
        member.begin_interval(partial(stream, runs[member.lane // len(run.kinds)], member.slot, interval))
    squads = [(group, [members[lane] for lane in group.lanes]) for group in groups]
    for group, own in squads:
        group.begin_interval([member.hyperparameters for member in own])
        if own[0].environment_steps >= run.learning_starts:
            group.act(observations(own), noises(own))
    return squads


def rollout_and_learn(
    run: Run, squads: Sequence[Squad], length: int, tell: Callable[[int], None]
) -> tuple[dict[int, Sums], dict[str, float]]:
    """Let every member take its steps of an interval, one update per step once it learns.

    Args:
        run: of the members; where there are several, they differ by their seed alone.
        squads: that began the interval.
        length: steps of the interval.
        tell: is told now and then how many are done.

    Returns:
        The updates' sums by lane, and the seconds that rolling out and learning took.
    """
    seconds = {"rollout": 0.0, "learn": 0.0}
    told = time.perf_counter()
    # Two watches take turns: while one's environments step here, the other's updates run on their devices. Not each group by
    # itself: products sweep the caches, and the first environment of a watch fetches its code for all of them.
    watches = squads[: len(squads) // 2], squads[len(squads) // 2 :]
    for tick in range(length):
        for watch in watches:
            advance(run, watch, tick, length, seconds)
        if (now := time.perf_counter()) - told > PROGRESS_PERIOD:
            tell(tick + 1)
            told = now
    began = time.perf_counter()
    sums = {lane: one for group, _ in squads for lane, one in zip(group.lanes, group.sums(), strict=True)}
    seconds["learn"] += time.perf_counter() - began
    return sums, seconds


def observations(members: list[Member]) -> np.ndarray:
    """Return the members' observations [M, O] as networks see them."""
    return stacked([member.seen for member in members])


def noises(members: list[Member]) -> np.ndarray:
    """Return exploration noise of the members [M, A]."""
    return stacked([member.noise() for member in members])


def stacked(parts: Sequence[np.ndarray]) -> np.ndarray:
    """Return arrays with an axis in front [M, ...]; a single one is not copied."""
    return np.stack(parts) if len(parts) > 1 else parts[0][None]


def advance(run: Run, watch: Sequence[Squad], tick: int, length: int, seconds: dict[str, float]) -> None:
    """Take one environment step of the members of some groups and start their next update or action, at a tick of an interval."""
    # Members of a group share kind and schedule, so one's count speaks for all.
    began = time.perf_counter()
    steps = {group: run.interval_steps(group.kind, length) for group, _ in watch}
    squads = [squad for squad in watch if run.shrink == "gradient" or tick < steps[squad[0]]]
    actions = [next_actions(run, group, members) for group, members in squads]
    acted = time.perf_counter()
    for (_, members), own in zip(squads, actions, strict=True):
        for member, action in zip(members, own, strict=True):
            member.advance(action)
    stepped = time.perf_counter()
    for group, members in squads:
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
    group.learn(Sample(*(stacked(part) for part in zip(*samples, strict=True))), observations(members), noises(members))
    for member in members:
        member.gradient_steps += 1


def burn_in(group: Group, member: Member, padded: int) -> None:
    """Fill the factors of a curvature optimizer from the member's replay, before its first step."""
    group.burn_in(member.lane, [member.sample(padded, group.noise, member.burn_in_rng) for _ in range(group.burn_in_batches)])
    member.needs_burn_in = False
