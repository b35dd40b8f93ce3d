"""The diagonal Gauss-Newton optimizer against BackPACK, dense matrices and its update equation."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import oracles
from evolute import networks
from evolute.algorithms import td3
from evolute.algorithms.base import Batch
from evolute.networks import MLP, Layer
from evolute.optimizers import Tape
from evolute.optimizers.curvature import diagonal
from evolute.optimizers.diag_ggn import DiagGGNOptions, DiagGGNState, diag_ggn

pytestmark = pytest.mark.usefixtures("x64")


def actor_problem(mlp: MLP, x: jax.Array, weight: jax.Array) -> tuple[MLP, Tape]:
    """The exact tape of an actor with tanh output, under a critic that does not matter for it."""
    rows, outputs = len(x), len(mlp[-1].b)
    critic = oracles.random_mlp(np.random.default_rng(1), (x.shape[1] + outputs, 3, 1))
    batch = Batch(x, jnp.zeros((rows, outputs)), jnp.zeros(rows), x, jnp.zeros(rows), weight)
    return td3.actor_tape(mlp, critic, batch, jnp.zeros((rows, outputs)), exact=True)[:2]


def test_a_critics_diagonal_and_gradient_equal_backpacks():
    arrays = oracles.golden("diag_ggn_backpack.npz")
    mlp, x = oracles.golden_mlp(arrays, "net"), jnp.asarray(arrays["x"])
    gradient, tape = oracles.critic_problem(mlp, x, jnp.asarray(arrays["y"][:, 0]), jnp.full(len(x), 1 / len(x)))
    oracles.assert_close(gradient, oracles.golden_mlp(arrays, "grad"), rtol=1e-10, atol=1e-13)
    oracles.assert_close(diagonal(tape), oracles.golden_mlp(arrays, "diag"), rtol=1e-10, atol=1e-13)


def test_an_actors_diagonal_equals_backpacks():
    arrays = oracles.golden("diag_ggn_backpack.npz", "vector/")
    mlp, x = oracles.golden_mlp(arrays, "net"), jnp.asarray(arrays["x"])
    _, tape = actor_problem(mlp, x, jnp.full(len(x), 1 / len(x)))
    oracles.assert_close(diagonal(tape), oracles.golden_mlp(arrays, "diag"), rtol=1e-10, atol=1e-13)


@pytest.mark.parametrize("sizes", [(3, 1), (4, 5, 1), (3, 6, 5, 1)])
def test_a_critics_diagonal_is_that_of_the_dense_matrix(sizes):
    rng = np.random.default_rng(0)
    mlp, weight = oracles.random_mlp(rng, sizes), oracles.random_weights(rng, 6)
    x, target = jnp.asarray(rng.normal(size=(6, sizes[0]))), jnp.asarray(rng.normal(size=6))
    _, tape = oracles.critic_problem(mlp, x, target, weight)
    dense = oracles.dense_gauss_newton(networks.apply, mlp, x, weight, 2 * np.eye(1))
    np.testing.assert_allclose(oracles.flat(diagonal(tape)), np.diag(dense), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("sizes", [(3, 2), (4, 5, 3)])
def test_an_actors_diagonal_is_that_of_the_dense_metric_of_its_actions(sizes):
    rng = np.random.default_rng(0)
    mlp, weight = oracles.random_mlp(rng, sizes), oracles.random_weights(rng, 6)
    x = jnp.asarray(rng.normal(size=(6, sizes[0])))
    _, tape = actor_problem(mlp, x, weight)
    dense = oracles.dense_gauss_newton(td3.act, mlp, x, weight, np.eye(sizes[-1]))
    np.testing.assert_allclose(oracles.flat(diagonal(tape)), np.diag(dense), rtol=1e-10, atol=1e-12)


def critic_steps(count: int) -> tuple[MLP, list[tuple[MLP, Tape]]]:
    rng = np.random.default_rng(0)
    mlp = oracles.random_mlp(rng, (3, 4, 1))
    return mlp, [
        oracles.critic_problem(
            mlp, jnp.asarray(rng.normal(size=(6, 3))), jnp.asarray(rng.normal(size=6)), oracles.random_weights(rng, 6)
        )
        for _ in range(count)
    ]


@pytest.mark.parametrize("average", [0.0, 0.9])
def test_the_update_divides_the_gradient_by_the_damped_average_of_diagonals(average):
    mlp, problems = critic_steps(4)
    optimizer = diag_ggn(DiagGGNOptions(0.0, 0.0, average=average))  # rates are data: these are not read
    state, rates = optimizer.init(mlp), oracles.rates(0.3, 0.2, np.float64)
    update = jax.jit(functools.partial(oracles.change, optimizer))
    for step, (gradient, tape) in enumerate(problems):
        updates, state, _ = update(gradient, state, mlp, rates, tape, jnp.int32(step))
        ages = np.arange(step + 1)[::-1] if average else np.array([0])
        past = np.stack([oracles.flat(diagonal(t)) for _, t in problems[step + 1 - len(ages) : step + 1]])
        mean = np.average(past, axis=0, weights=average**ages if average else None)
        expected = -0.3 * oracles.flat(gradient) / (mean + 0.2)
        np.testing.assert_allclose(oracles.flat(updates), expected, rtol=1e-10, atol=1e-14)
    assert isinstance(state, DiagGGNState) == bool(average)


def test_a_lost_batch_leaves_the_average_as_it_was():
    mlp, problems = critic_steps(2)
    optimizer = diag_ggn(DiagGGNOptions(0.0, 0.0, average=0.9))
    rates = oracles.rates(0.3, 0.2, np.float64)
    gradient, tape = problems[0]
    _, state, _ = oracles.change(optimizer, gradient, optimizer.init(mlp), mlp, rates, tape, jnp.int32(0))
    broken = tape._replace(inputs=(tape.inputs[0].at[0, 0].set(jnp.nan), *tape.inputs[1:]))
    updates, after, contained = oracles.change(optimizer, gradient, state, mlp, rates, broken, jnp.int32(1))
    assert oracles.same(state, after)
    assert (contained.statistics, contained.steps) == (1, 0)
    expected = jax.tree.map(lambda g, d: -0.3 * g / (d + 0.2), gradient, diagonal(tape))
    oracles.assert_close(updates, expected, rtol=1e-10, atol=0)
    assert all(isinstance(layer, Layer) for layer in updates)
