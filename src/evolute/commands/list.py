"""evolute list: the runs of a folder."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from evolute.errors import UserError, printable


@dataclass(frozen=True)
class Flags:
    """List the runs in a folder and below it: environment, mix, steps, best, and state."""

    top: tyro.conf.Positional[
        Annotated[Path, tyro.conf.arg(metavar="DIR", help="Folder to look in.", help_behavior_hint="(runs where none is named)")]
    ] = Path("runs")
    json: tyro.conf.FlagCreatePairsOff[
        Annotated[
            bool, tyro.conf.arg(help="Print one JSON object a line, for programs.", help_behavior_hint="(default: a table)")
        ]
    ] = False


def run(flags: Flags) -> None:
    """Print a table, or an object for each run."""
    from evolute.files import is_folder
    from evolute.report import listing
    from evolute.report.tables import console
    from evolute.runs.folder import json_lines

    if not is_folder(flags.top):
        what = "is no folder" if flags.top.exists() else "does not exist"
        raise UserError(f"the folder {str(flags.top)!r} {what}; name one that holds runs, such as runs.")
    found = listing.outlines(flags.top)
    if flags.json:
        print(json_lines(found), end="")
    elif not found:
        print(printable(f"There is no run in {flags.top}."))
    else:
        screen = console()
        screen.print(listing.table(found, flags.top, screen.width))
