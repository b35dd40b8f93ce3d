"""The contract of a strategy: who copies whom, and with which hyperparameters, from numbers alone."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from evolute.hyperparameters import Hyperparameters

# What a strategy remembers from one evolution to the next: plain data of JSON, because it goes into checkpoints.
Memory = Mapping[str, Any]


class Standing(NamedTuple):
    """What evolution sees of a member."""

    slot: int
    kind: str
    # Mean return; not finite for a member that is broken, which is then replaced whatever its rank.
    fitness: float
    hyperparameters: Hyperparameters


class Exploit(NamedTuple):
    """A member is to become a copy of another one."""

    child: Standing
    parent: Standing
    # What the child goes on with. Most strategies perturb: its parent's where they are of a kind, else its own.
    hyperparameters: Hyperparameters

    @property
    def same_kind(self) -> bool:
        """Whether the optimizer's state may come from the parent."""
        return self.child.kind == self.parent.kind


class Streams(NamedTuple):
    """The random generators of one evolution; consumed."""

    select: np.random.Generator
    explore: Sequence[np.random.Generator]  # by slot, so that siblings of one parent differ


class Space(NamedTuple):
    """What a strategy may change."""

    perturbed: Mapping[str, Sequence[str]]  # by kind: names of hyperparameters
    bounds: Mapping[str, tuple[float, float]]  # by name: least and largest value


class Strategy(NamedTuple):
    """A way to evolve a population. It is built from its own options and never sees a run or a network."""

    # () -> what it remembers before the first evolution
    init: Callable[[], Memory]
    # (memory, members by slot, streams) -> the memory after this evolution, and the exploits. Members that missed the interval
    # are not among them. A member is a child at most once, a parent is sound, and no member is both; but the one member of a
    # schedule is child and parent of itself.
    evolve: Callable[[Memory, Sequence[Standing], Streams], tuple[Memory, list[Exploit]]]
    # (anything) -> whether it is a memory of this strategy: it may come from a stranger's checkpoint
    sound: Callable[[Any], bool]


def ranked(standings: Sequence[Standing]) -> list[Standing]:
    """Return the members best first; non-finite fitness is worst, ties go to the lower slot."""
    return sorted(
        standings, key=lambda s: (not math.isfinite(s.fitness), -s.fitness if math.isfinite(s.fitness) else 0.0, s.slot)
    )
