"""DDPG for one member (Lillicrap et al. 2015, arXiv 1509.02971): TD3 without what TD3 added to it.

One critic, an actor and targets that move at every update, and no noise on target actions, as in Stable-Baselines3. What
remains is TD3's code (td3.py) with these choices fixed.
"""

from collections.abc import Callable
from typing import Any

from evolute.algorithms import td3
from evolute.algorithms.base import Algorithm, Batch, Learner
from evolute.hyperparameters import Hyperparameters


def make(settings: td3.Settings) -> Algorithm:
    """Return DDPG as an algorithm; the settings' delay and number of critics are not used."""
    algorithm = td3.make(settings._replace(policy_delay=1, critics=1))
    return algorithm._replace(
        learn=quiet(algorithm.learn),
        burn_ins=tuple((count, quiet(gather)) for count, gather in algorithm.burn_ins),
    )


def quiet(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function of TD3 (learner, batch, hyperparameters, ...) without noise on target actions."""

    def without_noise(learner: Learner, batch: Batch, hyper: Hyperparameters, *rest: Any) -> Any:
        return function(learner, batch, hyper._replace(target_noise=0.0, target_noise_clip=0.0), *rest)

    return without_noise
