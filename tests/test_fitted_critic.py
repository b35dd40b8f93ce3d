"""K-FAC on critics that are fitted to real transitions: it must not overshoot, and its exact damping must be exact."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import oracles
from evolute import networks, optimizers
from evolute.algorithms import actor_critic
from evolute.algorithms.base import Batch
from evolute.environments.gym import Environment
from evolute.networks import MLP
from evolute.optimizers import Rates, factors
from evolute.optimizers.curvature import input_factor, output_factor
from evolute.optimizers.factors import EigenPair

HELD_OUT, BATCH = 1_000, 256


@functools.cache
def transitions() -> tuple[np.ndarray, np.ndarray]:
    """A random policy on HalfCheetah-v4: observations with actions [4000, 23], and the discounted sums of the next 20 rewards."""
    environment, rng = Environment("HalfCheetah-v4"), np.random.default_rng(0)
    obs, rows, rewards = environment.reset(seed=0), [], []
    for _ in range(4_020):
        action = rng.uniform(-1, 1, 6).astype(np.float32)
        rows.append(np.concatenate([obs, action]))
        step = environment.step(action)
        rewards.append(step.reward)
        obs = environment.reset() if step.truncated else step.obs
    environment.close()
    values = np.convolve(rewards, 0.9 ** np.arange(20)[::-1])[19 : 19 + 4_000]
    return np.stack(rows)[:4_000], values.astype(np.float32)


def batch(rng: np.random.Generator) -> tuple[Batch, jax.Array]:
    inputs, values = transitions()
    chosen = rng.integers(len(values) - HELD_OUT, size=BATCH)
    x, weight = jnp.asarray(inputs[chosen]), jnp.full(BATCH, 1 / BATCH, jnp.float32)
    return Batch(x[:, :17], x[:, 17:], jnp.zeros(BATCH), x[:, :17], jnp.zeros(BATCH), weight), jnp.asarray(values[chosen])


def held_out_error(critic: MLP) -> float:
    inputs, values = transitions()
    q = networks.apply(critic, jnp.asarray(inputs[-HELD_OUT:]))[:, 0]
    return float(np.mean((q - values[-HELD_OUT:]) ** 2) / np.var(values[-HELD_OUT:]))


def trained(critic: MLP, kind: str, updates: int, seed: int) -> tuple[MLP, list[float]]:
    """The critic after some updates with an optimizer's defaults, and the held-out errors on the way."""
    options = optimizers.resolve_options(kind, "critic", {}, 1e-3)
    optimizer, rng = optimizers.build(kind, options), np.random.default_rng(seed)
    rates = Rates(jnp.float32(options["learning_rate"]), jnp.float32(options.get("damping", 0)))

    @jax.jit
    def update(critic, state, batch, y, step, rates):
        gradient, tape, _, _ = actor_critic.critic_tape(critic, batch, y)
        return optimizer.update(gradient, state, critic, rates, tape, step)[:2]

    state, errors = optimizer.init(critic), []
    for _ in range(optimizer.burn_in):
        _, state = update(critic, state, *batch(rng), jnp.int32(0), rates._replace(learning_rate=jnp.float32(0)))
    for step in range(updates):
        critic, state = update(critic, state, *batch(rng), jnp.int32(step), rates)
        if kind != "adam":
            errors.append(held_out_error(critic))
    return critic, errors


@functools.cache
def fitted(*layers: int) -> MLP:
    critic = networks.init(np.random.default_rng(1), [23, *layers, 1])
    return trained(jax.tree.map(jnp.asarray, critic), "adam", 400, seed=2)[0]


@pytest.mark.parametrize("kind", ["kfac", "kfac_empirical", "diag_ggn"])
@pytest.mark.parametrize("layers", [(64, 64), (256, 256)])
def test_a_fitted_critic_does_not_get_worse_by_half(kind, layers):
    critic = fitted(*layers)
    start = held_out_error(critic)
    assert start < 0.6
    _, errors = trained(critic, kind, 120, seed=3)
    assert max(errors) < 1.5 * start


def test_exact_damping_in_single_precision_is_that_of_double_precision_on_a_real_critic():
    critic, rng = fitted(400, 300), np.random.default_rng(4)
    measure = jax.jit(lambda critic, batch, y: actor_critic.critic_tape(critic, batch, y)[:2])
    sums = None
    for _ in range(8):
        gradient, tape = measure(critic, *batch(rng))
        measured = [
            (input_factor(x, tape.weights), output_factor(s, tape.weights))
            for x, s in zip(tape.inputs, tape.sensitivities, strict=True)
        ]
        sums = measured if sums is None else jax.tree.map(jnp.add, sums, measured)
    for (A, B), layer in zip(sums, gradient, strict=True):
        G, (a, U), (b, V) = oracles.matrix(layer), np.linalg.eigh(np.float64(A)), np.linalg.eigh(np.float64(B))
        products = np.outer(np.maximum(a, 0), np.maximum(b, 0))
        start = EigenPair(jnp.eye(len(A)), jnp.ones(len(A)), jnp.eye(len(B)), jnp.ones(len(B)))
        pair, failed = jax.jit(factors.decompose)(A, B, start)
        assert failed == 0
        assert pair.A_vectors.dtype == pair.B_values.dtype == np.float32
        for damping in (1e-1, 1e-2, 1e-3, 1e-4, 1e-5, 1e-6):
            # In NumPy's double precision: (A ⊗ B + λ I)⁻¹ vec G.
            expected = U @ ((U.T @ np.float64(G) @ V) / (products + damping)) @ V.T
            got = np.float64(jax.jit(factors.precondition_exactly)(pair, G, jnp.float32(damping)))
            assert np.linalg.norm(got - expected) < 1e-3 * np.linalg.norm(expected)
