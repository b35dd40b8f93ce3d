"""What every algorithm must satisfy, with whatever optimizers: one battery over all.

A new algorithm joins by a line in KINDS.
"""

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import oracles
from evolute import Run, algorithms, kinds, optimizers, presets
from evolute.algorithms.base import Algorithm, Batch, Learner, Sums, no_sums
from evolute.hyperparameters import Hyperparameters
from evolute.policy import Policy

OBS, ACT, ROWS, MEMBERS = 3, 2, 16, 3
# No norm constraint: learning rates and dampings show. Refreshes within two updates.
SHOWING = {"clip": math.inf, "statistics_every": 1, "inverse_every": 1}
OPTIONS = {"kfac": SHOWING, "kfac_empirical": SHOWING, "diag_ggn": {"clip": math.inf}}
KINDS = ["adam", "kfac", "ddpg:adam", "ddpg:diag_ggn", "sac:adam", "sac:sgd", "sac:diag_ggn", "sac:kfac", "sac:kfac_empirical"]
KINDS += ["sac:adam/kfac"]
# Kinds with networks of another structure than the usual: behind a kind's name is what its settings are.
STRUCTURES = {
    "simba": {"network": "simba", "actor_layers": (4, 4), "critic_layers": (4,)},
    "norm": {"activation": "elu", "layer_norm": True},
}
KINDS += ["kfac simba", "ddpg:diag_ggn norm", "sac:kfac_empirical/kfac simba"]
# What compiles longest has parts that others of the list have.
SLOW = {"sac:kfac_empirical/kfac simba"}
every_kind = pytest.mark.parametrize("kind", [pytest.param(k, marks=[pytest.mark.slow] if k in SLOW else []) for k in KINDS])
HYPER = oracles.on_device(oracles.hyperparameters())


class Subject(NamedTuple):
    """A kind of the battery, compiled once for all tests of it."""

    kind: str
    run: Run
    algorithm: Algorithm
    start: Learner
    learn: Callable[..., tuple[Learner, Sums]]  # of one member
    group: Callable[..., tuple[Learner, Sums]]  # of members with a leading axis
    traces: list[None]  # one entry for each time that `learn` was traced


@functools.cache
def subject(kind: str) -> Subject:
    kind, _, structure = kind.partition(" ")
    parts = kinds.of(kind)
    used = {name: own for name, own in OPTIONS.items() if name in parts}
    layers = {"actor_layers": (6, 5), "critic_layers": (5, 4)} | STRUCTURES.get(structure, {})
    delay = {"policy_delay": 1} if "policy_delay" in presets.ALGORITHMS[parts.algorithm] else {}
    run = Run("Hopper-v4", mix={kind: 1}, optimizers=used, **layers, **delay)
    algorithm = algorithms.build(run, kind, OBS, ACT)
    traces: list[None] = []

    def counted(*arguments: Any) -> Any:
        traces.append(None)
        return algorithm.learn(*arguments)

    new, other = (algorithm.init(np.random.default_rng(seed)) for seed in (0, 1))
    # Targets that differ from their networks.
    targets = {name: getattr(other, name.removeprefix("target_")) for name in new._fields if name.startswith("target_")}
    start = algorithm.reset(jax.tree.map(jnp.asarray, new._replace(**targets)))
    over = jax.jit(jax.vmap(algorithm.learn, in_axes=(0, 0, 0, 0, None)))
    return Subject(kind, run, algorithm, start, jax.jit(counted), over, traces)


def batch_of(size: int = ROWS, seed: int = 0) -> Batch:
    return oracles.random_batch(np.random.default_rng(seed), size, OBS, ACT)


def noise_of(kind: str, size: int = ROWS, seed: int = 9) -> jax.Array:
    rng = np.random.default_rng(seed)
    return jnp.asarray(rng.normal(size=(size, subject(kind).algorithm.noise)), jnp.float32)


def learnt(kind: str, batch: Batch | None = None, hyper: Hyperparameters = HYPER, noise: jax.Array | None = None, steps: int = 2):
    """A learner after some updates, and their sums."""
    one, sums = subject(kind), no_sums()
    learner = one.start
    for step in range(steps):
        given = (batch or batch_of(), hyper, noise_of(kind) if noise is None else noise)
        learner, update = one.learn(learner, *given, jnp.int32(step))
        sums = jax.tree.map(jnp.add, sums, update)
    return learner, sums


def described(tree: Any) -> Any:
    return jax.tree.map(lambda x: (jnp.shape(x), jnp.asarray(x).dtype), tree)


def networks_of(kind: str, learner: Learner) -> Any:
    return subject(kind).algorithm.networks(learner)


def test_every_algorithm_is_in_the_battery_and_in_both_tables():
    assert {kinds.of(kind.partition(" ")[0]).algorithm for kind in KINDS} == set(algorithms.MAKERS) == set(presets.ALGORITHMS)
    for algorithm, names in presets.ALGORITHMS.items():
        for preset in presets.PRESETS.values():
            assert set(names) <= preset("Hopper-v4", algorithm).keys()


@every_kind
def test_shapes_and_types_are_stable(kind):
    one = subject(kind)
    learner, sums = learnt(kind)
    assert described(learner) == described(one.start)
    assert described(sums) == described(no_sums())
    assert {x.dtype for x in map(jnp.asarray, jax.tree.leaves(networks_of(kind, learner)))} == {jnp.dtype(jnp.float32)}
    critics = len(one.start.critics)
    assert (float(sums.updates), float(sums.critic_updates), float(sums.actor_updates)) == (2, 2 * critics, 2)
    assert not any(float(x) for x in (sums.contained.steps, sums.contained.losses, sums.contained.statistics))
    assert all(np.isfinite(x).all() for x in oracles.leaves((learner, sums)))
    for name in ("actor", "critics", "target_critics"):
        assert not oracles.same(getattr(one.start, name), getattr(learner, name)), name


@every_kind
def test_members_of_a_group_learn_what_each_learns_alone(kind):
    one = subject(kind)
    hypers = [HYPER._replace(discount=jnp.float32(0.9 - 0.2 * n)) for n in range(MEMBERS)]
    given = [(one.start, batch_of(seed=n), hypers[n], noise_of(kind, seed=n)) for n in range(MEMBERS)]
    stacked = jax.tree.map(lambda *xs: jnp.stack(xs), *given)
    together, sums = one.group(*stacked, jnp.int32(0))
    for n in range(MEMBERS):
        alone, own = one.learn(*given[n], jnp.int32(0))
        mine = jax.tree.map(lambda x, n=n: x[n], (networks_of(kind, together), sums))
        oracles.assert_close(mine, (networks_of(kind, alone), own), rtol=2e-3, atol=2e-4)


@every_kind
def test_a_changed_hyperparameter_compiles_nothing_and_counts_where_the_algorithm_has_it(kind):
    one = subject(kind)
    plain, _ = learnt(kind)
    traced = len(one.traces)
    has = set(one.run.settings_of(one.kind)) | {"actor_learning_rate", "critic_learning_rate"}
    has |= set(one.run.perturbed(one.kind))
    # Read when a batch is drawn, and when an action is.
    elsewhere = {"batch_size", "exploration_noise"}
    for name in Hyperparameters._fields:
        other, _ = learnt(kind, hyper=HYPER._replace(**{name: 1.5 * getattr(HYPER, name)}))
        assert oracles.same(networks_of(kind, plain), networks_of(kind, other)) == (name not in has - elsewhere), name
    assert len(one.traces) == traced == 1


@every_kind
def test_exploration_noise_counts_where_the_algorithm_has_it(kind):
    one = subject(kind)
    obs, noise = batch_of().obs[0], jnp.asarray([0.5, -0.7])
    action = one.algorithm.explore(one.start.actor, obs, HYPER, noise)
    assert action.shape == (ACT,)
    assert action.dtype == jnp.float32
    assert np.all(np.abs(action) <= 1)
    assert not oracles.same(action, one.algorithm.explore(one.start.actor, obs, HYPER, -noise))
    louder = one.algorithm.explore(one.start.actor, obs, HYPER._replace(exploration_noise=jnp.float32(0.6)), noise)
    assert oracles.same(action, louder) == ("exploration_noise" not in one.run.settings_of(one.kind))


@every_kind
@pytest.mark.parametrize("where", ["reward", "obs", "next_obs"])
def test_what_is_not_finite_is_contained(kind, where):
    clean = batch_of()
    broken = clean._replace(**{where: getattr(clean, where).at[(0,) * getattr(clean, where).ndim].set(jnp.nan)})
    learner, sums = learnt(kind, broken)
    assert all(np.isfinite(x).all() for x in oracles.leaves(learner))
    assert all(np.isfinite(x).all() for x in oracles.leaves(sums))
    assert float(sums.contained.losses) > 0
    assert float(sums.contained.steps) > 0
    # And it learns on.
    after, _ = subject(kind).learn(learner, clean, HYPER, noise_of(kind), jnp.int32(2))
    assert not oracles.same(networks_of(kind, learner), networks_of(kind, after))
    assert all(np.isfinite(x).all() for x in oracles.leaves(after))


@every_kind
def test_rows_without_weight_change_nothing(kind):
    batch, noise = batch_of(), noise_of(kind)
    plain = learnt(kind, batch, noise=noise, steps=1)
    more = jnp.concatenate([noise, jnp.full((4, noise.shape[1]), 3.0)])
    # Of an absurd row the actor's tanh has no slope, so there are likely ones, too.
    absurd, likely = jax.tree.map(lambda x: jnp.full((4, *x.shape[1:]), 1e3), batch), batch_of(4, seed=5)
    for padding in (absurd, likely):
        padded = jax.tree.map(lambda *xs: jnp.concatenate(xs), batch, padding._replace(weight=jnp.zeros(4)))
        other = learnt(kind, padded, noise=more, steps=1)
        oracles.assert_close(networks_of(kind, other[0]), networks_of(kind, plain[0]), rtol=2e-3, atol=2e-5)
        oracles.assert_close(other[1], plain[1], rtol=1e-4, atol=1e-5)


@every_kind
def test_only_a_termination_stops_the_bootstrap(kind):
    """A batch says `terminated` alone: where it is 1 the next observation and the discount do not count, elsewhere they do."""
    for terminated in (0.0, 1.0):
        batch = batch_of()._replace(terminated=jnp.full(ROWS, terminated))
        plain, _ = learnt(kind, batch, steps=1)
        for changed, hyper in (
            (batch._replace(next_obs=-batch.next_obs), HYPER),
            (batch, HYPER._replace(discount=jnp.float32(0))),
        ):
            other, _ = learnt(kind, changed, hyper, steps=1)
            assert oracles.same(plain.critics, other.critics) == bool(terminated)


@every_kind
def test_optimizer_states_come_off_and_start_anew(kind):
    one = subject(kind)
    learner, _ = learnt(kind)
    bare = one.algorithm.strip(learner)
    assert oracles.same(networks_of(kind, bare), networks_of(kind, learner))
    assert described(one.algorithm.strip(one.start)) == described(bare)
    anew = one.algorithm.reset(bare)
    assert described(anew) == described(learner)
    assert oracles.same(networks_of(kind, anew), networks_of(kind, learner))
    states = [name for name in anew._fields if name.endswith(("_state", "_states"))]
    assert not any(jax.tree.leaves(getattr(bare, name)) for name in states)
    new = one.algorithm.reset(one.algorithm.strip(one.start))
    for name in states:
        expected = [np.shape(x) for x in oracles.leaves(getattr(new, name))]
        assert [np.shape(x) for x in oracles.leaves(getattr(anew, name))] == expected


@every_kind
def test_the_policy_is_the_deterministic_action(kind):
    """Without noise, and where an algorithm adds none to the actor's own, exploring is the policy that is evaluated and saved."""
    one = subject(kind)
    actor = learnt(kind)[0].actor
    weights = [(layer.w, layer.b) for layer in one.algorithm.policy(actor)]
    kept = Policy(weights, -np.ones(ACT), np.ones(ACT), "any", structure=one.algorithm.structure)
    obs = np.asarray(batch_of().obs)
    quiet = jax.vmap(lambda x: one.algorithm.explore(actor, x, HYPER, jnp.zeros(ACT)))(obs)
    np.testing.assert_allclose(kept.unit_action(obs), quiet, atol=1e-6)
    assert np.std(quiet) > 0.01


@every_kind
def test_burn_in_moves_no_parameter(kind):
    one = subject(kind)
    learner = one.start
    for count, gather in one.algorithm.burn_ins:
        jitted = jax.jit(gather)
        for _ in range(min(count, 2)):
            learner = jitted(learner, batch_of(), HYPER, noise_of(kind))
    assert oracles.same(networks_of(kind, learner), networks_of(kind, one.start))
    assert described(learner) == described(one.start)
    gathers = any(optimizers.build(*named).burn_in for named in one.run.optimizers_of(one.kind).values())
    assert bool(one.algorithm.burn_ins) == gathers
    assert oracles.same(learner, one.start) == (not gathers)


@every_kind
def test_a_new_learner_is_decided_by_its_generator(kind):
    first, again, other = (subject(kind).algorithm.init(np.random.default_rng(seed)) for seed in (0, 0, 1))
    assert oracles.same(first, again)
    assert not oracles.same(first.actor, other.actor)
    assert len({x.tobytes() for x in oracles.leaves([critic[0].w for critic in first.critics])}) == len(first.critics)
    assert oracles.same(first.target_critics, first.critics)


@pytest.mark.parametrize("algorithm", presets.ALGORITHMS)
def test_what_is_paid_is_learnt(algorithm):
    """Where every episode ends at once the critics come to the rewards, and the actor to the actions that are paid."""
    kind = f"{algorithm}:adam"
    one, rng = subject(kind), np.random.default_rng(0)
    learner, paid = one.start, jnp.asarray([3.0, -3.0])
    names = ("actor_learning_rate", "critic_learning_rate", "temperature_learning_rate")
    hyper = HYPER._replace(**dict.fromkeys(names, jnp.float32(0.01)))
    for step in range(400):
        batch = oracles.random_batch(rng, 64, OBS, ACT)
        batch = batch._replace(reward=batch.action @ paid, terminated=jnp.ones(64))
        noise = jnp.asarray(rng.normal(size=(64, one.algorithm.noise)), jnp.float32)
        learner, sums = one.learn(learner, batch, hyper, noise, jnp.int32(step))
    obs = batch_of(50, seed=3).obs
    action = jax.vmap(lambda x: one.algorithm.explore(learner.actor, x, HYPER, jnp.zeros(ACT)))(obs)
    assert float(sums.critic_loss) / len(learner.critics) < 0.3  # of a variance of 6
    np.testing.assert_array_less([0.6, 0.6], action.mean(0) * jnp.sign(paid))
