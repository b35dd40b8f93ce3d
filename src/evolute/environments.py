"""Gymnasium environments of the members: plain single ones, stepped side by side.

No vector environment and no autoreset: the next observation of a transition is always the one that the step returned.
Actions are in [-1, 1] outside and rescaled to the environment's bounds here.
"""

import hashlib
import platform
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import gymnasium
import numpy as np

from evolute.errors import UserError, closest
from evolute.policy import in_units_of

FINGERPRINT_STEPS = 200


class Shape(NamedTuple):
    """What the networks need to know of an environment."""

    observations: int
    actions: int


class Step(NamedTuple):
    """What one environment step returns."""

    obs: np.ndarray  # [O] float32
    reward: float
    terminated: bool
    truncated: bool


class Environment:
    """One environment with flat float32 observations [O] and actions [A] in [-1, 1]."""

    def __init__(self, env_id: str):
        """Make it; raises UserError where it is unknown, cannot be made, or has spaces that TD3 cannot use."""
        self._env = _make(env_id)
        self.shape = _checked_shape(env_id, self._env)
        space = self._env.action_space
        assert isinstance(space, gymnasium.spaces.Box)
        self.low = space.low.astype(np.float64)
        self.high = space.high.astype(np.float64)
        self._dtype = space.dtype

    def reset(self, seed: int | None = None) -> np.ndarray:
        """Start an episode and return its first observation [O]; a seed restarts its randomness, too."""
        with _quiet():
            obs, _ = self._env.reset(seed=seed)
        return self._flat(obs)

    def step(self, action: np.ndarray) -> Step:
        """Take an action [A] in [-1, 1]."""
        scaled = in_units_of(self.low, self.high, action).astype(self._dtype)
        obs, reward, terminated, truncated, _ = self._env.step(scaled)
        return Step(self._flat(obs), float(reward), bool(terminated), bool(truncated))

    def close(self) -> None:
        """Release what the environment holds."""
        self._env.close()

    @staticmethod
    def _flat(obs: Any) -> np.ndarray:
        return np.asarray(obs, np.float32).reshape(-1)


def _make(env_id: str) -> gymnasium.Env:
    module = env_id[: env_id.rfind(":") + 1]
    try:
        with _quiet():
            # The checker wraps every step in tests that cost more than some environments do.
            env = gymnasium.make(env_id, disable_env_checker=True)
    except gymnasium.error.UnregisteredEnv:
        near = closest(env_id, [module + known for known in gymnasium.registry])
        raise UserError(f"unknown environment {env_id!r}{near}; name one that Gymnasium knows, such as HalfCheetah-v4.") from None
    except Exception as error:
        message = " ".join(str(error).split()) or type(error).__name__
        raise UserError(
            f"the environment {env_id!r} cannot be created, as it says itself: {message!r}; mend it or choose another."
        ) from error
    if env.spec is not None and module + env.spec.id != env_id:
        env.close()
        raise UserError(f"the environment {env_id!r} has no version; name it in full, such as {module + env.spec.id}.")
    return env


def module_of(env_id: str) -> str | None:
    """Return the module that Gymnasium imports for an environment, None where it imports none."""
    module, colon, _ = env_id.rpartition(":")
    return module if colon else None


def check_import(env_id: str, allowed: str | None) -> None:
    """Raise UserError where an environment that a file names would import another module than the allowed one.

    Importing runs the module's code, and the file may come from a stranger.
    """
    module = module_of(env_id)
    if module is not None and module != allowed:
        raise UserError(
            f"the environment {env_id!r} comes from a file, and making it runs the code of the module {module!r}; "
            f"if you trust that module, add --allow-import {module}."
        )


def _checked_shape(env_id: str, env: gymnasium.Env) -> Shape:
    actions, observations = env.action_space, env.observation_space
    if not isinstance(actions, gymnasium.spaces.Box):
        raise UserError(
            f"the environment {env_id!r} has {_kind(actions)} actions; TD3 needs continuous ones (a Box), "
            "so choose another environment or wrap this one."
        )
    if not (np.isfinite(actions.low).all() and np.isfinite(actions.high).all()) or actions.low.ndim != 1:
        raise UserError(
            f"the environment {env_id!r} has the action space {actions}; it must be flat and bounded on both sides, "
            "so wrap it with gymnasium.wrappers.RescaleAction or a bounded Box."
        )
    if not isinstance(observations, gymnasium.spaces.Box) or len(observations.shape) != 1:
        raise UserError(
            f"the environment {env_id!r} has the observation space {observations}; it must be a flat Box, "
            "so wrap it with gymnasium.wrappers.FlattenObservation."
        )
    return Shape(int(np.prod(observations.shape)), int(np.prod(actions.shape)))


def _kind(space: gymnasium.Space) -> str:
    return "discrete" if isinstance(space, gymnasium.spaces.Discrete) else type(space).__name__


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence Gymnasium's advice on task versions: the v4 tasks are chosen on purpose, and a missing one is refused."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*is out of date.*", category=DeprecationWarning)
        warnings.filterwarnings("ignore", message=".*Using the latest versioned environment.*", category=UserWarning)
        yield


def physics_fingerprint(env_id: str) -> str:
    """Return a hash of a seeded rollout: equal exactly where the environment computes the same numbers.

    The engine's version changes what "v4" means, so a task's name does not tell which physics made a result.
    """
    environment = Environment(env_id)
    digest = hashlib.sha256()
    rng = np.random.default_rng(0)
    digest.update(environment.reset(seed=0).tobytes())
    for _ in range(FINGERPRINT_STEPS):
        step = environment.step(rng.uniform(-1.0, 1.0, environment.shape.actions).astype(np.float32))
        digest.update(step.obs.tobytes())
        digest.update(np.float64(step.reward).tobytes())
        if step.terminated or step.truncated:
            digest.update(environment.reset().tobytes())
    environment.close()
    return digest.hexdigest()[:16]


def versions() -> dict[str, str]:
    """Return the versions of what decides a run's numbers."""
    import importlib.metadata

    packages = ("evolute", "jax", "jaxlib", "optax", "numpy", "gymnasium", "mujoco")
    found = {"python": platform.python_version(), "machine": platform.machine(), "system": platform.system()}
    for package in packages:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[package] = "not installed"
    return found
