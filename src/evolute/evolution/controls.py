"""Controls: what a population does where nothing is selected. docs/maths.md E18."""

import math
from collections.abc import Sequence

from evolute.evolution import pbt
from evolute.evolution.base import Exploit, Memory, Space, Standing, Strategy, Streams


def blind(options: pbt.Options, space: Space) -> Strategy:
    """Return population-based training that does not see fitness: as many members copy as many, all drawn by chance.

    It copies and perturbs as often as selection does, and selects nothing: what a kind wins here it wins by drift. A broken
    member (non-finite fitness) is replaced and never a parent, as always.
    """
    strategy = pbt.make(options, space)

    def evolve(memory: Memory, standings: Sequence[Standing], streams: Streams) -> tuple[Memory, list[Exploit]]:
        order = streams.select.permutation(len(standings))
        drawn = [
            s._replace(fitness=float(place) if math.isfinite(s.fitness) else s.fitness)
            for s, place in zip(standings, order, strict=True)
        ]
        memory, exploits = strategy.evolve(memory, drawn, streams)
        real = {s.slot: s for s in standings}
        return memory, [e._replace(child=real[e.child.slot], parent=real[e.parent.slot]) for e in exploits]

    return Strategy(strategy.init, evolve, strategy.sound)


def none() -> Strategy:
    """Return a strategy that changes nothing: independent members, of which the best is taken at the end."""
    return Strategy(dict, lambda memory, standings, streams: (memory, []), lambda memory: memory == {})
