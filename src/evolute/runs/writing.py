"""What a run writes as it goes: rows, events, the best policy, checkpoints; and how long that takes."""

import time
from collections.abc import Callable
from typing import Any

from evolute.runs import rows
from evolute.runs.folder import RunFolder
from evolute.state import PHASES, State


def write(state: State, folder: RunFolder | None, metrics: list[dict[str, Any]], events: list[dict[str, Any]]) -> None:
    """Write rows of metrics, events and the best policy."""
    began = time.perf_counter()
    state.lineage += [event for event in events if event["event"] == "exploit"]
    if folder is not None:
        folder.append_events(events)
        if state.best is not None:
            folder.write_best(state.best.policy, rows.describe(state.best))
        state.seconds["record"] += time.perf_counter() - began
        folder.append_metrics([{**row, "seconds": state.seconds} for row in metrics])
    state.seconds = dict.fromkeys(PHASES, 0.0)


def save(state: State, folder: RunFolder, write: Callable[[], Any]) -> None:
    """Write a part of a checkpoint. What comes after the rows of metrics counts towards the next interval's."""
    began = time.perf_counter()
    folder.check_still_there()
    write()
    state.seconds["checkpoint"] += time.perf_counter() - began
