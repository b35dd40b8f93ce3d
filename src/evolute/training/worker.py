"""The contract of a worker: it trains some members of a run, in this process or in another one.

Members meet between intervals alone, so a run is cut there. What crosses the cut is plain: numbers, arrays, names.
A member is named by its lane, its place among all members of all populations that train side by side.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol, TypeVar

from evolute.algorithms.base import Learner, Sums
from evolute.config import Run
from evolute.environments.normalise import Normaliser
from evolute.environments.spaces import Facts
from evolute.errors import RunStopped
from evolute.hyperparameters import Hyperparameters
from evolute.policy import Policy
from evolute.training.evaluate import Evaluation
from evolute.training.health import Health
from evolute.training.member import Fault
from evolute.training.replay import ReplayBuffer

Value = TypeVar("Value")
# Is told how many steps of an interval are done, now and then. What it raises ends the interval.
Tell = Callable[[int], None]


class Orders(NamedTuple):
    """What a member is to do in an interval."""

    hyperparameters: Hyperparameters  # to train with
    seeds: list[int]  # of the episodes of its evaluation


class Trouble(NamedTuple):
    """What went wrong with a member in an interval."""

    faults: list[Fault]  # of its environment
    quarantined: str | None  # why it is out of the interval
    unrepeated: bool = False  # whether the environment did not repeat the episode that was to go on


class Outcome(NamedTuple):
    """What came of a member's interval."""

    sums: Sums  # of its updates
    evaluation: Evaluation
    health: Health
    policy: Policy
    # Over the whole run.
    environment_steps: int
    gradient_steps: int
    # Returns of the training episodes that ended.
    finished_returns: list[float]
    # Whether its environment's failures are over what the run tolerates, or its networks are broken.
    quarantined: bool
    # Of a member in quarantine: the largest magnitude of an observation and of a reward in its replay.
    largest: tuple[float, float] = (0.0, 0.0)

    @property
    def fitness(self) -> float:
        """The mean return; NaN for a member in quarantine."""
        return math.nan if self.quarantined else self.evaluation.mean


class Trained(NamedTuple):
    """What came of an interval of a worker's members."""

    troubles: Mapping[int, Trouble]  # of every member, by lane
    outcomes: Mapping[int, Outcome]  # by lane; a member without one has not ended the interval
    stops: Sequence[str]  # why the run cannot go on, if it cannot
    seconds: Mapping[str, float]  # by phase
    absent: Sequence[int] = ()  # lanes of those who missed the interval, because their worker was lost


class Parcel(NamedTuple):
    """All that an exploit copies of a member."""

    kind: str
    learner: Learner  # as host arrays
    replay: ReplayBuffer
    normaliser: Normaliser | None
    needs_burn_in: bool


class Worker(Protocol):
    """Some members of a run, here or elsewhere.

    Attributes:
        lanes: of its members, rising.
        facts: what their environment says of itself.
        late: whether its members miss intervals, because it was lost and the others go on.
    """

    lanes: Sequence[int]
    facts: Facts
    late: bool

    def train(self, interval: int, orders: Mapping[int, Orders], tell: Tell) -> Callable[[], Trained]:
        """Start an interval, given by number from 0, with orders by lane; what is returned waits for its end."""
        ...

    def give(self, lane: int) -> Any:
        """Return what an exploit copies, for a `take` of the crew before the member trains on: a Parcel, or where it is."""
        ...

    def take(self, lane: int, parcel: Any, reset: bool, interval: int) -> None:
        """Make a member a copy, after that many intervals: replay always; of its own algorithm networks and targets, too.

        So is what observations are scaled by. The optimizers' state is copied unless `reset`. Of another algorithm's member the
        networks are copied as far as they are alike, and the rest starts anew.
        """
        ...

    def become(self, lane: int, kind: str) -> None:
        """Let a member learn as another kind from now on, before it takes over what it was."""
        ...

    def save_replay(self, folder: Path, lanes: Sequence[int], interval: int) -> Callable[[], None]:
        """Begin to write new transitions of members into a run folder, after that many intervals and before an evolution.

        What is returned waits for the end.
        """
        ...

    def save(self, folder: Path, lanes: Sequence[int], interval: int) -> Callable[[], dict[int, dict[str, Any]]]:
        """Begin to write the learners of members.

        What is returned waits for the end, and returns what a checkpoint's manifest says of each, by lane.
        """
        ...

    def restore(self, folder: Path, members: Mapping[int, dict[str, Any]]) -> None:
        """Bring new members, by lane, to where a checkpoint's manifest says; raises Damaged where they cannot be."""
        ...

    def play(self, policy: Policy, seeds: list[int]) -> Evaluation:
        """Play episodes with a policy in an environment made anew; raises RunStopped where that keeps failing."""
        ...

    def close(self) -> None:
        """Release environments and processes."""
        ...


# Starts the workers of populations, given their runs, what is told of losses, their folders, and what policy members start from.
Hire = Callable[[Sequence[Run], Callable[[str], None], Sequence[Path], Policy | None], list[Worker]]


def of(workers: Sequence[Worker], lane: int) -> Worker:
    """Return the worker that has a member."""
    return next(worker for worker in workers if lane in worker.lanes)


def late_last(workers: Sequence[Worker]) -> list[Worker]:
    """Return workers in the order in which they are asked to train: the others train while late ones come up."""
    return sorted(workers, key=lambda one: one.late)


def copy(workers: Sequence[Worker], child: int, parent: int, kind: str | None, reset: bool, interval: int) -> None:
    """Make a member a copy of another one, after that many intervals; of itself where a schedule gives it another kind.

    Args:
        workers: that have the members.
        child: its lane.
        parent: the lane of the other one.
        kind: of the child from now on, if it is not its parent's.
        reset: whether its optimizers' state starts anew.
        interval: how many have ended.
    """
    parcel, own = of(workers, parent).give(parent), of(workers, child)
    if child == parent and kind is not None:
        own.become(child, kind)
    own.take(child, parcel, reset, interval)


def shared(workers: Sequence[Worker], lanes: Sequence[int]) -> list[tuple[Worker, list[int]]]:
    """Return the workers that have some of these members, each with those that it has."""
    pairs = [(worker, [lane for lane in lanes if lane in worker.lanes]) for worker in workers]
    return [(worker, own) for worker, own in pairs if own]


def all_of(waits: Sequence[Callable[[], Value]]) -> list[Value]:
    """Wait for what every worker was asked; raises what stops the run only then, so that no answer is left with a worker."""
    answers, stops = [], []
    for wait in waits:
        try:
            answers.append(wait())
        except RunStopped as stop:
            stops.append(stop)
    if stops:
        raise stops[0]
    return answers


def together(parts: Sequence[Trained]) -> Trained:
    """Return what came of an interval of all members; a phase takes as long as in the worker where it takes longest."""
    troubles = {lane: trouble for part in parts for lane, trouble in part.troubles.items()}
    outcomes = {lane: outcome for part in parts for lane, outcome in part.outcomes.items()}
    phases = {phase for part in parts for phase in part.seconds}
    seconds = {phase: max(part.seconds.get(phase, 0.0) for part in parts) for phase in phases}
    stops, absent = ([item for part in parts for item in getattr(part, name)] for name in ("stops", "absent"))
    return Trained(troubles, outcomes, stops, seconds, absent)
