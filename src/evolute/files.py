"""Writing a file whole or not at all, reading one that is not too large, and naming what went wrong."""

import contextlib
import errno
import os
import stat
from pathlib import Path

from evolute.errors import RunStopped, UserError

# Of a run folder, for the parts of checkpoints.
BEST_FOLDER, CHECKPOINT_FOLDER, REPLAY_FOLDER = "best", "checkpoints", "replay"
# And for videos that somebody makes of its policies.
VIDEO_FOLDER = "videos"

# What a file system answers that cannot do something at all, as against one that failed to do it.
UNSUPPORTED = {errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP, errno.EINVAL, errno.ENOTTY}
# The same for syncing a folder: some file systems want it open for writing, or let nobody open it.
UNSUPPORTED_OF_FOLDERS = UNSUPPORTED | {errno.EBADF, errno.EACCES, errno.EPERM, errno.EISDIR}


def partial_name(name: str) -> str:
    """Return what a file is called while it is written; of "*", the pattern of all such files."""
    return f".{name}.partial"


def write_whole(path: Path, data: bytes | memoryview) -> None:
    """Write a file, replacing an older one: beside it first and then renamed, so that it is never half a file.

    The data is on the disk before the name points to it, where the file system can promise that; `sync_folder` makes sure of
    the name.

    Raises:
        RunStopped: it cannot be written; the older file is as it was.
    """
    partial = path.with_name(partial_name(path.name))
    try:
        # A file of its own: whatever has this name may be somebody else's file under another name.
        with contextlib.suppress(FileNotFoundError):
            os.unlink(partial)
        with os.fdopen(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o666), "wb") as file:
            file.write(data)
            file.flush()
            _sync(file.fileno(), UNSUPPORTED)
        partial.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)
        raise unwritable(path, error, len(data)) from None


def append(path: Path, data: bytes) -> None:
    """Add to the end of a file that is there; raises RunStopped where it cannot."""
    try:
        # No O_CREAT: a file that somebody removed would come back without what it held.
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_APPEND | os.O_NOFOLLOW), "ab") as file:
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


def make_folder(path: Path, parents: bool = True) -> None:
    """Make a folder where there is none, and those above it unless told otherwise; raises RunStopped where it cannot."""
    try:
        path.mkdir(parents=parents, exist_ok=True)
    except OSError as error:
        raise unwritable(path, error, 0) from None


def unwritable(path: Path, error: OSError, size: int) -> RunStopped:
    """Return the error of a file that cannot be written, with the path, the reason and the need."""
    need = f"it needs {size:,} bytes" if size else "it needs the right and the room to write there"
    return RunStopped(f"{str(path)!r} cannot be written: {error.strerror or error} ({need}); fix that first.")


def sync_folder(path: Path) -> None:
    """Bring a folder's new names to the disk, where the file system can; raises RunStopped where that fails."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except OSError as error:
        if error.errno in UNSUPPORTED_OF_FOLDERS:
            return
        raise unwritable(path, error, 0) from None
    try:
        _sync(descriptor, UNSUPPORTED_OF_FOLDERS)
    except OSError as error:
        raise unwritable(path, error, 0) from None
    finally:
        os.close(descriptor)


def _sync(descriptor: int, unsupported: set[int]) -> None:
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in unsupported:
            raise
