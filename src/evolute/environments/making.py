"""How an environment is made: Gymnasium's id, arguments, a time limit of episodes, the user's own wrappers."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple

import gymnasium

from evolute.config import CALL, Run
from evolute.errors import UserError, closest
from evolute.paths import function_at


class Making(NamedTuple):
    """How an environment is made besides its id."""

    # What Gymnasium hands to the environment.
    kwargs: Mapping[str, Any] = {}
    # Steps after which an episode is truncated; 0 for what is registered.
    max_episode_steps: int = 0
    # MODULE:FUNCTION, innermost first: each is given the environment and returns one.
    wrap: Sequence[str] = ()


PLAIN = Making()


def make(env_id: str, making: Making) -> gymnasium.Env:
    """Return an environment as it is to be made; raises UserError where it is unknown or a function is of no use."""
    env = _called(env_id, making) if env_id.endswith(CALL) else _registered(env_id, making)
    for path in making.wrap:
        wrapped = function_at("wrap", path)(env)
        if not isinstance(wrapped, gymnasium.Env):
            env.close()
            raise UserError(f"wrap names {path!r}, which returned {wrapped!r}; it must return a gymnasium.Env.")
        env = wrapped
    return env


def _called(env_id: str, making: Making) -> gymnasium.Env:
    """Return what a function of the user's makes."""
    env = function_at("env", env_id.removesuffix(CALL))(**making.kwargs)
    if not isinstance(env, gymnasium.Env):
        raise UserError(f"env is {env_id!r}, which returned {env!r}; it must return a gymnasium.Env.")
    return gymnasium.wrappers.TimeLimit(env, making.max_episode_steps) if making.max_episode_steps else env


def _registered(env_id: str, making: Making) -> gymnasium.Env:
    """Return the environment that Gymnasium knows by an id."""
    module = env_id[: env_id.rfind(":") + 1]
    try:
        # The checker wraps every step in tests that cost more than some environments do.
        env = gymnasium.make(
            env_id, max_episode_steps=making.max_episode_steps or None, disable_env_checker=True, **making.kwargs
        )
    except gymnasium.error.UnregisteredEnv:
        near = closest(env_id, [module + known for known in gymnasium.registry])
        raise UserError(f"unknown environment {env_id!r}{near}; name one that Gymnasium knows, such as HalfCheetah-v4.") from None
    if env.spec is not None and module + env.spec.id != env_id:
        env.close()
        raise UserError(f"the environment {env_id!r} has no version; name it in full, such as {module + env.spec.id}.")
    return env


def making_of(run: Run) -> Making:
    """Return how a run's environment is made besides its id."""
    return Making(run.env_kwargs, run.max_episode_steps, run.wrap)


def modules_of(env_id: str, wrap: Sequence[str] = ()) -> list[str]:
    """Return the modules that are imported for an environment and its wrappers, each once."""
    module, colon, _ = env_id.rpartition(":")
    named = [*([module] if colon else []), *(path.partition(":")[0] for path in wrap)]
    # Gymnasium itself is here already.
    return [name for name in dict.fromkeys(named) if name.partition(".")[0] != "gymnasium"]


def check_imports(needed: Collection[str], allowed: Collection[str]) -> None:
    """Raise UserError where an environment that a file names would import other modules than the allowed ones.

    Importing runs a module's code, and the file may come from a stranger.
    """
    for module in needed:
        if module not in allowed:
            raise UserError(
                f"an environment or a wrapper comes from a file, and making it runs the code of the module {module!r}; "
                f"if you trust that module, add --allow-import {module}."
            )
