"""What a person sees: a live table on a terminal, plain lines elsewhere, tables of a finished run. Imports no JAX."""

import math
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from rich import box
from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from evolute.errors import printable

if TYPE_CHECKING:
    from evolute.state import Progress, State


def number(value: float | None) -> str:
    """Return a fitness or return for people; a dash where there is none."""
    if value is None or not math.isfinite(value):
        return "-"
    if abs(value) >= 1e12:
        return f"{value:.3g}"
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.1f}"


def plain(text: str) -> Text:
    """Return text from a file as it may reach the terminal: no control characters, no markup."""
    return Text(printable(text))


def duration(seconds: float) -> str:
    """Return seconds as 1:02:03 or 2:03."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def rates(hyperparameters: dict[str, float]) -> list[str]:
    """Return batch size, learning rates and dampings (actor / critics) for a table."""
    h = hyperparameters

    def pair(name: str) -> str:
        actor, critic = (f"{h[f'{role}_{name}']:.2g}" if h[f"{role}_{name}"] else "-" for role in ("actor", "critic"))
        return actor if actor == critic else f"{actor}/{critic}"

    return [f"{h['batch_size']:.0f}", pair("learning_rate"), pair("damping")]


RATE_COLUMNS = ("batch", "rate", "damping")
# Rows that a person scrolls through; a table of hundreds of thousands takes minutes to draw.
LONGEST_LINEAGE = 1_000


def console() -> Console:
    """Return the standard output; wide enough for every table where it is no terminal."""
    made = Console(highlight=False)
    return made if made.is_terminal else Console(highlight=False, width=120)


def _table(title: str, columns: Iterable[str], left: Iterable[str] = ("kind",)) -> Table:
    table = Table(
        title=plain(title),
        title_justify="left",
        title_style="bold",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
        padding=(0, 1, 0, 0),
    )
    for column in columns:
        table.add_column(column, justify="left" if column in left else "right", no_wrap=True)
    return table


class LiveTable:
    """An observer that redraws the population in place; of several populations a line each."""

    def __init__(self, console: Console):
        self._live = Live(console=console, refresh_per_second=4, transient=True)
        # By seed and slot.
        self._fitness: dict[tuple[int, int], float] = {}
        self._changes: dict[tuple[int, int], float] = {}
        self._contained: dict[tuple[int, int], float] = {}
        self._quarantined: set[tuple[int, int]] = set()
        self._states: dict[int, State] = {}

    def __enter__(self) -> "LiveTable":
        """Take over the terminal's last lines."""
        self._live.start()
        return self

    def __exit__(self, *exception: object) -> None:
        """Give them back."""
        self._live.stop()

    def __call__(self, progress: "Progress") -> None:
        """Draw the population as it stands."""
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
        table = self._members(title, state) if progress.populations == 1 else self._populations(title)
        foot = Table.grid()
        foot.add_row(ProgressBar(total=state.run.steps, completed=progress.steps, width=60))
        foot.add_row(Text(status(progress), style="dim"))
        self._live.update(Group(table, foot), refresh=True)

    def _members(self, title: str, state: "State") -> Table:
        table = _table(title, ("member", "kind", "fitness", "change", *RATE_COLUMNS, "parent", "events"))
        best = max((f for f in self._fitness.values() if math.isfinite(f)), default=None)
        for member in state.members:
            key = (state.run.seed, member.slot)
            fitness, change = self._fitness.get(key), self._changes.get(key, math.nan)
            shown = Text(number(fitness), style="bold green" if fitness is not None and fitness == best else "")
            table.add_row(
                str(member.slot),
                plain(member.kind),
                Text("quarantined", style="bold red") if key in self._quarantined else shown,
                Text(f"{change:+,.0f}" if math.isfinite(change) else "-", style="green" if change > 0 else "dim"),
                *rates(member.hyperparameters._asdict()),
                "-" if member.parent is None else str(member.parent),
                f"{self._contained.get(key, 0.0):.0f}",
            )
        return table

    def _populations(self, title: str) -> Table:
        table = _table(title, ("seed", "best", "kind", "fitness", "median", "copied", "quarantined", "best ever"))
        for seed, state in self._states.items():
            ranked = sorted(
                ((self._fitness.get((seed, m.slot), math.nan), m.slot) for m in state.members),
                key=lambda pair: -pair[0] if math.isfinite(pair[0]) else math.inf,
            )
            fitness, slot = ranked[0]
            table.add_row(
                str(seed),
                str(slot) if math.isfinite(fitness) else "-",
                plain(state.members[slot].kind) if math.isfinite(fitness) else "-",
                number(fitness),
                number(ranked[len(ranked) // 2][0]),
                str(len(state.lineage)),
                str(sum(key[0] == seed for key in self._quarantined)),
                number(state.best.fitness if state.best else None),
            )
        return table


class PlainLines:
    """An observer that prints one line per member and interval, for logs."""

    def __init__(self, console: Console):
        self._console = console

    def __enter__(self) -> "PlainLines":
        """Nothing to prepare."""
        return self

    def __exit__(self, *exception: object) -> None:
        """Nothing to clean up."""

    def __call__(self, progress: "Progress") -> None:
        """Print what an interval brought."""
        if not progress.rows:
            return
        whose = f"seed={progress.state.run.seed} " if progress.populations > 1 else ""
        for row in progress.rows:
            batch, learning_rate, damping = rates(row["hyperparameters"])
            self._print(
                f"{whose}steps={row['steps']} member={row['member']} kind={row['kind']} fitness={number(row['fitness'])} "
                f"batch={batch} learning_rate={learning_rate} damping={damping} "
                f"contained={contained(row):.0f} environment_faults={row['environment_faults']}"
            )
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


def status(progress: "Progress") -> str:
    """Return steps, rate and time left."""
    total = sum(member.environment_steps for member in progress.state.members)
    rate = total / progress.elapsed if progress.elapsed else 0.0
    left = progress.elapsed * (progress.state.run.steps - progress.steps) / progress.steps if progress.steps else math.nan
    return (
        f"{progress.steps:,} of {progress.state.run.steps:,} steps; population {total:,}, {rate:,.0f} per second; "
        f"{duration(progress.elapsed)} gone, {duration(left) if math.isfinite(left) else 'unknown'} left"
    )


def event_line(event: dict[str, Any]) -> str:
    """Return one event in words."""
    if event["event"] == "exploit":
        return exploit_line(event)
    if event["event"] == "quarantine":
        return f"member {event['member']} ({event['member_kind']}) is in quarantine: {event['reason']}"
    if event["event"] == "dead_units":
        return (
            f"warning: {event['share']:.0%} of the units in a hidden layer of the {event['network']} of member {event['member']} "
            f"({event['member_kind']}) are dead; lower its learning rate or its clip if its fitness falls"
        )
    return f"the environment of member {event['member']} failed in {event['during']}, in {event['call']}: {event['message']}"


def exploit_line(event: dict[str, Any]) -> str:
    """Return one exploit in words."""
    return (
        f"member {event['member']} ({event['member_kind']}, {number(event['member_fitness'])}) copied "
        f"member {event['parent']} ({event['parent_kind']}, {number(event['parent_fitness'])}); "
        f"optimizer state {event['optimizer_state']}"
    )


def leaderboard_table(rows: list[dict[str, Any]]) -> Table:
    """Return the members, best first."""
    table = _table("Leaderboard", ("#", "member", "kind", "fitness", *RATE_COLUMNS, "parent", "steps"))
    for row in rows:
        table.add_row(
            str(row["rank"]),
            str(row["member"]),
            plain(row["kind"]),
            number(row["fitness"]),
            *rates(row["hyperparameters"]),
            "-" if row["parent"] is None else str(row["parent"]),
            f"{row['environment_steps']:,}",
        )
    return table


def lineage_table(events: list[dict[str, Any]]) -> Table:
    """Return the exploits, oldest first; of very many the newest."""
    newest = events[-LONGEST_LINEAGE:]
    table = _table(
        f"Lineage (who copied whom{f', the last {len(newest):,} of {len(events):,} times' if newest != events else ''})",
        ("steps", "member", "kind", "fitness", "parent", "its kind", "fitness", *RATE_COLUMNS),
        ("kind", "its kind"),
    )
    for event in newest:
        table.add_row(
            f"{event['steps']:,}",
            str(event["member"]),
            plain(event["member_kind"]),
            number(event["member_fitness"]),
            str(event["parent"]),
            plain(event["parent_kind"]),
            number(event["parent_fitness"]),
            *rates(event["new_hyperparameters"]),
        )
    return table


def sparkline(values: list[float | None]) -> str:
    """Return a learning curve in one line of text; an exclamation mark stands where there is no value."""
    finite = [v for v in values if v is not None and math.isfinite(v)]
    if not finite:
        return "!" * len(values)
    # Halves: the difference of two numbers may be too large for a float.
    low, span = min(finite) / 2, max(finite) / 2 - min(finite) / 2 or 1.0
    heights = [None if v is None or not math.isfinite(v) else min(7, int(8 * ((v / 2 - low) / span))) for v in values]
    return "".join("!" if height is None else "▁▂▃▄▅▆▇█"[height] for height in heights)


def networks_table(metrics: list[dict[str, Any]]) -> Table:
    """Return each member's networks at its newest interval: how far their steps were shortened, and their state."""
    table = _table(
        "Networks in the last interval (steps that the norm constraint shortened, by how much on average, dead units)",
        ("member", "kind", "network", "shortened", "by", "norms", "dead"),
        ("kind", "network", "norms"),
    )
    newest = {row["member"]: row for row in metrics if "actor_norms" in row}
    for slot, row in sorted(newest.items()):
        for role in ("actor", "critic"):
            table.add_row(
                str(slot),
                plain(row["kind"]),
                role,
                percent(row[f"{role}_shortened"]),
                percent(row[f"{role}_shortening"]),
                " ".join(f"{norm:.3g}" for norm in row[f"{role}_norms"]),
                percent(row[f"{role}_dead"]),
            )
    return table


def percent(share: float | None) -> str:
    """Return a share for people; a dash where there is none."""
    return "-" if share is None else f"{share:.0%}"


def curves_table(metrics: list[dict[str, Any]]) -> Table:
    """Return each member's fitness over the run."""
    table = _table(
        "Fitness over the run (! in quarantine)", ("member", "kind", "first", "last", "best", "curve"), ("kind", "curve")
    )
    members: dict[int, list[dict[str, Any]]] = {}
    for row in metrics:
        members.setdefault(row["member"], []).append(row)
    for slot, rows in sorted(members.items()):
        values = [row["fitness"] for row in rows]
        finite = [v for v in values if v is not None]
        table.add_row(
            str(slot),
            plain(rows[0]["kind"]),
            number(values[0]),
            number(values[-1]),
            number(max(finite, default=None)),
            sparkline(values),
        )
    return table
