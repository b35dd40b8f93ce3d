"""The numbers that population-based training may change while a member trains.

They are data: arguments of the compiled programs, never constants in them. Changing one does not recompile.
"""

from typing import NamedTuple

import numpy as np


class Hyperparameters(NamedTuple):
    """One member's hyperparameters; inside a compiled program each is an array []."""

    batch_size: int
    actor_learning_rate: float
    critic_learning_rate: float
    # Zero, and never perturbed, where the network's optimizer has no damping.
    actor_damping: float
    critic_damping: float
    discount: float
    tau: float
    target_noise: float
    target_noise_clip: float
    exploration_noise: float


# Least and largest values that exploration may reach; a run's `bounds` narrow or widen them.
BOUNDS: dict[str, tuple[float, float]] = {
    "batch_size": (32, 1024),
    "actor_learning_rate": (1e-6, 10.0),
    "critic_learning_rate": (1e-6, 10.0),
    "actor_damping": (1e-8, 1e4),
    "critic_damping": (1e-8, 1e4),
    "discount": (0.5, 0.99999),
    "tau": (1e-4, 0.5),
    "target_noise": (1e-3, 1.0),
    "target_noise_clip": (1e-3, 2.0),
    "exploration_noise": (1e-3, 1.0),
}


def as_array(members: list[Hyperparameters]) -> np.ndarray:
    """Return the hyperparameters of M members as one array [M, H] for a compiled program: float32, in the order of the fields."""
    return np.asarray(members, np.float32)
