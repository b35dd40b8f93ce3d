"""What of a run's settings may change before it goes on.

Its length, by asking for more steps. And where nobody was left to be trained, what may keep that from happening again: the
same settings would lead to the same end.
"""

import hashlib
from dataclasses import asdict, replace
from typing import Any

from evolute import limits
from evolute.config import Run
from evolute.state import State
from evolute.toml import to_toml

# Options of every optimizer, and other settings, that may change once nobody was left.
FREE_OPTIONS = ("learning_rate", "damping", "clip")
FREE_SETTINGS = ("bounds", "max_faults", "on_faults", "time_limit")


def differences(old: Run, new: Run) -> dict[str, list[Any]]:
    """Return [old, new] of every setting that differs, by its full name, such as optimizers.kfac.actor.damping."""
    before, after = _flat("", asdict(old)), _flat("", asdict(new))
    return {name: [before.get(name), after.get(name)] for name in {**before, **after} if before.get(name) != after.get(name)}


def _flat(name: str, value: Any) -> dict[str, Any]:
    if not isinstance(value, dict) or not value:
        return {name: value}
    return {full: leaf for key, item in value.items() for full, leaf in _flat(f"{name}.{key}" if name else key, item).items()}


def is_free(name: str) -> bool:
    """Return whether a setting may change once nobody was left."""
    first, *rest = name.split(".")
    return first in FREE_SETTINGS or ("optimizers" in (first, *rest[1:2]) and rest[-1] in FREE_OPTIONS)


def digest(run: Run) -> str:
    """Return what tells a run's settings from all others."""
    return hashlib.sha256(to_toml(run).encode()).hexdigest()[:16]


def digest_without_length(run: Run) -> str:
    """Return what tells a run's settings from all others, whatever its length: what happens in an interval is the same."""
    return digest(replace(run, steps=limits.RUN_STEPS))


def adopt(state: State, old: Run) -> None:
    """Give members the hyperparameters that the settings begin with, as far as those differ from the old settings'."""
    for member in state.members:
        before, now = (run.initial_hyperparameters(member.kind)._asdict() for run in (old, state.run))
        changed = {name: value for name, value in now.items() if value != before[name]}
        member.hyperparameters = member.hyperparameters._replace(**changed)
