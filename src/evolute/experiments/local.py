"""Cells of an experiment in processes of this machine, as many at a time as there are cores."""

import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing import connection
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NamedTuple

from evolute import children, interruption
from evolute.errors import RunStopped, UserError
from evolute.experiments.cell import train_cell
from evolute.experiments.grid import Cell
from evolute.training import placement
from evolute.training.processes import shares, told_of_jax
from evolute.training.serving import pin, settle

# Seconds between two looks at signals.
PERIOD = 0.2
# Processes that may be lost with one cell: each goes on from the run's last checkpoint.
MOST_LOSSES = 3


@dataclass
class Job:
    """A cell, and the process that has it."""

    cell: Cell
    child: Any = None
    # Among the shares of the cores.
    place: int = 0
    # Processes that were lost with it.
    losses: int = 0


class Told(NamedTuple):
    """What is known of a cell: its steps, a note, that its process is lost, its record where it is done, or why it failed."""

    cell: Cell
    kind: str
    value: Any


def train_all(cells: Sequence[Cell], out: Path, jobs: int, keep: bool, tell: Callable[[Told], None]) -> list[Cell]:
    """Bring cells to their end, some at a time, each in a process with its share of the cores; return those that failed.

    Args:
        cells: in the order in which they begin.
        out: the folder of their runs and records.
        jobs: how many at a time.
        keep: whether replay and checkpoints of runs that have ended stay.
        tell: is told of steps, of what a run tells, of an end (with the record) and of a failure (with a sentence).

    Raises:
        Interrupted: a signal came. Every run can be resumed.
    """
    waiting, failed = [Job(cell) for cell in reversed(cells)], []
    free, running, cores = list(range(jobs)), [], shares(jobs)
    settings = told_of_jax()
    try:
        while waiting or running:
            while waiting and free:
                job = waiting.pop()
                job.place = free.pop(0)
                arguments = (job.cell, out, cores[job.place], keep, settings)
                job.child = children.Child(serve, arguments, "evolute-cell", childless=False)
                running.append(job)
            ready = connection.wait([job.child.pipe for job in running], PERIOD)
            interruption.check()
            for job in [job for job in running if job.child.pipe in ready]:
                kind, value = heard(job)
                tell(Told(job.cell, kind, value))
                if kind in ("steps", "note"):
                    continue
                running.remove(job)
                free.append(job.place)
                job.child.end()
                if kind == "lost":
                    waiting.append(job)
                if kind == "failed":
                    failed.append(job.cell)
    finally:
        for job in running:
            job.child.end()
    return failed


def heard(job: Job) -> tuple[str, Any]:
    """Return what a job's process says, or that it is lost."""
    try:
        return job.child.pipe.recv()
    except (EOFError, OSError):
        how = job.child.ending()
    job.losses += 1
    if job.losses > MOST_LOSSES:
        return "failed", f"its process {how}, {job.losses} times; if memory is short, choose fewer jobs."
    return "lost", f"its process {how}; a new one goes on from the last checkpoint."


def serve(pipe: Connection, cell: Cell, out: Path, cores: Sequence[int], keep: bool, settings: dict[str, Any]) -> None:
    """Train a cell for the process at the other end of the pipe."""
    settle(settings)
    told = 0.0

    def tell(steps: int) -> None:
        nonlocal told
        if time.monotonic() - told > 1.0:
            told = time.monotonic()
            pipe.send(("steps", steps))

    try:
        placement.use_all_cores(len(cell.run.kinds))
        pin(cores)
        record = train_cell(
            cell.run, cell.evaluation_steps, out, cell.workers, keep, tell, lambda sentence: pipe.send(("note", sentence))
        )
        answer = ("done", record)
    except (UserError, RunStopped) as error:
        answer = ("failed", str(error))
    except MemoryError:
        answer = ("failed", "there is not enough memory; choose fewer jobs.")
    except Exception:
        answer = ("failed", f"an error that nobody foresaw:\n{traceback.format_exc()}")
    pipe.send(answer)
