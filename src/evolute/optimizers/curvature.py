"""What a tape says of a network's curvature, and how far a step may go in it.

Axes: B samples, i inputs and o outputs of a layer, K columns of the output Hessian's root.
"""

import math
from typing import Any

import jax
import jax.numpy as jnp

from evolute.networks import MLP, Layer, product
from evolute.optimizers.base import Tape
from evolute.optimizers.factors import HIGHEST, symmetric

# The change of the output is measured on so many samples of a batch: the rows of a batch are independent draws, so the first ones
# are as good as any, and 64 of them give a root mean square to within about a tenth.
CHANGE_SAMPLES = 64


def input_factor(x: jax.Array, weights: jax.Array) -> jax.Array:
    """Return A = Σ_n w_n ā_n ā_nᵀ [i+1, i+1] for layer inputs [B, i] (E9)."""
    return _square(jnp.concatenate([x, jnp.ones_like(x[:, :1])], axis=1), weights)


def output_factor(pulled: jax.Array, weights: jax.Array) -> jax.Array:
    """Return B = Σ_k Σ_n w_n s_kn s_knᵀ [o, o] for pulled-back vectors [K, B, o] (E9)."""
    return _square(pulled.reshape(-1, pulled.shape[-1]), jnp.tile(weights, len(pulled)))


def _square(rows: jax.Array, weights: jax.Array) -> jax.Array:
    # The same matrix on both sides: what comes out is symmetric to the last bit on processors with AVX-512, and on others once it
    # is made so. Checkpoints store half of it.
    weighted = rows * jnp.sqrt(weights)[:, None]
    return symmetric(jnp.matmul(weighted.T, weighted, precision=HIGHEST))


def diagonal(tape: Tape) -> MLP:
    """Return the diagonal of the generalized Gauss-Newton matrix, Σ_n w_n Σ_k (ā_n ∘ ā_n)(s_kn ∘ s_kn)ᵀ, by layer (E7)."""
    layers = []
    for x, pulled in zip(tape.inputs, tape.sensitivities, strict=True):
        squared = tape.weights[:, None] * jnp.sum(pulled**2, axis=0)
        layers.append(Layer(jnp.matmul((x**2).T, squared, precision=HIGHEST), squared.sum(0)))
    return tuple(layers)


def output_change(step: MLP, tape: Tape, samples: int = CHANGE_SAMPLES) -> jax.Array:
    """Return the mean squared change of the output that a step of the parameters makes on the tape's first samples [] (E14).

    It is linear in the step, Σ_n w_n Σ_k (Σ_l ā_nᵀ v_l s_lkn)² = vᵀ C v with C of E6: exact for a critic, and for an actor with
    an exact tape; with one draw of signs right on average. One product per layer.

    Args:
        step: the change v of the parameters.
        tape: the batch's tape; padding comes last in it.
        samples: how many samples of the batch it is measured on; a batch with no more counts in full.
    """
    weights = tape.weights[:samples]
    changes = jnp.zeros((len(tape.sensitivities[0]), len(weights)), weights.dtype)
    for layer, x, pulled in zip(step, tape.inputs, tape.sensitivities, strict=True):
        changes += jnp.sum(pulled[:, :samples] * (product(x[:samples], layer.w) + layer.b), axis=-1)
    # A batch without samples changes nothing: its weights are zeros.
    return jnp.sum(weights * changes**2) / jnp.maximum(jnp.sum(weights), jnp.finfo(weights.dtype).tiny)


def bounded_rate(learning_rate: jax.Array | float, direction: Any, gradient: Any, clip: float, tape: Tape) -> jax.Array | float:
    """Return the learning rate [] with which an increment keeps to a bound in the factored curvature (E15).

    Args:
        learning_rate: [].
        direction: the preconditioned gradient Δ, a pytree.
        gradient: the gradient G, a pytree like it; lr² ⟨Δ, G⟩ is the increment's squared length in the damped curvature.
        clip: the longest increment, in units of sqrt(tape.trust); inf for no bound.
        tape: the batch's tape.

    Returns:
        The rate; NaN where the length is not finite, so that the step is contained.
    """
    if math.isinf(clip):
        return learning_rate
    pairs = zip(jax.tree.leaves(direction), jax.tree.leaves(gradient), strict=True)
    squared = learning_rate**2 * sum(jnp.vdot(d, g) for d, g in pairs)
    limit = jnp.maximum(clip**2 * tape.trust, jnp.finfo(tape.trust.dtype).tiny)
    rate = learning_rate * jnp.sqrt(limit / jnp.maximum(squared, limit))
    return jnp.where(jnp.isfinite(squared), rate, jnp.nan)


def shorten(step: MLP, clip: float, tape: Tape) -> tuple[MLP, jax.Array]:
    """Return a step that keeps to the norm constraint, ν v, and ν [], the fraction of it that is taken (E14).

    Args:
        step: the whole change v of the parameters, momentum included.
        clip: the longest step, as root-mean-square change of the output, in units of sqrt(tape.trust); inf for no constraint.
        tape: the batch's tape.

    Returns:
        The step; NaN where its length is not finite, so that it is contained and counted like any other that is not.
    """
    if math.isinf(clip):
        return step, jnp.ones((), tape.weights.dtype)
    squared = output_change(step, tape)
    limit = jnp.maximum(clip**2 * tape.trust, jnp.finfo(tape.trust.dtype).tiny)
    taken = jnp.sqrt(limit / jnp.maximum(squared, limit))
    taken = jnp.where(jnp.isfinite(squared), taken, jnp.nan)
    return jax.tree.map(lambda v: taken * v, step), taken


def as_counts(taken: jax.Array) -> dict[str, jax.Array]:
    """Return what a taken fraction [] adds to the counts of an update; nothing where the step is left out as not finite."""
    known = jnp.where(jnp.isfinite(taken), taken, 1.0)
    return {"shortened": jnp.float32(known < 1.0), "shortening": jnp.float32(1.0 - known)}
