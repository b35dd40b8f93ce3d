"""The contract of an algorithm: pure functions over what one member learns, which placement compiles and maps over members."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from evolute.hyperparameters import Hyperparameters
from evolute.networks import MLP
from evolute.optimizers import Contained, nothing_contained
from evolute.structure import Structure

# What one member learns: an algorithm's own NamedTuple of networks, targets and optimizer states. Every one has the fields
# `actor`, an MLP that sees the observation, and `critics` and `target_critics`, MLPs that see [obs, action]; the actor's target,
# if there is one, is `target_actor`.
Learner = Any


class Batch(NamedTuple):
    """B transitions. Truncated ones have terminated = 0: the learner bootstraps through truncation."""

    obs: jax.Array  # [B, O]
    action: jax.Array  # [B, A], in [-1, 1]
    reward: jax.Array  # [B]
    next_obs: jax.Array  # [B, O]
    terminated: jax.Array  # [B], 0 or 1; with n-step returns between them (maths.md E1n)
    weight: jax.Array  # [B], sums to one; zero where a row only pads the batch


class Sums(NamedTuple):
    """What updates say of themselves, as sums that add up over updates: divide by the count beside them. All [] float32.

    An update whose loss is not finite is in `contained.losses` instead, and in no other sum.
    """

    updates: jax.Array
    critic_updates: jax.Array  # of all critics, added
    critic_loss: jax.Array  # of all critics, added
    q_value: jax.Array
    critic_contained: Contained  # of all critics, added
    actor_updates: jax.Array
    actor_loss: jax.Array
    actor_contained: Contained

    @property
    def contained(self) -> Contained:
        """Return what was contained in all networks."""
        return Contained(*(critic + actor for critic, actor in zip(self.critic_contained, self.actor_contained, strict=True)))


def no_sums() -> Sums:
    """Return the sums of no updates."""
    zero = jnp.zeros((), jnp.float32)
    return Sums(zero, zero, zero, zero, nothing_contained(), zero, zero, nothing_contained())


class Algorithm(NamedTuple):
    """What a member learns by, for networks of some sizes and some optimizers. All functions are pure and of one member.

    Axes: B samples, O observations, A actions; a number without axes is [].
    """

    observations: int
    actions: int
    # How its networks compute.
    structure: Structure
    # How many standard normal numbers `learn` wants for each sample, N.
    noise: int
    # (generator, which is consumed) -> a new learner as host arrays, without optimizer states
    init: Callable[[np.random.Generator], Learner]
    # (learner) -> the same with optimizer states as new
    reset: Callable[[Learner], Learner]
    # (learner) -> the same without optimizer states
    strip: Callable[[Learner], Learner]
    # (learner) -> its networks by the names that people read, actor first
    networks: Callable[[Learner], Mapping[str, Any]]
    # (actor) -> the policy that is evaluated and kept: an MLP whose output's tanh is the deterministic action [A] in [-1, 1]
    policy: Callable[[MLP], MLP]
    # (actor, obs [O], hyperparameters, standard normal noise [A]) -> an action [A] in [-1, 1] for training
    explore: Callable[[MLP, jax.Array, Hyperparameters, jax.Array], jax.Array]
    # (learner, batch, hyperparameters, standard normal noise [B, N], updates done so far by the group, shared by all its
    # members) -> the learner after one update and its sums
    learn: Callable[[Learner, Batch, Hyperparameters, jax.Array, jax.Array], tuple[Learner, Sums]]
    # In turn: for how many batches, and (learner, batch, hyperparameters, noise) -> the learner whose curvature optimizers have
    # gathered the batch. Empty where no optimizer gathers curvature.
    burn_ins: tuple[tuple[int, Callable[[Learner, Batch, Hyperparameters, jax.Array], Learner]], ...]
