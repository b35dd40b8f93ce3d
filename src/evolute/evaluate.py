"""Deterministic returns: a policy without exploration noise, completed episodes only."""

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from evolute.environments import Environment

# Where an environment has no time limit of its own, an episode of evaluation is cut here and counted as it stands.
LONGEST_EPISODE = 10_000


class Evaluation(NamedTuple):
    """Returns and lengths of completed episodes."""

    returns: list[float]
    lengths: list[int]

    @property
    def mean(self) -> float:
        """The mean return; NaN without a completed episode."""
        return float(np.mean(self.returns)) if self.returns else math.nan

    @property
    def std(self) -> float:
        """The returns' standard deviation; NaN without a completed episode."""
        return float(np.std(self.returns)) if self.returns else math.nan


def play(
    environment: Environment, act: Callable[[np.ndarray], np.ndarray], seed: int | None, limit: int
) -> tuple[float, int, bool]:
    """Play one episode.

    Args:
        environment: is reset with `seed` first.
        act: observation [O] to action [A] in [-1, 1].
        seed: of the episode; None to go on with the environment's own randomness.
        limit: the most steps to take.

    Returns:
        The return, the length, and whether the episode ended by itself.
    """
    obs = environment.reset(seed)
    total, length = 0.0, 0
    while length < limit:
        step = environment.step(act(obs))
        obs, total, length = step.obs, total + step.reward, length + 1
        if step.terminated or step.truncated:
            return total, length, True
    return total, length, False


def by_episodes(environment: Environment, act: Callable[[np.ndarray], np.ndarray], seeds: list[int]) -> Evaluation:
    """Play one episode per seed; the same seeds for all members make their fitness comparable."""
    played = [play(environment, act, seed, LONGEST_EPISODE) for seed in seeds]
    return Evaluation([total for total, _, _ in played], [length for _, length, _ in played])


def by_steps(environment: Environment, act: Callable[[np.ndarray], np.ndarray], steps: int, seed: int) -> Evaluation:
    """Play `steps` environment steps and count completed episodes only: RL Baselines3 Zoo's protocol."""
    returns, lengths, left = [], [], steps
    episode_seed: int | None = seed
    while left > 0:
        total, length, completed = play(environment, act, episode_seed, left)
        left, episode_seed = left - length, None
        if completed:
            returns.append(total)
            lengths.append(length)
    return Evaluation(returns, lengths)
