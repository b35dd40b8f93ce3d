"""Rules of a run's settings that say more than one of options.py."""

import itertools
import math
import re
from typing import Any

from evolute import limits
from evolute.options import Rule

# Ends an environment that a function makes: MODULE:FUNCTION().
CALL = "()"
# Arguments of gymnasium.make that other settings give, or nobody.
RESERVED = ("id", "max_episode_steps", "disable_env_checker")


def _plain(value: Any) -> bool:
    """Return whether a value is one that a file can hold, tables and lists included."""
    if isinstance(value, dict | list | tuple):
        return all(map(_plain, value.values() if isinstance(value, dict) else value))
    return type(value) in (bool, int, float, str)


def _trainable(layers: tuple[int, ...]) -> bool:
    if not 0 < len(layers) <= limits.LAYERS or not all(0 < units <= limits.UNITS for units in layers):
        return False
    return sum(i * o for i, o in itertools.pairwise(layers)) <= limits.WEIGHTS


ENV = Rule(
    lambda x: type(x) is str and x.isprintable() and bool(x.strip()),
    "printable text that names a Gymnasium environment",
)
MIX = Rule(
    lambda x: bool(x) and min(x.values()) > 0 and sum(x.values()) <= limits.MEMBERS,
    f"a positive number of slots for each of one or more optimizer kinds, at most {limits.MEMBERS} together",
)
LAYERS = Rule(
    _trainable,
    f"one or more positive numbers of units, at most {limits.LAYERS} layers of {limits.UNITS} units with "
    f"{limits.WEIGHTS:,} weights between them",
)
TABLE = Rule(lambda x: True, "a table")  # whose entries are checked one by one
COUNTS = Rule(lambda x: all(count > 0 for count in x.values()), "a positive number{of} for each kind")
FACTORS = Rule(
    lambda x: 0 < len(x) <= limits.ENTRIES and all(0 < factor < math.inf for factor in x),
    f"one or more positive numbers, at most {limits.ENTRIES} of them",
)
FREQUENCIES = Rule(
    lambda x: 1 < len(x) <= limits.ENTRIES and x[0] == 1 and all(a < b <= limits.STEPS for a, b in itertools.pairwise(x)),
    "two or more rising whole numbers, the first of which is 1",
)
KWARGS = Rule(
    lambda x: all(name.isidentifier() and name not in RESERVED for name in x) and _plain(x),
    f"a table of plain values whose names are those of arguments, and not {', '.join(RESERVED)}",
)
WRAPPERS = Rule(
    lambda x: (
        len(x) <= limits.ENTRIES and all(type(path) is str and re.fullmatch(r"\w+(\.\w+)*:\w+(\.\w+)*", path) for path in x)
    ),
    "paths of the form MODULE:FUNCTION",
)
PATH = Rule(
    lambda x: type(x) is str and len(x) <= limits.PATH and x.isprintable() and bool(x.strip()),
    f"the path of a run folder or of a policy's folder, of at most {limits.PATH} characters",
)
NAMES = Rule(lambda x: len(x) <= limits.ENTRIES and all(type(name) is str for name in x), f"at most {limits.ENTRIES} names")
