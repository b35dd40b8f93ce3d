"""What helps where a file of a run is lost, damaged, or of another version."""

import contextlib
import shlex
from pathlib import Path

from evolute.errors import UserError
from evolute.files import CHECKPOINT_FOLDER
from evolute.runs.folder import CONFIG_FILE, EVENTS_FILE, METADATA_FILE, METRICS_FILE, RESULT_FILE, RunFolder

# What a resume writes again from a checkpoint: the result where the run had ended.
RESTORED = (CONFIG_FILE, METADATA_FILE, METRICS_FILE, EVENTS_FILE, RESULT_FILE)


def cure(path: Path) -> str:
    """Return what helps where a file of a run is lost or damaged, as a clause."""
    run = path.parent
    if path.name not in RESTORED or not any((run / CHECKPOINT_FOLDER).glob("*.json")):
        return "restore the file from a copy, or train the run again"
    # A run with a result has ended, and is not resumed.
    first = f"delete {RESULT_FILE}, and then " if (run / RESULT_FILE).exists() else ""
    return f"{first}`evolute resume {shlex.quote(str(run))}` writes it again from the last checkpoint"


def of_settings(folder: RunFolder) -> str:
    """Return what helps where a run's settings cannot be read, as a clause; "" where nothing is known."""
    from evolute import __version__

    written = version_of(folder)
    if written not in (None, __version__):
        return f"evolute {written} wrote it, and this is evolute {__version__}, so use that version"
    return cure(folder.path / CONFIG_FILE) if (folder.path / CHECKPOINT_FOLDER).is_dir() else ""


def version_of(folder: RunFolder) -> str | None:
    """Return the version of evolute that wrote a run's settings, None where metadata.json does not say."""
    with contextlib.suppress(UserError):
        metadata = folder.metadata()
        resumed = metadata.get("resumed")
        last = resumed[-1] if isinstance(resumed, list) and resumed else metadata
        versions = last.get("versions") if isinstance(last, dict) else None
        version = versions.get("evolute") if isinstance(versions, dict) else None
        return version if isinstance(version, str) else None
    return None
