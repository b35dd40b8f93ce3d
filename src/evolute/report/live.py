"""What a person sees while a run trains: a live table on a terminal, plain lines elsewhere, and signs of life in both."""

import contextlib
import logging
import math
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from evolute.errors import printable
from evolute.report.tables import RATE_COLUMNS, duration, fitted, number, plain, rates
from evolute.streams import complain

if TYPE_CHECKING:
    from evolute.state import Progress, State

# Seconds without a line after which one comes that says what is done; each time longer, up to the last.
PAUSES = (5.0, 10.0, 20.0, 40.0, 60.0)
# Seconds without progress that need no explanation.
SHORT = 1.0
# Lines of a terminal that the live table's head, foot and edges take.
SURROUNDINGS = 8


class Doing(logging.Handler):
    """Remembers what the program said last that it is about to do, and since when nothing has come of it."""

    def __init__(self) -> None:
        super().__init__(logging.INFO)
        self.done()
        self.what = "starting"

    def emit(self, record: logging.LogRecord) -> None:
        """Remember a message."""
        self.what = record.getMessage()

    def done(self) -> None:
        """Forget it: there is progress."""
        self.what, self.since = "", time.monotonic()

    def __str__(self) -> str:
        """Return what takes long, or nothing where nothing does."""
        waited = time.monotonic() - self.since
        return f"{printable(self.what or 'waiting for the environments')} ({duration(waited)})" if waited > SHORT else ""


@contextlib.contextmanager
def listening() -> Iterator[Doing]:
    """Hear what the program is about to do."""
    log, doing = logging.getLogger("evolute"), Doing()
    before = log.level, log.propagate
    log.addHandler(doing)
    log.setLevel(logging.INFO)
    log.propagate = False
    try:
        yield doing
    finally:
        log.removeHandler(doing)
        log.setLevel(before[0])
        log.propagate = before[1]


class SignsOfLife:
    """Says something whenever nothing was said for long, from a thread: the program may be compiling for minutes."""

    def __init__(self, say: Callable[[], None]):
        self._say = say
        self._told = threading.Event()
        self._ended = False
        self._thread = threading.Thread(target=self._watch, name="signs of life", daemon=True)

    def __enter__(self) -> "SignsOfLife":
        """Begin."""
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        """End."""
        self._ended = True
        self._told.set()
        self._thread.join()

    def told(self) -> None:
        """Take note that something was said."""
        self._told.set()

    def _watch(self) -> None:
        silences = 0
        while not self._ended:
            if self._told.wait(PAUSES[min(silences, len(PAUSES) - 1)]):
                self._told.clear()
            else:
                self._say()
                silences += 1


@contextlib.contextmanager
def signs_on_error(doing: Doing) -> Iterator[None]:
    """Say on standard error what is done where that takes long."""
    with SignsOfLife(lambda: complain(str(doing))):
        yield


class LiveTable:
    """An observer that redraws the population in place; of several populations a line each."""

    def __init__(self, console: Console, doing: Doing):
        self._console, self._doing = console, doing
        # Drawn in the thread that trains, and shown by another one.
        self._table: Table | None = None
        self._progress: Progress | None = None
        # By seed and slot.
        self._fitness: dict[tuple[int, int], float] = {}
        self._changes: dict[tuple[int, int], float] = {}
        self._contained: dict[tuple[int, int], float] = {}
        self._quarantined: set[tuple[int, int]] = set()
        self._states: dict[int, State] = {}
        # What is for standard error must not end up in standard output where that alone is a terminal.
        self._live = Live(
            console=console,
            refresh_per_second=4,
            transient=True,
            get_renderable=self._screen,
            redirect_stderr=sys.stderr.isatty(),
        )

    def __enter__(self) -> "LiveTable":
        """Take over the terminal's last lines."""
        self._live.start()
        return self

    def __exit__(self, *exception: object) -> None:
        """Give them back."""
        self._live.stop()

    def say(self, line: str) -> None:
        """Print a line above the table."""
        self._console.print(line, soft_wrap=True, markup=False)

    def __call__(self, progress: "Progress") -> None:
        """Draw the population as it stands."""
        self._doing.done()
        seed = progress.state.run.seed
        self._states[seed] = progress.state
        for row in progress.rows:
            key = (seed, row["member"])
            self._changes[key] = row["fitness"] - self._fitness.get(key, math.nan)
            self._fitness[key] = row["fitness"]
            self._contained[key] = self._contained.get(key, 0.0) + contained(row) + row["environment_faults"]
            (self._quarantined.add if row["quarantined"] else self._quarantined.discard)(key)
        state = progress.state
        title = f"{state.run.env}, interval {min(state.interval + 1, state.intervals)} of {state.intervals}"
        self._table = self._members(title, state) if progress.populations == 1 else self._populations(title)
        self._progress = progress
        self._live.refresh()

    def _screen(self) -> RenderableType:
        foot = Table.grid()
        if self._progress is not None:
            run, done = self._progress.state.run, self._progress.steps
            foot.add_row(ProgressBar(total=run.steps, completed=done, width=min(60, self._console.width)))
            foot.add_row(_one_line(status(self._progress, short=True)))
        foot.add_row(_one_line(str(self._doing) or standing(list(self._states.values()))))
        return foot if self._table is None else Group(self._table, foot)

    def _room(self) -> int:
        return max(1, self._console.height - SURROUNDINGS)

    def _members(self, title: str, state: "State") -> Table:
        columns = ("member", "kind", "fitness", "change", *RATE_COLUMNS, "parent", "events")
        best = max((f for f in self._fitness.values() if math.isfinite(f)), default=None)
        quarantined, rows = Text("quarantined", style="bold red"), []
        for member in self._best_members(state):
            key = (state.run.seed, member.slot)
            fitness, change = self._fitness.get(key), self._changes.get(key, math.nan)
            shown = Text(number(fitness), style="bold green" if fitness is not None and fitness == best else "")
            cells = (
                str(member.slot),
                plain(member.kind),
                Text("absent", style="bold red") if member.absent else quarantined if key in self._quarantined else shown,
                Text(f"{change:+,.0f}" if math.isfinite(change) else "-", style="green" if change > 0 else "dim"),
                *rates(member.hyperparameters._asdict()),
                "-" if member.parent is None else str(member.parent),
                f"{self._contained.get(key, 0.0):.0f}",
            )
            rows.append(cells)
        return self._fitted(_with_more(title, len(state.members) - len(rows)), columns, rows)

    def _fitted(self, title: str, columns: Sequence[str], rows: Sequence[Sequence[str | Text]]) -> Table:
        table = fitted(title, columns, rows, self._console.width)
        # Two lines more for members.
        table.show_edge = False
        return table

    def _best_members(self, state: "State") -> list[Any]:
        """Return as many members as there is room for, the best of them, in the order of their slots."""

        def rank(member: Any) -> float:
            fitness = self._fitness.get((state.run.seed, member.slot), math.nan)
            return -fitness if math.isfinite(fitness) else math.inf

        return sorted(sorted(state.members, key=rank)[: self._room()], key=lambda member: member.slot)

    def _populations(self, title: str) -> Table:
        columns = ("seed", "best", "kind", "fitness", "median", "copied", "quarantined", "best ever")
        rows = []
        for seed, state in list(self._states.items())[: self._room()]:
            ranked = sorted(
                ((self._fitness.get((seed, m.slot), math.nan), m.slot) for m in state.members),
                key=lambda pair: -pair[0] if math.isfinite(pair[0]) else math.inf,
            )
            fitness, slot = ranked[0]
            cells = (
                str(seed),
                str(slot) if math.isfinite(fitness) else "-",
                plain(state.members[slot].kind) if math.isfinite(fitness) else "-",
                number(fitness),
                number(ranked[len(ranked) // 2][0]),
                str(len(state.lineage)),
                str(sum(key[0] == seed for key in self._quarantined)),
                number(state.best.fitness if state.best else None),
            )
            rows.append(cells)
        return self._fitted(_with_more(title, len(self._states) - len(rows)), columns, rows)


def _one_line(text: str) -> Text:
    return Text(text, style="dim", no_wrap=True, overflow="ellipsis")


def _with_more(title: str, more: int) -> str:
    return f"{title}; … {more} more" if more else title


class PlainLines:
    """An observer that prints one line per member and interval, for logs, and what is done where that takes long."""

    def __init__(self, console: Console, doing: Doing):
        self._console, self._doing = console, doing
        self._progress: Progress | None = None
        # Characters that values have taken so far, by name, so that what stands below each other is lined up.
        self._widths: dict[str, int] = {}
        self._life = SignsOfLife(self._sign)

    def __enter__(self) -> "PlainLines":
        """Begin to give signs of life."""
        self._life.__enter__()
        return self

    def __exit__(self, *exception: object) -> None:
        """End that."""
        self._life.__exit__()

    def say(self, line: str) -> None:
        """Print a line."""
        self._life.told()
        self._print(line)

    def _sign(self) -> None:
        parts = status(self._progress) if self._progress else "", str(self._doing)
        self._print("; ".join(part for part in parts if part))

    def __call__(self, progress: "Progress") -> None:
        """Print what an interval brought."""
        self._doing.done()
        self._progress = progress
        if not progress.rows and not progress.events:
            return
        self._life.told()
        whose = f"seed={progress.state.run.seed} " if progress.populations > 1 else ""
        lines = []
        for row in progress.rows:
            batch, learning_rate, damping = rates(row["hyperparameters"])
            values = {"steps": row["steps"], "member": row["member"], "kind": row["kind"], "fitness": number(row["fitness"])}
            values |= {"batch": batch, "learning_rate": learning_rate, "damping": damping}
            lines.append(values | {"contained": f"{contained(row):.0f}", "environment_faults": row["environment_faults"]})
        self._widths["steps"] = len(str(progress.state.run.steps))
        for name, value in (pair for values in lines for pair in values.items()):
            self._widths[name] = max(self._widths.get(name, 0), len(str(value)))
        for values in lines:
            pairs = (f"{name}={value!s:{self._widths[name]}}" for name, value in values.items())
            self._print(whose + " ".join(pairs).rstrip())
        for event in progress.events:
            # A caution is printed by whoever is told of it.
            if event["event"] != "caution":
                self._print(f"{whose}steps={event['steps']} {event_line(event)}")
        self._print(whose + status(progress))

    def _print(self, line: str) -> None:
        # What an environment says of its failure is in it, too.
        self._console.print(printable(line), markup=False, highlight=False, soft_wrap=True)


def contained(row: dict[str, Any]) -> float:
    """Return how many numerical events of a metrics row were contained."""
    return row["contained_statistics"] + row["contained_inverses"] + row["contained_steps"]


def status(progress: "Progress", short: bool = False) -> str:
    """Return steps, rate and time left; `short` is less than 80 characters, without the population's steps."""
    total = population_steps(progress)
    rate = total / progress.elapsed if progress.elapsed else 0.0
    done = f"{rate:,.0f} per second in all" if short else f"population {total:,}, {rate:,.0f} per second"
    return (
        f"{progress.steps:,} of {progress.state.run.steps:,} steps; {done}; "
        f"{duration(progress.elapsed)} elapsed, {time_left(progress)} left"
    )


def seconds_left(progress: "Progress") -> float:
    """Return how long the run will still take, if it goes on as so far; NaN where that is unknown."""
    return progress.elapsed * (progress.state.run.steps - progress.steps) / progress.steps if progress.steps else math.nan


def time_left(progress: "Progress") -> str:
    """Return the same for people."""
    left = seconds_left(progress)
    return duration(left) if math.isfinite(left) else "unknown"


def standing(states: "list[State]") -> str:
    """Return the best fitness so far and the newest exploit, of one population or several side by side."""
    found = [(state.best, state) for state in states if state.best is not None]
    exploits = [(state.lineage[-1], state) for state in states if state.lineage]
    said = []
    if found:
        best, state = max(found, key=lambda pair: pair[0].fitness)
        said.append(f"best so far {number(best.fitness)}, member {best.slot}{_of_seed(state, states)}")
    if exploits:
        last, state = max(exploits, key=lambda pair: pair[0]["steps"])
        who = f"{last['member']} copied {last['parent']}{_of_seed(state, states)}"
        said.append(f"last exploit: {who} at {last['steps']:,} steps")
    return "; ".join(said)


def _of_seed(state: "State", states: "list[State]") -> str:
    return f" of seed {state.run.seed}" if len(states) > 1 else ""


def population_steps(progress: "Progress") -> int:
    """Return the environment steps of all members so far, those of the interval that is going on included."""
    state, run = progress.state, progress.state.run
    done = progress.steps - state.steps_done
    own = {kind: run.interval_steps(kind, run.interval) if run.shrink == "both" else run.interval for kind in run.mix}
    return sum(member.environment_steps + min(done, own[member.kind]) for member in state.members)


def event_line(event: dict[str, Any]) -> str:
    """Return one event in words."""
    if event["event"] == "exploit":
        return exploit_line(event)
    if event["event"] == "quarantine":
        return f"member {event['member']} ({event['member_kind']}) is in quarantine: {event['reason']}"
    if event["event"] == "absent":
        return f"member {event['member']} ({event['member_kind']}) missed the interval, because its worker was lost"
    if event["event"] == "dead_units":
        return (
            f"warning: {event['share']:.0%} of the units in a hidden layer of the {event['network']} of member {event['member']} "
            f"({event['member_kind']}) are dead; lower its learning rate or its clip if its fitness falls"
        )
    if event["event"] == "schedule":
        return (
            f"member {event['member']} follows its schedule: {event['member_kind']} after {event['old_kind']}; "
            f"optimizer state {event['optimizer_state']}"
        )
    return f"the environment of member {event['member']} failed in {event['during']}, in {event['call']}: {event['message']}"


def exploit_line(event: dict[str, Any]) -> str:
    """Return one exploit in words."""
    return (
        f"member {event['member']} ({event['member_kind']}, {number(event['member_fitness'])}) copied "
        f"member {event['parent']} ({event['parent_kind']}, {number(event['parent_fitness'])}); "
        f"optimizer state {event['optimizer_state']}"
    )
