"""The norm constraint (E14) against dense curvature and against what a step really does to a network's output."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import oracles
from evolute import networks, optimizers
from evolute.algorithms import td3
from evolute.algorithms.base import Batch
from evolute.networks import MLP
from evolute.optimizers import Optimizer, Tape, curvature

INF, FIRST = float("inf"), jnp.int32(0)
KINDS = ("kfac", "kfac_empirical", "diag_ggn")
WIDTHS = ((16, 16), (64, 64), (128, 96))
# Of K-FAC alone.
EVERY_STEP = {"statistics_every": 1, "inverse_every": 1}


def build(kind: str, role: str, **changes: Any) -> Optimizer:
    cadence = {} if kind == "diag_ggn" else EVERY_STEP
    return optimizers.build(kind, optimizers.resolve_options(kind, role, cadence | changes, 1e-3))


@functools.cache
def stepper(kind: str, clip: float):
    """Two updates of a critic, the second with the first one's velocity; returns the second change and what it counted."""
    optimizer = build(kind, "critic", clip=clip)

    def steps(mlp: MLP, problems: list[tuple[MLP, Tape]], rates):
        state = optimizer.init(mlp)
        for n, (gradient, tape) in enumerate(problems):
            change, state, contained = oracles.change(optimizer, gradient, state, mlp, rates, tape, jnp.int32(n))
        return change, contained

    return jax.jit(steps)


@pytest.mark.parametrize("kind", KINDS)
@given(st.floats(-4, 4), st.floats(-4, 3), st.sampled_from([0.01, 1.0]), st.floats(-3, 3), st.integers(0, 999))
def test_the_whole_step_is_the_free_one_shortened_to_the_bound(kind, log_rate, log_damping, clip, log_scale, seed):
    with jax.enable_x64(True):
        rng = np.random.default_rng(seed)
        mlp, weight = oracles.random_mlp(rng, (3, 4, 1)), oracles.random_weights(rng, 8)
        x, target = jnp.asarray(rng.normal(size=(8, 3))), jnp.asarray(10**log_scale * rng.normal(size=8))
        problems = [oracles.critic_problem(mlp, x, y, weight) for y in (target[::-1], target)]
        rates = oracles.rates(10**log_rate, 10**log_damping, np.float64)
        loose, _ = stepper(kind, INF)(mlp, problems, rates)
        got, contained = stepper(kind, clip)(mlp, problems, rates)
        dense = oracles.dense_gauss_newton(networks.apply, mlp, x, weight, 2 * np.eye(1))
        q = networks.apply(mlp, x)[:, 0]
        scale = max(np.cov(target, aweights=weight, ddof=0), np.sum(weight * (q - target) ** 2))

        def length(change: MLP) -> float:
            v = np.asarray(oracles.flat(change))
            return np.sqrt(v @ dense @ v)

        longest = clip * np.sqrt(2 * scale)
        assert length(got) <= longest * (1 + 1e-9)
        if contained.shortened:
            np.testing.assert_allclose(length(got), longest, rtol=1e-6)
            assert 0 < contained.shortening < 1
        else:
            assert contained.shortening == 0
        if kind == "diag_ggn":
            shortened = min(1.0, longest / length(loose)) if length(loose) else 1.0
            np.testing.assert_allclose(oracles.flat(got), shortened * oracles.flat(loose), rtol=1e-6, atol=1e-300)
            np.testing.assert_allclose(1 - contained.shortening, shortened, rtol=1e-6, atol=1e-6)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("momentum", [0.0, 0.9])
@pytest.mark.parametrize("layers", WIDTHS)
@pytest.mark.parametrize("kind", KINDS)
def test_a_bounded_step_moves_q_by_the_clip_in_standard_deviations_of_the_targets(kind, layers, momentum):
    rng, clip = np.random.default_rng(0), 1e-4
    optimizer = build(kind, "critic", clip=INF, **({"momentum": momentum} if kind != "diag_ggn" else {}))
    mlp = oracles.random_mlp(rng, (6, *layers, 1))
    x, weight = jnp.asarray(rng.normal(size=(64, 6))), oracles.random_weights(rng, 64)
    state, update, rates = optimizer.init(mlp), jax.jit(optimizer.update), oracles.rates(10.0, 0.1, np.float64)
    for n in range(4):
        before = networks.apply(mlp, x)[:, 0]
        # A well-fitted critic: what it misses by is less than the targets' spread.
        target = before + 0.1 * jnp.std(before) * jnp.asarray(rng.normal(size=64))
        gradient, tape = oracles.critic_problem(mlp, x, target, weight)
        free, state, _ = update(gradient, state, jax.tree.map(jnp.zeros_like, mlp), rates, tape, jnp.int32(n))
        step, taken = curvature.shorten(free, clip, tape)
        mlp = jax.tree.map(jnp.add, mlp, step)
        moved = np.sqrt(np.sum(weight * (networks.apply(mlp, x)[:, 0] - before) ** 2))
        # The rest is curvature of the network itself, which vanishes with the clip.
        np.testing.assert_allclose(moved, clip * np.sqrt(np.cov(target, aweights=weight, ddof=0)), rtol=0.01)
        assert taken < 1


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("momentum", [0.0, 0.9])
@pytest.mark.parametrize("layers", WIDTHS)
@pytest.mark.parametrize("kind", KINDS)
def test_a_bounded_step_moves_the_action_by_the_clip(kind, layers, momentum):
    rng, clip = np.random.default_rng(0), 1e-4
    optimizer = build(kind, "actor", clip=INF, **({"momentum": momentum} if kind != "diag_ggn" else {}))
    actor, critic = oracles.random_mlp(rng, (6, *layers, 3)), oracles.random_mlp(rng, (9, *layers, 1))
    obs, weight = jnp.asarray(rng.normal(size=(64, 6))), oracles.random_weights(rng, 64)
    batch = Batch(obs, jnp.zeros((64, 3)), jnp.zeros(64), obs, jnp.zeros(64), weight)
    state, update, rates = optimizer.init(actor), jax.jit(optimizer.update), oracles.rates(10.0, 0.1, np.float64)
    for n in range(4):
        gradient, tape, _ = td3.actor_tape(actor, critic, batch, jnp.asarray(rng.normal(size=(64, 3))), exact=True)
        before = td3.act(actor, obs)
        free, state, _ = update(gradient, state, jax.tree.map(jnp.zeros_like, actor), rates, tape, jnp.int32(n))
        step, taken = curvature.shorten(free, clip, tape)
        actor = jax.tree.map(jnp.add, actor, step)
        moved = np.sqrt(np.sum(weight * np.sum((td3.act(actor, obs) - before) ** 2, axis=1)))
        np.testing.assert_allclose(moved, clip, rtol=0.01)
        assert taken < 1


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("samples", [0, 1, 40, 64, 256])
def test_a_step_is_measured_on_the_first_samples_whatever_pads_the_batch(samples):
    rng, padded = np.random.default_rng(0), 320
    mlp, step = oracles.random_mlp(rng, (6, 16, 1)), oracles.random_mlp(rng, (6, 16, 1))
    x = jnp.asarray(rng.normal(size=(padded, 6)))
    weight = jnp.where(jnp.arange(padded) < samples, 1 / max(samples, 1), 0.0)
    _, tape = oracles.critic_problem(mlp, x, jnp.zeros(padded), weight)
    measured, whole = curvature.output_change(step, tape), curvature.output_change(step, tape, samples=padded)
    # What the derivative of q along the step says of the samples that count.
    _, moved = jax.jvp(lambda p: networks.apply(p, x)[:, 0], (mlp,), (step,))
    counted = 2 * moved[: min(samples, 64)] ** 2
    np.testing.assert_allclose(measured, counted.mean() if samples else 0.0, rtol=1e-12)
    # Independent draws, so it is right on average.
    error = 2 * np.std(2 * moved[:samples] ** 2) / 8 if samples > 64 else 1e-12
    np.testing.assert_allclose(measured, whole, rtol=1e-12, atol=2 * error)


@pytest.mark.usefixtures("x64")
def test_one_draw_of_signs_measures_an_actors_step_right_on_average():
    rng = np.random.default_rng(0)
    actor, critic = oracles.random_mlp(rng, (6, 16, 3)), oracles.random_mlp(rng, (9, 16, 1))
    obs, weight = jnp.asarray(rng.normal(size=(32, 6))), oracles.random_weights(rng, 32)
    batch = Batch(obs, jnp.zeros((32, 3)), jnp.zeros(32), obs, jnp.zeros(32), weight)
    step = oracles.random_mlp(rng, (6, 16, 3))
    exact = curvature.output_change(step, td3.actor_tape(actor, critic, batch, jnp.zeros((32, 3)), exact=True)[1])
    once = jax.jit(lambda noise: curvature.output_change(step, td3.actor_tape(actor, critic, batch, noise, exact=False)[1]))
    drawn = [once(jnp.asarray(rng.normal(size=(32, 3)))) for _ in range(2_000)]
    np.testing.assert_allclose(np.mean(drawn), exact, rtol=5 * np.std(drawn) / np.sqrt(2_000) / exact)


def test_a_step_whose_length_is_not_finite_is_shown():
    tape = Tape((jnp.ones((1, 1)),), (), (jnp.ones((1, 1, 1)),), jnp.ones(1), jnp.float32(1))
    step = (networks.Layer(jnp.full((1, 1), 1e30, jnp.float32), jnp.zeros(1)),)
    shortened, taken = curvature.shorten(step, 0.5, tape)
    assert np.isnan(taken)
    assert np.isnan(shortened[0].w).all()
    assert curvature.as_counts(taken) == {"shortened": 0, "shortening": 0}


@pytest.mark.parametrize("kind", ["kfac", "kfac_empirical"])
def test_constant_targets_are_learnt(kind):
    optimizer = optimizers.build(kind, optimizers.resolve_options(kind, "critic", {}, 1e-3))
    rng = np.random.default_rng(0)
    mlp = networks.init(rng, (4, 32, 32, 1))
    x, y, weight = jnp.asarray(rng.normal(size=(2_000, 64, 4)), jnp.float32), jnp.full(64, 5.0), jnp.full(64, 1 / 64)
    options = optimizers.resolve_options(kind, "critic", {}, 1e-3)
    rates = oracles.rates(options["learning_rate"], options["damping"])

    def step(carry, inputs):
        mlp, state = carry
        n, x = inputs
        gradient, tape = oracles.critic_problem(mlp, x, y, weight)
        mlp, state, contained = optimizer.update(gradient, state, mlp, rates, tape, n)
        return (mlp, state), (jnp.sum(weight * (networks.apply(mlp, x)[:, 0] - y) ** 2), contained.steps)

    mlp = jax.tree.map(jnp.asarray, mlp)
    _, (losses, left_out) = jax.jit(lambda: jax.lax.scan(step, (mlp, optimizer.init(mlp)), (jnp.arange(2_000), x)))()
    assert losses[0] > 15
    assert losses[-100:].max() < 0.05
    assert left_out.sum() == 0


@pytest.mark.usefixtures("x64")
@given(st.floats(-4, 4), st.integers(0, 999))
def test_an_increment_is_within_its_share_of_the_clip_in_the_factored_curvature(log_rate, seed):
    rng, clip = np.random.default_rng(seed), 0.3
    direction, gradient = (jnp.asarray(rng.normal(size=7)) for _ in range(2))
    gradient *= jnp.sign(direction @ gradient)
    tape = Tape((), (), (), jnp.ones(1), jnp.float64(2.5))
    rate = curvature.bounded_rate(jnp.float64(10**log_rate), direction, gradient, clip, tape)
    length = np.sqrt(float(direction @ gradient))
    np.testing.assert_allclose(rate, min(10**log_rate, clip * np.sqrt(2.5) / length), rtol=1e-12)
    assert curvature.bounded_rate(0.1, direction, gradient, INF, tape) == 0.1
    assert np.isnan(curvature.bounded_rate(jnp.float64(0.1), direction, jnp.inf * gradient, clip, tape))
