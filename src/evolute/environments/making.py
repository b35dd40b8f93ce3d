"""How an environment is made: Gymnasium's id, arguments, a time limit of episodes, the user's own wrappers."""

import contextlib
import importlib
import inspect
from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple

import gymnasium
from gymnasium.envs.registration import load_env_creator

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
    # Whether it is made once, and only reset afterwards, as long as it is sound.
    keep: bool = False
    # Its number among the environments that are alive at once, for a maker that wants one; None for one that is only looked at.
    member: int | None = None

    def arguments(self, maker: Any) -> dict[str, Any]:
        """Return what a maker is called with: a class or a function."""
        try:
            wants = "member" in inspect.signature(maker).parameters
        except (TypeError, ValueError):
            wants = False
        return {**self.kwargs, **({"member": self.member} if wants and "member" not in self.kwargs else {})}


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
    maker = function_at("env", env_id.removesuffix(CALL))
    env = maker(**making.arguments(maker))
    if not isinstance(env, gymnasium.Env):
        raise UserError(f"env is {env_id!r}, which returned {env!r}; it must return a gymnasium.Env.")
    return gymnasium.wrappers.TimeLimit(env, making.max_episode_steps) if making.max_episode_steps else env


def _registered(env_id: str, making: Making) -> gymnasium.Env:
    """Return the environment that Gymnasium knows by an id."""
    module = env_id[: env_id.rfind(":") + 1]
    try:
        # The checker wraps every step in tests that cost more than some environments do.
        plain = {"max_episode_steps": making.max_episode_steps or None, "disable_env_checker": True}
        env = gymnasium.make(env_id, **plain, **making.arguments(_maker(env_id)))
    except gymnasium.error.UnregisteredEnv:
        near = closest(env_id, [module + known for known in gymnasium.registry])
        raise UserError(f"unknown environment {env_id!r}{near}; name one that Gymnasium knows, such as HalfCheetah-v4.") from None
    if env.spec is not None and module + env.spec.id != env_id:
        env.close()
        raise UserError(f"the environment {env_id!r} has no version; name it in full, such as {module + env.spec.id}.")
    return env


def _maker(env_id: str) -> Any:
    """Return the class or function that is registered under an id; None where nothing is, or it cannot be imported."""
    module, _, name = env_id.rpartition(":")
    # Whatever is wrong, gymnasium.make says it.
    with contextlib.suppress(Exception):
        if module:
            importlib.import_module(module)
        entry = gymnasium.registry[name].entry_point
        return load_env_creator(entry) if isinstance(entry, str) else entry
    return None


def making_of(run: Run) -> Making:
    """Return how a run's environment is made besides its id."""
    return Making(run.env_kwargs, run.max_episode_steps, run.wrap, run.keep_environments)


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
