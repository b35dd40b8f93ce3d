"""evolute report: a run, or several, as one page to look at."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from evolute.commands.folders import seed_folders
from evolute.errors import UserError, printable

if TYPE_CHECKING:
    from evolute.report.page import Commands

REPORT_FILE = "report.html"
OUT = "report.html in the folder that is named, or here where several are"


@dataclass(frozen=True)
class Flags:
    """Write one page with a run's learning curves, genealogy, hyperparameters and more; also while it trains."""

    runs: tyro.conf.Positional[
        Annotated[tuple[Path, ...], tyro.conf.arg(metavar="RUN ...", help="Run folders.", help_behavior_hint="(needed)")]
    ] = ()
    out: Annotated[Path | None, tyro.conf.arg(metavar="FILE", help_behavior_hint=f"(default: {OUT})")] = None
    """Where to write the page."""


def run(flags: Flags) -> None:
    """Write the page, and say where it is."""
    write(run_folders(flags.runs), flags.out or (flags.runs[0] / REPORT_FILE if len(flags.runs) == 1 else Path(REPORT_FILE)))


def write(folders: Sequence[Path], out: Path) -> None:
    """Write the page of some runs, and say where it is."""
    from evolute.report import page

    page.write(page.html(page.data(folders, [commands(folder) for folder in folders])), out)
    print(f"Report: {printable(str(out))}")


def run_folders(given: Sequence[Path]) -> list[Path]:
    """Return the run folders that are meant, those of --seeds each; raises UserError where none is named, or one twice."""
    if not given:
        raise UserError("no run folder is given; name the one that `evolute train` named, such as runs/NAME.")
    folders = [folder for path in given for folder in seed_folders(path) or [path]]
    for folder in folders:
        if folders.count(folder) > 1:
            raise UserError(f"the run folder {str(folder)!r} is named twice; name it once.")
    return folders


def commands(path: Path) -> "Commands":
    """Return what to type next about a run."""
    from evolute.commands.hints import command
    from evolute.environments.making import modules_of
    from evolute.runs.folder import RunFolder

    try:
        settings = RunFolder.open(path).run()
        modules = modules_of(settings.env, settings.wrap)
    except UserError:
        # Its settings cannot be read, and the page says so.
        modules = []
    return [
        ("go on", command("resume", path, modules)),
        ("evaluate the best policy", command("evaluate", path, modules, "--steps", "150000")),
        ("see it in the terminal", command("show", path)),
        ("use the policy elsewhere", command("export", path, (), "--to", "onnx")),
        ("make this page again", command("report", path)),
    ]
