"""What a run writes as it goes: rows, events, the best policy, checkpoints; and how long that takes."""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from evolute.runs import checkpoint, rows
from evolute.runs.folder import RunFolder
from evolute.state import PHASES, State
from evolute.training.worker import Worker, all_of, shared


def write(state: State, folder: RunFolder | None, metrics: list[dict[str, Any]], events: list[dict[str, Any]]) -> None:
    """Write rows of metrics, which get the seconds of the interval's phases, events, and the best policy."""
    began = time.perf_counter()
    state.lineage += [event for event in events if event["event"] == "exploit"]
    if folder is not None:
        folder.append_events(events)
        if state.best is not None:
            folder.write_best(state.best.policy, rows.describe(state.best))
        state.seconds["record"] += time.perf_counter() - began
    for row in metrics:
        row["seconds"] = state.seconds
    if folder is not None:
        folder.append_metrics(metrics)
    state.seconds = dict.fromkeys(PHASES, 0.0)


def save_replay(state: State, folder: RunFolder, crew: Sequence[Worker]) -> None:
    """Write the members' new transitions: before an evolution, so that copies share them."""
    with _counted(state, folder):
        all_of([one.save_replay(folder.path, lanes, state.interval) for one, lanes in shared(crew, state.lanes)])


def save_checkpoint(state: State, folder: RunFolder, crew: Sequence[Worker]) -> None:
    """Write a checkpoint of an interval's end, after `save_replay`."""
    with _counted(state, folder):
        parts = all_of([one.save(folder.path, lanes, state.interval) for one, lanes in shared(crew, state.lanes)])
        saved = {lane: described for part in parts for lane, described in part.items()}
        checkpoint.save(folder.path, state, saved, folder.carried(state.run))


@contextmanager
def _counted(state: State, folder: RunFolder) -> Iterator[None]:
    """Count the seconds of a checkpoint's part. What comes after the rows of metrics counts towards the next interval's."""
    began = time.perf_counter()
    folder.check_still_there()
    yield
    state.seconds["checkpoint"] += time.perf_counter() - began
