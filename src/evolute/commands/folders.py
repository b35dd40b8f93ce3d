"""Which run folders a command means: one, or those that --seeds filled."""

from pathlib import Path
from typing import TYPE_CHECKING

from evolute.errors import UserError

if TYPE_CHECKING:
    from evolute.config import Run
    from evolute.runs.folder import RunFolder


def outs_of(out: Path, seeds: list[int]) -> list[Path]:
    """Return each seed's run folder."""
    return [out] if len(seeds) == 1 else [out / f"seed-{seed}" for seed in seeds]


def seed_folders(path: Path) -> list[Path]:
    """Return the run folders that --seeds made in a folder, none where it is a run folder itself or holds others."""
    from evolute.runs.folder import CONFIG_FILE

    try:
        if (path / CONFIG_FILE).exists():
            return []
        found = [folder for folder in path.glob("seed-*") if folder.name[5:].isdecimal() and (folder / CONFIG_FILE).is_file()]
    except (OSError, ValueError):
        return []
    return sorted(found, key=lambda folder: int(folder.name[5:]))


def one_run(given: Path | None) -> Path:
    """Return the run folder that was named; raises UserError where none was, or one that --seeds filled with several."""
    from evolute.commands.flags import folder_of

    path = folder_of(given)
    if folders := seed_folders(path):
        raise UserError(f"{str(path)!r} holds the runs of {len(folders)} seeds; name one, such as {str(folders[0])!r}.")
    return path


def run_of(folder: "RunFolder") -> "Run":
    """Return the run of a folder; raises UserError where its configuration cannot be read."""
    return folder.run()
