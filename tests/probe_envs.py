"""Toy environments with known answers, for `probe_envs:NAME-v0`; importing this module registers them."""

from typing import Any, ClassVar

import gymnasium
import numpy as np
from gymnasium.spaces import Box, Dict

LIMIT = 3
# What the bandit pays most for.
BEST_ACTION = 0.5


class Episodes(gymnasium.Env):
    """Observes (episode, step of the episode), so a transition that joins two episodes shows; each step pays 1."""

    # Whether an episode's last step truncates or terminates.
    ending: ClassVar[tuple[bool, bool]] = (False, True)
    action_space: gymnasium.Space = Box(-1.0, 1.0, (1,))
    observation_space: gymnasium.Space = Box(-np.inf, np.inf, (2,))

    def __init__(self) -> None:
        self.episode, self.count = -1, 0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None):
        super().reset(seed=seed)
        self.episode, self.count = self.episode + 1, 0
        return self.observed(), {}

    def step(self, action):
        self.count += 1
        terminated, truncated = self.ending if self.count == LIMIT else (False, False)
        return self.observed(), self.paid(np.asarray(action)), terminated, truncated, {}

    def observed(self) -> np.ndarray:
        return np.array([self.episode, self.count], np.float32)

    def paid(self, action: np.ndarray) -> float:
        return 1.0


class Ends(Episodes):
    """Terminates after three steps."""

    ending = (True, False)


class Endless(Episodes):
    """Never ends."""

    ending = (False, False)


class NotANumber(Episodes):
    """Pays NaN."""

    def paid(self, action: np.ndarray) -> float:
        return float("nan")


class Noisy(Episodes):
    """Pays a random number that the seed of an episode decides."""

    def paid(self, action: np.ndarray) -> float:
        return float(self.np_random.uniform())


class Bandit(Episodes):
    """One step, always the same observation; pays 1 - (action - BEST_ACTION)²."""

    def step(self, action):
        return self.observed(), 1.0 - float(np.sum((action - BEST_ACTION) ** 2)), True, False, {}

    def observed(self) -> np.ndarray:
        return np.zeros(2, np.float32)


class Bounds(Episodes):
    """Has asymmetric action bounds; refuses an action outside them and observes the last one."""

    action_space = Box(np.array([-1.0, 0.0, 5.0], np.float32), np.array([3.0, 0.5, 7.0], np.float32))
    observation_space = Box(-np.inf, np.inf, (3,), np.float64)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None):
        super().reset(seed=seed)
        return np.zeros(3), {}

    def step(self, action):
        assert self.action_space.contains(action), action
        _, reward, terminated, truncated, info = super().step(action)
        return action.astype(np.float64), reward, terminated, truncated, info


class Broken(Episodes):
    """Cannot be created."""

    def __init__(self) -> None:
        raise RuntimeError("the licence of the simulator\n  has expired.")


class Unbounded(Episodes):
    """Has actions without a bound above."""

    action_space = Box(0.0, np.inf, (1,))


class Square(Episodes):
    """Has actions that are no vector."""

    action_space = Box(-1.0, 1.0, (2, 2))


class Image(Episodes):
    """Observes an image."""

    observation_space = Box(0, 255, (8, 8, 3), np.uint8)


class Parts(Episodes):
    """Observes a dictionary."""

    observation_space = Dict({"position": Box(-1.0, 1.0, (2,))})


for name, made in {
    "Limit": Episodes,
    "Ends": Ends,
    "Endless": Endless,
    "NaN": NotANumber,
    "Noisy": Noisy,
    "Bandit": Bandit,
    "Bounds": Bounds,
    "Broken": Broken,
    "Unbounded": Unbounded,
    "Square": Square,
    "Image": Image,
    "Parts": Parts,
}.items():
    gymnasium.register(f"{name}-v0", entry_point=made)
