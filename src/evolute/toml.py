"""A run as TOML, and TOML as the settings of a run; a mistake is one sentence."""

import dataclasses
import tomllib
from pathlib import Path
from typing import Any

import tomli_w

from evolute import limits
from evolute.config import Run
from evolute.errors import UserError, closest
from evolute.files import read_at_most, reason


def read(path: Path) -> dict[str, Any]:
    """Return the settings of a TOML file; raises UserError where it is missing, unreadable, or has an unknown key."""
    where = f"the configuration file {str(path)!r}"
    try:
        text = read_at_most(path, limits.CONFIG_BYTES).decode("utf-8")
    except FileNotFoundError:
        raise UserError(f"{where} does not exist; check the path.") from None
    except UnicodeDecodeError:
        raise UserError(f"{where} is not UTF-8 text; save it as such.") from None
    except UserError:
        raise
    # ValueError: a path with a character that none may have.
    except (OSError, ValueError) as error:
        raise UserError(f"{where} cannot be read: {reason(error)}; check the path.") from None
    return parse(text, where)


def parse(text: str, where: str) -> dict[str, Any]:
    """Return the settings of TOML text; raises UserError, which names `where` it is from, as `read` does."""
    if len(text) > limits.CONFIG_BYTES:
        raise UserError(f"{where} has {len(text):,} characters; it must have at most {limits.CONFIG_BYTES:,}, so shorten it.")
    # Only a line feed ends a line: a quoted key may hold what else would split text into lines.
    if any(len(line) > limits.CONFIG_LINE for line in text.split("\n")):
        raise UserError(f"{where} has a line of more than {limits.CONFIG_LINE} characters; break it.")
    try:
        settings = tomllib.loads(text)
    except RecursionError:
        raise UserError(f"{where} nests too deeply; write it flat.") from None
    except ValueError as error:  # TOMLDecodeError is one; so are a date without a day, and a number of thousands of digits
        raise UserError(f"{where} is not valid TOML: {error}.") from None
    known = [field.name for field in dataclasses.fields(Run)]
    for name in settings:
        if name not in known:
            raise UserError(f"unknown key {name!r} in {where}{closest(name, known)}; see `evolute train --help`.")
    return settings


def to_toml(run: Run) -> str:
    """Return the run as TOML that gives the same run when read again; a setting that no member has is left out."""
    left_out = {"schedule"} if not run.schedule else set()
    return tomli_w.dumps({name: value for name, value in vars(run).items() if value is not None and name not in left_out})
