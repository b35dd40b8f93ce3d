"""What every optimizer must satisfy, whatever its mathematics: one battery over all kinds.

A new optimizer joins by a line in KINDS.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import oracles
from evolute import optimizers
from evolute.algorithms import actor_critic
from evolute.algorithms.base import Batch
from evolute.networks import MLP
from evolute.optimizers import Contained, Optimizer, Rates, Tape

NO_CLIP = {"clip": float("inf")}
EVERY_OTHER = {"statistics_every": 1, "inverse_every": 2}
# The optimizer and its options; those that have a norm constraint by default are here with it and without.
KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    "adam": ("adam", {}),
    "adamw": ("adamw", {"weight_decay": 0.1}),
    "sgd": ("sgd", {"momentum": 0.9}),
    "rmsprop": ("rmsprop", {}),
    "muon": ("muon", {}),
    "diag_ggn": ("diag_ggn", NO_CLIP),
    "diag_ggn clipped": ("diag_ggn", {"clip": 1e-3}),
    "diag_ggn averaged": ("diag_ggn", {"average": 0.95} | NO_CLIP),
    "kfac": ("kfac", EVERY_OTHER | NO_CLIP),
    "kfac clipped": ("kfac", EVERY_OTHER | {"clip": 1e-3}),
    "kfac exact_damping": ("kfac", EVERY_OTHER | NO_CLIP | {"exact_damping": True}),
    "kfac_empirical": ("kfac_empirical", EVERY_OTHER),
}
CURVATURE = [kind for kind, (name, _) in KINDS.items() if optimizers.has_damping(name)]
# Names say what else holds: a moving average of the curvature, a norm constraint that shortens every step here.
AVERAGING = [kind for kind in CURVATURE if "kfac" in kind or "averaged" in kind]
CLIPPED = [kind for kind in KINDS if "clipped" in kind]
every_kind = pytest.mark.parametrize("kind", KINDS)

SIZES = (5, 4, 3, 1)
MEMBERS = 3
# Of the parameters that are updated: their changes are not rounded away, and a weight decay shows.
SMALL = 2.0**-7
# Optimizers whose curvature is of squared gradients: quadratic in the loss, where that of the Gauss-Newton matrix is linear.
QUADRATIC = ["kfac_empirical"]
# Kinds whose step depends on the parameters themselves.
DECAYING = ["adamw"]


class Problem(NamedTuple):
    """The arguments of one update but its state and its step; in a group with a leading axis [M]."""

    gradients: MLP
    parameters: MLP
    rates: Rates
    tape: Tape


class Subject(NamedTuple):
    """An optimizer of the battery, compiled once for all tests of it; its functions return the parameters' change."""

    optimizer: Optimizer
    update: Callable[..., tuple[MLP, Any, Contained]]  # of one member
    group: Callable[..., tuple[MLP, Any, Contained]]  # of MEMBERS members
    traces: list[None]  # one entry for each time that `update` was traced


@functools.cache
def subject(kind: str) -> Subject:
    name, own = KINDS[kind]
    optimizer = optimizers.build(name, optimizers.resolve_options(name, "critic", own, 1e-3))
    traces: list[None] = []

    def update(state: Any, problem: Problem, step: jax.Array) -> tuple[MLP, Any, Contained]:
        start = jax.tree.map(lambda p: SMALL * p, problem.parameters)
        after, state, contained = optimizer.update(problem.gradients, state, start, problem.rates, problem.tape, step)
        return jax.tree.map(jnp.subtract, after, start), state, contained

    def counted(*arguments: Any) -> tuple[MLP, Any, Contained]:
        traces.append(None)
        return update(*arguments)

    return Subject(optimizer, jax.jit(counted), jax.jit(jax.vmap(update, in_axes=(0, 0, None))), traces)


@functools.cache
def make_problem() -> Callable[[MLP, Batch, jax.Array, Rates], Problem]:
    def problem(mlp: MLP, batch: Batch, target: jax.Array, rates: Rates) -> Problem:
        gradients, tape, _, _ = actor_critic.critic_tape(mlp, batch, target)
        return Problem(gradients, mlp, rates, tape)

    return jax.jit(problem)


@functools.cache
def problem(seed: int = 0, learning_rate: float = 1e-3, damping: float = 0.1, obs=1.0, target=1.0) -> Problem:
    """A random problem; `obs` and `target` scale its first row's observation and target."""
    rng = np.random.default_rng(seed)
    mlp = oracles.random_mlp(rng, SIZES, np.float32)
    batch = oracles.random_batch(rng, 8, SIZES[0] - 1, 1)
    scaled = batch._replace(obs=batch.obs.at[0].multiply(obs))
    return make_problem()(mlp, scaled, batch.reward.at[0].multiply(target), oracles.rates(learning_rate, damping))


def stacked(problems: list[Problem]) -> Problem:
    return jax.tree.map(lambda *xs: jnp.stack(xs), *problems)


def member(tree: Any, index: int) -> Any:
    return jax.tree.map(lambda x: x[index], tree)


def count(contained: Contained) -> jax.Array:
    """What was not finite; a step that was too long is none of it."""
    return contained.statistics + contained.inverses + contained.steps


def all_finite(tree: Any) -> bool:
    return all(np.isfinite(leaf).all() for leaf in oracles.leaves(tree))


def described(tree: Any) -> Any:
    return jax.tree.map(lambda x: (x.shape, x.dtype, x.weak_type), tree)


@every_kind
def test_updates_are_like_parameters_and_states_like_states(kind):
    subject_, one = subject(kind), problem()
    state = subject_.optimizer.init(one.parameters)
    updates, new_state, contained = jax.eval_shape(subject_.update, state, one, jnp.int32(0))
    assert described(updates) == described(jax.eval_shape(lambda p: p, one.parameters))
    assert described(new_state) == described(jax.eval_shape(lambda s: s, state))
    assert described(contained) == described(jax.eval_shape(optimizers.nothing_contained))


@every_kind
def test_nothing_recompiles_when_numbers_change(kind):
    subject_ = subject(kind)
    state = subject_.optimizer.init(problem().parameters)
    _, state, _ = subject_.update(state, problem(), jnp.int32(0))
    traced, compiled = len(subject_.traces), subject_.update._cache_size()
    for step in range(1, 4):
        _, state, _ = subject_.update(state, problem(step, 1e-3 * step, 0.3 * step), jnp.int32(step))
    assert (len(subject_.traces), subject_.update._cache_size()) == (traced, compiled)


@every_kind
def test_no_group_factorises_a_batch_of_matrices_on_a_cpu(kind):
    # There it may wait for itself for ever (factors.one_by_one_on_a_cpu).
    subject_, problems = subject(kind), stacked([problem(seed) for seed in range(MEMBERS)])
    states = jax.vmap(subject_.optimizer.init)(problems.parameters)
    lowered = subject_.group.trace(states, problems, jnp.int32(0)).lower(lowering_platforms=("cpu",))
    assert 'num_batch_dims = "1"' not in lowered.as_text()


@every_kind
def test_a_good_update_is_finite_moves_every_layer_and_contains_nothing(kind):
    subject_, one = subject(kind), problem()
    state = subject_.optimizer.init(one.parameters)
    for step in range(3):
        updates, state, contained = subject_.update(state, problem(step), jnp.int32(step))
        assert all_finite((updates, state))
        assert count(contained) == 0
        assert all(np.any(leaf != 0) for leaf in oracles.leaves(updates))


@every_kind
def test_at_learning_rate_zero_every_parameter_stays_bit_identical(kind):
    optimizer, one = subject(kind).optimizer, problem(learning_rate=0.0)
    update, state = jax.jit(optimizer.update), optimizer.init(one.parameters)
    for step in range(2):
        after, state, contained = update(one.gradients, state, one.parameters, one.rates, one.tape, jnp.int32(step))
        assert oracles.same(after, one.parameters)
        assert count(contained) == 0


@every_kind
def test_what_is_added_depends_on_the_parameters_only_where_they_decay(kind):
    optimizer, one = subject(kind).optimizer, problem()
    here, _, _ = subject(kind).update(optimizer.init(one.parameters), one, jnp.int32(0))
    elsewhere, _, _ = jax.jit(oracles.change, static_argnums=0)(
        optimizer, one.gradients, optimizer.init(one.parameters), one.parameters, one.rates, one.tape, jnp.int32(0)
    )
    decay = KINDS[kind][1].get("weight_decay", 0.0) * one.rates.learning_rate * SMALL
    expected = jax.tree.map(lambda change, p: change - decay * p, elsewhere, one.parameters)
    largest = max(np.abs(leaf).max() for leaf in oracles.leaves(expected))
    oracles.assert_close(here, expected, rtol=1e-4, atol=2e-6 * largest)
    assert np.allclose(oracles.flat(here), oracles.flat(elsewhere), rtol=0, atol=1e-5 * largest) == (kind not in DECAYING)


@every_kind
def test_a_group_equals_its_members_one_by_one(kind):
    subject_ = subject(kind)
    rounds = [[problem(10 * step + m, 1e-3 * (1 + m), 0.1 * (1 + m)) for m in range(MEMBERS)] for step in range(3)]
    alone = [subject_.optimizer.init(one.parameters) for one in rounds[0]]
    group = jax.tree.map(lambda *xs: jnp.stack(xs), *alone)
    for step, problems in enumerate(rounds):
        updates, group, _ = subject_.group(group, stacked(problems), jnp.int32(step))
        for m, one in enumerate(problems):
            expected, alone[m], _ = subject_.update(alone[m], one, jnp.int32(step))
            largest = max(np.abs(leaf).max() for leaf in oracles.leaves(expected))
            oracles.assert_close(member(updates, m), expected, rtol=1e-4, atol=1e-4 * largest)
            oracles.assert_close(member(group, m), alone[m], rtol=2e-4, atol=1e-5)


@every_kind
def test_learning_rate_and_damping_are_live(kind):
    subject_ = subject(kind)

    def updates(**changes: float) -> MLP:
        one = problem(**changes)
        return subject_.update(subject_.optimizer.init(one.parameters), one, jnp.int32(0))[0]

    plain, faster, damped = updates(), updates(learning_rate=2e-3), updates(damping=0.2)
    if kind in CLIPPED:  # as long as the norm constraint allows, whatever the learning rate
        oracles.assert_close(plain, faster, rtol=1e-5, atol=1e-7)
        faster = updates(learning_rate=1e-9)
    assert not oracles.same(plain, faster)
    assert oracles.same(plain, damped) == (kind not in CURVATURE)


BROKEN = {
    "NaN observation": {"obs": np.nan},
    "infinite observation": {"obs": np.inf},
    "huge observation": {"obs": 1e30},
    "NaN target": {"target": np.nan},
    "infinite target": {"target": -np.inf},
    "NaN learning rate": {"learning_rate": np.nan},
}


@every_kind
@pytest.mark.parametrize("what", BROKEN)
def test_what_is_not_finite_is_contained_counted_and_overcome(kind, what):
    subject_ = subject(kind)
    for broken_step in (0, 1, 2):  # where factors are inverted, where they are not, and with a history of both
        state = subject_.optimizer.init(problem().parameters)
        for step in range(5):
            broken = step == broken_step
            updates, state, contained = subject_.update(state, problem(step, **(BROKEN[what] if broken else {})), jnp.int32(step))
            assert all_finite((updates, state)), step
            assert (count(contained) > 0) == broken, step
            if not broken:
                assert all(np.any(leaf != 0) for leaf in oracles.leaves(updates)), step


@every_kind
@pytest.mark.parametrize("what", BROKEN)
def test_a_step_that_is_left_out_leaves_every_parameter_bit_identical(kind, what):
    optimizer, one = subject(kind).optimizer, problem(**BROKEN[what])
    mlp = problem().parameters
    after, _, contained = jax.jit(optimizer.update)(one.gradients, optimizer.init(mlp), mlp, one.rates, one.tape, jnp.int32(0))
    assert contained.steps == 1
    assert oracles.same(after, mlp)


@pytest.mark.parametrize("kind", CURVATURE)
def test_a_damping_that_is_not_finite_is_contained(kind):
    subject_ = subject(kind)
    state = subject_.optimizer.init(problem().parameters)
    updates, state, contained = subject_.update(state, problem(damping=np.nan), jnp.int32(0))
    assert all_finite((updates, state))
    assert count(contained) > 0


@every_kind
@pytest.mark.parametrize("scale", [1e6, 1e12, 1e18, 3e19, 1e24, 1e30])
def test_whatever_overflows_on_the_way_stays_finite_in_the_end(kind, scale):
    subject_ = subject(kind)
    state = subject_.optimizer.init(problem().parameters)
    for step in range(4):
        one = problem(step, obs=scale if step % 3 else 1.0, target=scale)
        updates, state, _ = subject_.update(state, one, jnp.int32(step))
        assert all_finite((updates, state)), step


@pytest.mark.parametrize("kind", AVERAGING)
def test_a_moving_average_does_not_overflow_although_no_batch_does(kind):
    subject_, one = subject(kind), problem()
    inputs, gradients, sensitivities = (jax.tree.map(jnp.zeros_like, part) for part in one.tape[:3])
    # One entry of the first layer's statistics is 1e38, and all others are of size one at most.
    inputs = (inputs[0].at[:, 0].set(1e19), *inputs[1:])
    gradients = (gradients[0].at[:, 0].set(1.0), *gradients[1:])
    sensitivities = (sensitivities[0].at[:, :, 0].set(1.0), *sensitivities[1:])
    one = one._replace(tape=one.tape._replace(inputs=inputs, gradients=gradients, sensitivities=sensitivities))
    state, lost = subject_.optimizer.init(one.parameters), []
    for step in range(8):
        _, state, contained = subject_.update(state, one, jnp.int32(step))
        assert all_finite(state), step
        lost.append(float(contained.statistics))
    assert lost[0] == 0
    assert max(lost) == 1


@every_kind
@pytest.mark.parametrize("what", BROKEN)
def test_a_broken_member_leaves_the_others_bit_identical(kind, what):
    subject_, sick = subject(kind), 1
    healthy = infected = jax.tree.map(
        lambda *xs: jnp.stack(xs), *(subject_.optimizer.init(problem(m).parameters) for m in range(MEMBERS))
    )
    for step in range(3):
        problems = [problem(10 * step + m) for m in range(MEMBERS)]
        *expected, healthy, _ = subject_.group(healthy, stacked(problems), jnp.int32(step))
        problems[sick] = problem(10 * step + sick, **BROKEN[what])
        *updates, infected, contained = subject_.group(infected, stacked(problems), jnp.int32(step))
        counts = count(contained)
        assert all_finite((updates, infected))
        for m in range(MEMBERS):
            assert (counts[m] > 0) == (m == sick)
            if m != sick:
                assert oracles.same(member((updates, infected), m), member((expected, healthy), m))


@pytest.mark.parametrize("kind", CURVATURE)
def test_a_loss_in_other_units_gives_the_same_step(kind):
    subject_, one, factor = subject(kind), problem(), 16.0
    curvature_factor = factor**2 if KINDS[kind][0] in QUADRATIC else factor
    tape = one.tape
    other = Problem(
        gradients=jax.tree.map(lambda g: factor * g, one.gradients),
        parameters=one.parameters,
        rates=Rates(one.rates.learning_rate, curvature_factor * one.rates.damping),
        tape=tape._replace(
            gradients=tuple(factor * g for g in tape.gradients),
            sensitivities=tuple(jnp.sqrt(factor) * s for s in tape.sensitivities),
            trust=factor * tape.trust,
        ),
    )
    state = subject_.optimizer.init(one.parameters)
    plain, _, _ = subject_.update(state, one, jnp.int32(0))
    scaled, _, _ = subject_.update(state, other, jnp.int32(0))
    expected = jax.tree.map(lambda u: u * factor / curvature_factor, plain)
    largest = max(np.abs(leaf).max() for leaf in oracles.leaves(expected))
    oracles.assert_close(scaled, expected, rtol=1e-3, atol=1e-4 * largest)


@every_kind
def test_rows_without_weight_change_nothing(kind):
    subject_, one = subject(kind), problem()
    tape = one.tape

    def padded(rows: jax.Array) -> jax.Array:  # [..., B, n] with absurd rows after the batch
        return jnp.concatenate([rows, jnp.full((*rows.shape[:-2], 4, rows.shape[-1]), 30.0)], axis=-2)

    more = tape._replace(
        inputs=tuple(map(padded, tape.inputs)),
        gradients=tuple(map(padded, tape.gradients)),
        sensitivities=tuple(map(padded, tape.sensitivities)),
        weights=jnp.concatenate([tape.weights, jnp.zeros(4)]),
    )
    state = subject_.optimizer.init(one.parameters)
    plain, *rest = subject_.update(state, one, jnp.int32(0))
    other, *others = subject_.update(state, one._replace(tape=more), jnp.int32(0))
    largest = max(np.abs(leaf).max() for leaf in oracles.leaves(plain))
    oracles.assert_close(other, plain, rtol=1e-3, atol=1e-4 * largest)
    oracles.assert_close(others, rest, rtol=1e-3, atol=1e-4)
