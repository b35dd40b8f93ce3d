"""First-order optimizers against torch and optax, and what is said of wrong options."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import optax.contrib
import pytest
from hypothesis import given
from hypothesis import strategies as st

import oracles
from evolute import optimizers
from evolute.errors import UserError
from evolute.networks import MLP, Layer
from evolute.optimizers import Optimizer

STEP = jnp.int32(0)

# optax's own functions, not looked up by the code under test.
FACTORIES = {
    "adam": (optax.adam, {"b1": 0.8}),
    "adamw": (optax.adamw, {"weight_decay": 0.1}),
    "sgd": (optax.sgd, {"momentum": 0.9, "nesterov": True}),
    "rmsprop": (optax.rmsprop, {"decay": 0.95}),
    "muon": (optax.contrib.muon, {"ns_steps": 3}),
}


def build(name: str, **options) -> Optimizer:
    return optimizers.build(name, optimizers.resolve_options(name, "critic", options, 1e-3))


def gradients_of(mlp: MLP, step: int) -> MLP:
    rng = np.random.default_rng(step)
    return jax.tree.map(lambda p: jnp.asarray(rng.normal(size=p.shape), p.dtype), mlp)


@pytest.mark.usefixtures("x64")
def test_ten_steps_of_adam_equal_torchs():
    arrays = oracles.golden("adam_torch.npz")
    adam, rates = build("adam"), oracles.rates(1e-3, dtype=np.float64)
    parameters = (Layer(jnp.asarray(arrays["before/w"]), jnp.asarray(arrays["before/b"])),)
    state = adam.init(parameters)
    for step in range(10):
        gradients = (Layer(jnp.asarray(arrays["grad/w"][step]), jnp.asarray(arrays["grad/b"][step])),)
        parameters, state, _ = adam.update(gradients, state, parameters, rates, None, STEP)
        np.testing.assert_allclose(parameters[0].w, arrays["after/w"][step], rtol=1e-12, atol=1e-14)
        np.testing.assert_allclose(parameters[0].b, arrays["after/b"][step], rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("name", FACTORIES)
def test_several_steps_equal_optax_also_where_the_rate_changes(name):
    factory, options = FACTORIES[name]
    ours, mlp = build(name, **options), oracles.random_mlp(np.random.default_rng(0), (4, 5, 3), np.float32)
    constant = factory(learning_rate=0.01, **options)
    changing = optax.inject_hyperparams(factory, static_args=tuple(options))(learning_rate=0.01, **options)

    @jax.jit
    def our_step(parameters, state, gradients, rate):
        return ours.update(gradients, state, parameters, oracles.rates(rate), None, STEP)

    our_parameters, our_state = mlp, ours.init(mlp)
    with jax.numpy_dtype_promotion("standard"):  # which optax is written for
        step_constant, step_changing = jax.jit(constant.update), jax.jit(changing.update)
        fixed, fixed_state, moved, moved_state = mlp, constant.init(mlp), mlp, changing.init(mlp)
        for step, rate in enumerate([0.01, 0.01, 0.01, 0.03, 0.001, 0.1]):
            our_parameters, our_state, contained = our_step(our_parameters, our_state, gradients_of(mlp, step), jnp.float32(rate))
            assert sum(contained) == 0
            if step < 3:
                updates, fixed_state = step_constant(gradients_of(mlp, step), fixed_state, fixed)
                fixed = optax.apply_updates(fixed, updates)
                oracles.assert_close(our_parameters, fixed, rtol=1e-6, atol=1e-6)
            moved_state.hyperparams["learning_rate"] = jnp.float32(rate)
            updates, moved_state = step_changing(gradients_of(mlp, step), moved_state, moved)
            moved = optax.apply_updates(moved, updates)
            oracles.assert_close(our_parameters, moved, rtol=1e-6, atol=1e-6)
    assert not oracles.same(fixed, moved)


def test_an_overflowing_moment_does_not_stop_adam_for_good():
    adam, mlp = build("adam"), oracles.random_mlp(np.random.default_rng(0), (2, 2), np.float32)
    huge = jax.tree.map(lambda p: jnp.full_like(p, 1e30), mlp)  # its square is infinite, the update by it zero
    _, state, contained = adam.update(huge, adam.init(mlp), mlp, oracles.rates(1e-3), None, STEP)
    assert contained.steps == 1
    updates, _, contained = oracles.change(adam, gradients_of(mlp, 0), state, mlp, oracles.rates(1e-3), None, STEP)
    assert contained.steps == 0
    np.testing.assert_allclose(np.abs(oracles.flat(updates)), 1e-3, rtol=1e-4)


@functools.cache
def adam_step():
    adam = build("adam")
    return adam.init, jax.jit(lambda g, state, mlp: adam.update(g, state, mlp, oracles.rates(10.0), None, STEP))


ANY_GRADIENT = st.floats(width=32) | st.sampled_from([0.0, 1e-45, 1.8e19, 1.844e19, -1.85e19, 3.4e38])


@given(st.lists(st.tuples(ANY_GRADIENT, ANY_GRADIENT), min_size=1, max_size=6))
def test_adam_stays_finite_whatever_gradients_follow_each_other(gradients):
    # Its results are not tested for it, only what comes in.
    init, step = adam_step()
    mlp = (Layer(jnp.ones((1, 1)), jnp.ones(1)),)
    state = init(mlp)
    for w, b in gradients:
        after, state, contained = step((Layer(jnp.full((1, 1), w, jnp.float32), jnp.full(1, b, jnp.float32)),), state, mlp)
        assert all(np.isfinite(leaf).all() for leaf in oracles.leaves((after, state)))
        with np.errstate(over="ignore"):
            squares = np.float32(w) ** 2 + np.float32(b) ** 2
        assert bool(contained.steps) == (not np.isfinite(squares))
        assert oracles.same(after, mlp) or contained.steps == 0
        mlp = after


WRONG = {
    "a misspelt optimizer": ("kfacc", {}, "unknown optimizer 'kfacc' (did you mean 'kfac'?); choose from "),
    "an optimizer unlike any": ("quux", {}, "unknown optimizer 'quux'; choose from "),
    "a part of an optimizer": ("scale_by_learning_rate", {}, "unknown optimizer 'scale_by_learning_rate'"),
    "a misspelt option": ("kfac", {"dampin": 1.0}, "optimizers.kfac has no option 'dampin' (did you mean 'damping'?)"),
    "a misspelt argument": ("adam", {"b": 0.9}, "optimizers.adam has no option 'b'"),
    "a damping without curvature": (
        "adam",
        {"damping": 0.1},
        "optimizers.adam has no option 'damping'; optax.adam ",
    ),
    "a text for a number": (
        "kfac",
        {"average": "high"},
        "kfac.critic.average is 'high'; it must be a number, such as 0.95",
    ),
    "a fraction for a count": ("kfac", {"inverse_every": 2.5}, "inverse_every is 2.5; it must be a whole number, such as 20"),
    "a number for a switch": ("kfac", {"exact_tape": 1}, "exact_tape is 1; it must be true or false, such as true"),
    "a switch for a number": ("diag_ggn", {"damping": True}, "damping is True; it must be a number, such as 0.1"),
    "a switch for a rate": (
        "adam",
        {"learning_rate": True},
        "critic.learning_rate is True; it must be a number, such as 0.001",
    ),
    "a text for a rate": ("adam", {"learning_rate": "fast"}, "learning_rate is 'fast'; it must be a number"),
    "a text for an argument": (
        "adam",
        {"b1": "big"},
        "adam.critic.b1 is 'big'; it must be a number, such as 0.9.",
    ),
    "a decay above one": ("adam", {"b1": 2}, "adam.critic.b1 is 2.0; it must be at least 0 and below 1, such as 0.9."),
    "a negative decay": ("adamw", {"b2": -1}, "adamw.critic.b2 is -1.0; it must be at least 0 and below 1"),
    "a decay by another name": ("muon", {"adam_b1": 1.5}, "muon.critic.adam_b1 is 1.5; it must be at least 0 and below 1"),
    "decays of which one is none": ("prodigy", {"betas": [0.9, 7]}, "prodigy.critic.betas is 0.9 7.0; it must be numbers at"),
    "a momentum in words": ("sgd", {"momentum": "0.9"}, "sgd.critic.momentum is '0.9'; it must be a number"),
    "a negative epsilon": ("adam", {"eps": -1}, "adam.critic.eps is -1.0; it must be a finite number not below 0"),
    "an infinite epsilon": ("rmsprop", {"eps": float("inf")}, "rmsprop.critic.eps is inf; it must be a finite number"),
    "a weight decay that is no number": (
        "adamw",
        {"weight_decay": float("nan")},
        "adamw.critic.weight_decay is nan; it must be a finite number not below 0, such as 0.01.",
    ),
    "any number that is none": ("ademamix", {"alpha": float("nan")}, "ademamix.critic.alpha is nan; it must be a finite number"),
    "a list for a number": ("adam", {"b1": [0.9, 0.8]}, "adam.critic.b1 is [0.9, 0.8]; it must be a number"),
    "a number for optax's switch": ("adam", {"nesterov": 1}, "adam.critic.nesterov is 1; it must be true or false"),
    "an argument beside which another is missing": ("sgd", {"nesterov": True}, "nesterov is True, which changes nothing with"),
    "a negative rate": ("sgd", {"learning_rate": -1}, "learning_rate is -1.0; it must be a finite positive number"),
    "a rate that is not a number": (
        "kfac",
        {"learning_rate": float("nan")},
        "is nan; it must be a finite positive",
    ),
    "an infinite damping": ("kfac", {"damping": float("inf")}, "damping is inf; it must be a finite positive number"),
    "a zero damping": ("diag_ggn", {"damping": 0}, "damping is 0.0; it must be a finite positive number"),
    "a zero clip": ("kfac", {"clip": 0.0}, "clip is 0.0; it must be a positive number"),
    "a period of zero": ("kfac", {"statistics_every": 0}, "statistics_every is 0; it must be a positive number of updates"),
    "a decay of one": ("kfac", {"average": 1}, "average is 1.0; it must be at least 0 and below 1"),
    "a negative momentum": ("kfac", {"momentum": -0.1}, "momentum is -0.1; it must be at least 0 and below 1"),
}


@pytest.mark.parametrize("what", WRONG)
def test_a_wrong_option_is_refused_in_one_sentence_with_the_fix(what):
    name, options, message = WRONG[what]
    with pytest.raises(UserError) as caught:
        optimizers.resolve_options(name, "critic", options, 1e-3)
    said = str(caught.value)
    assert message in said
    assert said.endswith(".")
    assert "\n" not in said


def test_an_argument_near_a_known_one_is_guessed():
    with pytest.raises(UserError, match="no option 'momentm' \\(did you mean 'momentum'\\?\\)"):
        optimizers.resolve_options("sgd", "actor", {"momentm": 0.9}, 1e-3)


def test_options_are_completed_by_their_defaults():
    assert optimizers.resolve_options("adam", "actor", {"b1": 0.5}, 3e-4) == {"learning_rate": 3e-4, "b1": 0.5}
    assert optimizers.resolve_options("adam", "actor", {"learning_rate": 1}, 3e-4)["learning_rate"] == 1
    given = {"damping": 1, "clip": float("inf"), "inverse_every": 3}
    for name in optimizers.CURVATURE_KINDS:
        for role in optimizers.ROLES:
            known = {field.name for field in dataclasses.fields(optimizers.CURVATURE_KINDS[name].options)}
            own = {option: value for option, value in given.items() if option in known}
            options = optimizers.resolve_options(name, role, own, 3e-4)
            fields = optimizers.CURVATURE_KINDS[name].options(**options)
            assert {option: options[option] for option in own} == own
            assert all(type(options[option]) is float for option in own if option != "inverse_every")
            # A critic has one output.
            assert set(options) == set(vars(fields)) - ({"exact_tape"} if role == "critic" else set())
            if "burn_in" in known:
                assert optimizers.build(name, options).burn_in == options["burn_in"]


def test_names_and_roles():
    assert {"adam", "adamw", "sgd", "rmsprop", "muon", "kfac", "kfac_empirical", "diag_ggn"} <= set(optimizers.names())
    damped = {name for name in optimizers.names() if optimizers.has_damping(name)}
    assert {"kfac", "kfac_empirical", "diag_ggn"} <= damped <= set(optimizers.CURVATURE_KINDS)
    for name in optimizers.names():
        optimizers.check_name(name)
