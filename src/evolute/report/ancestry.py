"""Who descends from whom: a member's line back to the start, from the exploits alone. Plain numbers, nothing else."""

from collections.abc import Iterable, Mapping
from typing import NamedTuple


class Part(NamedTuple):
    """A stretch of a line that lies in one slot, from one interval to another, both included; intervals count from 0."""

    slot: int
    first: int
    last: int


# (child, interval at whose end it became a copy) -> parent
Copies = Mapping[tuple[int, int], int]


def copies(exploits: Iterable[tuple[int, int, int]]) -> Copies:
    """Return who copied whom and when, given (interval, child, parent) of every exploit."""
    return {(child, at): parent for at, child, parent in exploits}


def line(slot: int, last: int, parents: Copies) -> list[Part]:
    """Return the ancestry of what a slot held in an interval, oldest part first.

    A child that copies at the end of interval `at` trains as the copy from `at + 1` on, so its ancestor at `at` is the parent.

    Args:
        slot: of the member.
        last: the interval, from 0.
        parents: who copied whom and when.
    """
    parts, end = [], last
    for at in range(last - 1, -1, -1):
        parent = parents.get((slot, at))
        if parent is not None:
            parts.append(Part(slot, at + 1, end))
            slot, end = parent, at
    return [Part(slot, 0, end), *reversed(parts)]


def slots_of(parts: Iterable[Part]) -> list[int]:
    """Return the slot of a line in every interval."""
    return [part.slot for part in parts for _ in range(part.first, part.last + 1)]


def shares(lines: Iterable[list[Part]], kinds: Mapping[int, int], count: int, times: int) -> list[list[int]]:
    """Return how many of some lines lay in slots of each kind, for every interval: [interval][kind].

    Args:
        lines: all of the same length.
        kinds: number of the kind of each slot.
        count: of kinds.
        times: number of intervals.
    """
    table = [[0] * count for _ in range(times)]
    for parts in lines:
        for at, slot in enumerate(slots_of(parts)):
            table[at][kinds[slot]] += 1
    return table
