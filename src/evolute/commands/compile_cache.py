"""Where compiled programs are kept between runs: a second start takes seconds."""

import os
import stat
import tempfile
from pathlib import Path

from evolute.streams import complain


def remember_compiled_programs() -> None:
    """Keep compiled programs between runs, unless the user has told JAX where to keep them."""
    import jax

    if (given := os.environ.get("JAX_COMPILATION_CACHE_DIR")) is not None:
        if given and "://" not in given:
            # An environment may change the working folder.
            jax.config.update("jax_compilation_cache_dir", os.path.abspath(given))
        return
    if (folder := _of_the_user() or _temporary()) is None:
        complain(
            "no folder for compiled programs can be written, so each run compiles anew; set XDG_CACHE_HOME to a folder that can "
            "be written."
        )
        return
    jax.config.update("jax_compilation_cache_dir", str(folder))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)


def _of_the_user() -> Path | None:
    """Return the folder of the user's own cache, None where there is none."""
    try:
        asked = Path(os.environ.get("XDG_CACHE_HOME", ""))
        # By its specification a relative path counts as none.
        base = asked if asked.is_absolute() else Path.home() / ".cache"
        # Not made where there is no home: root could make one for a user who has none on purpose.
        return _made(base / "evolute" / "jax") if asked.is_absolute() or base.parent.is_dir() else None
    # RuntimeError: neither HOME nor the system knows a home.
    except (OSError, RuntimeError, ValueError):
        return None


def _temporary() -> Path | None:
    """Return a folder of this user alone among the temporary files, None where there is none."""
    try:
        folder = _made(Path(tempfile.gettempdir()) / f"evolute-{os.getuid()}" / "jax")
        found = folder.parent.lstat() if folder is not None else None
    except OSError:
        return None
    # Another user may have made it: what is in it is executed.
    own = found is not None and stat.S_ISDIR(found.st_mode) and found.st_uid == os.getuid() and not found.st_mode & 0o022
    return folder if own else None


def _made(folder: Path) -> Path | None:
    """Return a folder, made if need be, None where it cannot be written."""
    for part in (folder.parent, folder):
        part.mkdir(mode=0o700, parents=True, exist_ok=True)
    return folder if os.access(folder, os.W_OK | os.X_OK) else None
