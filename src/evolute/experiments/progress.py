"""What people see while an experiment trains: a line for each run that ends, how many are left, and how long they will take."""

import time
from collections.abc import Sequence

from rich.progress import BarColumn, Progress, TaskID, TextColumn

from evolute.errors import printable
from evolute.experiments.grid import Cell
from evolute.experiments.jobs import Told
from evolute.report.tables import console, duration, number

# Seconds between two lines of where it stands, where the output is no terminal.
PERIOD = 60.0


class Shown:
    """Shows cells that train; is told of them."""

    def __init__(self, cells: Sequence[Cell], quiet: bool):
        self._quiet, self._screen = quiet, console()
        self._live = self._screen.is_terminal and not quiet
        # Environment steps of all members: what a cell takes, and what is done of it, by place in `cells`.
        self._place = {id(cell): place for place, cell in enumerate(cells)}
        self._work = [cell.run.steps * len(cell.run.kinds) for cell in cells]
        self._done, self._first = [0.0] * len(cells), [0.0] * len(cells)
        self._ended, self._began, self._said = 0, time.monotonic(), time.monotonic()
        columns = TextColumn("{task.description}", markup=False), BarColumn(), TextColumn("{task.fields[left]}")
        self._bar = Progress(*columns, console=self._screen, transient=True)
        self._task = self._bar.add_task("", total=sum(self._work), left="")
        # A line for each cell that trains, by place.
        self._lines: dict[int, TaskID] = {}

    def __enter__(self) -> "Shown":
        if self._live:
            self._bar.start()
        return self

    def __exit__(self, *exception: object) -> None:
        if self._live:
            self._bar.stop()

    def __call__(self, told: Told) -> None:
        """Take in what is known of a cell."""
        place, cell = self._place[id(told.cell)], told.cell
        name = f"{cell.env} {cell.arm} seed {cell.run.seed}"
        if told.kind == "steps":
            done = told.value * len(cell.run.kinds)
            # A run that was resumed had steps before.
            self._first[place] = self._first[place] or done
            self._done[place] = done
            if place not in self._lines:
                self._lines[place] = self._bar.add_task(printable(name), total=self._work[place], left="")
            self._bar.update(self._lines[place], completed=done, left=f"{told.value:,} of {cell.run.steps:,} steps")
        elif told.kind == "done":
            self._done[place] = self._work[place]
            self._ended += 1
            final, spent = told.value["final"], told.value["curve"]["processor_seconds"][-1]
            after = "" if spent is None else f", {duration(spent)} of a core"
            said = f"return {number(final['mean'])} over {final['episodes']} held-out episodes"
            if told.value["stopped"] is not None:
                said = f"failed, every member had diverged after {told.value['stopped']:,} steps"
            self._say(f"{name}: {said}{after}; {self.left}")
        else:
            self._say(f"{name}: {'note: ' if told.kind == 'note' else ''}{told.value}")
        if told.kind not in ("steps", "note") and place in self._lines:
            self._bar.remove_task(self._lines.pop(place))
        runs = f"{self._ended} of {len(self._work)} runs"
        if self._live:
            self._bar.update(self._task, completed=sum(self._done), description=runs, left=self.left)
        elif time.monotonic() - self._said > PERIOD:
            self._say(f"{runs}, {sum(self._done) / sum(self._work):.1%} of all steps; {self.left}")

    @property
    def left(self) -> str:
        """How long the rest will take, if it goes on as it went."""
        gone = sum(self._done) - sum(self._first)
        if gone <= 0:
            return "time left unknown"
        rest = (sum(self._work) - sum(self._done)) * (time.monotonic() - self._began) / gone
        return f"about {duration(rest)} left"

    def _say(self, line: str) -> None:
        self._said = time.monotonic()
        if not self._quiet:
            self._screen.print(printable(line), soft_wrap=True, markup=False, highlight=False)
