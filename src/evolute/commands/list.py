"""evolute list: the runs of a folder, or of a sweep's copy at a URL."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro

from evolute.errors import UserError, printable


@dataclass(frozen=True)
class Flags:
    """List the runs in a folder and below it, or of a sweep's copy: environment, mix, steps, best, and state."""

    # A path, too, so that shells complete it; only str keeps both slashes of a URL.
    top: tyro.conf.Positional[
        Annotated[
            str | Path,
            tyro.conf.arg(
                metavar="DIR",
                help="Folder to look in, or URL that --storage of `evolute sweep` had, such as s3://bucket/sweep.",
                help_behavior_hint="(runs where none is named)",
            ),
        ]
    ] = "runs"
    json: tyro.conf.FlagCreatePairsOff[
        Annotated[
            bool, tyro.conf.arg(help="Print one JSON object a line, for programs.", help_behavior_hint="(default: a table)")
        ]
    ] = False


def run(flags: Flags) -> None:
    """Print a table, or an object for each run."""
    from evolute.report import listing
    from evolute.report.tables import console
    from evolute.runs.folder import json_lines

    top = str(flags.top)
    found = _outlines(top)
    if flags.json:
        print(json_lines(found), end="")
    elif not found:
        print(printable(f"There is no run in {top}."))
    else:
        screen = console()
        screen.print(listing.table(found, top, screen.width))
        for line in listing.reasons(found, top):
            screen.print(printable(line), markup=False)


def _outlines(top: str) -> list[dict[str, Any]]:
    if "://" in top:
        from evolute.experiments import copies

        return copies.outlines(top)
    from evolute.files import is_folder
    from evolute.report import listing

    folder = Path(top)
    if not is_folder(folder):
        what = "is no folder" if folder.exists() else "does not exist"
        raise UserError(f"the folder {top!r} {what}; name one that holds runs, such as runs.")
    return listing.outlines(folder)
