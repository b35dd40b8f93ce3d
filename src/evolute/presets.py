"""Which settings an algorithm has, and their defaults: public hyperparameters, which may look at the environment."""

from collections.abc import Callable, Mapping
from typing import Any

from evolute.structure import PLAIN, Structure

_EVERY = ("actor_layers", "critic_layers", *Structure._fields, "discount", "tau", "batch_size")
_NOISY = ("exploration_noise", "warm_up_noise")

# The settings of each algorithm: of those, members of other algorithms may have other values, or none.
ALGORITHMS: Mapping[str, tuple[str, ...]] = {
    "td3": (*_EVERY, *_NOISY, "policy_delay", "target_noise", "target_noise_clip"),
    "ddpg": (*_EVERY, *_NOISY),
    "sac": (*_EVERY, "temperature_learning_rate"),
}


def _zoo(env: str, algorithm: str) -> dict[str, Any]:
    """RL Baselines3 Zoo's hyperparameters on MuJoCo v4 (hyperparams/td3.yml, ddpg.yml and sac.yml at 22e3ff2)."""
    sac = algorithm == "sac"
    return {
        "steps": 2_000_000 if env.startswith("Humanoid-") else 1_000_000,
        "actor_layers": (256, 256) if sac else (400, 300),
        "critic_layers": (256, 256) if sac else (400, 300),
        **PLAIN._asdict(),
        "discount": (0.999 if sac else 0.9999) if env.startswith("Swimmer-") else 0.99,
        "tau": 0.005,
        "policy_delay": 2,
        "target_noise": 0.2,
        "target_noise_clip": 0.5,
        "exploration_noise": 0.1,
        "warm_up_noise": False,
        "temperature_learning_rate": 3e-4,
        "learning_starts": 10_000,
        "buffer_size": 1_000_000,
        "batch_size": 256,
        "learning_rate": dict.fromkeys(("actor", "critic"), 3e-4 if sac else 1e-3),
    }


def _sb3(env: str, algorithm: str) -> dict[str, Any]:
    """The Zoo's hyperparameters as Stable-Baselines3 applies them: noise in the warm-up, too."""
    return _zoo(env, algorithm) | {"warm_up_noise": True}


def _cleanrl(env: str, algorithm: str) -> dict[str, Any]:
    """CleanRL's own defaults (td3_, ddpg_ and sac_continuous_action.py); its DDPG's delay of 2 is no setting here."""
    sac = algorithm == "sac"
    return _zoo(env, algorithm) | {
        "steps": 1_000_000,
        "actor_layers": (256, 256),
        "critic_layers": (256, 256),
        "discount": 0.99,
        "temperature_learning_rate": 1e-3,
        "learning_starts": 5_000 if sac else 25_000,
        "learning_rate": {"actor": 3e-4, "critic": 1e-3 if sac else 3e-4},
    }


# What a run leaves out, by the environment's name and the algorithm's; "learning_rate" is that of first-order optimizers, by
# network.
PRESETS: dict[str, Callable[[str, str], dict[str, Any]]] = {"paper": _zoo, "sb3": _sb3, "cleanrl": _cleanrl}
