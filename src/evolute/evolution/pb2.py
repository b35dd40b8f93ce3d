"""PB2: selection as in population-based training, exploration by a bandit that learns which hyperparameters improve a member.

Parker-Holder, Nguyen & Roberts 2020, arXiv 2002.02518; docs/maths.md E21. What a member gained in an interval is an observation
of its hyperparameters; a Gaussian process per kind, whose past fades, says what to try next.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from evolute.evolution import gaussian, pbt
from evolute.evolution.base import Exploit, Memory, Space, Standing, Strategy, Streams
from evolute.hyperparameters import ordered

# Observations of a kind that are remembered, and how many there must be before the process is believed.
REMEMBERED, ENOUGH = 1_000, 6
# Points at which the acquisition is looked at, and rounds of looking closer at the best one.
CANDIDATES, CLOSER = 500, 4
# Of the weight of what is not known: sqrt(C1 + max(0, log(C2 n))).
C1, C2 = 0.2, 0.4


class Options(NamedTuple):
    """Options of PB2."""

    truncation: float  # the fraction of the population that is replaced
    factors: Sequence[float]  # as in population-based training, which explores until enough is known


def make(options: Options, space: Space) -> Strategy:
    """Return PB2 as a strategy.

    It remembers `time` (evolutions so far), `before` (by slot, the fitness that a member started its interval with), and `rows`
    (by kind: time, that fitness, the perturbed hyperparameters, and what was gained).
    """

    def init() -> Memory:
        return {"time": 0, "before": {}, "rows": {kind: [] for kind in space.perturbed}}

    def evolve(memory: Memory, standings: Sequence[Standing], streams: Streams) -> tuple[Memory, list[Exploit]]:
        rows = {kind: observed(memory, standings, kind, space) for kind in space.perturbed}
        bandits: dict[str, Bandit] = {}
        exploits, before = [], {str(s.slot): s.fitness for s in standings if math.isfinite(s.fitness)}
        time = int(memory["time"]) + 1
        for child, parent in pbt.select(standings, options.truncation, streams.select):
            names, rng = ordered(space.perturbed[child.kind]), streams.explore[child.slot]
            start = parent.hyperparameters if child.kind == parent.kind else child.hyperparameters
            if names and len(rows[child.kind]) >= ENOUGH:
                bandit = bandits.get(child.kind) or learnt(np.array(rows[child.kind]))
                point = propose(bandit, time, parent.fitness, rng)
                bandits[child.kind] = bandit._replace(tried=(*bandit.tried, point))
                new = start._replace(**values(point, names, space.bounds))
            else:
                new = pbt.explore(start, names, options.factors, space.bounds, rng)
            exploits.append(Exploit(child, parent, new))
            before[str(child.slot)] = parent.fitness
        return {"time": time, "before": before, "rows": rows}, exploits

    def sound(memory: Any) -> bool:
        widths = {kind: len(names) + 3 for kind, names in space.perturbed.items()}
        return (
            isinstance(memory, dict)
            and memory.keys() == {"time", "before", "rows"}
            and _finite(memory["time"])
            and isinstance(memory["before"], dict)
            and all(map(_finite, memory["before"].values()))
            and isinstance(memory["rows"], dict)
            and memory["rows"].keys() == widths.keys()
            and all(_are_rows(rows, widths[kind]) for kind, rows in memory["rows"].items())
        )

    return Strategy(init, evolve, sound)


def observed(memory: Memory, standings: Sequence[Standing], kind: str, space: Space) -> list[list[float]]:
    """Return the observations of a kind: those that are remembered and those of the interval that just ended.

    Returns:
        Rows of time, fitness before, hyperparameters in [0, 1], gained fitness; the newest last.
    """
    names, rows = ordered(space.perturbed[kind]), list(memory["rows"][kind])
    for standing in standings:
        before = memory["before"].get(str(standing.slot))
        if standing.kind == kind and before is not None and math.isfinite(standing.fitness):
            point = [scaled(getattr(standing.hyperparameters, name), space.bounds[name]) for name in names]
            rows.append([float(memory["time"]), before, *point, standing.fitness - before])
    return rows[-REMEMBERED:]


class Bandit(NamedTuple):
    """What a kind's observations say."""

    process: gaussian.Process  # of hyperparameters and, as the last input, the fitness that a member started with
    fitness: tuple[float, float]  # least, and the span: what that input is scaled by
    tried: tuple[np.ndarray, ...] = ()  # points [D] that members try in the coming interval


def learnt(rows: np.ndarray) -> Bandit:
    """Return what observations [N, D + 3] say."""
    times, before, points, gained = rows[:, 0], rows[:, 1], rows[:, 2:-1], rows[:, -1]
    fitness = float(before.min()), float(np.ptp(before)) or 1.0
    y = (gained - gained.mean()) / (gained.std() or 1.0)
    return Bandit(gaussian.fit(inputs(points, before, fitness), times, y), fitness)


def inputs(points: np.ndarray, before: np.ndarray | float, fitness: tuple[float, float]) -> np.ndarray:
    """Return inputs of a process [N, D + 1] for hyperparameters [N, D] and the fitness that members start with."""
    low, span = fitness
    return np.column_stack([points, np.clip((np.broadcast_to(before, len(points)) - low) / span, 0.0, 1.0)])


def propose(bandit: Bandit, time: float, fitness: float, rng: np.random.Generator) -> np.ndarray:
    """Return the hyperparameters [D] in [0, 1] that promise most: the largest mean plus weighted standard deviation.

    Args:
        bandit: what is known. What other members try in the same interval makes its surroundings known, whatever it brings.
        time: of the interval to come.
        fitness: that the member starts with.
        rng: consumed.
    """
    known = explored = bandit.process
    if bandit.tried:
        # What they bring is not known yet: the mean stays, the variance shrinks.
        tried = inputs(np.array(bandit.tried), fitness, bandit.fitness)
        x, when = np.concatenate([known.x, tried]), np.append(known.time, np.full(len(tried), time))
        explored = gaussian.condition(x, when, np.zeros(len(x)), known.parameters)
    weight = math.sqrt(C1 + max(0.0, math.log(C2 * len(known.x))))

    def promise(points: np.ndarray) -> np.ndarray:
        x = inputs(points, fitness, bandit.fitness)
        return gaussian.predict(known, x, time)[0] + weight * gaussian.predict(explored, x, time)[1]

    candidates = rng.uniform(size=(CANDIDATES, known.x.shape[1] - 1))
    best = candidates[np.argmax(promise(candidates))]
    for n in range(CLOSER):
        around = np.clip(best + 0.1 * 0.4**n * rng.standard_normal((CANDIDATES // 10, len(best))), 0.0, 1.0)
        around = np.concatenate([best[None], around])
        best = around[np.argmax(promise(around))]
    return best


def scaled(value: float, bounds: tuple[float, float]) -> float:
    """Return where a value lies between its bounds [0, 1], by its logarithm."""
    low, high = np.log(bounds)
    return float(np.clip((math.log(value) - low) / ((high - low) or 1.0), 0.0, 1.0)) if value > 0 else 0.0


def values(point: np.ndarray, names: Sequence[str], bounds: Mapping[str, tuple[float, float]]) -> dict[str, float]:
    """Return the hyperparameters of a point [D] in [0, 1], within their bounds."""
    found: dict[str, float] = {}
    for name, share in zip(names, point, strict=True):
        low, high = bounds[name]
        value = min(max(math.exp(math.log(low) + share * (math.log(high) - math.log(low))), low), high)
        found[name] = min(max(round(value), math.ceil(low)), math.floor(high)) if name == "batch_size" else value
    return found


def _finite(value: Any) -> bool:
    return type(value) in (int, float) and math.isfinite(value)


def _are_rows(rows: Any, width: int) -> bool:
    return (
        isinstance(rows, list)
        and len(rows) <= REMEMBERED
        and all(isinstance(row, list) and len(row) == width and all(map(_finite, row)) for row in rows)
    )
