"""TD3's update against two public libraries, NumPy, and the statements that define it."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import oracles
from evolute import networks, optimizers
from evolute.algorithms import actor_critic, td3
from evolute.algorithms.base import Batch
from evolute.hyperparameters import Hyperparameters

OBS, ACT = 5, 3


def settings(kind: str, delay: int = 2, **options) -> td3.Settings:
    resolved = optimizers.resolve([kind], {kind: options}, dict.fromkeys(optimizers.ROLES, 1e-3))[kind]
    actor, critic = (optimizers.build(kind, resolved[role]) for role in optimizers.ROLES)
    return td3.Settings(OBS, ACT, (16, 12), (16, 12), actor, critic, delay)


ADAM = settings("adam")
# No norm constraint: learning rates show. A column per action: no random sign depends on the batch's size.
KFAC = settings("kfac", delay=1, clip=float("inf"), exact_tape=True, statistics_every=1)
KFAC_WITH_SIGNS = settings("kfac", clip=float("inf"), inverse_every=2, statistics_every=1)


@functools.partial(jax.jit, static_argnames=("settings", "delayed"))
def by_parts(learner, batch, hyper, noise, step, settings, delayed):
    """One update out of td3's parts, in the order of td3.learn."""
    target = td3.targets(learner, batch, hyper, noise)
    learner, report = actor_critic.update_critics(learner, batch, target, hyper, step, settings)
    if delayed:
        learner, of_actor = td3.update_actor(learner, batch, hyper, noise, step // settings.policy_delay, settings)
        learner = td3.move_targets(learner, hyper.tau)
        report = jax.tree.map(jnp.add, report, of_actor)
    return learner, report


learn = jax.jit(td3.learn, static_argnames="settings")
HYPER = oracles.on_device(oracles.hyperparameters())


@functools.cache
def start(settings: td3.Settings) -> td3.Learner:
    """A learner whose targets differ from its networks."""
    learner, other = (td3.init(np.random.default_rng(seed), settings) for seed in (0, 1))
    learner = learner._replace(target_actor=other.actor, target_critics=other.critics)
    return td3.reset_optimizers(jax.tree.map(jnp.asarray, learner), settings)


def batch_of(size: int, seed: int = 0) -> Batch:
    return oracles.random_batch(np.random.default_rng(seed), size, OBS, ACT)


def noise_of(size: int, seed: int = 9) -> jax.Array:
    return jnp.asarray(np.random.default_rng(seed).normal(size=(size, ACT)), jnp.float32)


@pytest.mark.parametrize(("library", "learning_rate"), [("sb3", 1e-3), ("cleanrl", 3e-4)])
def test_ten_updates_equal_those_of_a_public_library(library, learning_rate):
    arrays = oracles.golden(f"td3_{library}.npz")
    rates = dict.fromkeys(("actor_learning_rate", "critic_learning_rate"), learning_rate)
    hyper = oracles.on_device(oracles.hyperparameters(**rates, discount=0.99, tau=0.005, target_noise=0.2, target_noise_clip=0.5))

    def at(prefix: str) -> dict:
        actor, target_actor = (oracles.golden_mlp(arrays, f"{prefix}/{name}") for name in ("actor", "target_actor"))
        critics, target_critics = (
            tuple(oracles.golden_mlp(arrays, f"{prefix}/{name}{n}") for n in range(2)) for name in ("critic", "target_critic")
        )
        return {"actor": actor, "critics": critics, "target_actor": target_actor, "target_critics": target_critics}

    learner = td3.reset_optimizers(td3.Learner(**at("before"), critic_states=(), actor_state=()), ADAM)
    weight = jnp.full(32, 1 / 32, jnp.float32)
    for k in range(1, 11):
        *fields, noise = (
            jnp.asarray(arrays[f"batch/{name}"][k - 1]) for name in ("obs", "action", "reward", "next_obs", "done", "noise")
        )
        batch = Batch(*fields, weight)
        learner, report = learn(learner, batch, hyper, noise, jnp.int32(k - 1), ADAM)
        for name, expected in at(f"after/{k}").items():
            oracles.assert_close(getattr(learner, name), expected, rtol=0, atol=1e-6)
        np.testing.assert_allclose(report.critic_loss, arrays["loss/critic"][k - 1], rtol=1e-5)
        if k % 2 == 0:
            np.testing.assert_allclose(report.actor_loss, arrays["loss/actor"][k - 1], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("settings", [ADAM, pytest.param(KFAC_WITH_SIGNS, marks=pytest.mark.slow)], ids=["adam", "kfac"])
def test_learn_is_its_parts_in_that_order(settings):
    learner = parts = start(settings)
    for step in range(4):
        arguments = batch_of(16, step), HYPER, noise_of(16, step), jnp.int32(step), settings
        learner, report = learn(learner, *arguments)
        parts, expected = by_parts(parts, *arguments, delayed=step % 2 == 1)
        oracles.assert_close(learner, parts, rtol=1e-4, atol=1e-6)
        oracles.assert_close(report, expected, rtol=1e-4, atol=1e-6)
        assert (float(report.updates), float(report.actor_updates)) == (1, step % 2)


@pytest.mark.usefixtures("x64")
def test_targets_equal_numpys_through_truncation_and_termination():
    rng, hyper = np.random.default_rng(0), oracles.hyperparameters()
    actor, *critics = (oracles.random_mlp(rng, sizes) for sizes in [(OBS, 7, ACT), (OBS + ACT, 7, 1), (OBS + ACT, 7, 1)])
    batch, noise = oracles.random_batch(rng, 64, OBS, ACT, np.float64), rng.normal(size=(64, ACT))
    truncated, terminated = batch.terminated == 0, batch.terminated == 1

    def numpy_mlp(mlp: networks.MLP, x: np.ndarray) -> np.ndarray:
        for layer in mlp[:-1]:
            x = np.maximum(x @ np.asarray(layer.w) + np.asarray(layer.b), 0)
        return x @ np.asarray(mlp[-1].w) + np.asarray(mlp[-1].b)

    smoothing = np.clip(hyper.target_noise * noise, -hyper.target_noise_clip, hyper.target_noise_clip)
    unclipped = np.tanh(numpy_mlp(actor, np.asarray(batch.next_obs))) + smoothing
    action = np.clip(unclipped, -1, 1)
    q = np.stack([numpy_mlp(critic, np.hstack([batch.next_obs, action]))[:, 0] for critic in critics])
    # Each clip and each critic decides some of the samples, none of them all.
    assert {0, 1} == set(q.argmin(0))
    assert 0 < np.mean(np.abs(smoothing) == hyper.target_noise_clip) < 1
    assert 0 < np.mean(unclipped != action) < 1
    assert 3 < terminated.sum() < 60

    learner = td3.Learner((), (), (), (), target_actor=actor, target_critics=tuple(critics))
    target = td3.targets(learner, batch, hyper, jnp.asarray(noise))
    expected = np.asarray(batch.reward) + hyper.discount * q.min(0)
    np.testing.assert_allclose(target[truncated], expected[truncated], rtol=1e-10, atol=1e-12)
    np.testing.assert_array_equal(target[terminated], batch.reward[terminated])


@pytest.mark.usefixtures("x64")
def test_the_actor_climbs_the_first_critic_only():
    rng = np.random.default_rng(0)
    actor = oracles.random_mlp(rng, (OBS, 7, ACT))
    first, second = (oracles.random_mlp(rng, (OBS + ACT, 7, 1)) for _ in range(2))
    batch = oracles.random_batch(rng, 8, OBS, ACT, np.float64)._replace(weight=oracles.random_weights(rng, 8))

    def loss(actor: networks.MLP) -> jax.Array:
        action = jnp.tanh(networks.apply(actor, batch.obs))
        return -jnp.sum(batch.weight * networks.apply(first, jnp.concatenate([batch.obs, action], 1))[:, 0])

    gradient, _, value = td3.actor_tape(actor, first, batch, noise_of(8), exact=False)
    np.testing.assert_allclose(value, loss(actor), rtol=1e-12)
    oracles.assert_close(gradient, jax.grad(loss)(actor), rtol=1e-10, atol=1e-12)

    def updated(critics: tuple) -> networks.MLP:
        sgd = settings("sgd")
        learner = td3.reset_optimizers(td3.Learner(critics, (), actor, (), actor, critics), sgd)
        return td3.update_actor(learner, batch, oracles.hyperparameters(), noise_of(8), jnp.int32(0), sgd)[0].actor

    assert oracles.same(updated((first, second)), updated((first, first)))
    assert not oracles.same(updated((first, second)), updated((second, first)))


@pytest.mark.usefixtures("x64")
def test_the_signs_of_noise_estimate_the_actors_metric_without_bias():
    rng = np.random.default_rng(0)
    actor, critic = oracles.random_mlp(rng, (OBS, ACT)), oracles.random_mlp(rng, (OBS + ACT, 1))
    batch = oracles.random_batch(rng, 4, OBS, ACT, np.float64)

    def outer(noise: jax.Array, exact: bool) -> jax.Array:
        roots = td3.actor_tape(actor, critic, batch, noise, exact)[1].sensitivities[0]
        return jnp.einsum("kni,knj->nij", roots, roots)

    draws = jax.vmap(lambda noise: outer(noise, False))(jnp.asarray(rng.normal(size=(4000, 4, ACT))))
    expected, standard_error = outer(jnp.zeros((4, ACT)), exact=True), draws.std(0) / np.sqrt(len(draws))
    assert float(draws.std(0).max()) > 0.1
    assert np.all(np.abs(draws.mean(0) - expected) <= 5 * standard_error + 1e-12)


def test_actor_and_targets_rest_between_their_updates():
    delayed = settings("adam", delay=3)
    learner = start(delayed)
    for step in range(6):
        before = learner
        learner, report = learn(before, batch_of(16, step), HYPER, noise_of(16), jnp.int32(step), delayed)
        moves = step % 3 == 2
        assert float(report.actor_updates) == moves
        assert not oracles.same(before.critics, learner.critics)
        for name in ("actor", "actor_state", "target_actor", "target_critics"):
            assert oracles.same(getattr(before, name), getattr(learner, name)) != moves, name


# What each hyperparameter changes within one update of everything; the critics step first and all else follows them.
FOLLOWS_THE_CRITICS = {"critics", "critic_states", "actor", "actor_state", "target_actor", "target_critics"}
CHANGES: dict[str, set[str]] = {
    "batch_size": set(),  # read when the batch is drawn: tests/test_replay.py
    "actor_learning_rate": {"actor", "actor_state", "target_actor"},
    "critic_learning_rate": FOLLOWS_THE_CRITICS,
    "actor_damping": {"actor", "actor_state", "target_actor"},
    "critic_damping": FOLLOWS_THE_CRITICS,
    "discount": FOLLOWS_THE_CRITICS,
    "tau": {"target_actor", "target_critics"},
    "target_noise": FOLLOWS_THE_CRITICS,
    "target_noise_clip": FOLLOWS_THE_CRITICS,
    "exploration_noise": set(),  # read by explore, below
    "temperature_learning_rate": set(),  # SAC's
}


@functools.cache
def learned_with_each_hyperparameter_changed():
    changed = [oracles.hyperparameters()]
    changed += [changed[0]._replace(**{name: 1.1 * value}) for name, value in changed[0]._asdict().items()]
    stacked = Hyperparameters(*(jnp.asarray(column, jnp.float32) for column in zip(*changed, strict=True)))
    arguments = start(KFAC), batch_of(16), stacked, noise_of(16), jnp.int32(0)
    return jax.jit(jax.vmap(functools.partial(td3.learn, settings=KFAC), (None, None, 0, None, None)))(*arguments)[0]


@pytest.mark.parametrize("name", Hyperparameters._fields)
def test_no_hyperparameter_is_dead(name):
    learners = learned_with_each_hyperparameter_changed()
    plain, other = (jax.tree.map(lambda x, n=n: x[n], learners) for n in (0, 1 + Hyperparameters._fields.index(name)))
    changed = {part for part in td3.Learner._fields if not oracles.same(getattr(plain, part), getattr(other, part))}
    assert changed == CHANGES[name]


def test_exploration_adds_scaled_noise_and_clips():
    actor, noise = start(ADAM).actor, noise_of(50)
    obs = jnp.asarray(np.random.default_rng(0).normal(size=OBS), jnp.float32)
    policy = td3.act(actor, obs)
    assert policy.shape == (ACT,)
    for scale in (0.0, 0.3, 2.0):
        hyper = HYPER._replace(exploration_noise=jnp.float32(scale))
        explored = jax.vmap(lambda one, hyper=hyper: td3.explore(actor, obs, hyper, one))(noise)
        np.testing.assert_allclose(explored, np.clip(policy + scale * noise, -1, 1), rtol=1e-6, atol=1e-6)
        assert np.any(np.abs(explored) == 1) == (scale == 2)


@pytest.mark.parametrize("settings", [ADAM, pytest.param(KFAC, marks=pytest.mark.slow)], ids=["adam", "kfac"])
def test_padding_and_order_of_a_batch_change_nothing(settings):
    batch, noise, order = batch_of(20), noise_of(20), np.random.default_rng(1).permutation(20)
    # What lies in the padding must not matter, so it is absurd here.
    padded = jax.tree.map(lambda x: jnp.concatenate([x, jnp.full((4, *x.shape[1:]), 1e3)]), batch)
    padded = padded._replace(weight=jnp.concatenate([batch.weight, jnp.zeros(4)]))
    variants = [
        (batch, noise),
        (padded, jnp.concatenate([noise, jnp.full((4, ACT), 3.0)])),
        (jax.tree.map(lambda x: x[order], batch), noise[order]),
    ]
    delayed = jnp.int32(settings.policy_delay - 1)
    plain, *others = (learn(start(settings), b, HYPER, n, delayed, settings) for b, n in variants)
    for other in others:
        oracles.assert_close(other, plain, rtol=2e-3, atol=2e-5)
