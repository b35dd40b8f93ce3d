"""The records of a run in progress and of its end."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from evolute.config import Run
from evolute.environments.gym import Environment
from evolute.evolution.base import Memory
from evolute.policy import Policy
from evolute.training.evaluate import Evaluation
from evolute.training.member import Member
from evolute.training.placement import Group

PHASES = ("rollout", "learn", "evaluate", "evolve", "record", "checkpoint")


class Best(NamedTuple):
    """The best policy ever seen, by fitness."""

    policy: Policy
    fitness: float
    slot: int
    kind: str
    environment_steps: int


@dataclass
class State:
    """Everything that changes while a run trains."""

    run: Run
    members: list[Member]
    # Shared with the populations that train beside this one.
    groups: list[Group]
    evaluation_environment: Environment
    # What the strategy remembers.
    memory: Memory
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

    def group_of(self, member: Member) -> Group:
        """Return the group that a member learns in."""
        return next(group for group in self.groups if member.lane in group.lanes)

    @property
    def intervals(self) -> int:
        """Intervals of the whole run; the last one may be cut short."""
        return math.ceil(self.run.steps / self.run.interval)

    @property
    def steps_done(self) -> int:
        """Steps of the run's clock: those of a member that takes every step of every interval."""
        return min(self.interval * self.run.interval, self.run.steps)


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
