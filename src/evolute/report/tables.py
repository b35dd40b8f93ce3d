"""Tables and numbers for people, as wide as there is room for. Imports no JAX."""

import math
from collections.abc import Iterable, Sequence
from typing import Any

from rich import box
from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

from evolute.errors import printable
from evolute.runs.columns import NETWORK_HEADINGS, network_cells


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
# Characters of a line where there is no terminal.
WIDTH = 120
# Rows that a person scrolls through; a table of hundreds of thousands takes minutes to draw.
LONGEST_LINEAGE = 1_000


# What is left out first where a table is too wide.
LEAST_IMPORTANT = ("damping", "batch", "copied", "quarantined", "steps", "parent", "first", "events", "rate", "change", "median")
# What a table puts around its columns, and after each of them.
EDGES, GAP = 2, 2
# Characters of a column that is broken over lines, at least.
FOLD = 9
# The least and the most characters of a learning curve.
CURVE = 10, 60


def console() -> Console:
    """Return the standard output; wide enough for every table where it is no terminal."""
    made = Console(highlight=False)
    return made if made.is_terminal else Console(highlight=False, width=WIDTH)


def fitted(
    title: str,
    columns: Sequence[str],
    rows: Sequence[Sequence[str | Text]],
    width: int = WIDTH,
    left: Iterable[str] = ("kind",),
    folded: Iterable[str] = (),
) -> Table:
    """Return a table that fits a width; where it is too narrow the least important columns are left out, and named below.

    Columns that are `folded` are broken over lines before that.
    """
    short = [[str(cell)[:FOLD] if columns[n] in folded else cell for n, cell in enumerate(row)] for row in rows]
    kept = list(range(len(columns)))
    for name in LEAST_IMPORTANT:
        if natural_width([columns[n] for n in kept], [[row[n] for n in kept] for row in short]) <= width:
            break
        kept = [n for n in kept if columns[n] != name]
    lacking = [columns[n] for n in range(len(columns)) if n not in kept]
    table = Table(
        title=plain(title),
        title_justify="left",
        title_style="bold",
        caption=Text(f"no room for: {', '.join(lacking)}") if lacking else None,
        caption_justify="left",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
        padding=(0, 1, 0, 0),
    )
    for n in kept:
        table.add_column(
            columns[n], justify="left" if columns[n] in left else "right", no_wrap=columns[n] not in folded, overflow="fold"
        )
    for row in rows:
        table.add_row(*(row[n] for n in kept))
    return table


def natural_width(columns: Sequence[str], rows: Sequence[Sequence[str | Text]]) -> int:
    """Return how many characters a table takes."""
    widths = [max(cell_len(str(cell)) for cell in column) for column in zip(columns, *rows, strict=True)]
    return sum(widths) + GAP * len(widths) + EDGES


def leaderboard_table(rows: list[dict[str, Any]], width: int = WIDTH) -> Table:
    """Return the members, best first."""
    cells = [
        (
            str(row["rank"]),
            str(row["member"]),
            plain(row["kind"]),
            number(row["fitness"]),
            *rates(row["hyperparameters"]),
            "-" if row["parent"] is None else str(row["parent"]),
            f"{row['environment_steps']:,}",
        )
        for row in rows
    ]
    return fitted("Leaderboard", ("#", "member", "kind", "fitness", *RATE_COLUMNS, "parent", "steps"), cells, width)


def lineage_table(events: list[dict[str, Any]], width: int = WIDTH) -> Table:
    """Return the exploits, oldest first; of very many the newest."""
    newest = events[-LONGEST_LINEAGE:]
    cells = [
        (
            f"{event['steps']:,}",
            str(event["member"]),
            plain(event["member_kind"]),
            number(event["member_fitness"]),
            str(event["parent"]),
            plain(event["parent_kind"]),
            number(event["parent_fitness"]),
            *rates(event["new_hyperparameters"]),
        )
        for event in newest
    ]
    return fitted(
        f"Lineage (who copied whom{f', the last {len(newest):,} of {len(events):,} times' if newest != events else ''})",
        ("steps", "member", "kind", "fitness", "from", "its kind", "fitness", *RATE_COLUMNS),
        cells,
        width,
        ("kind", "its kind"),
    )


def sparkline(values: list[float | None], most: int | None = None) -> str:
    """Return a learning curve in one line of text; an exclamation mark stands where there is no value.

    Of more than `most` values it shows as many, evenly spaced, and the last.
    """
    if most is not None and len(values) > most:
        values = [values[(n + 1) * len(values) // most - 1] for n in range(most)]
    finite = [v for v in values if v is not None and math.isfinite(v)]
    if not finite:
        return "!" * len(values)
    # Halves: the difference of two numbers may be too large for a float.
    low, span = min(finite) / 2, max(finite) / 2 - min(finite) / 2 or 1.0
    heights = [None if v is None or not math.isfinite(v) else min(7, int(8 * ((v / 2 - low) / span))) for v in values]
    return "".join("!" if height is None else "▁▂▃▄▅▆▇█"[height] for height in heights)


def networks_table(metrics: list[dict[str, Any]], width: int = WIDTH) -> Table:
    """Return each member's networks at its newest interval: how far their steps were shortened, and their state."""
    cells, newest = [], {row["member"]: row for row in metrics if "actor_norms" in row}
    for slot, row in sorted(newest.items()):
        for role in ("actor", "critic"):
            cells.append((str(slot), plain(row["kind"]), role, *network_cells(row, role)))
    return fitted(
        "Networks (steps that the norm constraint shortened, by how much; dead units; norms of the layers)",
        ("member", "kind", "network", *NETWORK_HEADINGS),
        cells,
        width,
        ("kind", "network", "norms"),
    )


def curves_table(metrics: list[dict[str, Any]], width: int = WIDTH) -> Table:
    """Return each member's fitness over the run."""
    members: dict[int, list[dict[str, Any]]] = {}
    for row in metrics:
        members.setdefault(row["member"], []).append(row)
    columns = ("member", "kind", "first", "last", "best")
    cells = []
    for slot, rows in sorted(members.items()):
        values = [row["fitness"] for row in rows]
        best = max((v for v in values if v is not None), default=None)
        cells.append([str(slot), plain(rows[0]["kind"]), number(values[0]), number(values[-1]), number(best)])
    least, most = CURVE
    room = min(max(width - natural_width(columns, cells) - GAP, least), most)
    for line, (_, rows) in zip(cells, sorted(members.items()), strict=True):
        line.append(sparkline([row["fitness"] for row in rows], room))
    return fitted("Fitness over the run (! in quarantine)", (*columns, "curve"), cells, width, ("kind", "curve"))
