"""What an environment says of itself, and whether it can be learnt: spaces, action bounds, the longest episode, what it keeps."""

from collections.abc import Iterator
from typing import Any, NamedTuple

import gymnasium
import numpy as np
from gymnasium.spaces.utils import flatdim

from evolute import interruption, limits
from evolute.errors import UserError
from evolute.policy import ACTION_TYPES

# Wrappers in wrappers, and spaces in spaces, that are looked through.
LAYERS = 100
# What Gymnasium makes one array of, of the same length every time.
FLAT_PARTS = (
    gymnasium.spaces.Box,
    gymnasium.spaces.Discrete,
    gymnasium.spaces.MultiDiscrete,
    gymnasium.spaces.MultiBinary,
)


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
    # Its observation space, where observations are flattened; "" where they are flat. And the shape of its actions.
    flattened: str = ""
    action_shape: tuple[int, ...] = ()

    def alike(self, other: "Facts") -> bool:
        """Return whether both have the same shape and actions."""
        same = self.low.dtype == other.low.dtype and self.shape == other.shape
        return same and np.array_equal(self.low, other.low) and np.array_equal(self.high, other.high)


def facts_of(env_id: str, env: gymnasium.Env) -> Facts:
    """Return what an environment says of itself; raises UserError where its spaces are of no use."""
    try:
        # Read once: a property may return another space every time.
        actions, observed = env.action_space, env.observation_space
        low, high = _bounds(env_id, actions)
        shape = Shape(_observations(env_id, observed), len(low))
        flattened = "" if is_flat(observed) else _shown(observed)
        return Facts(shape, low, high, _longest_episode(env_id, env), flattened, tuple(actions.shape or ()))
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
    least, largest = least.ravel(), largest.ravel()
    if not (np.isfinite(least).all() and np.isfinite(largest).all()):
        raise UserError(
            f"{said}; it must be bounded on both sides, so wrap it with gymnasium.wrappers.TransformAction(env, "
            f"lambda a: a, gymnasium.spaces.Box(-1.0, 1.0, {shape})) and bounds that suit it."
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
    for part in _parts(space):
        if not isinstance(part, FLAT_PARTS):
            raise UserError(
                f"{said}; networks take Box, Discrete, MultiDiscrete and MultiBinary spaces, alone or in Dict and Tuple, and not "
                f"{type(part).__name__}, so choose another environment or wrap this one."
            )
        if isinstance(part, gymnasium.spaces.Box) and len(part.shape) > 1 and part.dtype == np.uint8:
            raise UserError(f"{said}, which holds images; there are no networks for these, so wrap it to observe numbers.")
    size = int(flatdim(space))
    if not 0 < size <= limits.INPUTS:
        raise UserError(f"{said}; it must hold 1 to {limits.INPUTS:,} numbers, so choose another environment or wrap this one.")
    return size


def is_flat(space: Any) -> bool:
    """Return whether observations of a space are arrays [O] already."""
    return isinstance(space, gymnasium.spaces.Box) and len(space.shape) == 1


def _parts(space: Any, depth: int = 0) -> Iterator[Any]:
    """Yield the spaces that a space consists of, however nested."""
    inner: Any = ()
    if isinstance(space, gymnasium.spaces.Dict):
        inner = space.spaces.values()
    elif isinstance(space, gymnasium.spaces.Tuple):
        inner = space.spaces
    else:
        yield space
    for part in inner if depth < LAYERS else ():
        yield from _parts(part, depth + 1)


def _kind(space: Any) -> str:
    return "discrete" if isinstance(space, gymnasium.spaces.Discrete) else type(space).__name__


def _shown(space: Any) -> str:
    try:
        return " ".join(repr(space).split())
    except Exception:
        # Such as one that holds itself.
        return type(space).__name__


def _longest_episode(env_id: str, env: Any) -> int | None:
    """Return the shortest of Gymnasium's time limits around an environment; raises UserError for a wrapper of no use."""
    longest: int | None = None
    for _ in range(LAYERS):
        if isinstance(env, gymnasium.wrappers.TimeLimit):
            own = env._max_episode_steps
            longest = own if longest is None else min(longest, own)
        # By name: there are copies of Gymnasium's class. Statistics that are given and stay as they are do no harm.
        keeps = any(type(value).__name__ == "RunningMeanStd" for value in getattr(env, "__dict__", {}).values())
        if keeps and getattr(env, "update_running_mean", True):
            raise UserError(
                f"the environment {env_id!r} has the wrapper {type(env).__name__}, whose running statistics would start from "
                "nothing whenever it is made anew, and differ between training and evaluation; leave the wrapper out, and set "
                "normalize_observations, or reward_scale for rewards."
            )
        if not isinstance(env, gymnasium.Wrapper):
            break
        env = env.env
    return longest
