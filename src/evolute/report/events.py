"""What went wrong in a run and what else happened, in words, from rows that may hold anything. Imports no JAX."""

import contextlib
from collections.abc import Iterable
from typing import Any

from evolute.errors import LONGEST_FAULT, printable
from evolute.report.live import event_line

# The newest events that a table lists: nobody scrolls further.
LISTED = 500
# What counts as a numerical event that was contained.
CONTAINED = ("contained_statistics", "contained_inverses", "contained_steps", "contained_losses")


def amount(value: Any) -> float:
    """Return a number that is above 0, else 0: rows hold whatever a version recorded."""
    return float(value) if type(value) in (int, float) and 0 < value < 2**63 else 0.0


def text(value: Any) -> str:
    """Return a text for people, printable and not too long."""
    return printable(" ".join(str(value).split()), LONGEST_FAULT)


def in_words(event: dict[str, Any]) -> str:
    """Return an event in one sentence, also one that this version does not know."""
    name = event["event"]
    if name == "nobody_left":
        return "every member is in quarantine, so nobody was left to copy and the run stopped"
    if name in ("exploit", "quarantine", "absent", "dead_units", "environment_fault", "schedule"):
        with contextlib.suppress(KeyError, TypeError, ValueError):
            return text(event_line(event))
    return text(event.get("message", name))


def listed(events: list[dict[str, Any]]) -> list[list[Any]]:
    """Return [steps, name, words] of the newest events but exploits, newest first; steps may be null."""
    others = [event for event in events if event["event"] != "exploit"]
    return [[_steps(event), text(event["event"]), in_words(event)] for event in reversed(others[-LISTED:])]


def _steps(event: dict[str, Any]) -> int | None:
    steps = event.get("steps")
    return steps if type(steps) is int and 0 <= steps < 2**53 else None


def troubles(rows: Iterable[dict[str, Any]], at: dict[int, int]) -> list[dict[str, Any]]:
    """Return the members' troubles on the time axis.

    Args:
        rows: of metrics.
        at: the place of an interval on the time axis, by its number.
    """
    found = []
    for row in rows:
        where = {"at": at[row["interval"]], "member": row["member"]}
        contained = [(name.removeprefix("contained_"), amount(row.get(name))) for name in CONTAINED]
        if total := sum(count for _, count in contained):
            words = ", ".join(f"{name} {count:,.0f}" for name, count in contained if count)
            found.append({**where, "what": "contained", "count": total, "text": f"contained: {words}"})
        if count := amount(row.get("environment_faults")):
            found.append({**where, "what": "fault", "count": count, "text": f"failures of the environment: {count:,.0f}"})
        if row.get("quarantined"):
            found.append({**where, "what": "quarantine", "count": 1.0, "text": f"quarantine: {text(row['quarantined'])}"})
    return found


def dead_units(events: Iterable[dict[str, Any]], place: Any) -> list[dict[str, Any]]:
    """Return the warnings of dead units on the time axis; `place` says where on it an event is, or None."""
    return [
        {"at": at, "member": event["member"], "what": "dead", "count": 1.0, "text": in_words(event)}
        for event in events
        if event["event"] == "dead_units" and (at := place(event)) is not None
    ]
