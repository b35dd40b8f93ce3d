"""What the files of a run must hold so that it can be shown: a rule for each field that somebody reads. Imports no JAX.

A field without a rule may hold anything, so that newer versions can add fields.
"""

import math
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
METRICS = {
    "interval": WHOLE,
    "steps": WHOLE,
    "member": SLOT,
    "kind": NAME,
    "fitness": NUMBER_OR_NULL,
    "environment_steps": WHOLE,
    "hyperparameters": HYPERPARAMETERS,
    **{f"{role}_{name}": NUMBER_OR_NULL for role in ("actor", "critic") for name in ("shortened", "shortening", "dead")},
    **{f"{role}_norms": NUMBERS for role in ("actor", "critic")},
}
ANY_EVENT = {"event": NAME}
# Events by their name; others are passed over by whoever does not know them.
EVENTS = {
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


def event_fault(value: Any) -> str | None:
    """Return what is wrong with an event, None where it is sound or of a kind that is not known here."""
    return fault(value, ANY_EVENT) or fault(value, EVENTS.get(value["event"], {}))
