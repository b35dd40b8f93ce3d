"""A worker whose members are stepped in this process: their environments here, their updates on this machine's devices."""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from evolute import algorithms, kinds
from evolute.algorithms.base import Sums
from evolute.config import Run
from evolute.environments.gym import Environment
from evolute.environments.making import making_of
from evolute.environments.normalise import Normaliser
from evolute.environments.spaces import Facts, Shape
from evolute.errors import Damaged, EnvironmentFault, RunStopped
from evolute.policy import Policy
from evolute.structure import Structure
from evolute.training import evaluate, health, placement, rollout, starting, storage
from evolute.training.evaluate import Evaluation
from evolute.training.member import Member
from evolute.training.placement import Group
from evolute.training.quarantine import divergence
from evolute.training.randomness import Purpose, stream
from evolute.training.replay import ReplayBuffer
from evolute.training.worker import Orders, Outcome, Parcel, Tell, Trained, Trouble


class Host:
    """Members by lane, in groups, with one environment in which all are evaluated. The contract is worker.Worker.

    Attributes:
        members: by lane.
        groups: in which they learn.
        environment: where they are evaluated.
        late: never.
    """

    late = False

    def __init__(self, runs: Sequence[Run], lanes: Sequence[int], policy: Policy | None = None):
        """Make members before their first step.

        Args:
            runs: of all populations side by side, which differ by their seed alone.
            lanes: of the members that are here.
            policy: that they start from, if any.
        """
        self.runs = runs
        self.lanes: Sequence[int] = list(lanes)
        # Behind those of all members, and another one in each process.
        number = len(runs) * len(runs[0].kinds) + self.lanes[0]
        self.environment = Environment(runs[0].env, runs[0].time_limit, making_of(runs[0])._replace(member=number))
        self.facts = self.environment.facts
        self.members = {lane: new_member(runs, lane) for lane in lanes}
        self.groups = make_groups(runs, lanes, self.facts.shape, policy)
        for member in self.members.values():
            if policy is not None and member.normaliser is not None:
                starting.begin(member.normaliser, policy)

    def group_of(self, lane: int) -> Group:
        """Return the group that a member learns in."""
        return next(group for group in self.groups if lane in group.lanes)

    def train(self, interval: int, orders: Mapping[int, Orders], tell: Tell) -> Callable[[], Trained]:
        """Return what trains the members for an interval: they take their steps, and then are evaluated."""
        return partial(self._train, interval, orders, tell)

    def _train(self, interval: int, orders: Mapping[int, Orders], tell: Tell) -> Trained:
        for lane, member in self.members.items():
            member.hyperparameters = orders[lane].hyperparameters
        try:
            sums, seconds = self.roll_out(interval, tell)
        except RunStopped as stop:
            return Trained(self.troubles(), {}, [str(stop)], {})
        began = time.perf_counter()
        outcomes, stops = self.evaluate(sums, {lane: order.seeds for lane, order in orders.items()})
        return Trained(self.troubles(), outcomes, stops, {**seconds, "evaluate": time.perf_counter() - began})

    def roll_out(self, interval: int, tell: Tell) -> tuple[dict[int, Sums], dict[str, float]]:
        """Let every member take its steps of an interval; return the updates' sums by lane, and seconds by phase."""
        squads = rollout.begin_interval(self.runs, self.members, self.groups, interval)
        run = self.runs[0]
        length = min(run.interval, run.steps - interval * run.interval)
        return rollout.rollout_and_learn(run, squads, length, tell)

    def evaluate(self, sums: Mapping[int, Sums], seeds: Mapping[int, list[int]]) -> tuple[dict[int, Outcome], list[str]]:
        """Evaluate every member after its steps.

        Args:
            sums: of the members' updates, by lane.
            seeds: of the episodes that each plays, by lane.

        Returns:
            The outcomes by lane, and why the run cannot go on where a member has none.
        """
        outcomes, stops = {}, []
        for lane, member in self.members.items():
            try:
                outcomes[lane] = evaluated(member, self.group_of(lane), self.environment, seeds[lane], sums[lane])
            except RunStopped as stop:
                stops.append(str(stop))
        return outcomes, stops

    def troubles(self) -> dict[int, Trouble]:
        """Return what went wrong with the members in this interval, by lane."""
        return {lane: Trouble(member.faults, member.quarantined, member.unrepeated) for lane, member in self.members.items()}

    def give(self, lane: int) -> Parcel:
        """Return what an exploit copies of a member."""
        member = self.members[lane]
        return Parcel(member.kind, self.group_of(lane).take(lane), member.replay, member.normaliser, member.needs_burn_in)

    def take(self, lane: int, parcel: Parcel, reset: bool, interval: int) -> None:
        """Make a member a copy, as far as both learn by the same algorithm or have networks that are alike."""
        member, group = self.members[lane], self.group_of(lane)
        if kinds.of(member.kind).algorithm == kinds.of(parcel.kind).algorithm:
            group.put(lane, parcel.learner, reset_optimizers=reset)
        else:
            run = self.runs[lane // len(self.runs[0].kinds)]
            theirs = Structure.of(run.settings_of(parcel.kind))
            group.graft(lane, parcel.learner, theirs, stream(run, member.slot, interval, Purpose.GRAFT))
        member.replay.copy_from(parcel.replay)
        if member.normaliser is not None and parcel.normaliser is not None:
            member.normaliser.copy_from(parcel.normaliser)
        member.needs_burn_in = reset or parcel.needs_burn_in
        # Its actions are no longer in the replay.
        member.drop_episode()

    def become(self, lane: int, kind: str) -> None:
        """Let a member learn as another kind from now on, in a new group that has done as many updates; `take` fills it."""
        member, old = self.members[lane], self.group_of(lane)
        run = self.runs[lane // len(self.runs[0].kinds)]
        algorithm = algorithms.build(run, kind, *self.facts.shape)
        learner = algorithm.init(stream(run, member.slot, 0, Purpose.INITIALISE))
        programs = placement.make_programs(algorithm, run.precision, kind)
        group = Group([lane], kind, programs, old.device, [learner], run.steps_per_round)
        group.updates, member.kind = old.updates, kind
        self.groups[self.groups.index(old)] = group

    def save_replay(self, folder: Path, lanes: Sequence[int], interval: int) -> Callable[[], None]:
        """Return what writes new transitions of members into a run folder."""
        return partial(self._save_replay, folder, lanes, interval)

    def _save_replay(self, folder: Path, lanes: Sequence[int], interval: int) -> None:
        for lane in lanes:
            storage.save_replay(folder, self.members[lane], interval)

    def save(self, folder: Path, lanes: Sequence[int], interval: int) -> Callable[[], dict[int, dict[str, Any]]]:
        """Return what writes the learners of members, and returns what a checkpoint's manifest says of each, by lane."""
        return partial(self._save, folder, lanes, interval)

    def _save(self, folder: Path, lanes: Sequence[int], interval: int) -> dict[int, dict[str, Any]]:
        storage.require_segments(folder, [self.members[lane] for lane in lanes])
        scheduled = bool(self.runs[0].schedule)
        return {lane: storage.save(folder, self.members[lane], self.group_of(lane), interval, scheduled) for lane in lanes}

    def restore(self, folder: Path, members: Mapping[int, dict[str, Any]]) -> None:
        """Bring new members, by lane, to where a checkpoint's manifest says."""
        for lane, described in members.items():
            if (kind := described.get("kind", self.members[lane].kind)) != self.members[lane].kind:
                self.become(lane, kind)
            storage.restore(folder, self.members[lane], self.group_of(lane), described)
        for group in self.groups:
            if len({(self.members[lane].environment_steps, self.members[lane].gradient_steps) for lane in group.lanes}) > 1:
                raise Damaged(f"members of {group.kind} missed different intervals, and share a batch axis here")

    def play(self, policy: Policy, seeds: list[int]) -> Evaluation:
        """Play episodes with a policy in an environment made anew."""
        faulted = evaluate.tolerate(self.runs[0].max_faults)
        evaluate.rebuild(self.environment, faulted)
        return evaluate.by_episodes(self.environment, policy.unit_action, seeds, faulted)

    def close(self) -> None:
        """Release the environments."""
        for member in self.members.values():
            member.environment.close()
        self.environment.close()


def new_member(runs: Sequence[Run], lane: int) -> Member:
    """Return a member before its first step."""
    number, slot = divmod(lane, len(runs[0].kinds))
    run = runs[number]
    environment = Environment(run.env, run.time_limit, making_of(run)._replace(member=lane))
    buffer = ReplayBuffer(min(run.buffer_size, run.steps), environment.shape.observations, environment.shape.actions)
    kind = run.kinds[slot]
    member = Member(slot, kind, run.initial_hyperparameters(kind), environment, buffer, lane)
    member.max_faults, member.stops_on_faults = run.max_faults, run.on_faults == "stop"
    member.normaliser = Normaliser(environment.shape.observations) if run.normalize_observations else None
    member.reward_scale, member.n_step = run.reward_scale, run.n_step
    member.carries = carries(run, environment.facts)
    return member


def carries(run: Run, facts: Facts) -> bool:
    """Return whether episodes go on over the ends of intervals: if not said, where one may be longer than an interval."""
    if run.carry_episodes != "auto":
        return run.carry_episodes == "always"
    return facts.longest_episode is None or facts.longest_episode > run.shortest_interval


def make_groups(runs: Sequence[Run], lanes: Sequence[int], shape: Shape, policy: Policy | None = None) -> list[Group]:
    """Return the groups in which new members learn.

    Args:
        runs: of populations side by side, which differ by their seed alone.
        lanes: of the members.
        shape: of the environment's observations and actions.
        policy: that they start from, if any.
    """
    run, size = runs[0], len(runs[0].kinds)
    by_lane = {lane: run.kinds[lane % size] for lane in lanes}
    built = {kind: algorithms.build(run, kind, *shape) for kind in dict.fromkeys(by_lane.values())}
    programs = {kind: placement.make_programs(algorithm, run.precision, kind) for kind, algorithm in built.items()}
    groups = []
    # A member with a schedule changes its kind, and then its group, by itself.
    for kind, own, device in placement.deal(by_lane, "map" if run.schedule else run.placement):
        rngs = [stream(runs[lane // size], lane % size, 0, Purpose.INITIALISE) for lane in own]
        learners = [built[kind].init(rng) for rng in rngs]
        if policy is not None:
            learners = [starting.with_policy(learner, policy, kind, shape.actions, built[kind].structure) for learner in learners]
        groups.append(Group(own, kind, programs[kind], device, learners, run.steps_per_round))
    return groups


def evaluated(member: Member, group: Group, environment: Environment, seeds: list[int], sums: Sums) -> Outcome:
    """Measure a member's fitness and look at its networks.

    A member that has diverged, or whose environment keeps failing, is put into quarantine: it has no fitness.

    Args:
        member: whose interval has ended.
        group: that it learns in.
        environment: where the episodes are played.
        seeds: of the episodes.
        sums: of the member's updates in the interval.
    """
    learner = group.learner(member.lane)
    weights = [(layer.w, layer.b) for layer in group.policy_of(learner)]
    scaling = member.normaliser and member.normaliser.scaling
    policy = Policy(weights, environment.low, environment.high, environment.id, scaling, group.structure)
    member.quarantined = member.quarantined or divergence(health.not_finite(group.networks_of(learner)), sums)
    evaluation = Evaluation([], []) if member.quarantined else played(environment, policy, seeds, member)
    return Outcome(
        sums,
        evaluation,
        health.examine(learner, member.spaced(health.LOOKED_AT), *member.environment.shape, structure=group.structure),
        policy,
        member.environment_steps,
        member.gradient_steps,
        member.finished_returns,
        quarantined=member.quarantined is not None,
        largest=member.replay.largest() if member.quarantined else (0.0, 0.0),
    )


def played(environment: Environment, policy: Policy, seeds: list[int], member: Member) -> Evaluation:
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
