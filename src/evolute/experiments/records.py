"""What an experiment keeps of a run that has ended: a record of a few kilobytes, from which tables and figures are made."""

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from evolute import limits, toml
from evolute.config import Run
from evolute.errors import UserError
from evolute.files import make_folder, read_at_most, write_whole
from evolute.report import ancestry
from evolute.runs import changes, forms
from evolute.runs.folder import RunFolder

FORMAT = 1
# Significant digits of a record's numbers.
DIGITS = 6
# A record of the longest run that fits into a run folder's own limits is far below.
RECORD_BYTES = limits.RESULT_BYTES

PLAYED = {"mean": forms.NUMBER_OR_NULL, "std": forms.NUMBER_OR_NULL, "episodes": forms.WHOLE}
FORM = {
    "format": forms.WHOLE,
    "settings": forms.TEXT,
    "evaluation_steps": forms.WHOLE,
    "curve": forms.Rule(
        lambda x: isinstance(x, dict) and all(isinstance(values, list) for values in x.values()), "a table of lists"
    ),
    "final": forms.Rule(lambda x: isinstance(x, dict) and forms.fault(x, PLAYED) is None, "an evaluation"),
}


def of_run(folder: RunFolder, processor_seconds: Mapping[int, float] | None = None) -> dict[str, Any]:
    """Return the record of a run, less its evaluation on held-out seeds.

    Args:
        folder: of the run.
        processor_seconds: that had been spent at the end of each interval, where they were measured.

    Raises:
        UserError: no interval has ended, or a file is damaged.
    """
    run = folder.run()
    metrics, events = folder.metrics(), folder.events()
    if not metrics:
        raise UserError(f"no interval of the run in {str(folder.path)!r} has ended yet; wait for its end.")
    exploits = [event for event in events if event["event"] == "exploit"]
    intervals: dict[int, dict[int, dict[str, Any]]] = {}
    for row in metrics:
        intervals.setdefault(row["interval"], {})[row["member"]] = row
    spent = processor_seconds or {}
    curve: dict[str, list[Any]] = {name: [] for name in ("steps", "best", "median", "gradient_steps", "processor_seconds")}
    kinds = {kind: [] for kind in run.mix}
    seconds: dict[str, list[float]] = {}
    for number, rows in sorted(intervals.items()):
        fitness = [row["fitness"] for row in rows.values() if row["fitness"] is not None]
        curve["steps"].append(next(iter(rows.values()))["steps"])
        curve["best"].append(max(fitness, default=None))
        curve["median"].append(float(np.median(fitness)) if fitness else None)
        curve["gradient_steps"].append(sum(row["gradient_steps"] for row in rows.values()))
        curve["processor_seconds"].append(spent.get(number))
        for kind, values in kinds.items():
            own = [row["fitness"] for row in rows.values() if row["kind"] == kind and row["fitness"] is not None]
            values.append(max(own, default=None))
        for phase, value in next(iter(rows.values())).get("seconds", {}).items():
            seconds.setdefault(phase, []).append(value)
    last = max(intervals)
    best = best_of(list(intervals[last].values()))
    metadata = folder.metadata()
    return {
        "format": FORMAT,
        "settings": toml.to_toml(run),
        "evaluation_steps": 0,
        "versions": metadata.get("versions", {}),
        "curve": curve,
        "kinds": kinds,
        "seconds": seconds,
        "winner": {"member": best["member"], "kind": best["kind"], "fitness": best["fitness"]},
        "ancestors": [] if best["member"] is None else ancestors(exploits, best["member"], run.kinds, last),
        "exploits": len(exploits),
        "across": sum(event["member_kind"] != event["parent_kind"] for event in exploits),
        "quarantines": sum(event["event"] == "quarantine" for event in events),
        # Steps after which every member had diverged; None for a run that came to its end.
        "stopped": None,
        "final": {"mean": None, "std": None, "episodes": 0},
    }


def best_of(rows: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
    """Return the row of the fittest member, the lower slot among equals; one without a member where nobody has a fitness."""
    sound = [row for row in rows if row["fitness"] is not None]
    return max(sound, key=lambda row: (row["fitness"], -row["member"]), default={"member": None, "kind": None, "fitness": None})


def ancestors(exploits: Iterable[Mapping[str, Any]], member: int, kinds: Sequence[str], count: int) -> list[str]:
    """Return the kind that a member's networks were trained by in each interval, by way of those that it was copied from.

    Args:
        exploits: of the run, as events; one of interval n came at its end.
        member: slot, after the last interval.
        kinds: of the slots.
        count: of the run's intervals.
    """
    parents = ancestry.copies((event["interval"] - 1, event["member"], event["parent"]) for event in exploits)
    return [kinds[slot] for slot in ancestry.slots_of(ancestry.line(member, count - 1, parents))]


def record_path(out: Path, run: Run, evaluation_steps: int) -> Path:
    """Return where the record of a run is written."""
    return out / "records" / f"{run.env.replace(':', '+').replace('/', '+')}-{name(run, evaluation_steps)}.json"


def name(run: Run, evaluation_steps: int) -> str:
    """Return what tells a cell from all others: sixteen hexadecimal digits of its settings, and the steps of its evaluation."""
    return f"{changes.digest(run)}-{evaluation_steps}"


def write(out: Path, run: Run, record: Mapping[str, Any]) -> None:
    """Write a record; raises RunStopped where that cannot be done."""
    path = record_path(out, run, record["evaluation_steps"])
    make_folder(path.parent)
    write_whole(path, (json.dumps(_short(record), separators=(",", ":")) + "\n").encode())


def read_all(out: Path) -> dict[str, dict[str, Any]]:
    """Return the records of a folder by `name`: what this version of evolute makes of their settings.

    A setting that came later has its default. Raises UserError where a record is damaged.
    """
    found = {}
    for path in sorted((out / "records").glob("*.json")):
        try:
            record = json.loads(read_at_most(path, RECORD_BYTES).decode("utf-8"))
        except (OSError, ValueError, RecursionError) as error:
            raise UserError(f"the record {str(path)!r} cannot be read: {error}; delete it to train its run again.") from None
        if (wrong := forms.fault(record, FORM)) is not None:
            raise UserError(f"the record {str(path)!r} is damaged: {wrong}; delete it to train its run again.")
        try:
            run = Run(**toml.parse(record["settings"], str(path)))
        except UserError:
            # Of settings that this version does not have: its cell is none of today's.
            continue
        found[name(run, record["evaluation_steps"])] = record
    return found


def _short(value: Any) -> Any:
    """Return a value whose floats have few digits; None for those that are not finite."""
    if isinstance(value, float):
        return float(f"{value:.{DIGITS}g}") if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: _short(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_short(item) for item in value]
    return value
