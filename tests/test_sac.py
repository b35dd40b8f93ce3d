"""SAC's update against stable-baselines3, automatic differentiation, and the statements that define it."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

import oracles
from evolute import networks, optimizers
from evolute.algorithms import sac
from evolute.algorithms.base import Batch
from evolute.networks import Layer
from evolute.optimizers import curvature
from evolute.policy import Policy
from evolute.structure import PLAIN

OBS, ACT = 5, 3


def settings(kind: str, **options) -> sac.Settings:
    resolved = optimizers.resolve([kind], {kind: options}, dict.fromkeys(optimizers.ROLES, 3e-4))[kind]
    actor, critic = (optimizers.build(kind, resolved[role]) for role in optimizers.ROLES)
    return sac.Settings(OBS, ACT, (16, 12), (16, 12), actor, critic)


ADAM = settings("adam")
HYPER = oracles.on_device(oracles.hyperparameters())
learn = jax.jit(sac.learn, static_argnames="settings")


def batch_of(size: int, seed: int = 0, dtype: type = np.float32) -> Batch:
    return oracles.random_batch(np.random.default_rng(seed), size, OBS, ACT, dtype)


def noise_of(size: int, seed: int = 9, dtype: type = np.float32) -> jax.Array:
    return jnp.asarray(np.random.default_rng(seed).normal(size=(size, 2 * ACT)), dtype)


# -------------------------------------------------------------------------------------------------- the public library


def test_ten_updates_equal_those_of_stable_baselines3():
    arrays = oracles.golden("sac_sb3.npz")
    rates = dict.fromkeys(("actor_learning_rate", "critic_learning_rate", "temperature_learning_rate"), 3e-4)
    hyper = oracles.on_device(oracles.hyperparameters(discount=0.99, tau=0.005, **rates))

    def at(prefix: str) -> dict:
        *hidden, mean = oracles.golden_mlp(arrays, f"{prefix}/actor")
        [log_std] = oracles.golden_mlp(arrays, f"{prefix}/log_std")
        last = Layer(jnp.concatenate([mean.w, log_std.w], 1), jnp.concatenate([mean.b, log_std.b]))
        critics, targets = (
            tuple(oracles.golden_mlp(arrays, f"{prefix}/{name}{n}") for n in range(2)) for name in ("critic", "target_critic")
        )
        temperature = jnp.asarray(arrays[f"{prefix}/log_temperature"])
        return {"actor": (*hidden, last), "critics": critics, "target_critics": targets, "log_temperature": temperature}

    start = sac.Learner(**at("before"), critic_states=(), actor_state=(), temperature_state=())
    learner = sac.reset_optimizers(start, ADAM)
    for k in range(10):
        rows = {name: jnp.asarray(arrays[f"batch/{name}"][k]) for name in ("obs", "action", "reward", "next_obs", "terminated")}
        batch = Batch(**rows, weight=jnp.full(32, 1 / 32))
        learner, sums = learn(learner, batch, hyper, jnp.asarray(arrays["batch/noise"][k]), jnp.int32(k), ADAM)
        for name, expected in at(f"after/{k + 1}").items():
            oracles.assert_close(getattr(learner, name), expected, rtol=0, atol=1e-5)
        # Their critics' loss has a half in front, which Adam does not notice.
        np.testing.assert_allclose(sums.critic_loss, 2 * arrays["loss/critic"][k], rtol=1e-4)
        np.testing.assert_allclose(sums.actor_loss, arrays["loss/actor"][k], rtol=1e-4)
    assert np.any(arrays["batch/truncated"])
    moved = [np.abs(a - b).max() for a, b in zip(*map(oracles.leaves, (learner.actor, start.actor)), strict=True)]
    assert min(moved) > 1e-4


# --------------------------------------------------------------------------------------------------------- the equations


@pytest.mark.usefixtures("x64")
def test_log_probabilities_are_those_of_a_squashed_normal_distribution():
    actor = oracles.random_mlp(np.random.default_rng(1), (OBS, 4, 2 * ACT))
    small = (*actor[:-1], Layer(0.05 * actor[-1].w, 0.3 * actor[-1].b))
    batch, noise = batch_of(16, dtype=np.float64), noise_of(16, dtype=np.float64)[:, :ACT]
    drawn = sac.draw(small, batch.obs, noise)
    mean, log_std = np.split(np.asarray(networks.apply(small, batch.obs)), 2, axis=-1)
    u = mean + np.exp(log_std) * noise
    np.testing.assert_allclose(drawn.action, np.tanh(u), rtol=1e-12)
    exact = stats.norm.logpdf(u, mean, np.exp(log_std)) - 2 * (np.log(2) - u - np.logaddexp(0, -2 * u))
    # Stable-Baselines3 keeps the slope of tanh from zero by 1e-6.
    np.testing.assert_allclose(drawn.log_prob, exact.sum(-1), atol=1e-3)


@pytest.mark.usefixtures("x64")
def test_the_target_is_that_of_the_paper():
    rng = np.random.default_rng(0)
    critics = tuple(oracles.random_mlp(rng, (OBS + ACT, 4, 1)) for _ in range(2))
    actor = oracles.random_mlp(rng, (OBS, 4, 2 * ACT))
    learner = sac.Learner((), (), actor, (), critics, jnp.zeros(()), ())
    batch, noise = batch_of(16, dtype=np.float64), noise_of(16, dtype=np.float64)[:, :ACT]
    drawn = sac.draw(actor, batch.next_obs, noise)
    both = np.concatenate([batch.next_obs, drawn.action], axis=-1)
    q = np.minimum(*(np.asarray(networks.apply(critic, both))[:, 0] for critic in critics))
    expected = batch.reward + 0.9 * (1 - batch.terminated) * (q - 0.3 * np.asarray(drawn.log_prob))
    hyper = oracles.hyperparameters(discount=0.9)
    np.testing.assert_allclose(sac.targets(learner, batch, hyper, jnp.asarray(0.3), noise), expected, rtol=1e-12)


def start_of_curvature(dtype: type = np.float64):
    """An actor some of whose standard deviations are clamped at either end, and two critics of which each is the smaller once."""
    rng = np.random.default_rng(3)
    actor = oracles.random_mlp(rng, (OBS, 4, 2 * ACT), dtype)
    critics = tuple(oracles.random_mlp(rng, (OBS + ACT, 4, 1), dtype) for _ in range(2))
    raised = actor[-1].b.at[ACT].add(2.0).at[ACT + 1].add(-21.5)
    actor = (*actor[:-1], Layer(0.5 * actor[-1].w, raised))
    return actor, critics


@pytest.mark.usefixtures("x64")
def test_the_actors_gradient_is_that_of_its_loss():
    actor, critics = start_of_curvature()
    batch, noise = batch_of(16, dtype=np.float64), noise_of(16, dtype=np.float64)[:, :ACT]
    batch = batch._replace(weight=oracles.random_weights(np.random.default_rng(5), 16))

    def loss(actor):
        mean, raw = jnp.split(networks.apply(actor, batch.obs), 2, axis=-1)
        log_std = jnp.clip(raw, -20, 2)
        u = mean + jnp.exp(log_std) * noise
        action = jnp.tanh(u)
        log_prob = jax.scipy.stats.norm.logpdf(u, mean, jnp.exp(log_std)) - jnp.log(1 - action**2 + 1e-6)
        both = jnp.concatenate([batch.obs, action], axis=-1)
        q = jnp.minimum(*(networks.apply(critic, both)[:, 0] for critic in critics))
        return jnp.sum(batch.weight * (0.3 * log_prob.sum(-1) - q))

    gradient, _, value = sac.actor_tape(actor, critics, batch, jnp.asarray(0.3), noise, noise_of(16, dtype=np.float64), True)
    oracles.assert_close(gradient, jax.grad(loss)(actor), rtol=1e-6, atol=1e-8)
    np.testing.assert_allclose(value, loss(actor), rtol=1e-8)
    free = sac.draw(actor, batch.obs, noise).free
    assert 0 < float(free[:, 0].mean()) < 1
    assert 0 < float(free[:, 1].mean()) < 1


def divergence(z, reference):
    """The Kullback-Leibler divergence of two normal distributions, given by what an actor says."""
    (m, s), (m0, s0) = jnp.split(z, 2), jnp.split(reference, 2)
    s, s0 = jnp.clip(s, -20, 2), jnp.clip(s0, -20, 2)
    return jnp.sum(s - s0 + (jnp.exp(2 * s0) + (m0 - m) ** 2) / (2 * jnp.exp(2 * s)) - 0.5)


def fisher(actor, obs, weights):
    """Σ w Jᵀ H J by automatic differentiation, H the Hessian of the divergence."""
    total = 0.0
    for n in range(len(obs)):
        z = networks.apply(actor, obs[n : n + 1])[0]
        hessian = np.asarray(jax.hessian(divergence)(z, z))
        total = total + weights[n] * oracles.dense_gauss_newton(networks.apply, actor, obs[n : n + 1], np.ones(1), hessian)
    return total


def exact_tape():
    """An actor, critics, a weighted batch, its noise, and the actor's tape with a column for each output."""
    actor, critics = start_of_curvature()
    batch, noise = batch_of(6, dtype=np.float64), noise_of(6, dtype=np.float64)
    batch = batch._replace(weight=oracles.random_weights(np.random.default_rng(5), 6))
    tape = sac.actor_tape(actor, critics, batch, jnp.asarray(0.3), noise[:, ACT:], noise, exact=True)[1]
    return actor, critics, batch, noise, tape


@pytest.mark.usefixtures("x64")
def test_the_exact_tape_is_the_fisher_matrix_of_the_policy():
    actor, _, batch, _, tape = exact_tape()
    assert tape.sensitivities[0].shape[0] == 2 * ACT
    dense = fisher(actor, batch.obs, batch.weight)
    assert np.abs(dense).max() > 1
    by_tape = np.zeros_like(dense)
    homogeneous = [np.concatenate([x, np.ones((6, 1))], axis=1) for x in tape.inputs]
    for n in range(6):
        for k in range(2 * ACT):
            row = np.concatenate([np.outer(a[n], s[k, n]).ravel() for a, s in zip(homogeneous, tape.sensitivities, strict=True)])
            by_tape += float(batch.weight[n]) * np.outer(row, row)
    np.testing.assert_allclose(by_tape, dense, rtol=1e-8, atol=1e-8 * np.abs(dense).max())
    # What diag_ggn and the norm constraint read of it.
    np.testing.assert_allclose(
        np.concatenate([np.asarray(oracles.matrix(d)).ravel() for d in curvature.diagonal(tape)]), np.diag(dense), rtol=1e-8
    )


@pytest.mark.usefixtures("x64")
def test_the_last_layers_factors_are_means_over_samples_by_automatic_differentiation():
    """What kfac (Hessians) and kfac_empirical (products of slopes) read of the tape (E9)."""
    actor, critics, batch, noise, tape = exact_tape()
    z = networks.apply(actor, batch.obs)

    def loss(z, n):
        mean, log_std = jnp.split(z, 2)
        log_std = jnp.clip(log_std, -20, 2)
        action = jnp.tanh(mean + jnp.exp(log_std) * noise[n, ACT:])
        log_prob = -jnp.sum(log_std + jnp.log(1 - action**2 + 1e-6))  # less what does not depend on the actor
        both = jnp.concatenate([batch.obs[n], action])[None]
        return 0.3 * log_prob - jnp.minimum(*(networks.apply(critic, both)[0, 0] for critic in critics))

    hessians = [jax.hessian(divergence)(one, one) for one in z]
    expected = sum(w * h for w, h in zip(batch.weight, hessians, strict=True))
    found = curvature.output_factor(tape.sensitivities[-1], tape.weights)
    np.testing.assert_allclose(found, expected, rtol=1e-8, atol=1e-10 * np.abs(expected).max())
    slopes = [jax.grad(loss)(one, n) for n, one in enumerate(z)]
    expected = sum(w * jnp.outer(g, g) for w, g in zip(batch.weight, slopes, strict=True))
    found = curvature.output_factor(tape.gradients[-1][None], tape.weights)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-9)


@pytest.mark.usefixtures("x64")
def test_random_signs_are_right_on_average():
    actor, critics = start_of_curvature()
    batch = batch_of(4, dtype=np.float64)

    def outer(signs: jax.Array, exact: bool) -> jax.Array:
        tape = sac.actor_tape(actor, critics, batch, jnp.asarray(0.3), signs[:, ACT:], signs, exact)[1]
        return jnp.einsum("kni,knj->nij", tape.sensitivities[0], tape.sensitivities[0])

    rng = np.random.default_rng(0)
    draws = jax.vmap(lambda signs: outer(signs, False))(jnp.asarray(rng.normal(size=(4000, 4, 2 * ACT))))
    expected, standard_error = outer(jnp.ones((4, 2 * ACT)), True), draws.std(0) / np.sqrt(len(draws))
    assert float(draws.std(0).max()) > 0.1
    assert np.all(np.abs(draws.mean(0) - expected) <= 5 * standard_error + 1e-9 * jnp.abs(expected).max())


@pytest.mark.usefixtures("x64")
def test_the_tanh_behind_both_heads_changes_no_divergence():
    """Kullback-Leibler by quadrature of the squashed densities equals the closed form of the normal ones."""
    (m, s), (m0, s0) = (0.3, 0.5), (-0.2, 0.8)
    u = np.linspace(-8, 8, 200_001)
    p, q = (stats.norm.pdf(u, *pair) / (1 - np.tanh(u) ** 2) for pair in ((m0, s0), (m, s)))
    squashed = np.trapezoid(p * np.log(p / q) * (1 - np.tanh(u) ** 2), u)
    np.testing.assert_allclose(squashed, np.log(s / s0) + (s0**2 + (m0 - m) ** 2) / (2 * s**2) - 0.5, rtol=1e-6)


# ---------------------------------------------------------------------------------------------------- order and policy


def start(chosen: sac.Settings) -> sac.Learner:
    learner, other = (sac.init(np.random.default_rng(seed), chosen) for seed in (0, 1))
    learner = learner._replace(target_critics=other.critics, log_temperature=np.float32(-1.0))
    return sac.reset_optimizers(jax.tree.map(jnp.asarray, learner), chosen)


def test_what_an_update_leaves_alone_is_what_its_order_says():
    """A temperature step does not enter its own update, and the actor moves by the critics of after their step."""
    before, batch, noise = start(ADAM), batch_of(16), noise_of(16)
    plain, _ = learn(before, batch, HYPER, noise, jnp.int32(0), ADAM)
    hot, _ = learn(before, batch, HYPER._replace(temperature_learning_rate=jnp.float32(5.0)), noise, jnp.int32(0), ADAM)
    assert not oracles.same(plain.log_temperature, hot.log_temperature)
    assert oracles.same((plain.critics, plain.actor, plain.target_critics), (hot.critics, hot.actor, hot.target_critics))
    faster, _ = learn(before, batch, HYPER._replace(critic_learning_rate=jnp.float32(0.5)), noise, jnp.int32(0), ADAM)
    assert not oracles.same(plain.actor, faster.actor)
    # The next actions' noise enters the critics, and through them the actor; the current actions' noise enters no critic.
    for half, same in ((slice(0, ACT), False), (slice(ACT, None), True)):
        other, _ = learn(before, batch, HYPER, noise.at[:, half].multiply(-0.5), jnp.int32(0), ADAM)
        assert oracles.same(plain.critics, other.critics) == same
        assert oracles.same(plain.temperature_state, other.temperature_state) != same


def test_the_temperature_moves_towards_an_entropy_of_minus_the_number_of_actions():
    learner, batch, noise = start(ADAM), batch_of(64), noise_of(64)
    for shift, sign in ((-6.0, 1), (-0.3, -1)):
        *hidden, last = learner.actor
        own = learner._replace(actor=(*hidden, Layer(last.w, last.b.at[ACT:].add(shift))))
        entropy = -float(sac.draw(own.actor, batch.obs, noise[:, ACT:]).log_prob.mean())
        moved = sac.update_temperature(own, batch, HYPER, noise, jnp.int32(0), PLAIN)
        assert (entropy < -ACT) == (sign == 1)
        np.testing.assert_allclose(moved.log_temperature - own.log_temperature, sign * 0.04, rtol=1e-3)  # Adam's first step


def test_the_policy_is_the_tanh_of_the_mean():
    actor = jax.tree.map(np.asarray, start(ADAM).actor)
    obs = np.random.default_rng(0).normal(size=(20, OBS)).astype(np.float32)
    kept = Policy([(layer.w, layer.b) for layer in sac.policy(actor)], -np.ones(ACT), np.ones(ACT), "any")
    without_noise = jax.vmap(functools.partial(sac.explore, actor, hyper=HYPER, noise=jnp.zeros(ACT)))(obs)
    np.testing.assert_allclose(kept.unit_action(obs), without_noise, atol=1e-6)
    noisy = jax.vmap(functools.partial(sac.explore, actor, hyper=HYPER))(obs, noise=noise_of(20)[:, :ACT])
    np.testing.assert_allclose(noisy, sac.draw(actor, obs, noise_of(20)[:, :ACT]).action, atol=1e-6)
