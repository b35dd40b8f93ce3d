"""What an export is written by: whole or not at all, never over something; and what it needs to be installed."""

import contextlib
import importlib
import os
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from evolute.errors import RunStopped, UserError
from evolute.files import reason


def require(purpose: str, extra: str, modules: Sequence[str]) -> None:
    """Raise UserError where a package is not installed that something needs.

    Args:
        purpose: what needs it.
        extra: of evolute, which has it.
        modules: that it is imported as.
    """
    for module in modules:
        try:
            importlib.import_module(module)
        except ImportError as error:
            what = f"{module!r}, which is not installed" if error.name == module else f"{module!r}, whose import says {error}"
            raise UserError(f"{purpose} needs the package {what}; install it with: pip install 'evolute[{extra}]'.") from None


def refuse_existing(out: Path) -> None:
    """Raise UserError where something has the name of what is to be written, or the name is of no use."""
    try:
        out.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return
    except (OSError, ValueError) as error:
        raise unwritable(out, error) from None
    raise UserError(f"--out is {str(out)!r}, which exists; remove it, or name another.")


@contextlib.contextmanager
def fresh(out: Path) -> Iterator[Path]:
    """Yield where a file or a folder is to be made, which gets the name `out` when that went well; UserError where it cannot."""
    refuse_existing(out)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        # Beside it, so that it can be renamed, and by no name that a run's own files have.
        with tempfile.TemporaryDirectory(prefix=f".{out.name[:100]}-", dir=out.parent) as folder:
            partial = Path(folder) / out.name
            yield partial
            # Something may have come in the meantime, and a rename replaces a file.
            refuse_existing(out)
            os.rename(partial, out)
    except OSError as error:
        raise unwritable(out, error) from None
    except RunStopped as stop:
        raise UserError(str(stop)) from None


def unwritable(out: Path, error: OSError | ValueError) -> UserError:
    """Return the mistake of an output that cannot be written."""
    return UserError(f"{str(out)!r} cannot be written: {reason(error)}; fix that, or name another place with --out.")
