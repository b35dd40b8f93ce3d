"""evolute compare: tables and figures of any runs."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro
from rich.markup import escape

from evolute.commands.cells import show_page
from evolute.commands.report import run_folders
from evolute.errors import UserError, printable
from evolute.streams import complain


@dataclass(frozen=True)
class Flags:
    """Compare runs that have ended: those that differ by their seed alone are repetitions of one arm."""

    runs: tyro.conf.Positional[
        Annotated[tuple[Path, ...], tyro.conf.arg(metavar="RUN ...", help="Run folders.", help_behavior_hint="(needed)")]
    ] = ()
    out: Annotated[Path | None, tyro.conf.arg(metavar="PATH", help_behavior_hint="(default: print the tables alone)")] = None
    """Folder for the tables (Markdown, CSV, LaTeX) and figures (PNG, SVG)."""


def run(flags: Flags) -> None:
    """Print the tables, and write them where that is asked for."""
    from evolute.experiments import evidence, page, tables
    from evolute.report.tables import console, fitted, plain
    from evolute.runs.folder import RunFolder

    paths = run_folders(flags.runs)
    folders = [RunFolder.open(path) for path in paths]
    found = evidence.of_folders(folders)
    if not found.ended:
        raise UserError("no run of these has ended; wait for one, or go on with it by `evolute resume`.")
    if left := [str(folder.path) for folder in folders if not folder.has_ended]:
        complain(f"{found.ended} of {found.asked} runs have ended; left out: {', '.join(left)}")
    screen = console()
    for name in found.experiment.tables:
        table = tables.MAKERS[name](found)
        if table.rows:
            cells = [[plain(cell) for cell in row] for row in table.rows]
            # A heading is markup to rich, and an arm's name may be anything.
            names = [escape(printable(name)) for name in table.columns]
            screen.print(fitted(table.title, names, cells, screen.width, left=names[:2], folded=names))
            screen.print("\n".join(table.notes) + "\n", soft_wrap=True, markup=False)
    if flags.out is not None:
        command = ["evolute", "compare", *map(str, flags.runs), "--out", str(flags.out)]
        show_page(found, command, flags.out, {})
        print(printable(str(flags.out / page.PAGE)))
