"""Populations of reinforcement-learning agents whose members use different optimizers."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from evolute.config import Run as Run
    from evolute.engine import train as train
    from evolute.engine import train_seeds as train_seeds
    from evolute.errors import RunStopped as RunStopped
    from evolute.errors import UserError as UserError
    from evolute.policy import Policy as Policy
    from evolute.resumption import resume as resume
    from evolute.runs.policies import load_policy as load_policy
    from evolute.state import Progress as Progress
    from evolute.state import Result as Result

__version__ = "0.1.0"

_HOMES = {
    "Run": "config",
    "train": "engine",
    "train_seeds": "engine",
    "resume": "resumption",
    "RunStopped": "errors",
    "UserError": "errors",
    "Policy": "policy",
    "load_policy": "runs.policies",
    "Progress": "state",
    "Result": "state",
}
__all__ = ["Policy", "Progress", "Result", "Run", "RunStopped", "UserError", "load_policy", "resume", "train", "train_seeds"]


def __getattr__(name: str) -> Any:
    """Import a public name on first use, so that reading a run or asking for help does not wait for JAX."""
    if name not in _HOMES:
        raise AttributeError(f"module 'evolute' has no attribute {name!r}")
    return getattr(importlib.import_module(f"evolute.{_HOMES[name]}"), name)
