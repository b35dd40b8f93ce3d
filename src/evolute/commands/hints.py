"""Commands to type next, quoted so that they can be pasted."""

import os
import shlex
from collections.abc import Sequence
from pathlib import Path


def command(name: str, path: Path, modules: Sequence[str] = (), *more: str) -> str:
    """Return a command about a run folder, for a shell.

    Args:
        name: of the command.
        path: the run folder.
        modules: that may be imported for the run's environment, if it needs any.
        more: what comes after that.
    """
    # A leading dash would pass for an option.
    folder = f"./{path}" if str(path).startswith("-") else str(path)
    allowed = ["--allow-import", *modules] if modules else []
    return " ".join(quoted(word) for word in ("evolute", name, folder, *allowed, *more))


def commands(name: str, paths: Sequence[Path], modules: Sequence[str] = (), *more: str) -> str:
    """Return one command for each of some run folders, in words."""
    return " and ".join(command(name, path, modules, *more) for path in paths)


def quoted(word: str) -> str:
    """Return a word for a shell; one that a terminal cannot show as it is has its bytes spelled out."""
    if word.isprintable():
        return shlex.quote(word)
    letters = (chr(b) if 32 <= b < 127 and b not in b"\\'" else f"\\x{b:02x}" for b in os.fsencode(word))
    return f"$'{''.join(letters)}'"
