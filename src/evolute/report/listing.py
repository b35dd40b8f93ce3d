"""Many runs at a glance: where each is, what it is, how far it has come, and in which state. Imports no JAX."""

import math
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from rich.table import Table

from evolute.errors import UserError
from evolute.files import CHECKPOINT_FOLDER
from evolute.report import reading
from evolute.report.tables import WIDTH, fitted, number, plain
from evolute.runs.folder import CONFIG_FILE

# Folders below the one that is named: runs/NAME, and runs/NAME/seed-0; and one more, as experiments keep them.
DEEPEST = 4


def folders(top: Path) -> Iterator[Path]:
    """Return the run folders in a folder, itself included, in the order of their names; links are not followed."""
    for path, below, files in os.walk(top, onerror=None):
        here = Path(path)
        if CONFIG_FILE in files or CHECKPOINT_FOLDER in below:
            yield here
            below.clear()
        elif len(here.relative_to(top).parts) >= DEEPEST:
            below.clear()
        below.sort()


def outlines(top: Path) -> list[dict[str, Any]]:
    """Return what a list says of every run in a folder, as data of JSON."""
    return [outline(path) for path in folders(top)]


def outline(path: Path) -> dict[str, Any]:
    """Return what a list says of a run.

    Returns:
        `state` is "damaged" where a record cannot be read, and `problems` says which; else "running", "finished" or "stopped".
        `best` is the highest fitness so far, `return_mean` that of the best policy on fresh episodes, once there is one.
    """
    try:
        records = reading.read(path)
    except UserError as mistake:
        return damaged(str(path), str(mistake))
    run, result = records.run, records.result
    fitness = [row["fitness"] for row in records.metrics if row["fitness"] is not None and math.isfinite(row["fitness"])]
    final = result.get("best") if result is not None else None
    state = "finished" if result is not None else "running" if records.held else "stopped"
    return {
        "folder": str(path),
        "env": None if run is None else run.env,
        "mix": None if run is None else run.mix,
        "strategy": None if run is None else run.strategy,
        "seed": None if run is None else run.seed,
        "steps_done": max((row["steps"] for row in records.metrics), default=0),
        "steps": None if run is None else run.steps,
        "best": max(fitness, default=None),
        "return_mean": final.get("return_mean") if isinstance(final, dict) else None,
        "exploits": sum(event["event"] == "exploit" for event in records.events),
        "started": records.metadata.get("started"),
        "state": "damaged" if records.problems else state,
        "problems": records.problems,
    }


def damaged(folder: str, problem: str) -> dict[str, Any]:
    """Return what a list says of a run of which nothing can be read."""
    return {"folder": folder, "state": "damaged", "problems": [problem]}


def table(found: Sequence[dict[str, Any]], top: Path | str, width: int = WIDTH) -> Table:
    """Return the runs of a folder as a table; a long name of a folder is broken over lines."""
    rows = []
    for one in found:
        mix = " ".join(f"{kind}={count}" for kind, count in (one.get("mix") or {}).items())
        done, steps = one.get("steps_done") or 0, one.get("steps") or 0
        rows.append(
            (
                plain(name_of(one, top)),
                plain(one.get("env") or "-"),
                plain(mix or "-"),
                f"{done:,}" if done >= steps else f"{done:,}/{steps:,}",
                number(one.get("best")),
                one["state"],
            )
        )
    columns = ("run", "environment", "mix", "steps", "best", "state")
    return fitted(f"Runs in {top}", columns, rows, width, ("run", "environment", "mix", "state"), ("mix", "run"))


def reasons(found: Sequence[dict[str, Any]], top: Path | str) -> list[str]:
    """Return why runs of a folder count as damaged, a line each."""
    lines = []
    for one in found:
        if one["state"] == "damaged":
            first, *others = one["problems"]
            more = f" And {len(others)} more, which --json shows." if others else ""
            lines.append(f"{name_of(one, top)} is damaged: {first}{more}")
    return lines


def name_of(one: dict[str, Any], top: Path | str) -> str:
    """Return what a run is called in a list of a folder."""
    name = os.path.relpath(one["folder"], top)
    return name if name != "." else one["folder"]
