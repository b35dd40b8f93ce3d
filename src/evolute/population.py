"""The members of a population as the host sees them; their networks live in placement's groups."""

from dataclasses import dataclass, field

import numpy as np

from evolute.environments import Environment
from evolute.hyperparameters import Hyperparameters
from evolute.replay import ReplayBuffer


@dataclass
class Member:
    """One agent: what is not a network. Its slot and kind never change."""

    slot: int
    kind: str
    hyperparameters: Hyperparameters
    environment: Environment
    replay: ReplayBuffer
    # over the whole run
    environment_steps: int = 0
    gradient_steps: int = 0
    fitness: float = float("nan")
    # Slot of the member that this one copied last; None while it has copied nobody.
    parent: int | None = None
    # Whether its curvature is to be gathered anew before its next update.
    needs_burn_in: bool = True
    # this interval
    observation: np.ndarray = field(default_factory=lambda: np.zeros(0, np.float32))
    warm_up_rng: np.random.Generator = field(default_factory=np.random.default_rng)
    replay_rng: np.random.Generator = field(default_factory=np.random.default_rng)
    episode_return: float = 0.0
    finished_returns: list[float] = field(default_factory=list)

    def begin_interval(self, reset_seed: int, warm_up_rng: np.random.Generator, replay_rng: np.random.Generator) -> None:
        """Start an interval with random streams of its own.

        The environment is reset, so an episode that the last interval's end cut counts as truncated.
        """
        self.observation = self.environment.reset(reset_seed)
        self.warm_up_rng = warm_up_rng
        self.replay_rng = replay_rng
        self.episode_return = 0.0
        self.finished_returns = []

    def warm_up_action(self, noise: float) -> np.ndarray:
        """Return a uniformly random action [A]; with Gaussian `noise` on top, clipped, where that is not zero."""
        rng, shape = self.warm_up_rng, self.environment.shape.actions
        action = rng.uniform(-1.0, 1.0, shape)
        if noise:
            action = np.clip(action + noise * rng.standard_normal(shape), -1.0, 1.0)
        return action.astype(np.float32)

    def advance(self, action: np.ndarray) -> None:
        """Take an action [A] in [-1, 1], remember the transition, and start a new episode where this one ended."""
        step = self.environment.step(action)
        self.replay.insert(self.observation, action, step.reward, step.obs, step.terminated)
        self.environment_steps += 1
        self.episode_return += step.reward
        if step.terminated or step.truncated:
            self.finished_returns.append(self.episode_return)
            self.episode_return = 0.0
            self.observation = self.environment.reset()
        else:
            self.observation = step.obs
