"""What a tape says of a network's curvature, and how far a step may go in it.

Axes: B samples, i inputs and o outputs of a layer, K columns of the output Hessian's root.
"""

import math
from typing import Any

import jax
import jax.numpy as jnp

from evolute.networks import MLP, Layer
from evolute.optimizers.base import Tape
from evolute.optimizers.factors import HIGHEST


def input_factor(x: jax.Array, weights: jax.Array) -> jax.Array:
    """Return A = Σ_n w_n ā_n ā_nᵀ [i+1, i+1] for layer inputs [B, i] (E9)."""
    return _square(jnp.concatenate([x, jnp.ones_like(x[:, :1])], axis=1), weights)


def output_factor(pulled: jax.Array, weights: jax.Array) -> jax.Array:
    """Return B = Σ_k Σ_n w_n s_kn s_knᵀ [o, o] for pulled-back vectors [K, B, o] (E9)."""
    return _square(pulled.reshape(-1, pulled.shape[-1]), jnp.tile(weights, len(pulled)))


def _square(rows: jax.Array, weights: jax.Array) -> jax.Array:
    # The same matrix on both sides: what comes out is symmetric to the last bit, so checkpoints store half of it.
    weighted = rows * jnp.sqrt(weights)[:, None]
    return jnp.matmul(weighted.T, weighted, precision=HIGHEST)


def diagonal(tape: Tape) -> MLP:
    """Return the diagonal of the generalized Gauss-Newton matrix, Σ_n w_n Σ_k (ā_n ∘ ā_n)(s_kn ∘ s_kn)ᵀ, by layer (E7)."""
    layers = []
    for x, pulled in zip(tape.inputs, tape.sensitivities, strict=True):
        squared = tape.weights[:, None] * jnp.sum(pulled**2, axis=0)
        layers.append(Layer(jnp.matmul((x**2).T, squared, precision=HIGHEST), squared.sum(0)))
    return tuple(layers)


def constrained_rate(
    learning_rate: jax.Array | float, direction: Any, gradient: Any, clip: float, tape: Tape
) -> jax.Array | float:
    """Return ν · learning_rate, with the largest ν ≤ 1 that keeps the step within the norm constraint (E14).

    Args:
        learning_rate: [].
        direction: the preconditioned gradient Δ, a pytree.
        gradient: the gradient G, a pytree like it; lr² ⟨Δ, G⟩ is the step's squared length in the damped curvature's metric.
        clip: the longest step, in units of sqrt(tape.trust); inf for no constraint.
        tape: the batch's tape.

    Returns:
        The rate []; zero where ⟨Δ, G⟩ is negative, because then Δ is no direction of descent; NaN where it is not finite, so
        that the step is contained and counted like any other that is not.
    """
    if math.isinf(clip):
        return learning_rate
    pairs = zip(jax.tree.leaves(direction), jax.tree.leaves(gradient), strict=True)
    squared = learning_rate**2 * sum(jnp.vdot(d, g) for d, g in pairs)
    limit = jnp.maximum(clip**2 * tape.trust, jnp.finfo(tape.trust.dtype).tiny)
    factor = jnp.sqrt(limit / jnp.where(squared > limit, squared, limit))
    rate = jnp.where(squared < 0, 0.0, learning_rate * factor)
    return jnp.where(jnp.isfinite(squared), rate, jnp.nan)
