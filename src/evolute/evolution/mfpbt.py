"""MF-PBT: sub-populations that evolve at different frequencies, because frequent selection is greedy.

Doulazmi et al. 2025, arXiv 2506.03225; docs/maths.md E27. Where members are seldom replaced, hyperparameters that pay late
survive; from there they reach the other sub-populations, and not the other way round.
"""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

from evolute.evolution import pbt
from evolute.evolution.base import Exploit, Memory, Space, Standing, Strategy, Streams, ranked
from evolute.hyperparameters import Hyperparameters

# A sub-population is ranked into so many equal parts: winners, those that stay, those that outsiders may replace, losers.
PARTS = 4


class Options(NamedTuple):
    """Options of MF-PBT."""

    frequencies: Sequence[int]  # by sub-population, rising: evolutions from one of its own to the next
    factors: Sequence[float]  # one of them multiplies a perturbed hyperparameter


def make(options: Options, space: Space) -> Strategy:
    """Return MF-PBT as a strategy. It remembers `time`, evolutions so far."""
    count = len(options.frequencies)

    def evolve(memory: Memory, standings: Sequence[Standing], streams: Streams) -> tuple[Memory, list[Exploit]]:
        time = int(memory["time"]) + 1
        groups = [ranked([s for s in standings if s.slot % count == number]) for number in range(count)]
        due = [number for number in range(count) if time % options.frequencies[number] == 0]
        losers = [standing for number in due for standing in worst(groups[number])]
        broken = [standing for standing in standings if not math.isfinite(standing.fitness)]
        # Nobody who is replaced in this evolution is a parent in it: by outsiders are replaced those who may be, at most.
        leaving = {s.slot for s in (*losers, *broken)} | {s.slot for number in due for s in third(groups[number])}
        pairs = [pair for number in due for pair in migrations(number, groups, leaving)]
        exploits = [Exploit(child, parent, settled(child, parent, count)) for child, parent in pairs]
        moved = {child.slot for child, _ in pairs}
        for child in sorted({*losers, *broken}, key=lambda s: s.slot):
            group = groups[child.slot % count]
            winners = [s for s in group[: part(group)] if s.slot not in leaving]
            parents = winners or [s for s in ranked(standings) if s.slot not in leaving][:1]
            if child.slot in moved or not parents:
                continue
            parent = parents[int(streams.select.integers(len(parents)))]
            start = parent.hyperparameters if child.kind == parent.kind else child.hyperparameters
            names, rng = space.perturbed[child.kind], streams.explore[child.slot]
            exploits.append(Exploit(child, parent, pbt.explore(start, names, options.factors, space.bounds, rng)))
        return {"time": time}, exploits

    def sound(memory: Any) -> bool:
        known = isinstance(memory, dict) and memory.keys() == {"time"}
        return known and type(memory["time"]) is int and 0 <= memory["time"] < 2**53

    return Strategy(lambda: {"time": 0}, evolve, sound)


def settled(child: Standing, parent: Standing, count: int) -> Hyperparameters:
    """Return what a member goes on with that takes an outsider's weights: its own, unless the outsider's evolve more seldom."""
    slower = parent.slot % count > child.slot % count
    return parent.hyperparameters if slower and child.kind == parent.kind else child.hyperparameters


def part(group: Sequence[Standing]) -> int:
    """Return the size of a part of a sub-population."""
    return len(group) // PARTS


def worst(group: Sequence[Standing]) -> Sequence[Standing]:
    """Return the losers of a sub-population, given best first."""
    return group[len(group) - part(group) :]


def third(group: Sequence[Standing]) -> Sequence[Standing]:
    """Return the part of a sub-population, given best first, that outsiders may replace."""
    return group[len(group) - 2 * part(group) : len(group) - part(group)]


def migrations(number: int, groups: Sequence[Sequence[Standing]], leaving: set[int]) -> list[tuple[Standing, Standing]]:
    """Return (child, parent) for every member of a sub-population that a better outsider replaces.

    Args:
        number: of the sub-population.
        groups: all of them, each best first.
        leaving: slots that may be replaced in this evolution, and give nothing.
    """
    outsiders = ranked([s for other, group in enumerate(groups) if other != number for s in group if s.slot not in leaving])
    pairs = zip(third(groups[number]), outsiders, strict=False)
    # Written so that a broken child is replaced.
    return [(child, outsider) for child, outsider in pairs if not outsider.fitness <= child.fitness]
