"""Cells of an experiment to their end, as many at a time as there are seats, wherever those are; a lost one begins elsewhere."""

import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from evolute import interruption
from evolute.errors import RunStopped, UserError
from evolute.experiments.cell import train_cell
from evolute.experiments.grid import Cell
from evolute.training.serving import take_cores

# Seconds between two looks at signals.
PERIOD = 0.2
# Processes that may be lost with one cell: each goes on from the run's last checkpoint.
MOST_LOSSES = 3


class Told(NamedTuple):
    """What is known of a cell: its steps, a note, that its process is lost, its record where it is done, or why it failed."""

    cell: Cell
    kind: str
    value: Any


class Seats(Protocol):
    """Where cells train. A seat is whatever these functions make of it."""

    def take(self, cell: Cell) -> Any:
        """Let a cell begin and return its seat; None where none is free."""
        ...

    def heard(self, seats: Sequence[Any]) -> list[tuple[Any, str, Any]]:
        """Return what seats say within PERIOD, as (seat, kind, value) of `Told`; a lost one says in words how it ended."""
        ...

    def leave(self, seat: Any) -> None:
        """End what trains on a seat, for certain."""
        ...


@dataclass
class Job:
    """A cell, and where it trains."""

    cell: Cell
    seat: Any = None
    # Processes that were lost with it.
    losses: int = 0


def train_all(cells: Sequence[Cell], seats: Seats, tell: Callable[[Told], None]) -> list[Cell]:
    """Bring cells to their end; return those that failed.

    Args:
        cells: in the order in which they begin.
        seats: where they train.
        tell: is told of steps, of what a run tells, of an end (with the record) and of a failure (with a sentence).

    Raises:
        Interrupted: a signal came. Every run can be resumed.
    """
    waiting, running, failed = [Job(cell) for cell in reversed(cells)], [], []
    try:
        while waiting or running:
            while waiting and (seat := seats.take(waiting[-1].cell)) is not None:
                running.append(waiting.pop())
                running[-1].seat = seat
            said = seats.heard([job.seat for job in running])
            interruption.check()
            for seat, kind, value in said:
                job = next(job for job in running if job.seat is seat)
                if kind == "lost":
                    kind, value = after_loss(job, value)
                tell(Told(job.cell, kind, value))
                if kind in ("steps", "note"):
                    continue
                running.remove(job)
                seats.leave(seat)
                if kind == "lost":
                    waiting.append(job)
                if kind == "failed":
                    failed.append(job.cell)
    finally:
        for job in running:
            seats.leave(job.seat)
    return failed


def after_loss(job: Job, how: str) -> tuple[str, Any]:
    """Return what becomes of a job whose process is lost."""
    job.losses += 1
    if job.losses > MOST_LOSSES:
        return "failed", f"its process {how}, {job.losses} times; if memory is short, choose fewer jobs."
    return "lost", f"its process {how}; a new one goes on from the last checkpoint."


class Kept(NamedTuple):
    """Where runs are kept."""

    out: Path  # the folder of runs and records
    keep: bool  # whether replay and checkpoints of a run stay once it has ended
    storage: str | None = None  # the URL of a copy, if there is one


def trained(
    cell: Cell, kept: Kept, cores: Sequence[int], tell: Callable[[int], None], note: Callable[[str], None]
) -> tuple[str, Any]:
    """Train a cell in a process that is for it alone, and return how that ended: "done" and its record, or "failed" and why.

    Args:
        cell: what.
        kept: where.
        cores: on which; empty for all.
        tell: is told of steps.
        note: is told what the run tells.
    """
    try:
        take_cores(len(cell.run.kinds), cores)
        record = train_cell(cell.run, cell.evaluation_steps, kept.out, cell.workers, kept.keep, tell, note, kept.storage)
        return "done", record
    except (UserError, RunStopped) as error:
        return "failed", str(error)
    except MemoryError:
        return "failed", "there is not enough memory; choose fewer jobs."
    except Exception:
        return "failed", f"an error that nobody foresaw:\n{traceback.format_exc()}"
