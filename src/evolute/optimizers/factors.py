"""Factored damping, inverses that cannot fail, and exact damping through eigenvectors, for one Kronecker-factored layer.

Nothing here raises: a factor that cannot be inverted leaves the previous inverse in place and is counted (maths.md E17).
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

# A float32 factor without full rank needs about 10^-5.5 of its mean eigenvalue to pass a Cholesky factorisation.
RELATIVE_FLOOR = 1e-5
LADDER_RUNGS = 4
HIGHEST = jax.lax.Precision.HIGHEST


class InversePair(NamedTuple):
    """Damped inverses of one layer's factors."""

    A: jax.Array  # [i+1, i+1]
    B: jax.Array  # [o, o]


class EigenPair(NamedTuple):
    """Eigenvectors and eigenvalues of one layer's factors, for damping the product exactly."""

    A_vectors: jax.Array  # [i+1, i+1]
    A_values: jax.Array  # [i+1]
    B_vectors: jax.Array  # [o, o]
    B_values: jax.Array  # [o]


def one_by_one_on_a_cpu(function: Callable[[jax.Array], Any]) -> Callable[[jax.Array], Any]:
    """Return a function of a matrix that under `vmap` takes one member's matrix after the other's where it runs on a CPU.

    JAX's kernels of factorisations share a batch out to the threads that they run on themselves: where all of those wait for
    their shares, nobody is left to compute one, and the program never returns (jax 0.10.2 on two cores, within seconds).
    """
    alone = jax.custom_batching.custom_vmap(function)

    @alone.def_vmap
    def rule(members: int, batched: list[bool], matrices: jax.Array) -> tuple[Any, Any]:
        del members, batched
        found = jax.lax.platform_dependent(matrices, cpu=lambda all_: jax.lax.map(function, all_), default=jax.vmap(function))
        return found, jax.tree.map(lambda _: True, found)

    return alone


@one_by_one_on_a_cpu
def cholesky(matrix: jax.Array) -> jax.Array:
    """Return the lower triangular factor of a symmetric matrix; NaN where it is not positive definite."""
    return jax.lax.linalg.cholesky(matrix, symmetrize_input=False)


@one_by_one_on_a_cpu
def inverse_of_lower(lower: jax.Array) -> jax.Array:
    """Return the inverse of a lower triangular matrix."""
    return jax.lax.linalg.triangular_solve(lower, jnp.eye(len(lower), dtype=lower.dtype), left_side=True, lower=True)


def symmetric(matrix: jax.Array) -> jax.Array:
    """Return the symmetric part."""
    return 0.5 * (matrix + matrix.T)


def split_damping(A: jax.Array, B: jax.Array, damping: jax.Array | float, damp_scalars: bool) -> tuple[jax.Array, jax.Array]:
    """Split the damping of A ⊗ B between its factors so that both are damped alike in relative terms (E11).

    With `damp_scalars` false, a 1 x 1 factor is left as it is and the other one takes all: exact damping for such a layer.
    Where a factor is zero the split is even, sqrt(damping) each.
    """
    mean_A, mean_B = jnp.trace(A) / len(A), jnp.trace(B) / len(B)
    degenerate = ~((mean_A > 0) & (mean_B > 0))
    even = jnp.sqrt(damping)
    if not damp_scalars and len(B) == 1:
        return jnp.where(degenerate, even, damping / mean_B), jnp.where(degenerate, even, 0.0)
    pi = jnp.where(degenerate, 1.0, jnp.sqrt(mean_A / mean_B))
    return pi * even, even / pi


def damped_inverse(matrix: jax.Array, damping: jax.Array | float) -> tuple[jax.Array, jax.Array]:
    """Return (matrix + damping I)⁻¹ and whether it was found.

    The damping is raised to a floor relative to the mean eigenvalue, then tenfold up to four times until the Cholesky
    factorisation is finite. Non-finite input is replaced by the identity before it reaches the factorisation, because some
    solvers do not return on it.
    """
    n = len(matrix)
    matrix = symmetric(matrix)
    usable = jnp.isfinite(matrix).all() & jnp.isfinite(damping)
    identity = jnp.eye(n, dtype=matrix.dtype)
    matrix = jnp.where(usable, matrix, identity)
    floor = RELATIVE_FLOOR if matrix.dtype == jnp.float32 else 0.0
    first = jnp.maximum(jnp.where(usable, damping, 1.0), floor * jnp.trace(matrix) / n)

    def climb(state: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        rung, _ = state
        damped = matrix + first * 10.0**rung * identity
        return rung + 1, cholesky(damped)

    def not_there(state: tuple[jax.Array, jax.Array]) -> jax.Array:
        rung, lower = state
        return (rung <= LADDER_RUNGS) & ~jnp.isfinite(lower).all()

    # The loop starts from no factor at all, so that the factorisation is compiled once; as a rule it runs once.
    start = (jnp.zeros((), matrix.dtype), jnp.full_like(matrix, jnp.nan))
    _, lower = jax.lax.while_loop(not_there, climb, start)
    # The inverse of the triangle times itself costs less here than two triangular solves of a full identity.
    half = inverse_of_lower(lower)
    inverse = symmetric(jnp.matmul(half.T, half, precision=HIGHEST))
    found = usable & jnp.isfinite(inverse).all()
    return inverse, found


def invert(
    A: jax.Array, B: jax.Array, damping: jax.Array | float, previous: InversePair, damp_scalars: bool
) -> tuple[InversePair, jax.Array]:
    """Return the damped inverses of one layer, or the previous ones where they fail; and how many failed []."""
    damping_A, damping_B = split_damping(A, B, damping, damp_scalars)
    inverse_A, found_A = damped_inverse(A, damping_A)
    inverse_B, found_B = damped_inverse(B, damping_B)
    found = found_A & found_B
    pair = InversePair(jnp.where(found, inverse_A, previous.A), jnp.where(found, inverse_B, previous.B))
    return pair, jnp.float32(~found)


def precondition(pair: InversePair, gradient: jax.Array) -> jax.Array:
    """Return A⁻¹ G B⁻¹ for a layer's gradient [i+1, o] (E12)."""
    return jnp.matmul(jnp.matmul(pair.A, gradient, precision=HIGHEST), pair.B, precision=HIGHEST)


def decompose(A: jax.Array, B: jax.Array, previous: EigenPair) -> tuple[EigenPair, jax.Array]:
    """Return eigenvectors and eigenvalues of both factors, or the previous ones where they fail; and how many failed []."""
    usable = jnp.isfinite(A).all() & jnp.isfinite(B).all()
    clean = (jnp.where(usable, symmetric(m), jnp.eye(len(m), dtype=m.dtype)) for m in (A, B))
    fresh = EigenPair(*(part for matrix in clean for part in eigen(matrix)))
    found = usable & jnp.stack([jnp.isfinite(x).all() for x in fresh]).all()
    return jax.tree.map(lambda new, old: jnp.where(found, new, old), fresh, previous), jnp.float32(~found)


@one_by_one_on_a_cpu
def eigen(matrix: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Return a symmetric matrix's eigenvectors [n, n] and eigenvalues [n], those below zero as zero.

    In float32 every eigenvalue has the noise of the largest one, and so many are far smaller than it that a step along them is
    noise. So the decomposition is made in float64 and its result rounded, each number by itself.
    """
    with jax.enable_x64(True):
        values, vectors = jnp.linalg.eigh(matrix.astype(jnp.float64), symmetrize_input=False)
        return vectors.astype(matrix.dtype), jnp.maximum(values, 0.0).astype(matrix.dtype)


def precondition_exactly(pair: EigenPair, gradient: jax.Array, damping: jax.Array | float) -> jax.Array:
    """Return (A ⊗ B + damping I)⁻¹ applied to a layer's gradient [i+1, o] (E13)."""
    rotated = jnp.matmul(jnp.matmul(pair.A_vectors.T, gradient, precision=HIGHEST), pair.B_vectors, precision=HIGHEST)
    scaled = rotated / (jnp.outer(pair.A_values, pair.B_values) + damping)
    return jnp.matmul(jnp.matmul(pair.A_vectors, scaled, precision=HIGHEST), pair.B_vectors.T, precision=HIGHEST)
