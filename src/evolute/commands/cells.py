"""What commands that train many runs have in common."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evolute.commands.flags import whole_number
from evolute.commands.watching import admit
from evolute.errors import RunStopped, UserError
from evolute.streams import complain

if TYPE_CHECKING:
    from evolute.experiments.evidence import Evidence
    from evolute.experiments.grid import Cell
    from evolute.experiments.jobs import Seats


def jobs_of(flags: Any) -> int | None:
    """Return how many runs train at a time; None where nobody says."""
    return None if flags.jobs is None else whole_number("--jobs", flags.jobs, least=1)


def admit_all(cells: "Sequence[Cell]", allowed: Sequence[str]) -> None:
    """Let the modules be imported that a file names; raises UserError where one is not allowed."""
    from evolute.environments.making import modules_of

    admit(sorted({module for cell in cells for module in modules_of(cell.run.env, cell.run.wrap)}), allowed)


def missing_of(cells: "Sequence[Cell]", out: Path) -> "list[Cell]":
    """Return the cells that have no record yet, each once."""
    from evolute.experiments import records

    there = records.read_all(out)
    found: dict[str, Cell] = {}
    for cell in cells:
        name = records.name(cell.run, cell.evaluation_steps)
        if name not in there:
            found.setdefault(name, cell)
    return list(found.values())


def ready(out: Path) -> None:
    """Make the folder of runs before they train; raises UserError where that cannot be done."""
    from evolute.files import make_folder

    try:
        make_folder(out)
    except RunStopped as stop:
        raise UserError(f"{stop} Or choose another folder with --out.") from None


def show_page(found: "Evidence", command: Sequence[str], folder: Path, reduced: Mapping[str, tuple[str, str]]) -> None:
    """Write an experiment's page, and say what could not be drawn; raises UserError where the folder cannot be written."""
    from evolute.experiments import page

    try:
        notes = page.write(found, command, folder, reduced)
    except RunStopped as stop:
        raise UserError(str(stop)) from None
    for note in notes:
        complain(note)


def train_missing(missing: "list[Cell]", seats: "Seats", quiet: bool) -> str:
    """Train cells while showing them; return what to say where some failed, in words."""
    from evolute.experiments.jobs import train_all
    from evolute.experiments.progress import Shown
    from evolute.interruption import Interrupted, stopping_gently

    try:
        with Shown(missing, quiet) as shown, stopping_gently():
            failed = train_all(missing, seats, shown)
    except Interrupted:
        complain("stopped. The same command goes on from the last checkpoints.")
        raise
    return f"{len(failed)} of {len(missing)} runs failed (see above); the same command tries them again." if failed else ""
