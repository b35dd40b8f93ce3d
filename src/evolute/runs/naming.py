"""A folder for a run for which the user named none."""

import contextlib
import itertools
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from evolute.runs.folder import not_writable


def default_folder(env: str, mix: dict[str, int], seeds: Sequence[int]) -> Path:
    """Return runs/<env>-<mix>-<seed>-<time>, without characters that a path cannot hold."""
    slots = "_".join(f"{kind}{count}" for kind, count in mix.items())
    name = f"{env}-{slots}-{'-'.join(map(str, seeds))}-{time.strftime('%Y%m%d-%H%M%S')}"
    return Path("runs") / "".join(c if c.isalnum() or c in "-_." else "+" for c in name)


@contextmanager
def claimed(path: Path) -> Iterator[Path]:
    """Make a folder of this name that was not there before, with a number behind its name where others are, and return it.

    Making it decides who has it, so two runs that begin in the same second get two folders. Where what follows fails before
    anything is in the folder, it is removed again.

    Raises:
        UserError: no folder can be made there.
    """
    own, numbers = path, itertools.count(2)
    while True:
        try:
            own.mkdir(parents=True)
            break
        except OSError as error:
            if not os.path.lexists(own):
                raise not_writable(own, error) from None
            own = path.with_name(f"{path.name}-{next(numbers)}")
    try:
        yield own
    except BaseException:
        for folder in (own, own.parent):
            # Only an empty folder can be removed.
            with contextlib.suppress(OSError):
                folder.rmdir()
        raise
