"""One process at a time in a run folder."""

import errno
import fcntl
import json
import os
import socket
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from evolute.errors import UserError
from evolute.files import UNSUPPORTED, unwritable

LOCK_FILE = "lock"


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold a folder's lock. The system lets go of it when the process ends, however it ends.

    A file system that knows no locks is warned of, and the run goes on without.

    Raises:
        UserError: another process holds it; the message names that process.
        RunStopped: the lock's file cannot be written.
    """
    path = folder / LOCK_FILE
    try:
        # O_NOFOLLOW: it is emptied below.
        file = os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW, 0o666), "a+")
    except OSError as error:
        raise unwritable(path, error, 0) from None
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in (errno.EWOULDBLOCK, errno.EACCES):
                raise UserError(
                    f"the run folder {str(folder)!r} is in use by {_holder(path)}; wait for it, or stop it first."
                ) from None
            if error.errno not in UNSUPPORTED | {errno.ENOLCK}:
                raise unwritable(path, error, 0) from None
            warnings.warn(
                f"the file system of {str(folder)!r} has no locks ({error.strerror}), so nothing keeps a second process out of "
                "this run; start none on it.",
                stacklevel=3,
            )
        holder = {"process": os.getpid(), "host": socket.gethostname(), "since": time.strftime("%Y-%m-%d %H:%M:%S")}
        try:
            file.truncate(0)
            file.write(json.dumps(holder))
            file.flush()
        except OSError as error:
            raise unwritable(path, error, 100) from None
        yield


def is_held(folder: Path) -> bool:
    """Return whether a process holds a folder's lock; no, where the file system knows no locks."""
    try:
        with open(folder / LOCK_FILE, "rb", opener=lambda path, flags: os.open(path, flags | os.O_NOFOLLOW)) as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError as error:
        return error.errno in (errno.EWOULDBLOCK, errno.EACCES)
    return False


def _holder(path: Path) -> str:
    try:
        holder = json.loads(path.read_text(encoding="utf-8"))
        return f"process {int(holder['process'])} on {str(holder['host'])[:100]!r} since {str(holder['since'])[:30]}"
    except (OSError, ValueError, TypeError, KeyError, RecursionError):
        return "another process"
