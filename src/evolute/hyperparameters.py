"""The numbers that population-based training may change while a member trains.

They are data: arguments of the compiled programs, never constants in them. Changing one does not recompile.
"""

from typing import Any, NamedTuple

import numpy as np


class Hyperparameters(NamedTuple):
    """One member's hyperparameters; with a leading axis [M] inside a group of members."""

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


def as_arrays(members: list[Hyperparameters]) -> Hyperparameters:
    """Stack the hyperparameters of M members into float32 arrays [M] for a compiled program."""
    columns: Any = (np.asarray(column, np.float32) for column in zip(*members, strict=True))
    return Hyperparameters(*columns)
