"""K-FAC in two curvatures: `kfac` (Gauss-Newton, norm-constrained) and `kfac_empirical` (the paper's library).

References:
    Martens & Grosse 2015, arXiv 1503.05671 (factors, damping); Ba, Grosse & Martens 2017 (norm constraint); docs/maths.md E9-E17.
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp

from evolute import limits
from evolute.networks import MLP, Layer
from evolute.optimizers import factors
from evolute.optimizers.base import CLIP, EXACT_TAPE, Contained, Optimizer, Rates, Tape, all_finite, keep_if, nothing_contained
from evolute.optimizers.curvature import as_counts, bounded_rate, input_factor, output_factor, shorten
from evolute.optimizers.factors import EigenPair, InversePair
from evolute.options import DECAY, SWITCH, declared, positive, setting


@declared
class KFACOptions:
    """Options of one network's K-FAC."""

    learning_rate: float = setting("Step size; effectively ten times that with the default momentum.", positive(), "0.1")
    damping: float = setting("Tikhonov damping λ of the curvature A ⊗ B.", positive(), "0.1")
    clip: float = setting(*CLIP, default=float("inf"))
    momentum: float = setting("Heavy-ball momentum.", DECAY, "0.9", default=0.9)
    average: float = setting("Decay of the factors' moving average, per statistics step.", DECAY, "0.95", default=0.95)
    statistics_every: int = setting(
        "Updates between two measurements of the factors.", positive(limits.UPDATES), "2", "updates", default=2
    )
    inverse_every: int = setting(
        "Updates between two inversions of the factors.", positive(limits.UPDATES), "20", "updates", default=20
    )
    burn_in: int = setting(
        "Batches that fill the factors before the first step after an initialisation.",
        positive(limits.BURN_IN),
        "10",
        "batches",
        default=10,
    )
    exact_damping: bool = setting(
        "Damp A ⊗ B exactly, through eigenvectors, instead of factor by factor. Dearer to refresh.",
        SWITCH,
        "true",
        default=False,
    )
    exact_tape: bool = setting(*EXACT_TAPE, default=False)


class KFACState(NamedTuple):
    """One network's K-FAC state; tuples run over layers."""

    # every statistics step
    weight: jax.Array  # []: total weight in the moving averages, which corrects their bias (E10)
    A: tuple[jax.Array, ...]  # [i+1, i+1]
    B: tuple[jax.Array, ...]  # [o, o]
    # every inverse step
    roots: tuple[InversePair | EigenPair, ...]
    # every step
    velocity: MLP  # the last change of the parameters


# What a measurement of the factors changes, and what their inversion does.
Factors = tuple[jax.Array, tuple[jax.Array, ...], tuple[jax.Array, ...]]
Roots = tuple[InversePair | EigenPair, ...]


def homogeneous(layer: Layer) -> jax.Array:
    """Return a layer's weights and, as the last row, its bias [i+1, o]."""
    return jnp.concatenate([layer.w, layer.b[None]])


def as_layer(matrix: jax.Array) -> Layer:
    """Split a homogeneous matrix [i+1, o] into weights and bias."""
    return Layer(matrix[:-1], matrix[-1])


def gauss_newton(tape: Tape) -> tuple[jax.Array, ...]:
    """Return the vectors whose outer products make the Gauss-Newton factor B, each [K, B, o]."""
    return tape.sensitivities


def empirical(tape: Tape) -> tuple[jax.Array, ...]:
    """Return the vectors whose outer products make the empirical Fisher's factor B, each [1, B, o]."""
    return tuple(g[None] for g in tape.gradients)


def kfac(options: KFACOptions) -> Optimizer:
    """K-FAC on the generalized Gauss-Newton matrix, with the norm constraint."""
    return _kfac(options, gauss_newton, damp_scalars=False)


def kfac_empirical(options: KFACOptions) -> Optimizer:
    """K-FAC on the empirical Fisher matrix, as pytorch-kfac does: 1 x 1 factors are damped, too."""
    return _kfac(options, empirical, damp_scalars=True)


def _kfac(options: KFACOptions, output_vectors, damp_scalars: bool) -> Optimizer:
    def init(parameters: MLP) -> KFACState:
        matrices = tuple(homogeneous(layer) for layer in parameters)

        def squares(axis: int) -> tuple[jax.Array, ...]:
            return tuple(jnp.zeros((m.shape[axis],) * 2, m.dtype) for m in matrices)

        def root(m: jax.Array) -> InversePair | EigenPair:
            eye_A, eye_B = jnp.eye(m.shape[0], dtype=m.dtype), jnp.eye(m.shape[1], dtype=m.dtype)
            if options.exact_damping:
                return EigenPair(eye_A, jnp.ones(len(eye_A), m.dtype), eye_B, jnp.ones(len(eye_B), m.dtype))
            return InversePair(eye_A, eye_B)

        return KFACState(
            weight=jnp.zeros((), matrices[0].dtype),
            A=squares(0),
            B=squares(1),
            roots=tuple(root(m) for m in matrices),
            velocity=jax.tree.map(jnp.zeros_like, parameters),
        )

    def measure(state: KFACState, tape: Tape) -> tuple[Factors, jax.Array]:
        fresh_A = tuple(input_factor(x, tape.weights) for x in tape.inputs)
        fresh_B = tuple(output_factor(v, tape.weights) for v in output_vectors(tape))

        def average(old: jax.Array, new: jax.Array) -> jax.Array:
            return options.average * old + new

        A, B = tuple(map(average, state.A, fresh_A)), tuple(map(average, state.B, fresh_B))
        finite = all_finite((A, B))
        measured = (options.average * state.weight + 1.0, A, B)
        return keep_if(finite, measured, (state.weight, state.A, state.B)), jnp.float32(~finite)

    def refresh(state: KFACState, damping: jax.Array | float) -> tuple[Roots, jax.Array]:
        # A state that has measured nothing yet keeps its initial roots: 0/0 would only be caught further down.
        weight = jnp.maximum(state.weight, jnp.finfo(state.weight.dtype).tiny)
        roots, failures = [], []
        for A, B, previous in zip(state.A, state.B, state.roots, strict=True):
            if isinstance(previous, EigenPair):
                root, failed = factors.decompose(A / weight, B / weight, previous)
            else:
                root, failed = factors.invert(A / weight, B / weight, damping, previous, damp_scalars)
            roots.append(root)
            failures.append(failed)
        return tuple(roots), sum(failures, jnp.zeros((), jnp.float32))

    def update(
        gradients: MLP, state: KFACState, parameters: MLP, rates: Rates, tape: Tape, step: jax.Array
    ) -> tuple[MLP, KFACState, Contained]:
        nothing = jnp.zeros((), jnp.float32)
        # A branch copies all that comes out of it, taken or not: only what it may change does.
        (weight, A, B), lost = jax.lax.cond(
            step % options.statistics_every == 0,
            lambda s: measure(s, tape),
            lambda s: ((s.weight, s.A, s.B), nothing),
            state,
        )
        state = state._replace(weight=weight, A=A, B=B)
        roots, failed = jax.lax.cond(
            step % options.inverse_every == 0, lambda s: refresh(s, rates.damping), lambda s: (s.roots, nothing), state
        )
        state = state._replace(roots=roots)
        matrices = tuple(homogeneous(layer) for layer in gradients)
        directions = tuple(
            factors.precondition_exactly(root, g, rates.damping) if isinstance(root, EigenPair) else factors.precondition(root, g)
            for root, g in zip(state.roots, matrices, strict=True)
        )
        # Increments first, or the whole step's bound would cut off what momentum remembers, whenever one increment is too long.
        rate = bounded_rate(rates.learning_rate, directions, matrices, (1.0 - options.momentum) * options.clip, tape)
        increments = tuple(map(as_layer, directions))
        velocity = jax.tree.map(lambda v, d: options.momentum * v - rate * d, state.velocity, increments)
        # The whole step, momentum included: it is what moves the network.
        velocity, taken = shorten(velocity, options.clip, tape)
        # A bounded step has been measured with every number in it, and one that is not finite makes the measure so.
        finite = all_finite(velocity) if math.isinf(options.clip) else jnp.isfinite(taken)
        # A broken velocity is forgotten; the factors and their inverses are finite already.
        velocity = keep_if(finite, velocity, jax.tree.map(jnp.zeros_like, velocity))
        contained = nothing_contained()._replace(statistics=lost, inverses=failed, steps=jnp.float32(~finite), **as_counts(taken))
        return jax.tree.map(jnp.add, parameters, velocity), state._replace(velocity=velocity), contained

    return Optimizer(init, update, options.burn_in, options.exact_tape)
