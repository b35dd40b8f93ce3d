"""Seats for cells in processes of this machine, each on its share of the cores."""

import time
from collections.abc import Sequence
from multiprocessing import connection
from multiprocessing.connection import Connection
from typing import Any, NamedTuple

from evolute import children
from evolute.experiments.grid import Cell
from evolute.experiments.jobs import PERIOD, Kept, trained
from evolute.training.processes import shares, told_of_jax
from evolute.training.serving import settle


class Seat(NamedTuple):
    """A process that trains a cell."""

    child: children.Child
    place: int  # among the shares of the cores


class Processes:
    """Processes of this machine. The contract is jobs.Seats."""

    def __init__(self, kept: Kept, jobs: int):
        """Start nothing yet.

        Args:
            kept: where runs are.
            jobs: how many at a time.
        """
        self._kept, self._settings = kept, told_of_jax()
        self._cores, self._free = shares(jobs), list(range(jobs))

    def take(self, cell: Cell) -> Seat | None:
        """Let a cell begin."""
        if not self._free:
            return None
        place = self._free.pop(0)
        arguments = (cell, self._kept, self._cores[place], self._settings)
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


def serve(pipe: Connection, cell: Cell, kept: Kept, cores: Sequence[int], settings: dict[str, Any]) -> None:
    """Train a cell for the process at the other end of the pipe."""
    settle(settings)
    told = 0.0

    def tell(steps: int) -> None:
        nonlocal told
        if time.monotonic() - told > 1.0:
            told = time.monotonic()
            pipe.send(("steps", steps))

    pipe.send(trained(cell, kept, cores, tell, lambda sentence: pipe.send(("note", sentence))))
