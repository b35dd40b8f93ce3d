"""Damping and inverses of Kronecker factors: what they are where all is well, and what remains where it is not."""

import functools
import re
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import oracles
from evolute.optimizers import factors
from evolute.optimizers.factors import EigenPair, InversePair

N = 4
HEALTHY = np.random.default_rng(0).normal(size=(6, N, N))
HEALTHY = (HEALTHY @ HEALTHY.transpose(0, 2, 1) + np.eye(N)).astype(np.float32)

log_scales = st.floats(-6, 6)
split = jax.jit(factors.split_damping, static_argnames="damp_scalars")
inverses = jax.jit(jax.vmap(factors.damped_inverse, in_axes=(0, None)))


def factor(size: int, seed: int, scale: float = 1.0) -> jax.Array:
    root = np.random.default_rng(seed).normal(size=(size, size + 1))
    return jnp.asarray(scale * root @ root.T, jnp.float32)


def mean_eigenvalue(matrix: jax.Array) -> float:
    return float(np.trace(matrix)) / len(matrix)


@given(st.sampled_from([2, 3]), st.sampled_from([1, 3]), log_scales, log_scales, log_scales, st.integers(0, 99))
def test_both_factors_are_damped_alike_and_their_dampings_multiply_to_the_whole(i, o, scale_A, scale_B, damping, seed):
    A, B, damping = factor(i, seed, 10**scale_A), factor(o, seed + 1, 10**scale_B), np.float32(10**damping)
    damping_A, damping_B = split(A, B, damping, damp_scalars=True)
    np.testing.assert_allclose(damping_A * damping_B, damping, rtol=1e-4)
    np.testing.assert_allclose(damping_A / mean_eigenvalue(A), damping_B / mean_eigenvalue(B), rtol=1e-4)


@given(log_scales, log_scales, st.integers(0, 99))
def test_a_scalar_factor_leaves_all_damping_to_the_other_one(scale_B, damping, seed):
    A, B, damping = factor(3, seed), jnp.full((1, 1), 10**scale_B, jnp.float32), np.float32(10**damping)
    damping_A, damping_B = split(A, B, damping, damp_scalars=False)
    assert damping_B == 0
    np.testing.assert_allclose(damping_A * B[0, 0], damping, rtol=1e-5)


@pytest.mark.parametrize("damp_scalars", [False, True])
@pytest.mark.parametrize(("zero", "outputs"), [("A", 2), ("B", 2), ("both", 2), ("A", 1), ("B", 1)])
def test_a_zero_factor_makes_the_split_even(zero, outputs, damp_scalars):
    A = factor(3, 0) * float(zero == "B")
    B = factor(outputs, 1) * float(zero == "A")
    np.testing.assert_allclose(split(A, B, jnp.float32(0.09), damp_scalars=damp_scalars), [0.3, 0.3], rtol=1e-6)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("damping", [0.0, 0.1, 10.0])
def test_an_inverse_is_the_inverse(damping):
    matrix = jnp.asarray(HEALTHY[0], jnp.float64)
    inverse, found = factors.damped_inverse(matrix, jnp.float64(damping))
    assert found
    np.testing.assert_allclose(inverse, np.linalg.inv(matrix + damping * np.eye(N)), rtol=1e-10, atol=1e-12)


SINGULAR = np.ones((N, N), np.float32)
# Each: a matrix, a damping, and the damping with which its inverse is found; None where none is.
MATRICES = {
    "healthy": (HEALTHY[0], 0.1, 0.1),
    "singular": (SINGULAR, 0.1, 0.1),
    "singular, hardly damped": (SINGULAR, 1e-12, 1e-5),  # the floor relative to its mean eigenvalue
    "singular, large": (1e8 * SINGULAR, 1e-12, 1e3),
    "zero": (np.zeros((N, N), np.float32), 0.1, 0.1),
    "zero, not damped": (np.zeros((N, N), np.float32), 0.0, None),
    "indefinite": (np.diag(np.float32([1, 1, 1, -0.5])), 0.1, 1.0),  # one rung up
    "more indefinite": (np.diag(np.float32([1, 1, 1, -500])), 0.1, 1000.0),  # four rungs up
    "too indefinite": (np.diag(np.float32([1, 1, 1, -5000])), 0.1, None),
    "NaN": (np.where(np.eye(N) > 0, np.nan, HEALTHY[0]), 0.1, None),
    "infinite": (np.where(np.eye(N) > 0, np.inf, HEALTHY[0]), 0.1, None),
    "NaN damping": (HEALTHY[0], np.nan, None),
    "infinite damping": (HEALTHY[0], np.inf, None),
}


@pytest.mark.parametrize("what", MATRICES)
def test_what_cannot_be_inverted_is_damped_more_or_reported_and_its_neighbours_do_not_notice(what):
    matrix, damping, used = MATRICES[what]
    own_damping = jnp.full(len(HEALTHY), 0.1, jnp.float32).at[2].set(damping)
    each = jax.jit(jax.vmap(factors.damped_inverse))
    expected, _ = each(jnp.asarray(HEALTHY), jnp.full(len(HEALTHY), 0.1, jnp.float32))
    got, found = each(jnp.asarray(HEALTHY).at[2].set(matrix), own_damping)
    others = np.arange(len(HEALTHY)) != 2
    assert oracles.same(got[others], expected[others])
    assert found[others].all()
    assert found[2] == (used is not None)
    if used is not None:
        exact = np.linalg.inv(np.float64(matrix) + used * np.eye(N))
        np.testing.assert_allclose(got[2], exact, rtol=2e-2, atol=1e-3 * np.abs(exact).max())


invert = jax.jit(jax.vmap(functools.partial(factors.invert, damp_scalars=True), in_axes=(0, 0, None, 0)))
decompose = jax.jit(jax.vmap(factors.decompose))


@pytest.mark.parametrize("which", ["A", "B"])
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_layer_of_which_one_factor_fails_keeps_both_previous_roots(which, bad):
    A, B = jnp.asarray(HEALTHY[:3]), jnp.asarray(HEALTHY[3:])
    previous = InversePair(jnp.full_like(A, 7), jnp.full_like(B, 8))
    eigen = EigenPair(A + 7, A[..., 0] + 7, B + 8, B[..., 0] + 8)
    healthy_pair, healthy_failed = invert(A, B, jnp.float32(0.1), previous)
    healthy_eigen, eigen_failed = decompose(A, B, eigen)
    assert not healthy_failed.any()
    assert not eigen_failed.any()

    A, B = (A.at[1, 0, 0].set(bad), B) if which == "A" else (A, B.at[1, 0, 0].set(bad))
    results = [(*invert(A, B, jnp.float32(0.1), previous), previous, healthy_pair)]
    results += [(*decompose(A, B, eigen), eigen, healthy_eigen)]
    for got, failed, kept, healthy in results:
        np.testing.assert_array_equal(failed, [0, 1, 0])
        for m, expected in ((0, healthy), (1, kept), (2, healthy)):
            assert oracles.same(*(jax.tree.map(lambda x, m=m: x[m], tree) for tree in (got, expected)))


@pytest.mark.parametrize("function", [lambda m: factors.damped_inverse(m, 0.1), factors.eigen], ids=["inverse", "eigen"])
@pytest.mark.parametrize(("platform", "batched"), [("cpu", {"0"}), ("cuda", {"1"})])
def test_a_batch_of_members_is_factorised_one_by_one_on_a_cpu_and_at_once_elsewhere(function, platform, batched):
    lowered = jax.jit(jax.vmap(function)).trace(jnp.asarray(HEALTHY)).lower(lowering_platforms=(platform,)).as_text()
    assert set(re.findall(r'num_batch_dims = "(\d)"', lowered)) == batched


def test_a_population_of_one_batch_does_not_wait_for_itself():
    # Eight factors of eight members at a time, as the layers of K-FAC have them: before, two threads never came to an end.
    program = """
import jax, numpy as np
from evolute.optimizers import factors
roots = [np.random.default_rng(n).normal(size=(8, n, n)) for n in (11, 64, 65, 64, 65, 11, 64, 65)]
matrices = [np.float32(root @ root.transpose(0, 2, 1)) for root in roots]
invert = jax.jit(jax.vmap(lambda *all_: [factors.damped_inverse(m, 0.1)[1] for m in all_]))
for _ in range(50):
    found = jax.block_until_ready(invert(*matrices))
print(np.stack(found).all())
"""
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=200, check=False)
    assert ended.stdout.strip() == "True", ended.stderr


@pytest.mark.usefixtures("x64")
def test_preconditioning_solves_the_kronecker_product():
    rng = np.random.default_rng(0)
    A, B, G = factor(4, 1).astype(float), factor(3, 2).astype(float), jnp.asarray(rng.normal(size=(4, 3)))
    damping = jnp.float64(0.3)
    inverses = InversePair(jnp.linalg.inv(A), jnp.linalg.inv(B))
    expected = np.linalg.solve(np.kron(A, B), G.ravel()).reshape(4, 3)
    np.testing.assert_allclose(factors.precondition(inverses, G), expected, rtol=1e-8)

    start = EigenPair(jnp.eye(4), jnp.ones(4), jnp.eye(3), jnp.ones(3))
    eigen, _ = factors.decompose(A, B, start)
    expected = np.linalg.solve(np.kron(A, B) + 0.3 * np.eye(12), G.ravel()).reshape(4, 3)
    np.testing.assert_allclose(factors.precondition_exactly(eigen, G, damping), expected, rtol=1e-9)


def test_eigenvalues_below_zero_count_as_zero():
    A = jnp.diag(jnp.float32([1, -1, 2]))
    start = EigenPair(jnp.eye(3), jnp.ones(3), jnp.eye(3), jnp.ones(3))
    eigen, failed = jax.jit(factors.decompose)(A, jnp.eye(3), start)
    assert failed == 0
    np.testing.assert_allclose(eigen.A_values, [0, 1, 2], atol=1e-6)
