"""Several runs side by side: those that differ by their seed alone are one group, and groups of one task are compared by seed."""

import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

# Settings that a group's label names.
NAMED = 3
# What tells groups apart by a file or a place, and nothing of what was trained.
UNLABELLED = ("env", "seed")


def compare(stories: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return, for every environment, its groups with their curves over seeds, and their results by seed.

    Args:
        stories: of the runs (`story.tell`); a group names its runs by their place among them.
    """
    by_env: dict[str, list[int]] = {}
    for number, one in enumerate(stories):
        by_env.setdefault(one["env"] or one["name"], []).append(number)
    return [_environment(env, stories, numbers) for env, numbers in by_env.items()]


def _environment(env: str, stories: Sequence[dict[str, Any]], numbers: list[int]) -> dict[str, Any]:
    groups: dict[Any, list[int]] = {}
    for number in numbers:
        settings = tuple((name, value) for name, value in stories[number]["settings"] if name not in UNLABELLED)
        # A run whose settings cannot be read is like no other.
        groups.setdefault(settings or number, []).append(number)
    tables = [dict(stories[members[0]]["settings"]) for members in groups.values()]
    labels = _labels(tables, [stories[members[0]]["name"] for members in groups.values()])
    made = [_group(label, stories, members) for label, members in zip(labels, groups.values(), strict=True)]
    return {
        "env": env,
        "groups": made,
        "seeds": sorted({seed for group in made for seed in group["results"]}),
        "pairs": _pairs(made),
    }


def _labels(tables: Sequence[Mapping[str, str]], names: Sequence[str]) -> list[str]:
    """Return what each group is called: the settings that tell it from the others."""
    every = dict.fromkeys(name for table in tables for name in table if name not in UNLABELLED)
    telling = [name for name in every if len({table.get(name) for table in tables}) > 1]
    mixes = [" ".join(f"{k.removeprefix('mix.')}={v}" for k, v in table.items() if k.startswith("mix.")) for table in tables]
    others = [name for name in telling if not name.startswith(("mix.", "optimizers."))][:NAMED]
    labels = [
        " ".join([mix, *(f"{name}={table.get(name, 'none')}" for name in others)]).strip()
        for mix, table in zip(mixes, tables, strict=True)
    ]
    return [
        label if label and labels.count(label) == 1 else f"{label} ({name})".strip()
        for label, name in zip(labels, names, strict=True)
    ]


def _group(label: str, stories: Sequence[dict[str, Any]], members: list[int]) -> dict[str, Any]:
    curves = [_best_member(stories[number]) for number in members]
    common = sorted(set.intersection(*(set(curve) for curve in curves)))
    values = [[curve[time] for curve in curves] for time in common]
    results = {stories[number]["seed"]: result_of(stories[number]) for number in members if stories[number]["seed"] is not None}
    scores = [value for value, _ in results.values() if value is not None]
    return {
        "label": label,
        "runs": members,
        "times": common,
        "mean": [math.fsum(v / len(at) for v in at) for at in values],
        "low": [min(at) for at in values],
        "high": [max(at) for at in values],
        "each": [[curve[time] for time in common] for curve in curves],
        "results": results,
        "result": spread(scores),
    }


def _best_member(one: dict[str, Any]) -> dict[int, float]:
    """Return the fitness of the best member by time."""
    columns = zip(*(member["fitness"] for member in one["members"]), strict=True)
    found = (max((value for value in column if value is not None), default=None) for column in columns)
    return {time: value for time, value in zip(one["times"], found, strict=True) if value is not None}


def result_of(one: dict[str, Any]) -> tuple[float | None, bool]:
    """Return a run's result, and whether it is final: the return of the best policy on fresh episodes, or its fitness so far."""
    final = one["final"]["return_mean"]
    if final is not None:
        return final, True
    return (None if one["best"] is None else one["best"]["fitness"]), False


def spread(values: Sequence[float]) -> dict[str, Any]:
    """Return mean, standard deviation and number of some values; null where there are too few."""
    return {
        "mean": statistics.fmean(values) if values else None,
        "deviation": statistics.stdev(values) if len(values) > 1 else None,
        "count": len(values),
    }


def _pairs(groups: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return every group's differences from the first one, by seeds that both have."""
    found = []
    for number, group in enumerate(groups[1:], start=1):
        first, other = groups[0]["results"], group["results"]
        differences = {
            seed: other[seed][0] - first[seed][0]
            for seed in sorted(first.keys() & other.keys())
            if other[seed][0] is not None and first[seed][0] is not None
        }
        about = spread(list(differences.values()))
        error = None if about["deviation"] is None else about["deviation"] / math.sqrt(about["count"])
        ahead = sum(difference > 0 for difference in differences.values())
        found.append({"group": number, "differences": differences, "mean": about["mean"], "error": error, "ahead": ahead})
    return found
