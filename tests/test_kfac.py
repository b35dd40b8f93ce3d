"""K-FAC against pytorch-kfac, dense Gauss-Newton matrices, and the statements that define it."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import oracles
from evolute import networks, optimizers
from evolute.algorithms import td3
from evolute.networks import MLP
from evolute.optimizers import Tape, factors
from evolute.optimizers.kfac import KFACOptions, KFACState, kfac, kfac_empirical

INF = float("inf")
FIRST = jnp.int32(0)


def options(**changes) -> KFACOptions:
    """Options of a K-FAC that remembers nothing of earlier batches, unless asked to."""
    plain = {"clip": INF, "momentum": 0.0, "average": 0.0, "statistics_every": 1, "inverse_every": 1}
    return KFACOptions(0.0, 0.0, **(plain | changes))  # rates are data: learning rate and damping are not read here


def measured(mlp: MLP, gradient: MLP, tape: Tape) -> KFACState:
    """The state after one batch."""
    optimizer, rates = kfac(options()), oracles.rates(0.1, 0.1, np.float64)
    return jax.jit(optimizer.update)(gradient, optimizer.init(mlp), mlp, rates, tape, FIRST)[1]


def golden_problem(mlp: MLP, x: jax.Array, y: jax.Array, tanh: bool) -> tuple[MLP, Tape]:
    """The mean over samples and outputs of the squared error, whose pulled-back slopes are N ∂loss/∂z."""
    z, inputs, pull_back = networks.taped(mlp, x)
    output = jnp.tanh(z) if tanh else z
    slope = 2 / y.shape[1] * (output - y) * (1 - output**2 if tanh else 1.0)
    pulled, weight = pull_back(slope), jnp.full(len(x), 1 / len(x))
    return networks.gradients(inputs, pulled, weight), Tape(inputs, pulled, (), weight, jnp.ones(()))


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("under", ["", "tanh/"])
def test_five_steps_of_the_empirical_kind_equal_pytorch_kfacs(under):
    arrays = oracles.golden("kfac_pytorch.npz", under)
    mlp, damping = oracles.golden_mlp(arrays, "before"), 0.01
    optimizer = kfac_empirical(options(momentum=0.9, average=0.95))
    state, update = optimizer.init(mlp), jax.jit(optimizer.update)
    for k in range(1, 6):
        x, y = (jnp.asarray(arrays[f"batch/{name}"][k - 1]) for name in "xy")
        gradient, tape = golden_problem(mlp, x, y, tanh=bool(under))
        oracles.assert_close(gradient, oracles.golden_mlp(arrays, f"grad/{k}"), rtol=1e-10, atol=1e-12)
        mlp, state, _ = update(gradient, state, mlp, oracles.rates(0.01, damping, np.float64), tape, jnp.int32(k - 1))
        for layer in range(2):
            A, B = state.A[layer] / state.weight, state.B[layer] / state.weight
            np.testing.assert_allclose(A, arrays[f"A/{k}/{layer}"], rtol=1e-10, atol=1e-12)
            np.testing.assert_allclose(B, arrays[f"B/{k}/{layer}"], rtol=1e-10, atol=1e-12)
            damping_A, damping_B = factors.split_damping(A, B, jnp.float64(damping), damp_scalars=True)
            np.testing.assert_allclose(damping_A, arrays[f"pi/{k}/{layer}"] * damping**0.5, rtol=1e-10)
            np.testing.assert_allclose(damping_B, damping**0.5 / arrays[f"pi/{k}/{layer}"], rtol=1e-10)
        oracles.assert_close(mlp, oracles.golden_mlp(arrays, f"after/{k}"), rtol=1e-10, atol=1e-10)


def random_problem(sizes: tuple[int, ...], linear: bool = False, rows: int = 9) -> tuple[MLP, MLP, Tape, np.ndarray]:
    """A network, its gradient and tape, and its dense Gauss-Newton matrix."""
    rng = np.random.default_rng(0)
    mlp, x = oracles.random_mlp(rng, sizes), jnp.asarray(rng.normal(size=(rows, sizes[0])))
    if linear:
        mlp, x = oracles.open_mlp(rng, sizes), jnp.abs(x)
    target, weight = jnp.asarray(rng.normal(size=(rows, sizes[-1]))), oracles.random_weights(rng, rows)
    if sizes[-1] == 1:
        gradient, tape = oracles.critic_problem(mlp, x, target[:, 0], weight)
        hessian = 2 * np.eye(1)
    else:
        gradient, tape = oracles.vector_problem(mlp, x, target, weight)
        hessian = np.eye(sizes[-1])
    return mlp, gradient, tape, oracles.dense_gauss_newton(networks.apply, mlp, x, weight, hessian)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("sizes", [(3, 4, 1), (3, 5, 4, 2)])
def test_the_last_layers_factors_make_its_block_of_the_dense_matrix(sizes):
    mlp, gradient, tape, dense = random_problem(sizes)
    state, block = measured(mlp, gradient, tape), oracles.blocks(mlp)[-1]
    np.testing.assert_allclose(np.kron(state.A[-1], state.B[-1]), dense[block, block], rtol=1e-10, atol=1e-12)
    # Only the last: with rectified units above it a layer's factors are an approximation, except for its biases.
    first = oracles.blocks(mlp)[0]
    assert np.abs(np.kron(state.A[0], state.B[0]) - dense[first, first]).max() > 0.01
    for B, block in zip(state.B, oracles.blocks(mlp), strict=True):
        biases = slice(block.stop - len(B), block.stop)
        np.testing.assert_allclose(B, dense[biases, biases], rtol=1e-10, atol=1e-12)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("sizes", [(3, 4, 1), (3, 5, 4, 2)])
def test_all_factors_of_a_deep_linear_network_make_its_dense_blocks(sizes):
    mlp, gradient, tape, dense = random_problem(sizes, linear=True)
    state = measured(mlp, gradient, tape)
    for A, B, block in zip(state.A, state.B, oracles.blocks(mlp), strict=True):
        np.testing.assert_allclose(np.kron(A, B), dense[block, block], rtol=1e-9, atol=1e-12)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("outputs", [1, 2])
@pytest.mark.parametrize("exact_damping", [False, True])
def test_one_undamped_step_solves_linear_regression(outputs, exact_damping):
    mlp, gradient, tape, dense = random_problem((3, outputs), rows=12)
    optimizer = kfac(options(exact_damping=exact_damping))
    rates = oracles.rates(1.0, 0.0, np.float64)
    updates, _, _ = oracles.change(optimizer, gradient, optimizer.init(mlp), mlp, rates, tape, FIRST)
    np.testing.assert_allclose(oracles.flat(updates), -np.linalg.solve(dense, oracles.flat(gradient)), rtol=1e-8)
    # A second-order method in one step: the gradient at the new parameters is zero.
    slope_change = dense @ np.asarray(oracles.flat(updates))
    np.testing.assert_allclose(slope_change, -oracles.flat(gradient), rtol=1e-8, atol=1e-10)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("sizes", [(3, 4, 1), (3, 4, 2)])
def test_exact_damping_is_the_dense_solution_for_every_layer(sizes):
    mlp, gradient, tape, _ = random_problem(sizes)
    optimizer, state = kfac(options(exact_damping=True)), measured(mlp, gradient, tape)
    rates = oracles.rates(0.5, 0.3, np.float64)
    updates, _, _ = oracles.change(optimizer, gradient, optimizer.init(mlp), mlp, rates, tape, FIRST)
    for A, B, layer, update in zip(state.A, state.B, gradient, updates, strict=True):
        damped, g = np.kron(A, B) + 0.3 * np.eye(len(A) * len(B)), oracles.matrix(layer).ravel()
        np.testing.assert_allclose(oracles.matrix(update).ravel(), -0.5 * np.linalg.solve(damped, g), rtol=1e-9)


def test_statistics_and_inverses_keep_their_periods():
    mlp = oracles.random_mlp(np.random.default_rng(0), (3, 4, 1), np.float32)
    optimizer = kfac(options(average=0.9, momentum=0.9, statistics_every=2, inverse_every=3))
    state, update = optimizer.init(mlp), jax.jit(optimizer.update)
    for step in range(7):
        rng = np.random.default_rng(step)
        x, y = jnp.asarray(rng.normal(size=(8, 3)), jnp.float32), jnp.asarray(rng.normal(size=8), jnp.float32)
        gradient, tape = oracles.critic_problem(mlp, x, y, jnp.full(8, 1 / 8, jnp.float32))
        _, new, _ = update(gradient, state, mlp, oracles.rates(0.1, 0.1), tape, jnp.int32(step))
        assert oracles.same((state.A, state.B, state.weight), (new.A, new.B, new.weight)) == (step % 2 != 0)
        assert oracles.same(state.roots, new.roots) == (step % 3 != 0)
        state = new


def primitives_outside_of_branches(jaxpr: Any) -> set[str]:
    """What a program computes whatever its conditions."""
    found = set()
    for equation in jaxpr.eqns:
        found.add(equation.primitive.name)
        # What depends on the platform alone is decided before the program runs.
        if equation.primitive.name != "cond" or equation.params.get("branches_platforms") is not None:
            inner = jax.tree.leaves(list(equation.params.values()), is_leaf=lambda x: hasattr(x, "eqns"))
            found |= set().union(*(primitives_outside_of_branches(x) for x in inner if hasattr(x, "eqns")))
    return found


@pytest.mark.parametrize(("exact_damping", "factorisation"), [(False, "cholesky"), (True, "eigh")])
def test_off_period_a_group_does_not_invert(exact_damping, factorisation):
    optimizer = kfac(options(inverse_every=10, exact_damping=exact_damping))
    mlp = oracles.random_mlp(np.random.default_rng(0), (3, 4, 1), np.float32)
    one = oracles.critic_problem(mlp, jnp.ones((4, 3)), jnp.ones(4), jnp.full(4, 0.25))
    group = jax.tree.map(lambda x: jnp.stack([x, x]), (one[0], optimizer.init(mlp), mlp, oracles.rates(0.1, 0.1), one[1]))

    mapped = jax.vmap(optimizer.update, in_axes=(0, 0, 0, 0, 0, None))
    assert factorisation not in primitives_outside_of_branches(jax.make_jaxpr(mapped)(*group, FIRST))
    assert " conditional(" in jax.jit(mapped).lower(*group, FIRST).compile().as_text()
    # With a step of its own for each member there is no branch left: everything is computed and selected.
    mapped = jax.vmap(optimizer.update)
    assert factorisation in primitives_outside_of_branches(jax.make_jaxpr(mapped)(*group, jnp.zeros(2, jnp.int32)))


@pytest.mark.parametrize("kind", ["kfac", "kfac_empirical"])
def test_burn_in_fills_the_factors_and_moves_nothing(kind):
    actor, critic = (
        optimizers.build(kind, optimizers.resolve_options(kind, role, {"average": 0.9}, 1e-3)) for role in optimizers.ROLES
    )
    settings = td3.Settings(3, 2, (4,), (4,), actor, critic, 2)
    before = learner = td3.reset_optimizers(td3.init(np.random.default_rng(0), settings), settings)
    burn_in, hyper = jax.jit(td3.burn_in, static_argnames="settings"), oracles.on_device(oracles.hyperparameters())
    for n in range(3):
        batch = oracles.random_batch(np.random.default_rng(n), 16, 3, 2)
        noise = jnp.asarray(np.random.default_rng(n).normal(size=(16, 2)), jnp.float32)
        previous, learner = learner, burn_in(learner, batch, hyper, noise, settings)
        for old, new in zip(*((s.actor_state, *s.critic_states) for s in (previous, learner)), strict=True):
            np.testing.assert_allclose(new.weight, 0.9 * old.weight + 1)
            for part in ("A", "B", "roots"):
                for a, b in zip(getattr(old, part), getattr(new, part), strict=True):
                    assert not oracles.same(a, b), part
    for part in ("actor", "critics", "target_actor", "target_critics"):
        assert oracles.same(getattr(learner, part), getattr(before, part)), part
    for state in (learner.actor_state, *learner.critic_states):
        assert all(not np.any(leaf) for leaf in jax.tree.leaves(state.velocity))


def test_burn_in_leaves_first_order_optimizers_alone():
    adam = optimizers.build("adam", optimizers.resolve_options("adam", "actor", {}, 1e-3))
    settings = td3.Settings(3, 2, (4,), (4,), adam, adam, 2)
    learner = td3.reset_optimizers(td3.init(np.random.default_rng(0), settings), settings)
    batch, hyper = (
        oracles.random_batch(np.random.default_rng(0), 16, 3, 2),
        oracles.on_device(oracles.hyperparameters()),
    )
    assert oracles.same(td3.burn_in(learner, batch, hyper, jnp.zeros((16, 2)), settings), learner)
