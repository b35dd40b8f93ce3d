"""Writing a file whole or not at all, reading one that is not too large, and naming what went wrong."""

import contextlib
import os
import stat
from pathlib import Path

from evolute.errors import RunStopped, UserError


def partial_name(name: str) -> str:
    """Return what a file is called while it is written; of "*", the pattern of all such files."""
    return f".{name}.partial"


def write_whole(path: Path, data: bytes | memoryview) -> None:
    """Write a file, replacing an older one: beside it first and then renamed, so that it is never half a file.

    The data is on the disk before the name points to it; `sync_folder` makes sure of the name.

    Raises:
        RunStopped: it cannot be written; the older file is as it was.
    """
    partial = path.with_name(partial_name(path.name))
    try:
        with partial.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)
        raise unwritable(path, error, len(data)) from None


def append(path: Path, data: bytes) -> None:
    """Add to a file's end; raises RunStopped where it cannot."""
    try:
        with path.open("ab") as file:
            file.write(data)
    except OSError as error:
        raise unwritable(path, error, len(data)) from None


def check_plain(path: Path, most: int) -> int:
    """Return a file's size; raises OSError where there is none, and UserError where it is too large or would never end."""
    found = path.stat()
    if not (stat.S_ISREG(found.st_mode) or stat.S_ISDIR(found.st_mode)):
        raise UserError(f"{str(path)!r} is no plain file but a pipe, socket or device; replace it by a file.")
    if found.st_size > most:
        raise UserError(
            f"{str(path)!r} has {found.st_size:,} bytes, and at most {most:,} are read; check that it is the right file."
        )
    return found.st_size


def read_at_most(path: Path, most: int) -> bytes:
    """Return a file's content; raises OSError where it cannot be read, and UserError where it is larger than `most` bytes."""
    size = check_plain(path, most)
    with path.open("rb") as file:
        return file.read(size)


def is_folder(path: Path) -> bool:
    """Return whether a folder is there; raises UserError where the system cannot even say so: a name that is too long, a circle.

    `Path.is_dir` answers no for some of these, and raises for others, by Python's version.
    """
    try:
        return stat.S_ISDIR(path.stat().st_mode)
    except (FileNotFoundError, NotADirectoryError):
        return False
    except (OSError, ValueError) as error:
        raise UserError(f"{str(path)!r} is no path that can be followed: {reason(error)}; check the path.") from None


def reason(error: OSError | ValueError) -> str:
    """Return the system's words for an error, without the path; a ValueError is a path with a character that none may have."""
    return getattr(error, "strerror", None) or str(error)


def make_folder(path: Path) -> None:
    """Make a folder where there is none; raises RunStopped where it cannot."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise unwritable(path, error, 0) from None


def unwritable(path: Path, error: OSError, size: int) -> RunStopped:
    """Return the error of a file that cannot be written, with the path, the reason and the need."""
    need = f"it needs {size:,} bytes" if size else "it needs the right and the room to write there"
    return RunStopped(f"{str(path)!r} cannot be written: {error.strerror or error} ({need}); mend that first.")


def sync_folder(path: Path) -> None:
    """Bring a folder's new names to the disk; raises RunStopped where it cannot."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:
        raise unwritable(path, error, 0) from None
