"""Population-based training: the worst become perturbed copies of the best. docs/maths.md E18, E19."""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from evolute.evolution.base import Exploit, Memory, Space, Standing, Strategy, Streams, ranked
from evolute.hyperparameters import Hyperparameters, ordered


class Options(NamedTuple):
    """Options of population-based training."""

    truncation: float  # the fraction of the population that is replaced
    factors: Sequence[float]  # one of them multiplies a perturbed hyperparameter


def make(options: Options, space: Space) -> Strategy:
    """Return population-based training as a strategy (Jaderberg et al. 2017, arXiv 1711.09846). It remembers nothing."""

    def evolve(memory: Memory, standings: Sequence[Standing], streams: Streams) -> tuple[Memory, list[Exploit]]:
        exploits = []
        for child, parent in select(standings, options.truncation, streams.select):
            start = parent.hyperparameters if child.kind == parent.kind else child.hyperparameters
            new = explore(start, space.perturbed[child.kind], options.factors, space.bounds, streams.explore[child.slot])
            exploits.append(Exploit(child, parent, new))
        return memory, exploits

    return Strategy(dict, evolve, lambda memory: memory == {})


def replaced_count(members: int, truncation: float) -> int:
    """Return how many members are replaced: truncation · members, rounded half up, at least 1, at most half (E18)."""
    return min(max(1, math.floor(truncation * members + 0.5)), members // 2)


def select(standings: Sequence[Standing], truncation: float, rng: np.random.Generator) -> list[tuple[Standing, Standing]]:
    """Pair each member to be replaced with a parent drawn from the best ones.

    Broken members (non-finite fitness) are replaced even where they are more than the truncation asks for, and are
    never a parent. Where all are broken, none is copied.

    Returns:
        (child, parent) pairs, children from the worst up.
    """
    if len(standings) < 2:
        return []
    order = ranked(standings)
    count = replaced_count(len(order), truncation)
    sound = [s for s in order if math.isfinite(s.fitness)]
    parents = sound[:count]
    if not parents:
        return []
    children = [s for n, s in enumerate(order) if n >= len(order) - count or not math.isfinite(s.fitness)]
    children = [s for s in children if s not in parents]
    return [(child, parents[rng.integers(len(parents))]) for child in reversed(children)]


def explore(
    start: Hyperparameters,
    names: Sequence[str],
    factors: Sequence[float],
    bounds: Mapping[str, tuple[float, float]],
    rng: np.random.Generator,
) -> Hyperparameters:
    """Return the hyperparameters with each named one multiplied by its own random factor, within its bounds (E19)."""
    changed = {}
    for name in ordered(names):
        low, high = bounds[name]
        value = min(max(getattr(start, name) * factors[int(rng.integers(len(factors)))], low), high)
        changed[name] = _whole(value, getattr(start, name), low, high) if name == "batch_size" else value
    return start._replace(**changed)


def _whole(value: float, before: int, low: float, high: float) -> int:
    """Round to an integer that differs from the old one where the factor meant it to and the bounds allow it."""
    whole = math.floor(value + 0.5)
    if whole == before and value != before:
        whole += 1 if value > before else -1
    return min(max(whole, math.ceil(low)), math.floor(high))
