"""What the files of a run must hold so that it can be shown: a rule for each field that somebody reads. Imports no JAX.

A field without a rule may hold anything, so that newer versions can add fields.
"""

import math
import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from evolute import limits


class Rule(NamedTuple):
    """What must hold for a value, and the same in words."""

    holds: Callable[[Any], bool]
    words: str


def _is_number(value: Any) -> bool:
    return abs(value) < 2**63 if type(value) is int else type(value) is float and math.isfinite(value)


WHOLE = Rule(lambda x: type(x) is int and 0 <= x < 2**63, "a whole number not below 0")
SLOT = Rule(lambda x: type(x) is int and 0 <= x < limits.MEMBERS, f"a member's number, below {limits.MEMBERS}")
NUMBER = Rule(_is_number, "a finite number")
NAME = Rule(lambda x: isinstance(x, str) and len(x) <= limits.NAME, f"a name of at most {limits.NAME} characters")
AMOUNT = Rule(lambda x: _is_number(x) and x >= 0, "a finite number not below 0")
FLAG = Rule(lambda x: isinstance(x, bool), "true or false")
TEXT = Rule(lambda x: isinstance(x, str), "text")
NUMBER_OR_NULL = Rule(lambda x: x is None or _is_number(x), "a finite number or null")
NUMBERS = Rule(
    lambda x: isinstance(x, list) and len(x) <= limits.LAYERS + 1 and all(map(NUMBER_OR_NULL.holds, x)),
    "a list of numbers or nulls",
)
SLOT_OR_NULL = Rule(lambda x: x is None or SLOT.holds(x), f"{SLOT.words}, or null")


def fault(value: Any, form: Mapping[str, Any]) -> str | None:
    """Return what is wrong with a JSON value, None where it is as its form says.

    A form has a rule or another form by field name; a list that holds one form stands for any number of such objects.
    """
    if not isinstance(value, dict):
        return "it must be a JSON object"
    for name, rule in form.items():
        if name not in value:
            return f"{name!r} is missing"
        part = value[name]
        if isinstance(rule, Rule):
            if not rule.holds(part):
                return f"{name!r} must be {rule.words}"
        elif isinstance(rule, list):
            if not isinstance(part, list) or len(part) > limits.MEMBERS:
                return f"{name!r} must be a list of at most {limits.MEMBERS} objects"
            for item in part:
                if (wrong := fault(item, rule[0])) is not None:
                    return f"in {name!r}, {wrong}"
        elif (wrong := fault(part, rule)) is not None:
            return f"in {name!r}, {wrong}"
    return None


HYPERPARAMETERS = {
    "batch_size": NUMBER,
    "actor_learning_rate": NUMBER,
    "critic_learning_rate": NUMBER,
    "actor_damping": NUMBER,
    "critic_damping": NUMBER,
}
ANY_EVENT = {"event": NAME}
# Events by their name; others are passed over by whoever does not know them.
EVENTS = {
    "absent": {"interval": WHOLE, "steps": WHOLE, "member": SLOT, "member_kind": NAME},
    "dead_units": {"steps": WHOLE, "member": SLOT, "member_kind": NAME, "network": NAME, "share": NUMBER},
    "exploit": {
        "steps": WHOLE,
        "member": SLOT,
        "parent": SLOT,
        "member_kind": NAME,
        "parent_kind": NAME,
        "member_fitness": NUMBER_OR_NULL,
        "parent_fitness": NUMBER_OR_NULL,
        "new_hyperparameters": HYPERPARAMETERS,
    },
    "nobody_left": {"interval": WHOLE, "repeats": FLAG, "settings": NAME},
}
RESULT = {
    "leaderboard": [
        {
            "rank": WHOLE,
            "member": SLOT,
            "kind": NAME,
            "fitness": NUMBER_OR_NULL,
            "parent": SLOT_OR_NULL,
            "environment_steps": WHOLE,
            "hyperparameters": HYPERPARAMETERS,
        }
    ],
}
VERSION = Rule(
    lambda x: isinstance(x, dict) and all(isinstance(version, str) for version in x.values()), "a table of names and versions"
)
METADATA = {"versions": VERSION, "physics_fingerprint": NAME}

# Names that a checkpoint's manifest may give: a file beside it, never a path that leads elsewhere.
PLAIN_NAME = re.compile(r"[0-9]{6,}(-[0-9]{3,}|-best)\.safetensors")
FILE = {
    "file": Rule(lambda x: isinstance(x, str) and PLAIN_NAME.fullmatch(x) is not None, "the plain name of a checkpoint's file"),
    "bytes": WHOLE,
    "sha256": TEXT,
}
SEGMENT = {**FILE, "rows": WHOLE}
BEST = {"policy": FILE, "fitness": NUMBER, "slot": SLOT, "kind": NAME, "environment_steps": WHOLE}
ABOUT_BEST = {"fitness": NUMBER, "member": SLOT, "kind": NAME, "environment_steps": WHOLE}
EVALUATED = {**ABOUT_BEST, "return_mean": NUMBER, "return_std": NUMBER, "episodes": WHOLE}
MANIFEST = {
    "format": TEXT,
    "interval": WHOLE,
    "steps": WHOLE,
    "evolved": FLAG,
    "memory": Rule(lambda x: isinstance(x, dict), "a table"),  # which its strategy checks
    "quarantines": WHOLE,
    "seconds": AMOUNT,
    "best": Rule(lambda x: x is None or fault(x, BEST) is None, "the best policy, or null"),
    "members": [
        {
            "environment_steps": WHOLE,
            "gradient_steps": WHOLE,
            "updates": WHOLE,
            "missed": WHOLE,
            "absent": FLAG,
            "fitness": Rule(lambda x: type(x) is float or _is_number(x), "a number"),
            "parent": SLOT_OR_NULL,
            "needs_burn_in": FLAG,
            "hyperparameters": Rule(
                lambda x: isinstance(x, dict) and len(x) <= limits.ENTRIES and all(map(_is_number, x.values())),
                f"a table of at most {limits.ENTRIES} finite numbers",
            ),
            "inserted": WHOLE,
            "life": Rule(
                lambda x: (
                    isinstance(x, list)
                    and all(isinstance(pair, list) and len(pair) == 2 and all(map(WHOLE.holds, pair)) for pair in x)
                    and all(seed < 2**31 for seed, _ in x)
                ),
                "a list of seeds and numbers of steps",
            ),
            "segments": Rule(lambda x: isinstance(x, list) and all(fault(s, SEGMENT) is None for s in x), "a list of segments"),
            "learner": FILE,
        }
    ],
    "config": TEXT,
    "circumstances": {
        "versions": VERSION,
        "devices": Rule(lambda x: isinstance(x, list), "a list"),
        "cores": Rule(lambda x: x is None or WHOLE.holds(x), f"{WHOLE.words}, or null"),
        "physics_fingerprint": TEXT,
        "arithmetic_fingerprint": TEXT,
    },
    "records": Rule(
        lambda x: isinstance(x, dict) and all(isinstance(text, str) for text in x.values()), "a table of names and texts"
    ),
}


def event_fault(value: Any) -> str | None:
    """Return what is wrong with an event, None where it is sound or of a kind that is not known here."""
    return fault(value, ANY_EVENT) or fault(value, EVENTS.get(value["event"], {}))
