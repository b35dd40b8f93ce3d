"""A run's records as the plain data that its page draws: curves, exploits, ancestry, hyperparameters, troubles, phases.

Times are places on a common axis: `times[at]` is the run's clock at the end of the interval with number `intervals[at]`.
"""

import bisect
import math
from collections.abc import Callable, Mapping
from typing import Any

from evolute import kinds
from evolute.hyperparameters import SETTINGS, Hyperparameters
from evolute.report import ancestry, events
from evolute.report.reading import Records
from evolute.state import PHASES

# Digits that a figure can show.
DIGITS = 6


def tell(records: Records, name: str) -> dict[str, Any]:
    """Return everything that a page shows of one run, as data of JSON.

    Args:
        records: of the run.
        name: what the page calls it.
    """
    rows = _latest(records.metrics)
    copied = [event for event in records.events if event["event"] == "exploit"]
    clock = _clock(rows, copied)
    numbers = sorted(clock)
    times = [clock[number] for number in numbers]
    at = {number: place for place, number in enumerate(numbers)}

    def place(event: dict[str, Any]) -> int | None:
        number = event.get("interval")
        if type(number) is int and number in at:
            return at[number]
        steps = event.get("steps")
        found = bisect.bisect_right(times, steps) - 1 if type(steps) is int else -1
        return None if found < 0 else found

    kind_of = {row["member"]: row["kind"] for row in rows}
    for event in copied:
        kind_of = {event["member"]: event["member_kind"], event["parent"]: event["parent_kind"]} | kind_of
    names = list(dict.fromkeys(kind_of[slot] for slot in sorted(kind_of)))
    number_of = {slot: names.index(kind) for slot, kind in kind_of.items()}
    own: dict[int, list[dict[str, Any]]] = {slot: [] for slot in sorted(kind_of)}
    for row in rows:
        own[row["member"]].append(row)
    exploits = [_exploit(event, where) for event in copied if (where := place(event)) is not None]
    best = _best(rows, at)
    lines = _lines(exploits, sorted(kind_of), len(times), best)
    standing = _leaderboard(records, rows, copied)
    return {
        "name": name,
        **_outline(records, times),
        "intervals": numbers,
        "times": times,
        "kinds": [{"name": kind, "algorithm": kinds.of(kind).algorithm} for kind in names],
        "members": [{"slot": slot, "kind": number_of[slot], **_curves(own[slot], at)} for slot in own],
        "exploits": exploits,
        "best": best,
        "lines": lines,
        "shares": ancestry.shares(
            [
                [ancestry.Part(*part) for part in one["parts"]]
                for one in lines
                if one["last"] == len(times) - 1 and not one["best"]
            ],
            number_of,
            len(names),
            len(times),
        ),
        "paths": _paths(own, at),
        "troubles": events.troubles(rows, at) + events.dead_units(records.events, place),
        "phases": _phases(rows, at),
        "leaderboard": standing,
        "events": events.listed(records.events),
        "settings": [] if records.run is None else _flat("", vars(records.run)),
        "versions": _versions(records.metadata),
        "problems": [*records.problems, *_missing(records, rows)],
        "notes": [events.text(note) for note in _list(records.metadata.get("notes")) if isinstance(note, str)],
    }


# ------------------------------------------------------------------------------------------------------------ outline


def _outline(records: Records, times: list[int]) -> dict[str, Any]:
    run, result = records.run, records.result
    summary = {} if result is None else result.get("best")
    final = summary if isinstance(summary, dict) else {}
    return {
        "env": None if run is None else run.env,
        "mix": None if run is None else " ".join(f"{kind}={count}" for kind, count in run.mix.items()),
        "seed": None if run is None else run.seed,
        "strategy": None if run is None else run.strategy,
        "steps": None if run is None else run.steps,
        "done": times[-1] if times else 0,
        "state": "ended" if result is not None else "running" if records.held else "stopped",
        "final": {key: rounded(final.get(key)) for key in ("return_mean", "return_std", "episodes")},
        "wall_seconds": None if result is None else rounded(result.get("wall_seconds")),
        "started": events.text(records.metadata.get("started", "")),
    }


def _missing(records: Records, rows: list[dict[str, Any]]) -> list[str]:
    """Return what a folder that reads well lacks: rows of members in intervals that others have."""
    said = []
    members, numbers = {row["member"] for row in rows}, {row["interval"] for row in rows}
    # Who missed an interval has no row of it.
    missed = {(event["member"], event["interval"]) for event in records.events if event["event"] == "absent"}
    known = {(member, number) for member, number in missed if member in members and number in numbers}
    known |= {(row["member"], row["interval"]) for row in rows}
    if lacking := len(members) * len(numbers) - len(known):
        said.append(f"{lacking:,} of {len(members) * len(numbers):,} rows of members and intervals are missing in the metrics.")
    numbers |= {number for _, number in missed}
    if gaps := sum(number not in numbers for number in range(1, min(max(numbers, default=0), 10**6) + 1)):
        said.append(f"{gaps:,} intervals have no metrics at all.")
    if records.run is not None and (expected := len(records.run.kinds) - len(members)) > 0 and members:
        said.append(f"{expected} of {len(records.run.kinds)} members have no metrics.")
    return said


def _versions(metadata: Mapping[str, Any]) -> list[list[str]]:
    found = [[str(name), events.text(version)] for name, version in dict(metadata.get("versions", {})).items()]
    found += [
        [key, events.text(metadata[key])] for key in ("physics_fingerprint", "arithmetic_fingerprint", "cores") if key in metadata
    ]
    found += [["device", events.text(device)] for device in _list(metadata.get("devices"))]
    for again in _list(metadata.get("resumed")):
        if isinstance(again, dict):
            found.append(["resumed", events.text(f"{again.get('time', '?')}, after interval {again.get('interval', '?')}")])
    return found


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _flat(name: str, value: Any) -> list[list[str]]:
    """Return settings and their values as text, tables flattened with dots; those that no member has are left out."""
    if isinstance(value, dict) and value:
        return [pair for key, item in value.items() for pair in _flat(f"{name}.{key}" if name else str(key), item)]
    if value is None:
        return []
    if isinstance(value, tuple | list):
        return [[name, " ".join(map(str, value)) or "none"]]
    return [[name, str(value).lower() if isinstance(value, bool) else "none" if value == {} else str(value)]]


# ------------------------------------------------------------------------------------------------------------ members


def rounded(value: Any) -> float | None:
    """Return a finite number with the digits that a figure can show; None where it is none."""
    if type(value) not in (int, float) or abs(value) >= 2**1000 or not math.isfinite(value):
        return None
    short = float(f"{value:.{DIGITS}g}")
    return int(short) if short.is_integer() and abs(short) < 2**53 else short


def _latest(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return one row per interval and member, the newest, in their order."""
    found = {(row["interval"], row["member"]): row for row in rows}
    return [found[key] for key in sorted(found)]


def _clock(rows: list[dict[str, Any]], copied: list[dict[str, Any]]) -> dict[int, int]:
    """Return the run's clock by interval; exploits know it, too, where the metrics are damaged."""
    clock: dict[int, int] = {}
    for event in copied:
        if type(event.get("interval")) is int and 0 < event["interval"] < 2**53:
            clock[event["interval"]] = event["steps"]
    return clock | {row["interval"]: row["steps"] for row in rows}


def _series(own: list[dict[str, Any]], at: Mapping[int, int], value: Callable[[dict[str, Any]], Any]) -> list[float | None]:
    found: list[float | None] = [None] * len(at)
    for row in own:
        found[at[row["interval"]]] = rounded(value(row))
    return found


def _curves(own: list[dict[str, Any]], at: Mapping[int, int]) -> dict[str, Any]:
    return {name: _series(own, at, lambda row, name=name: row.get(name)) for name in ("fitness", "fitness_std")}


def _paths(own: Mapping[int, list[dict[str, Any]]], at: Mapping[int, int]) -> list[dict[str, Any]]:
    """Return every hyperparameter that changed in a member, or differs between members of a kind: its value by member."""
    found = []
    for name in Hyperparameters._fields:
        values: dict[str, set[Any]] = {}
        for rows in own.values():
            for row in rows:
                values.setdefault(row["kind"], set()).add(rounded(row["hyperparameters"].get(name)))
        if not any(len(seen) > 1 for seen in values.values()):
            continue
        series = [_series(rows, at, lambda row, name=name: row["hyperparameters"].get(name)) for rows in own.values()]
        # A member that does not have it has a zero there.
        series = [[None if value is None or value <= 0 else value for value in one] for one in series]
        found.append({"name": name, "help": SETTINGS[name].help, "unit": SETTINGS[name].unit, "values": series})
    return found


def _leaderboard(records: Records, rows: list[dict[str, Any]], copied: list[dict[str, Any]]) -> list[dict[str, Any]]:
    board = records.result["leaderboard"] if records.result else standings(rows, copied) if rows else []
    keys = ("rank", "member", "kind", "fitness", "parent", "environment_steps")
    pairs = [(row, row["hyperparameters"]) for row in board]
    return [
        {**{key: row[key] for key in keys}, "hyperparameters": {n: rounded(h[n]) for n in Hyperparameters._fields if h.get(n)}}
        for row, h in pairs
    ]


def standings(metrics: list[dict[str, Any]], exploits: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return a leaderboard from the newest metrics of a run that has not ended."""
    # Of those who missed an interval, an older one.
    rows = list({row["member"]: row for row in sorted(metrics, key=lambda row: row["interval"])}.values())
    parents = {exploit["member"]: exploit["parent"] for exploit in exploits}
    rows.sort(key=lambda row: (row["fitness"] is None, -(row["fitness"] or 0.0), row["member"]))
    return [{**row, "rank": rank, "parent": parents.get(row["member"])} for rank, row in enumerate(rows, start=1)]


def _phases(rows: list[dict[str, Any]], at: Mapping[int, int]) -> list[dict[str, Any]]:
    """Return the seconds of each phase by interval."""
    of_interval = {at[row["interval"]]: row.get("seconds") for row in rows}
    tables = [seconds if isinstance(seconds := of_interval.get(n), dict) else {} for n in range(len(at))]
    return [{"name": name, "seconds": [rounded(events.amount(table.get(name))) for table in tables]} for name in PHASES]


# ------------------------------------------------------------------------------------------------------------ lineage


def _best(rows: list[dict[str, Any]], at: Mapping[int, int]) -> dict[str, Any] | None:
    """Return where the best policy was found: the first of the highest fitness."""
    sound = [row for row in rows if row["fitness"] is not None]
    if not sound:
        return None
    row = max(sound, key=lambda row: (row["fitness"], -row["interval"], -row["member"]))
    return {"member": row["member"], "at": at[row["interval"]], "fitness": rounded(row["fitness"]), "kind": row["kind"]}


def _exploit(event: dict[str, Any], where: int) -> dict[str, Any]:
    old, new = event.get("old_hyperparameters"), event["new_hyperparameters"]
    before = old if isinstance(old, dict) else {}
    changes = [
        [name, was, now]
        for name in Hyperparameters._fields
        if (was := rounded(before.get(name))) is not None and (now := rounded(new.get(name))) is not None and was != now
    ]
    return {
        "at": where,
        "steps": event["steps"],
        "member": event["member"],
        "parent": event["parent"],
        "member_fitness": rounded(event["member_fitness"]),
        "parent_fitness": rounded(event["parent_fitness"]),
        "reset": event.get("optimizer_state") != "copied",
        "alike": event.get("networks") == "alike",
        "changes": changes,
    }


def _lines(exploits: list[dict[str, Any]], slots: list[int], count: int, best: dict[str, Any] | None) -> list[dict[str, Any]]:
    """Return the ancestry of the best policy, and that of what every member holds at the end."""
    if not count:
        return []
    parents = ancestry.copies((one["at"], one["member"], one["parent"]) for one in exploits)
    wanted = [] if best is None else [(best["member"], best["at"], True)]
    wanted += [(slot, count - 1, False) for slot in slots]
    return [
        {"member": slot, "last": last, "best": first, "parts": [list(part) for part in ancestry.line(slot, last, parents)]}
        for slot, last, first in wanted
    ]
