"""The runs of a copy at a URL at a glance, from the few small files that say how far each is."""

import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from evolute import interruption, limits
from evolute.errors import RunStopped, UserError
from evolute.experiments.mirror import RUN_NAME, RUNS, SMALL
from evolute.experiments.place import Place
from evolute.files import reason, write_whole
from evolute.report import listing
from evolute.runs.folder import CONFIG_FILE

# What is said of a run without a result: whether it trains, its folder's lock would tell, and a copy has none.
UNFINISHED = "unfinished"


def outlines(url: str) -> list[dict[str, Any]]:
    """Return what a list says of every run at URL/runs, by name, as `listing.outline` does; nothing is written there.

    Returns:
        `folder` is the run's URL, and `state` is "damaged", "finished" or "unfinished".

    Raises:
        UserError: there is no such place, it cannot be used, or there is no temporary folder for what is fetched.
        Interrupted: a signal came.
    """
    try:
        place = Place(url)
        found = runs(place)
        # The temporary folder is removed before a signal ends the process.
        with interruption.stopping_gently(), tempfile.TemporaryDirectory(prefix="evolute-") as folder:
            return [outline(place, name, files, Path(folder)) for name, files in sorted(found.items())]
    except RunStopped as stop:
        raise UserError(str(stop)) from None
    except OSError as error:
        raise UserError(f"no temporary folder can be used: {reason(error)}; name one in the variable TMPDIR.") from None


def runs(place: Place) -> dict[str, list[str]]:
    """Return the runs of a copy, by name, and which small files each has; raises UserError where nothing is at the URL."""
    found: dict[str, list[str]] = {}
    with place.told():
        for path in place.find(RUNS):
            name, _, file = path.partition("/")
            # Strangers may have named them.
            if RUN_NAME.fullmatch(name) and file in SMALL:
                found.setdefault(name, []).append(file)
        if not found and not place.exists():
            raise UserError(
                f"there is nothing at {place.url!r}; check the URL, which is the one of --storage, or wait until the sweep has "
                "copied its first run."
            )
    return {name: files for name, files in found.items() if CONFIG_FILE in files}


def outline(place: Place, name: str, files: Sequence[str], folder: Path) -> dict[str, Any]:
    """Return what a list says of a run of a copy; the run is in `folder` meanwhile."""
    interruption.check()
    run, url = folder / name, f"{place.url}{'' if place.url.endswith('/') else '/'}{RUNS}/{name}"
    run.mkdir()
    try:
        with place.told():
            for file in files:
                write_whole(run / file, place.get(f"{RUNS}/{name}/{file}", limits.RECORDS_BYTES))
        said = listing.outline(run)
    except UserError as mistake:
        return listing.damaged(url, str(mistake))
    finally:
        shutil.rmtree(run)
    return {
        **said,
        "folder": url,
        "state": UNFINISHED if said["state"] == "stopped" else said["state"],
        "problems": [problem.replace(str(run), url) for problem in said["problems"]],
    }
