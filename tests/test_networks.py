"""The MLP against automatic differentiation and NumPy."""

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest

import oracles
from evolute import networks
from evolute.networks import MLP

SIZES = [(3, 1), (4, 5, 2), (3, 6, 5, 1)]


def with_taps(mlp: MLP, taps: tuple[jax.Array, ...], x: jax.Array) -> jax.Array:
    """The output with something added to every pre-activation, written apart from the code under test."""
    for n, (layer, tap) in enumerate(zip(mlp, taps, strict=True)):
        z = jnp.einsum("bi,io->bo", x, layer.w) + layer.b + tap
        x = z if n == len(mlp) - 1 else jnp.where(z > 0, z, 0.0)
    return x


def problem(sizes: tuple[int, ...]):
    rng = np.random.default_rng(0)
    mlp = oracles.random_mlp(rng, sizes)
    x, cotangent = jnp.asarray(rng.normal(size=(7, sizes[0]))), jnp.asarray(rng.normal(size=(7, sizes[-1])))
    taps = tuple(jnp.zeros((7, o)) for o in sizes[1:])
    return mlp, x, cotangent, taps, oracles.random_weights(rng, 7)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("sizes", SIZES)
def test_forward_is_an_mlp_and_returns_every_layers_input(sizes):
    mlp, x, _, _, _ = problem(sizes)
    output, inputs, _ = networks.taped(mlp, x)
    expected = np.asarray(x)
    for n, layer in enumerate(mlp):
        np.testing.assert_allclose(inputs[n], expected, rtol=1e-12)
        z = expected @ np.asarray(layer.w) + np.asarray(layer.b)
        expected = np.maximum(z, 0) if n < len(mlp) - 1 else z
    np.testing.assert_allclose(output, expected, rtol=1e-12)
    np.testing.assert_array_equal(networks.apply(mlp, x), output)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("sizes", SIZES)
def test_pull_back_is_the_vector_jacobian_product_of_every_pre_activation(sizes):
    mlp, x, cotangent, taps, _ = problem(sizes)
    pull_back = networks.taped(mlp, x)[2]
    expected, expected_input = jax.vjp(lambda t, x: with_taps(mlp, t, x), taps, x)[1](cotangent)
    pulled = pull_back(cotangent)
    oracles.assert_close(pulled, expected, rtol=1e-12, atol=1e-14)
    to_input = networks.to_input(mlp, pulled)
    np.testing.assert_allclose(to_input, expected_input, rtol=1e-12, atol=1e-14)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("sizes", SIZES)
def test_gradients_are_the_gradient_of_the_weighted_loss(sizes):
    mlp, x, target, taps, weights = problem(sizes)

    def loss(mlp: MLP) -> jax.Array:
        return jnp.sum(weights * jnp.sum((with_taps(mlp, taps, x) - target) ** 2, axis=1))

    output, inputs, pull_back = networks.taped(mlp, x)
    pulled = pull_back(2 * (output - target))
    oracles.assert_close(networks.gradients(inputs, pulled, weights), jax.grad(loss)(mlp), rtol=1e-11, atol=1e-13)


def test_initial_parameters_fill_pytorchs_bounds():
    sizes = (40, 300, 200)
    mlp = networks.init(np.random.default_rng(0), sizes)
    assert [(layer.w.shape, layer.b.shape) for layer in mlp] == [((40, 300), (300,)), ((300, 200), (200,))]
    for layer, fan_in in zip(mlp, sizes[:-1], strict=True):
        for values in oracles.leaves(layer):
            assert values.dtype == np.float32
            scaled = values * np.sqrt(fan_in)
            assert np.all(np.abs(scaled) <= 1)
            assert scaled.min() < -0.9
            assert scaled.max() > 0.9
            # Uniform on [-1, 1]: mean 0 and variance 1/3, here within five standard errors.
            assert abs(scaled.mean()) < 5 * np.sqrt(1 / 3 / scaled.size)
            assert abs(np.mean(scaled**2) - 1 / 3) < 5 * np.sqrt(4 / 45 / scaled.size)


def test_no_two_initial_arrays_share_their_draws():
    one, other = (networks.init(np.random.default_rng(seed), (4, 4, 4)) for seed in (0, 1))
    scaled = [values.ravel()[:4] for values in oracles.leaves([one, other])]
    assert len(np.unique(np.round(scaled, 6))) == 4 * len(scaled)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_product_has_the_precision_that_holds_when_it_is_traced(precision):
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(20, 30)).astype(np.float32), rng.normal(size=(30, 10)).astype(np.float32)
    with jax.default_matmul_precision(precision):
        found = np.asarray(jax.jit(networks.product)(a, b))
    assert found.dtype == np.float32
    full = a.astype(np.float64) @ b.astype(np.float64)
    # Factors are rounded to eight bits; their products and sums are not.
    narrow = a.astype(ml_dtypes.bfloat16).astype(np.float64) @ b.astype(ml_dtypes.bfloat16).astype(np.float64)
    expected, other = (full, narrow) if precision == "float32" else (narrow, full)
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert np.abs(found - other).max() > 1e-3
