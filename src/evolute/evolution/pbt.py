"""Selection, exploit and explore as pure functions of numbers: who copies whom, and with which hyperparameters.

Nothing here touches a network. The engine carries out what is decided here. docs/maths.md E18, E19.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from evolute.config import Run
from evolute.hyperparameters import Hyperparameters


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
    # What the child goes on with: perturbed, from its parent where they are of a kind, else from itself.
    hyperparameters: Hyperparameters

    @property
    def same_kind(self) -> bool:
        """Whether hyperparameters, and perhaps the optimizer's state, come from the parent."""
        return self.child.kind == self.parent.kind


def replaced_count(members: int, truncation: float) -> int:
    """Return how many members are replaced: truncation · members, rounded half up, at least 1, at most half (E18)."""
    return min(max(1, math.floor(truncation * members + 0.5)), members // 2)


def ranked(standings: Sequence[Standing]) -> list[Standing]:
    """Return the members best first; non-finite fitness is worst, ties go to the lower slot."""
    return sorted(
        standings, key=lambda s: (not math.isfinite(s.fitness), -s.fitness if math.isfinite(s.fitness) else 0.0, s.slot)
    )


def select(standings: Sequence[Standing], truncation: float, rng: np.random.Generator) -> list[tuple[Standing, Standing]]:
    """Pair each member to be replaced with a parent drawn from the best ones.

    Broken members (non-finite fitness) are replaced even where they are more than the truncation asks for, and are
    never a parent. Where all are broken nobody can be copied.

    Returns:
        (child, parent) pairs, children from the worst up.
    """
    order = ranked(standings)
    count = replaced_count(len(order), truncation)
    sound = [s for s in order if math.isfinite(s.fitness)]
    parents = sound[:count]
    if not parents:
        return []
    children = [s for n, s in enumerate(order) if n >= len(order) - count or not math.isfinite(s.fitness)]
    children = [s for s in children if s not in parents]
    return [(child, parents[rng.integers(len(parents))]) for child in reversed(children)]


def explore(start: Hyperparameters, names: Sequence[str], run: Run, rng: np.random.Generator) -> Hyperparameters:
    """Return the hyperparameters with each named one multiplied by its own random factor, within its bounds (E19)."""
    changed = {}
    # Draws follow the record's order, not the user's, so that the same set of names gives the same run.
    for name in (n for n in Hyperparameters._fields if n in names):
        low, high = run.bounds_of(name)
        value = min(max(getattr(start, name) * run.factors[rng.integers(len(run.factors))], low), high)
        changed[name] = _whole(value, getattr(start, name), low, high) if name == "batch_size" else value
    return start._replace(**changed)


def _whole(value: float, before: int, low: float, high: float) -> int:
    """Round to an integer that differs from the old one where the factor meant it to and the bounds allow it."""
    whole = math.floor(value + 0.5)
    if whole == before and value != before:
        whole += 1 if value > before else -1
    return min(max(whole, math.ceil(low)), math.floor(high))


def evolve(
    standings: Sequence[Standing],
    run: Run,
    select_rng: np.random.Generator,
    explore_rngs: Sequence[np.random.Generator],
) -> list[Exploit]:
    """Decide one evolution.

    Args:
        standings: all members, by slot.
        run: truncation, factors, perturbed names and bounds.
        select_rng: draws the parents; consumed.
        explore_rngs: one generator per slot, so that siblings of one parent differ; consumed.
    """
    if len(standings) < 2:
        return []
    exploits = []
    for child, parent in select(standings, run.truncation, select_rng):
        start = parent.hyperparameters if child.kind == parent.kind else child.hyperparameters
        new = explore(start, run.perturbed(child.kind), run, explore_rngs[child.slot])
        exploits.append(Exploit(child, parent, new))
    return exploits
