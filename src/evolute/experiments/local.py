"""Seats for cells in processes of this machine, each on its share of the cores."""

import time
from collections.abc import Sequence
from multiprocessing import connection
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NamedTuple

from evolute import children
from evolute.experiments.grid import Cell
from evolute.experiments.jobs import PERIOD, trained
from evolute.training.processes import shares, told_of_jax
from evolute.training.serving import settle


class Seat(NamedTuple):
    """A process that trains a cell."""

    child: children.Child
    place: int  # among the shares of the cores


class Processes:
    """Processes of this machine. The contract is jobs.Seats."""

    def __init__(self, out: Path, jobs: int, keep: bool):
        """Start nothing yet.

        Args:
            out: the folder of runs and records.
            jobs: how many at a time.
            keep: whether replay and checkpoints of runs that have ended stay.
        """
        self._out, self._keep, self._settings = out, keep, told_of_jax()
        self._cores, self._free = shares(jobs), list(range(jobs))

    def take(self, cell: Cell) -> Seat | None:
        """Let a cell begin."""
        if not self._free:
            return None
        place = self._free.pop(0)
        arguments = (cell, self._out, self._cores[place], self._keep, self._settings)
        return Seat(children.Child(serve, arguments, "evolute-cell", childless=False), place)

    def heard(self, seats: Sequence[Seat]) -> list[tuple[Seat, str, Any]]:
        """Return what processes say, or that they are lost."""
        ready = connection.wait([seat.child.pipe for seat in seats], PERIOD)
        found = []
        for seat in [seat for seat in seats if seat.child.pipe in ready]:
            try:
                found.append((seat, *seat.child.pipe.recv()))
            except (EOFError, OSError):
                found.append((seat, "lost", seat.child.ending()))
        return found

    def leave(self, seat: Seat) -> None:
        """End a process."""
        seat.child.end()
        self._free.append(seat.place)


def serve(pipe: Connection, cell: Cell, out: Path, cores: Sequence[int], keep: bool, settings: dict[str, Any]) -> None:
    """Train a cell for the process at the other end of the pipe."""
    settle(settings)
    told = 0.0

    def tell(steps: int) -> None:
        nonlocal told
        if time.monotonic() - told > 1.0:
            told = time.monotonic()
            pipe.send(("steps", steps))

    pipe.send(trained(cell, out, cores, keep, tell, lambda sentence: pipe.send(("note", sentence))))
