"""What an environment says of itself, and whether it can be learnt: spaces, action bounds, the longest episode, what it keeps."""

from typing import Any, NamedTuple

import gymnasium
import numpy as np

from evolute import interruption, limits
from evolute.errors import UserError
from evolute.policy import ACTION_TYPES

# Wrappers in wrappers that are looked through.
LAYERS = 100


class Shape(NamedTuple):
    """What the networks need to know of an environment."""

    observations: int
    actions: int


class Facts(NamedTuple):
    """What an environment says of itself."""

    shape: Shape
    low: np.ndarray  # [A], in the type of the actions
    high: np.ndarray  # [A]
    # Steps after which Gymnasium truncates an episode; None where no limit is known.
    longest_episode: int | None
    # Wrappers with running statistics, which are lost whenever the environment is made anew.
    running: tuple[str, ...]

    def alike(self, other: "Facts") -> bool:
        """Return whether both have the same shape and actions."""
        same = self.low.dtype == other.low.dtype and self.shape == other.shape
        return same and np.array_equal(self.low, other.low) and np.array_equal(self.high, other.high)


def facts_of(env_id: str, env: gymnasium.Env) -> Facts:
    """Return what an environment says of itself; raises UserError where its spaces are of no use."""
    try:
        # Read once: a property may return another space every time.
        low, high = _bounds(env_id, env.action_space)
        shape = Shape(_observations(env_id, env.observation_space), len(low))
        return Facts(shape, low, high, *_layers(env))
    except UserError:
        raise
    except BaseException as error:
        raise UserError(
            f"the environment {env_id!r} has spaces that cannot be read; it says {own_words(error)!r}; "
            "fix them or choose another environment."
        ) from error


def own_words(error: BaseException) -> str:
    """Return what an error that an environment raised says, in one line; raises it again where it is a signal's."""
    if interruption.raised_by_signal(error):
        raise error
    try:
        return " ".join(str(error).split()) or type(error).__name__
    except BaseException as another:
        if interruption.raised_by_signal(another):
            raise
        return "an error that cannot be shown"


def _bounds(env_id: str, space: Any) -> tuple[np.ndarray, np.ndarray]:
    """Return the least and the largest action [A]."""
    if not isinstance(space, gymnasium.spaces.Box):
        raise UserError(
            f"the environment {env_id!r} has {_kind(space)} actions; the algorithms need continuous ones (a Box), "
            "so choose another environment or wrap this one."
        )
    said = f"the environment {env_id!r} has the action space {_shown(space)}"
    dtype = np.dtype(space.dtype)
    if dtype.name not in ACTION_TYPES:
        raise UserError(
            f"{said}; the algorithms need continuous actions of the type {', '.join(ACTION_TYPES[:-1])} or {ACTION_TYPES[-1]}, "
            "so choose another environment, or wrap this one with gymnasium.wrappers.TransformAction, a Box of floats and a "
            "function that converts them."
        )
    least, largest = np.asarray(space.low), np.asarray(space.high)
    size, shape = least.size, least.shape
    if not 0 < size <= limits.INPUTS:
        raise UserError(f"{said}; it must hold 1 to {limits.INPUTS:,} numbers, so choose another environment or wrap this one.")
    if not (np.isfinite(least).all() and np.isfinite(largest).all()) or len(shape) != 1:
        function = "lambda a: a" if len(shape) == 1 else f"lambda a: a.reshape({shape})"
        raise UserError(
            f"{said}; it must be flat and bounded on both sides, so wrap it with gymnasium.wrappers.TransformAction(env, "
            f"{function}, gymnasium.spaces.Box(-1.0, 1.0, ({size},))) and bounds that suit it."
        )
    # Rounded inwards, where somebody gave a space other bounds than its type can hold.
    low, high = least.astype(dtype), largest.astype(dtype)
    low = np.where(low < least, np.nextafter(low, dtype.type(np.inf)), low)
    high = np.where(high > largest, np.nextafter(high, dtype.type(-np.inf)), high)
    if (low > high).any():
        raise UserError(f"{said}; no lower bound may be above the upper one, so fix the space.")
    return low, high


def _observations(env_id: str, space: Any) -> int:
    """Return how many numbers an observation has."""
    said = f"the environment {env_id!r} has the observation space {_shown(space)}"
    if not isinstance(space, gymnasium.spaces.Box) or len(space.shape) != 1:
        cure = "wrap it with gymnasium.wrappers.FlattenObservation" if _flattens(space) else "choose another environment"
        raise UserError(f"{said}; it must be a flat Box, so {cure}.")
    if not 0 < space.shape[0] <= limits.INPUTS:
        raise UserError(f"{said}; it must hold 1 to {limits.INPUTS:,} numbers, so choose another environment or wrap this one.")
    return int(space.shape[0])


def _flattens(space: Any) -> bool:
    try:
        return bool(space.is_np_flattenable)
    except Exception:
        return False


def _kind(space: Any) -> str:
    return "discrete" if isinstance(space, gymnasium.spaces.Discrete) else type(space).__name__


def _shown(space: Any) -> str:
    try:
        return " ".join(repr(space).split())
    except Exception:
        # Such as one that holds itself.
        return type(space).__name__


def _layers(env: Any) -> tuple[int | None, tuple[str, ...]]:
    """Return the shortest of Gymnasium's time limits around an environment, and the wrappers that keep running statistics."""
    longest: int | None = None
    running = []
    for _ in range(LAYERS):
        if isinstance(env, gymnasium.wrappers.TimeLimit):
            own = env._max_episode_steps
            longest = own if longest is None else min(longest, own)
        # By name: there are copies of Gymnasium's class.
        if any(type(value).__name__ == "RunningMeanStd" for value in getattr(env, "__dict__", {}).values()):
            running.append(type(env).__name__)
        if not isinstance(env, gymnasium.Wrapper):
            break
        env = env.env
    return longest, tuple(running)
