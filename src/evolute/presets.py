"""Where a run's defaults come from: the hyperparameters of public TD3s, which may look at the environment."""

from collections.abc import Callable
from typing import Any


def _zoo(env: str) -> dict[str, Any]:
    """RL Baselines3 Zoo's hyperparameters for TD3 on MuJoCo v4 (hyperparams/td3.yml, unchanged since January 2024)."""
    return {
        "steps": 2_000_000 if env.startswith("Humanoid-") else 1_000_000,
        "actor_layers": (400, 300),
        "critic_layers": (400, 300),
        "discount": 0.9999 if env.startswith("Swimmer-") else 0.99,
        "tau": 0.005,
        "policy_delay": 2,
        "target_noise": 0.2,
        "target_noise_clip": 0.5,
        "exploration_noise": 0.1,
        "warm_up_noise": False,
        "learning_starts": 10_000,
        "buffer_size": 1_000_000,
        "batch_size": 256,
        "learning_rate": 1e-3,
    }


def _sb3(env: str) -> dict[str, Any]:
    """The Zoo's hyperparameters as Stable-Baselines3 applies them: noise in the warm-up, too."""
    return _zoo(env) | {"warm_up_noise": True}


def _cleanrl(env: str) -> dict[str, Any]:
    """CleanRL's own defaults (td3_continuous_action.py)."""
    return _zoo(env) | {
        "steps": 1_000_000,
        "actor_layers": (256, 256),
        "critic_layers": (256, 256),
        "discount": 0.99,
        "learning_starts": 25_000,
        "learning_rate": 3e-4,
    }


# What a run leaves out, by the environment's name; "learning_rate" is that of first-order optimizers.
PRESETS: dict[str, Callable[[str], dict[str, Any]]] = {"paper": _zoo, "sb3": _sb3, "cleanrl": _cleanrl}
