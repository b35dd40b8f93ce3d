"""Gymnasium environments of the members: plain single ones, stepped side by side.

No vector environment and no autoreset: the next observation of a transition is always the one that the step returned.
Actions are in [-1, 1] outside and rescaled to the environment's bounds here.
"""

import hashlib
import numbers
import os
import platform
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, NamedTuple

import gymnasium
import numpy as np
from gymnasium.envs.registration import EnvSpec
from gymnasium.spaces.utils import flatten

from evolute import interruption
from evolute.environments.isolation import Isolated
from evolute.environments.making import PLAIN, Making, make
from evolute.environments.spaces import Facts, facts_of, own_words
from evolute.errors import EnvironmentFault, UserError
from evolute.policy import in_units_of

FINGERPRINT_STEPS = 200
# The fingerprint of an environment that does not repeat itself, and seconds to find that out.
UNREPEATABLE = "unrepeatable"
REPEAT_SECONDS = 5.0
LARGEST = float(np.finfo(np.float32).max)


class Step(NamedTuple):
    """What one environment step returns."""

    obs: np.ndarray  # [O] float32
    reward: float
    terminated: bool
    truncated: bool


class Environment:
    """One environment with flat float32 observations [O] and actions [A] in [-1, 1].

    Whatever goes wrong inside a call is an EnvironmentFault, after which the environment must be rebuilt. Nothing that is not
    finite in single precision, and no observation of another shape than the space's, ever comes out. A signal that is caught
    (`interruption.py`) raises Interrupted before a call.
    """

    def __init__(self, env_id: str, time_limit: float = 0.0, making: Making = PLAIN):
        """Make it; raises UserError where it is unknown, cannot be made, or has spaces that are of no use.

        Args:
            env_id: Gymnasium's id.
            time_limit: seconds for a call of `reset` or `step`; the environment then lives in a process of its own, which is
                killed where a call takes longer, and computes the same numbers. Zero: no limit, and no process. To be made it
                has `isolation.start_limit` seconds, which include a process's imports, and to close a few.
            making: how it is made besides its id.
        """
        interruption.check()
        self.id = env_id
        self._kept, self._broken = making.keep, False
        self._env: _Plain | Isolated
        if time_limit:
            try:
                self._env = Isolated(partial(_in_new_process, env_id, making, registered_here(env_id)), time_limit)
            except EnvironmentFault as fault:
                interruption.check()
                raise UserError(
                    f"the environment {env_id!r} cannot be created in a process of its own: {fault.message}; fix it, "
                    "raise time_limit (0: no limit and no process), or, in a script, begin under `if __name__ == '__main__':`."
                ) from None
        else:
            self._env = _Plain(env_id, making)
        interruption.catch_again()
        self.facts = self._env.facts
        self.shape, self.low, self.high = self.facts[:3]

    @property
    def itself(self) -> gymnasium.Env:
        """Gymnasium's environment, which must live in this process: for what is neither a reset nor a step."""
        assert isinstance(self._env, _Plain), "it lives in another process"
        return self._env._env

    def reset(self, seed: int | None = None) -> np.ndarray:
        """Start an episode and return its first observation [O]; a seed restarts its randomness, too."""
        interruption.check()
        try:
            observation = self._env.reset(seed)
        except EnvironmentFault:
            self._broken = True
            raise
        interruption.catch_again()
        return observation

    def step(self, action: np.ndarray) -> Step:
        """Take an action [A] in [-1, 1]."""
        interruption.check()
        try:
            return self._env.step(action)
        except EnvironmentFault:
            self._broken = True
            raise

    def rebuild(self) -> None:
        """Make the environment anew, so that nothing of its past is left, unless it is one to keep and sound; reset it next."""
        interruption.check()
        if self._kept and not self._broken:
            return
        self._env.rebuild()
        self._broken = False
        interruption.catch_again()

    def close(self) -> None:
        """Release what the environment holds."""
        self._env.close()


class _Plain:
    """An environment in this process."""

    def __init__(self, env_id: str, making: Making):
        self._id, self._making, self._process, self._open = env_id, making, os.getpid(), False
        self._make()

    def _make(self) -> None:
        try:
            with _quiet():
                self._env = make(self._id, self._making)
            self._open = True
            self.facts = facts_of(self._id, self._env)
        except UserError:
            self.close()
            raise
        except BaseException as error:
            said = own_words(error)
            raise UserError(
                f"the environment {self._id!r} cannot be created; it says {said!r}; fix it or choose another."
            ) from error
        finally:
            self._end_copy()

    def _end_copy(self) -> None:
        """End a copy of this process that the environment forked and let return: it would train, too, and into the same files."""
        if os.getpid() != self._process:
            os._exit(0)

    def reset(self, seed: int | None) -> np.ndarray:
        try:
            with _quiet():
                obs, _ = self._env.reset(seed=seed)
            return self._checked_obs("reset", obs)
        except EnvironmentFault:
            raise
        except BaseException as error:
            raise _fault_of("reset", error) from error
        finally:
            self._end_copy()

    def step(self, action: np.ndarray) -> Step:
        try:
            units = in_units_of(self.facts.low, self.facts.high, action).reshape(self.facts.action_shape)
            obs, reward, terminated, truncated, _ = self._env.step(units)
            return Step(
                self._checked_obs("step", obs),
                _checked_reward(reward),
                _checked_flag("terminated", terminated),
                _checked_flag("truncated", truncated),
            )
        except EnvironmentFault:
            raise
        except BaseException as error:
            raise _fault_of("step", error) from error
        finally:
            self._end_copy()

    def rebuild(self) -> None:
        self.close()
        before = self.facts
        try:
            self._make()
        except UserError as error:
            raise EnvironmentFault("make", str(error)) from error
        now, self.facts = self.facts, before
        if not now.alike(before):
            raise EnvironmentFault("make", f"it has {_described(now)} now, and had {_described(before)}")

    def close(self) -> None:
        # Once: the second time may be its undoing.
        if not self._open:
            return
        self._open = False
        try:
            self._env.close()
        except BaseException as error:
            # It may be broken in any way, and is no longer needed.
            own_words(error)
        finally:
            self._end_copy()

    def _checked_obs(self, call: str, obs: Any) -> np.ndarray:
        """Return an observation of its own [O], which the environment cannot change afterwards."""
        if self.facts.flattened:
            try:
                obs = flatten(self._env.observation_space, obs)
            except (TypeError, ValueError, LookupError, AssertionError) as error:
                raise EnvironmentFault(
                    call, f"its observation is {obs!r}, which is not of its space: {own_words(error)}"
                ) from None
        array = np.asarray(obs)
        # Text of digits and complex numbers would become single precision without an error.
        if array.dtype.kind in "cSUMm" or (array.dtype.kind == "O" and not all(isinstance(x, numbers.Real) for x in array.flat)):
            raise EnvironmentFault(call, f"its observation is {obs!r}, which is no array of numbers")
        with np.errstate(over="ignore"):
            checked = np.array(array, np.float32)
        if checked.shape != (self.facts.shape.observations,):
            raise EnvironmentFault(call, f"its observation has the shape {checked.shape}, not {(self.facts.shape.observations,)}")
        if not np.isfinite(checked).all():
            raise EnvironmentFault(call, f"its observation is not finite in single precision: {array}")
        return checked


def _described(facts: Facts) -> str:
    return f"{facts.shape} with actions from {facts.low} to {facts.high} ({facts.low.dtype})"


def _checked_flag(name: str, value: Any) -> bool:
    """Return whether an episode ends; "False", None and arrays are no answers."""
    if isinstance(value, bool | np.bool_):
        return bool(value)
    array = np.asarray(value)
    if array.shape != () or array.dtype.kind not in "biu" or int(array) not in (0, 1):
        raise EnvironmentFault("step", f"its {name} is {value!r}, which is neither True nor False")
    return bool(array)


def _checked_reward(reward: Any) -> float:
    # Replay holds single precision. Written so that NaN fails, too.
    if isinstance(reward, float) and -LARGEST <= reward <= LARGEST:
        return float(reward)
    array = np.asarray(reward)
    if array.shape != () or array.dtype.kind not in "biuf":
        raise EnvironmentFault("step", f"its reward is {reward!r}, which is no number")
    if not -LARGEST <= array <= LARGEST:
        raise EnvironmentFault("step", f"its reward is {reward}, which is not finite in single precision")
    return float(array)


def _fault_of(call: str, error: BaseException) -> EnvironmentFault:
    said, name = own_words(error), type(error).__name__
    return EnvironmentFault(call, name if said == name else f"{name}: {said}")


def registered_here(env_id: str) -> str | None:
    """Return what this process registered under an id, as text for one that has not.

    None where nothing is registered, and "" where it cannot be put as text: the new process must find it by itself then.
    """
    spec = None if ":" in env_id else gymnasium.registry.get(env_id)
    if spec is None:
        return None
    try:
        return spec.to_json() if isinstance(spec.entry_point, str) else ""
    except (TypeError, ValueError):
        return ""


def make_known(env_id: str, spec: str | None) -> None:
    """Register an id in a new process as it was registered in another one (`registered_here`)."""
    if spec is None or env_id in gymnasium.registry:
        return
    if not spec:
        raise UserError(
            f"the environment {env_id!r} is registered with a class or a function, which no other process knows; register it "
            "with the text 'MODULE:CLASS' as entry_point, or set workers to 1 and time_limit to 0."
        )
    gymnasium.registry[env_id] = EnvSpec.from_json(spec)


def _in_new_process(env_id: str, making: Making, spec: str | None) -> _Plain:
    make_known(env_id, spec)
    return _Plain(env_id, making)


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence Gymnasium's advice on task versions: the v4 tasks are chosen on purpose, and a missing one is refused.

    What an environment asks of NumPy's errors and of warnings is undone, too: it would hold for the whole process.
    """
    with warnings.catch_warnings(), np.errstate():
        warnings.filterwarnings("ignore", message=".*is out of date.*", category=DeprecationWarning)
        warnings.filterwarnings("ignore", message=".*Using the latest versioned environment.*", category=UserWarning)
        yield


def physics_fingerprint(env_id: str, time_limit: float = 0.0, making: Making = PLAIN) -> str:
    """Return a hash of a seeded rollout: equal exactly where the environment computes the same numbers.

    The engine's version changes what "v4" means, so a task's name does not tell which physics made a result. Where the
    environment fails, the hash is of what it computed until then. The rollout is played twice, the second time for at most
    REPEAT_SECONDS; where the two differ, UNREPEATABLE is returned.
    """
    environment = Environment(env_id, time_limit, making)
    digest, again = hashlib.sha256(), hashlib.sha256()
    try:
        marks = []
        for piece in _rollout(environment):
            digest.update(piece)
            marks.append(digest.digest())
        environment.rebuild()
        until = time.monotonic() + REPEAT_SECONDS
        for mark, piece in zip(marks, _rollout(environment), strict=False):
            again.update(piece)
            if again.digest() != mark:
                return UNREPEATABLE
            if time.monotonic() > until:
                break
    except EnvironmentFault:
        # It could be made a moment ago.
        return UNREPEATABLE
    finally:
        environment.close()
    return digest.hexdigest()[:16]


def _rollout(environment: Environment) -> Iterator[bytes]:
    """Yield what an environment returns in a seeded rollout, to its end or to its first fault."""
    rng = np.random.default_rng(0)
    try:
        yield environment.reset(seed=0).tobytes()
        for _ in range(FINGERPRINT_STEPS):
            step = environment.step(rng.uniform(-1.0, 1.0, environment.shape.actions).astype(np.float32))
            yield step.obs.tobytes()
            yield np.float64(step.reward).tobytes()
            if step.terminated or step.truncated:
                yield environment.reset().tobytes()
    except EnvironmentFault as fault:
        yield fault.call.encode()


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
