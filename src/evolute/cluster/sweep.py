"""Seats for cells on the machines of a cluster: each cell is a process of Ray's, with stated cores, memory and share of a GPU."""

import contextlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import ray  # pyright: ignore[reportMissingImports]
import ray.exceptions  # pyright: ignore[reportMissingImports]

from evolute.cluster import actor
from evolute.cluster.actor import Told, Where
from evolute.cluster.machines import Machines
from evolute.environments.gym import Environment
from evolute.environments.making import making_of
from evolute.errors import UserError
from evolute.experiments.grid import Cell
from evolute.experiments.jobs import PERIOD, Kept
from evolute.training import needs
from evolute.training.processes import told_of_jax

# Seconds between two looks at how much room the cluster has.
ROOM_PERIOD = 2.0
# Seconds between two questions of how far a cell is.
NEWS_PERIOD = 1.0


class Share(NamedTuple):
    """What each cell is given."""

    cores: int
    gpus: float
    jobs: int | None  # most at a time; None for as many as the cluster has room for


@dataclass(eq=False)
class Seat:
    """A process on the cluster that trains a cell, or waits for a machine that can."""

    cell: Cell
    process: Any
    pending: Any
    # Of the file that its machine is to see.
    file: contextlib.ExitStack
    where: Where | None = None
    cores: list[int] = field(default_factory=list)
    news: Any = None
    asked: float = 0.0


class Actors:
    """Processes of a cluster. The contract is jobs.Seats."""

    def __init__(self, kept: Kept, share: Share, note: Callable[[str], None]):
        """Start nothing yet.

        Args:
            kept: where runs are; all machines see the folder, unless there is a copy from which each fetches what it needs.
            share: what each cell is given.
            note: is told of machines that compute otherwise than this one.
        """
        self._kept, self._share = kept, share
        self._machines, self._settings = Machines(None if kept.storage else kept.out, note), told_of_jax()
        self._taken, self._room, self._looked = 0, 0, -ROOM_PERIOD
        self._memory: dict[tuple[str, int], int] = {}
        nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        if not any(node.get("CPU", 0) >= share.cores and node.get("GPU", 0) >= share.gpus for node in nodes):
            raise UserError(
                f"each run is to have {share.cores} cores and {share.gpus:g} GPUs, and no machine of the cluster has as many; "
                "choose fewer with --cores and --gpus."
            )

    def take(self, cell: Cell) -> Seat | None:
        """Let a cell begin: as many as there is room for, so that what is left over goes to machines that come later."""
        if time.monotonic() - self._looked > ROOM_PERIOD:
            self._looked, there = time.monotonic(), ray.cluster_resources()
            by_cores = int(there.get("CPU", 0)) // self._share.cores
            by_gpus = int(there.get("GPU", 0) / self._share.gpus) if self._share.gpus else by_cores
            self._room = min(by_cores, by_gpus, self._share.jobs or by_cores)
        if self._taken >= self._room:
            return None
        self._taken += 1
        process = actor.new(num_cpus=self._share.cores, num_gpus=self._share.gpus, memory=self._needs(cell))
        file = contextlib.ExitStack()
        return Seat(cell, process, process.where.remote(file.enter_context(self._machines.seen())), file)

    def heard(self, seats: Sequence[Seat]) -> list[tuple[Seat, str, Any]]:
        """Return what processes say, or that they are lost."""
        if not seats:
            time.sleep(PERIOD)
            return []
        ray.wait([seat.pending for seat in seats], timeout=PERIOD)
        ready, _ = ray.wait([seat.pending for seat in seats], num_returns=len(seats), timeout=0)
        found = [said for seat in seats if seat.where is not None for said in self._news(seat)]
        for seat in [seat for seat in seats if seat.pending in ready]:
            try:
                answer = ray.get(seat.pending)
            except ray.exceptions.RayError:
                found.append((seat, "lost", f"on {seat.where.machine!r} was lost" if seat.where else "was lost"))
                continue
            if seat.where is None:
                self._begin(seat, *answer)
            else:
                found.append((seat, *answer))
        return found

    def leave(self, seat: Seat) -> None:
        """End a process."""
        ray.kill(seat.process)
        seat.file.close()
        self._taken -= 1
        if seat.where is not None:
            self._machines.leave(seat.where, seat.cores)

    def _begin(self, seat: Seat, where: Where, sees: bool) -> None:
        seat.file.close()
        seat.cores = self._machines.admit(where, sees, self._share.cores)
        seat.where = where
        seat.pending = seat.process.cell.remote(self._settings, seat.cell, self._kept, seat.cores)

    def _news(self, seat: Seat) -> list[tuple[Seat, str, Any]]:
        """Return what a cell has said since the last time, and ask again now and then."""
        if seat.news is None:
            if time.monotonic() - seat.asked > NEWS_PERIOD:
                seat.asked = time.monotonic()
                seat.news = seat.process.told.remote()
            return []
        if not ray.wait([seat.news], timeout=0)[0]:
            return []
        news, seat.news = seat.news, None
        try:
            told: Told = ray.get(news)
        except ray.exceptions.RayError:
            # The cell's own answer tells that it is lost.
            return []
        steps = [(seat, "steps", told.steps)] if told.steps else []
        return [*steps, *((seat, "note", sentence) for sentence in told.said)]

    def _needs(self, cell: Cell) -> int:
        """Return the bytes of memory that a cell takes."""
        key = (repr(cell.run), cell.workers)
        if key not in self._memory:
            probe = Environment(cell.run.env, cell.run.time_limit, making_of(cell.run))
            probe.close()
            self._memory[key] = needs.needs(cell.run, 1, probe.shape, cell.workers).memory
        return self._memory[key]
