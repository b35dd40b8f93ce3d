"""The members of a population as the host sees them; their networks live in placement's groups."""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from evolute.environments import Environment
from evolute.evolve import Standing
from evolute.hyperparameters import Hyperparameters
from evolute.randomness import Purpose
from evolute.replay import ReplayBuffer, Sample


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
    noise_rng: np.random.Generator = field(default_factory=np.random.default_rng)
    episode_return: float = 0.0
    finished_returns: list[float] = field(default_factory=list)

    @property
    def standing(self) -> Standing:
        """What evolution sees of it."""
        return Standing(self.slot, self.kind, self.fitness, self.hyperparameters)

    def begin_interval(self, stream: Callable[[Purpose], np.random.Generator]) -> None:
        """Start an interval with random streams of its own.

        The environment is reset, so an episode that the last interval's end cut counts as truncated.
        """
        self.observation = self.environment.reset(int(stream(Purpose.ENVIRONMENT).integers(2**31)))
        self.warm_up_rng = stream(Purpose.WARM_UP)
        self.replay_rng = stream(Purpose.REPLAY)
        self.noise_rng = stream(Purpose.NOISE)
        self.episode_return = 0.0
        self.finished_returns = []

    def warm_up_action(self, noise: float) -> np.ndarray:
        """Return a uniformly random action [A]; with Gaussian `noise` on top, clipped, where that is not zero."""
        rng, shape = self.warm_up_rng, self.environment.shape.actions
        action = rng.uniform(-1.0, 1.0, shape)
        if noise:
            action = np.clip(action + noise * rng.standard_normal(shape), -1.0, 1.0)
        return action.astype(np.float32)

    def noise(self) -> np.ndarray:
        """Return standard normal noise [A] for an exploring action."""
        return self.noise_rng.standard_normal(self.environment.shape.actions, np.float32)

    def sample(self, padded: int, rng: np.random.Generator | None = None) -> Sample:
        """Draw a batch of this member's size, padded to the compiled one, and its noise."""
        rng = rng or self.replay_rng
        rows, weights = self.replay.sample(rng, self.hyperparameters.batch_size, padded)
        return Sample(rows, weights, rng.standard_normal((padded, self.environment.shape.actions), np.float32))

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
