"""The records of a run in progress and of its end."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from evolute import schedule
from evolute.config import Run
from evolute.environments.spaces import Facts
from evolute.evolution.base import Memory, Standing
from evolute.hyperparameters import Hyperparameters, drawn
from evolute.policy import Policy
from evolute.training.evaluate import Evaluation
from evolute.training.member import Fault
from evolute.training.randomness import Purpose, stream
from evolute.training.worker import Outcome, Trained, Trouble

PHASES = ("rollout", "learn", "evaluate", "evolve", "record", "checkpoint")


class Best(NamedTuple):
    """The best policy ever seen, by fitness."""

    policy: Policy
    fitness: float
    slot: int
    kind: str
    environment_steps: int


@dataclass
class Profile:
    """What is known of a member outside of the worker that trains it. Its slot never changes, its kind by a schedule alone."""

    slot: int
    kind: str
    hyperparameters: Hyperparameters
    # over the whole run
    environment_steps: int = 0
    gradient_steps: int = 0
    fitness: float = math.nan
    # Slot of the member that this one copied last; None while it has copied nobody.
    parent: int | None = None
    # the last interval
    faults: list[Fault] = field(default_factory=list)
    # Whether it missed the interval, because its worker was lost; and steps that it has missed so over the whole run.
    absent: bool = False
    missed: int = 0
    # Why it was out of the interval; None for a sound one.
    quarantined: str | None = None
    # Whether its environment did not repeat the episode that was to go on.
    unrepeated: bool = False
    finished_returns: list[float] = field(default_factory=list)
    # Of a member in quarantine: the largest magnitude of an observation and of a reward in its replay.
    largest: tuple[float, float] = (0.0, 0.0)

    @property
    def standing(self) -> Standing:
        """What evolution sees of it."""
        return Standing(self.slot, self.kind, self.fitness, self.hyperparameters)

    def suffer(self, trouble: Trouble) -> None:
        """Take in what went wrong with the member in an interval."""
        self.faults, self.quarantined, self.unrepeated = trouble

    def advance(self, outcome: Outcome) -> None:
        """Take in what came of the member's interval."""
        self.environment_steps, self.gradient_steps = outcome.environment_steps, outcome.gradient_steps
        self.fitness, self.finished_returns, self.largest = outcome.fitness, outcome.finished_returns, outcome.largest


@dataclass
class State:
    """Everything that changes while a run trains, as plain data: what trains is with the workers."""

    run: Run
    members: list[Profile]
    # What the environment says of itself.
    facts: Facts
    # What the strategy remembers.
    memory: Memory
    # Its place among the populations that train side by side.
    number: int = 0
    interval: int = 0
    best: Best | None = None
    # Every exploit so far, as events.
    lineage: list[dict[str, Any]] = field(default_factory=list)
    # Whether the evolution after the last interval is done: it is left out at a run's end, and an extension makes up for it.
    evolved: bool = True
    # How often a member was quarantined.
    quarantines: int = 0
    # Wall time of the processes that trained this run before.
    earlier_seconds: float = 0.0
    # Wall time of the interval's phases.
    seconds: dict[str, float] = field(default_factory=lambda: dict.fromkeys(PHASES, 0.0))

    def lane(self, slot: int) -> int:
        """Return a member's place among all members of all populations."""
        return self.number * len(self.members) + slot

    @property
    def lanes(self) -> range:
        """The members' places, by slot."""
        return range(self.lane(0), self.lane(len(self.members)))

    def kind_in(self, member: Profile, interval: int) -> str:
        """Return the kind by which a member learnt in an interval, from 0."""
        return schedule.kind_at(self.run.schedule, interval) if self.run.schedule else member.kind

    @property
    def intervals(self) -> int:
        """Intervals of the whole run; the last one may be cut short."""
        return math.ceil(self.run.steps / self.run.interval)

    @property
    def steps_done(self) -> int:
        """Steps of the run's clock: those of a member that takes every step of every interval."""
        return min(self.interval * self.run.interval, self.run.steps)

    @property
    def present(self) -> list[Profile]:
        """The members that did not miss the last interval."""
        return [member for member in self.members if not member.absent]

    def take_in(self, trained: Trained) -> list[tuple[Profile, Outcome]]:
        """Take in what came of the members' interval, and keep the best policy; return those that ended it, with outcomes."""
        ended, length = [], min(self.run.interval, self.run.steps - self.steps_done)
        for member, lane in zip(self.members, self.lanes, strict=True):
            member.suffer(trained.troubles[lane])
            member.absent = lane in trained.absent
            if member.absent:
                member.missed += length if self.run.shrink == "gradient" else self.run.interval_steps(member.kind, length)
            if lane not in trained.outcomes:
                continue
            outcome = trained.outcomes[lane]
            ended.append((member, outcome))
            member.advance(outcome)
            self.quarantines += outcome.quarantined
            if math.isfinite(member.fitness) and (self.best is None or member.fitness > self.best.fitness):
                self.best = Best(outcome.policy, member.fitness, member.slot, member.kind, member.environment_steps)
        for phase, spent in trained.seconds.items():
            # Populations side by side share these phases.
            self.seconds[phase] += spent
        return ended


def new_profile(run: Run, slot: int, kind: str) -> Profile:
    """Return what is known of a member before its first step."""
    if run.schedule:
        return Profile(slot, kind, schedule.hyperparameters(run.schedule["0"]))
    start = stream(run, slot, 0, Purpose.START)
    return Profile(slot, kind, drawn(run.initial_hyperparameters(kind), run.starts_of(kind), start))


@dataclass(frozen=True)
class Progress:
    """What an observer is told while a run trains, a few times a second and at every interval's end."""

    state: State
    # The clock: environment steps of a member that takes every step.
    steps: int
    elapsed: float
    # Rows of metrics and evolution events of the interval that just ended; empty in between.
    rows: list[dict[str, Any]]
    events: list[dict[str, Any]]
    # How many populations train side by side; each is told of apart.
    populations: int = 1


@dataclass(frozen=True)
class Result:
    """What a run leaves behind.

    Attributes:
        policy: the best policy ever seen, `policy(obs) -> action` in the environment's units.
        evaluation: of that policy, on episodes that no fitness was measured on.
        leaderboard: one row per member, best first.
        lineage: every exploit, in order.
        summary: what result.json holds.
        folder: the run folder, if there is one.
    """

    policy: Policy
    evaluation: Evaluation
    leaderboard: list[dict[str, Any]]
    lineage: list[dict[str, Any]]
    summary: dict[str, Any]
    folder: Path | None


Observer = Callable[[Progress], None]
# Is told what somebody should know, one sentence each.
Note = Callable[[str], None]
