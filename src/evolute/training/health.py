"""What shows a network that has gone wrong: the norms of its layers, and hidden units that answer to nothing."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import numpy as np

from evolute.algorithms.base import Learner
from evolute.structure import PLAIN, SLOPES, Structure, hidden_units

# Transitions of the replay, evenly spaced, on which a unit must answer once to count as alive.
LOOKED_AT = 1_024
# A unit answers to nothing where its activation's slope is below this for every transition: a rectified unit that is zero, a tanh
# beyond ±4.15, an elu below -6.9.
FLAT = 1e-3
# A hidden layer of which more than this share is dead has mostly died: Adam's critics have about a quarter.
MOSTLY = 0.75


class Health(NamedTuple):
    """The state of one member's networks; of the critics the worst one."""

    actor_norms: list[float]  # by layer: the Frobenius norm of its weights
    critic_norms: list[float]
    actor_dead: float  # the share of dead units in the hidden layer that has most of them; NaN without transitions
    critic_dead: float


def not_finite(networks: Mapping[str, Any]) -> list[str]:
    """Return which of a member's networks, given by name as host arrays, have a parameter that is not finite."""
    return [name for name, part in networks.items() if not all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(part))]


def examine(learner: Learner, rows: np.ndarray, observations: int, actions: int, structure: Structure = PLAIN) -> Health:
    """Return the health of a member's networks, given as host arrays, on transitions [N, W] as they see them."""
    seen, both = rows[:, :observations], rows[:, : observations + actions]
    critics = [norms(critic) for critic in learner.critics]
    return Health(
        norms(learner.actor),
        [max(pair) for pair in zip(*critics, strict=True)],
        dead_share(learner.actor, seen, structure),
        max(dead_share(critic, both, structure) for critic in learner.critics),
    )


def norms(mlp: Any) -> list[float]:
    """Return the Frobenius norm of each layer's weights."""
    return [float(np.linalg.norm(layer.w)) for layer in mlp]


def dead_share(mlp: Any, inputs: np.ndarray, structure: Structure) -> float:
    """Return the share of units whose slope is flat for all inputs [N, i], in the hidden layer that has most of them."""
    slopes = [SLOPES[structure.activation](units) for units in hidden_units(mlp, inputs, structure)]
    return max(float(np.mean((slope < FLAT).all(axis=0))) for slope in slopes) if len(inputs) else float("nan")
