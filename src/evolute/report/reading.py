"""What can be read of a run folder, however much of it is damaged, and sentences about the rest."""

import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from evolute.errors import UserError
from evolute.runs.folder import CONFIG_FILE, EVENTS_FILE, METADATA_FILE, METRICS_FILE, RESULT_FILE, RunFolder
from evolute.runs.lock import is_held

if TYPE_CHECKING:
    from evolute.config import Run

Value = TypeVar("Value")
# Damaged rows of one file that are named one by one.
NAMED = 3
# What decides whether there is something new.
WATCHED = (CONFIG_FILE, METADATA_FILE, METRICS_FILE, EVENTS_FILE, RESULT_FILE)


class Records(NamedTuple):
    """The records of a run, as far as they can be read."""

    path: Path
    run: "Run | None"
    metrics: list[dict[str, Any]]
    events: list[dict[str, Any]]
    result: dict[str, Any] | None
    metadata: dict[str, Any]
    # Whether a process has the folder now.
    held: bool
    # What is missing or damaged, one sentence each.
    problems: list[str]


def read(path: Path) -> Records:
    """Return what can be read of a run folder; raises UserError where there is no run at all."""
    folder, problems = RunFolder.open(path), []

    def attempt(reader: Callable[[], Value], otherwise: Value, about: str = "") -> Value:
        try:
            return reader()
        except UserError as error:
            problems.append(f"{about}{error}")
            return otherwise

    def rows(reader: Callable[[list[str]], list[dict[str, Any]]]) -> list[dict[str, Any]]:
        damage: list[str] = []
        found = attempt(lambda: reader(damage), [])
        problems.extend(damage[:NAMED])
        if len(damage) > NAMED:
            problems.append(f"{len(damage) - NAMED:,} more rows of the same file are damaged and left out.")
        return found

    held = is_held(path)
    return Records(
        path,
        attempt(folder.run, None, f"The settings in {CONFIG_FILE} cannot be read: "),
        rows(folder.metrics),
        rows(folder.events),
        attempt(folder.result, None),
        attempt(folder.metadata, {}),
        held,
        problems,
    )


def stamp(path: Path) -> tuple[Any, ...]:
    """Return what changes when a run has something new to show."""
    found: list[Any] = [is_held(path)]
    for name in WATCHED:
        with contextlib.suppress(OSError):
            status = (path / name).stat()
            found.append((name, status.st_mtime_ns, status.st_size, status.st_ino))
    return tuple(found)
