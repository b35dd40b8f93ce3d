"""Replay of a schedule: one member, which becomes at each interval's end what the schedule says."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from evolute.evolution.base import Exploit, Memory, Standing, Strategy, Streams
from evolute.hyperparameters import Hyperparameters


class Due(NamedTuple):
    """What the member is to be from some interval on."""

    kind: str
    hyperparameters: Hyperparameters


def make(schedule: Mapping[int, Due]) -> Strategy:
    """Return a strategy that follows a schedule, given by the number of intervals before each change.

    A change is an exploit of the member by itself: what an exploit keeps or starts anew is kept or started anew. It remembers how
    many intervals have ended.
    """

    def evolve(memory: Memory, standings: Sequence[Standing], streams: Streams) -> tuple[Memory, list[Exploit]]:
        (own,), ended = standings, memory["ended"] + 1
        due = schedule.get(ended)
        exploits = [] if due is None else [Exploit(own._replace(kind=due.kind), own, due.hyperparameters)]
        return {"ended": ended}, exploits

    def sound(memory: Any) -> bool:
        return isinstance(memory, dict) and memory.keys() == {"ended"} and type(memory["ended"]) is int and memory["ended"] >= 0

    return Strategy(lambda: {"ended": 0}, evolve, sound)
