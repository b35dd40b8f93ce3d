"""Every setting is declared with a rule, and none is accepted that changes nothing."""

import dataclasses
import json
import math
import typing
from typing import Any

import jax
import numpy as np
import pytest

import evolute
import oracles
from evolute import algorithms, optimizers, options, toml
from evolute.commands import flags
from evolute.config import Run
from evolute.errors import UserError
from evolute.hyperparameters import SETTINGS, Hyperparameters
from evolute.optimizers import first_order
from evolute.optimizers.first_order import FirstOrderOptions
from evolute.options import Rule, Setting, setting
from evolute.training import placement
from evolute.training.replay import Sample, row_width

RECORDS = [Run, FirstOrderOptions, *dict.fromkeys(kind.options for kind in optimizers.CURVATURE_KINDS.values())]


def declared() -> dict[str, tuple[Any, Setting]]:
    """Type and declaration of every setting that there is."""
    found = {}
    for record in RECORDS:
        for field in dataclasses.fields(record):
            found[f"{record.__name__}.{field.name}"] = typing.get_type_hints(record)[field.name], Setting.of(field)
    for name, hint in typing.get_type_hints(Hyperparameters).items():
        found[f"Hyperparameters.{name}"] = hint, SETTINGS[name]
    return found


DECLARED = declared()
# Numbers that may be infinite say so in their rule: infinity is no limit.
UNLIMITED = {name for name, (_, own) in DECLARED.items() if "or inf" in own.rule.words}


def accepts(name: str, value: Any) -> bool:
    hint, own = DECLARED[name]
    try:
        options.checked(name, value, hint, own)
    except UserError as mistake:
        said = str(mistake)
        assert name in said
        assert f"such as {own.example}." in said
        assert "{" not in said.replace(repr(value), "")
        return False
    return True


@pytest.mark.parametrize("name", DECLARED)
def test_every_setting_declares_help_rule_and_an_example_that_keeps_it(name):
    hint, own = DECLARED[name]
    assert own.help.endswith(".")
    assert own.rule.words
    assert [one for one in own.rule.choices if one not in own.help] == []
    if typing.get_origin(hint) is not None:  # a list or a table: the command line's own parser reads the example
        return
    assert accepts(name, flags.value_of(own.example))


@pytest.mark.parametrize("name", DECLARED)
def test_every_setting_refuses_what_means_nothing(name):
    hint, own = DECLARED[name]
    wrong: list[Any] = [None, [], object()] if typing.get_origin(hint) is None else [None, 3, "text"]
    if hint in (int, float):
        wrong += [math.nan, -1, -0.5, -math.inf, "1", True]
        wrong += [] if name in UNLIMITED else [math.inf]
    if hint is tuple[int, ...] or hint is tuple[float, ...]:
        wrong += [[math.nan], [1, math.inf], [2, -1], ["1"], [0]]
    if hint is str:
        wrong += [3, "", "no such", "\x1b[2J"] if own.rule.choices else [3, "", " ", "\x1b[2J"]
    if hint is bool:
        wrong += [1, 0.0, "true"]
    accepted = [value for value in wrong if accepts(name, value)]
    assert accepted == []
    assert (name in UNLIMITED) <= accepts(name, math.inf)


def test_a_setting_without_a_declaration_cannot_be_made():
    with pytest.raises(TypeError, match=r"Careless\.rate has no rule"):

        @options.declared
        class Careless:
            rate: float = 0.1

    with pytest.raises(TypeError, match="missing 1 required positional argument: 'example'"):
        setting("Step size.", Rule(lambda x: x > 0, "positive"))  # type: ignore[call-arg]


def test_every_hyperparameters_bounds_keep_its_rule():
    for name, wrong in {"discount": (0.5, 2), "tau": (0.1, 1.5), "batch_size": (1, 10**6), "target_noise": (1, math.inf)}.items():
        with pytest.raises(UserError, match=name):
            Run("Hopper-v4", bounds={name: wrong})


# -------------------------------------------------------------------------------------------------------------- numbers

NUMPYS = {
    "steps": np.int64(50_000),
    "seed": np.uint32(7),
    "discount": np.float64(0.9),
    "tau": np.float32(0.25),
    "target_noise": np.float16(0.5),
    "exploration_noise": np.int8(1),
    "warm_up_noise": np.bool_(True),
    "learning_starts": np.array(100),
    "batch_size": np.float64(64),
    "actor_layers": np.array([8, 4]),
    "critic_layers": (np.int32(8), np.int64(4)),
    "factors": [np.float32(0.5), 2],
    "perturb": np.array(["tau", "batch_size"]),
    "mix": {np.str_("kfac"): np.int64(2), "adam": np.uint8(1)},
    "bounds": {"tau": np.array([0.125, 0.5]), "batch_size": (np.int64(32), np.int32(128))},
    "optimizers": {"kfac": {"damping": np.float32(0.5), "actor": {"inverse_every": np.int64(7), "exact_tape": np.True_}}},
    "precision": np.str_("bfloat16"),
}


def test_numpys_numbers_are_pythons():
    def python(value: Any) -> Any:
        if isinstance(value, dict):
            return {str(key): python(item) for key, item in value.items()}
        return [python(item) for item in value] if isinstance(value, list | tuple) else getattr(value, "tolist", lambda: value)()

    run = Run("Hopper-v4", **NUMPYS)
    assert run == Run("Hopper-v4", **python(NUMPYS))
    assert toml.to_toml(run) == toml.to_toml(Run("Hopper-v4", **python(NUMPYS)))
    assert Run(**toml.parse(toml.to_toml(run), "itself")) == run
    assert "numpy" not in str({type(leaf).__module__ for leaf in jax.tree.leaves(vars(run))})
    json.dumps(vars(run))


NO_NUMBERS = [np.float64("nan"), np.datetime64(5, "s"), np.array([1, 2]), np.array([object()]), np.complex64(1)]


@pytest.mark.parametrize("wrong", NO_NUMBERS)
def test_what_no_number_of_python_would_be_is_refused(wrong):
    with pytest.raises(UserError, match="discount is"):
        Run("Hopper-v4", discount=wrong)


# ------------------------------------------------------------------------------------------- options that change nothing

OBS, ACT, ROWS, STEPS = 3, 2, 8, 5
# Small cadences, so that each shows within a few steps.
CADENCES = {"statistics_every": 2, "inverse_every": 4, "burn_in": 2}
# Options of each optimizer from which one at a time is changed.
STARTS: dict[str, dict[str, Any]] = {
    **{name: {} for name in optimizers.CURVATURE_KINDS},
    "kfac": CADENCES,
    "kfac_empirical": CADENCES,
    "adamw": {},
    "sgd": {"momentum": 0.5},
    "rmsprop": {"eps": 0.01},
}
TEXTS = {"mu_dtype": "bfloat16", "accumulator_dtype": "bfloat16", "momentum": 0.5, "mask": False}


def learnt(name: str, role: str, own: dict[str, Any]) -> list[np.ndarray]:
    """The networks after some of the learner's real steps, where one network's optimizer has options of its own."""
    both = {name: {role: {**STARTS[name], **own}, **{other: STARTS[name] for other in optimizers.ROLES if other != role}}}
    run = Run("Hopper-v4", mix={name: 1}, optimizers=both, actor_layers=[4], critic_layers=[4], policy_delay=1)
    algorithm = algorithms.build(run, name, OBS, ACT)
    rng = np.random.default_rng(0)

    def sample(*axes: int) -> Sample:
        rows = rng.standard_normal((*axes, ROWS, row_width(OBS, ACT)), np.float32)
        rows[..., -1] = 0.0
        return Sample(rows, np.full((*axes, ROWS), 1 / ROWS, np.float32), rng.standard_normal((*axes, ROWS, ACT), np.float32))

    samples, steps = [sample() for _ in range(12)], [sample(1) for _ in range(STEPS)]
    with jax.disable_jit():  # a compilation takes longer than all the steps
        group = placement.Group([0], name, placement.make_programs(algorithm), jax.local_devices()[0], [algorithm.init(rng)])
        group.begin_interval([run.initial_hyperparameters(name)])
        group.burn_in(0, samples[: group.burn_in_batches])
        for one in steps:
            group.learn(one, np.zeros((1, OBS), np.float32), np.zeros((1, ACT), np.float32))
        learner = group.take(0)
    return oracles.leaves((learner.actor, learner.critics))


def another(option: str, value: Any) -> Any:
    """A valid value that is not the given one."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        return value + 1
    if isinstance(value, float):
        return 1e-6 if value == math.inf else value * 1e-3 if value > 1e-3 else 0.5
    return TEXTS[option]


@pytest.mark.parametrize("role", optimizers.ROLES)
# The two forms of K-FAC have the same options.
@pytest.mark.parametrize("name", [pytest.param(n, marks=[pytest.mark.slow] if n == "kfac_empirical" else []) for n in STARTS])
def test_no_option_is_accepted_that_changes_nothing(name, role):
    if name in optimizers.CURVATURE_KINDS:
        record = optimizers.CURVATURE_KINDS[name].options
        known = vars(record(**optimizers.resolve_options(name, role, STARTS[name], 1e-3)))
    else:
        known = {"learning_rate": 1e-3, **first_order.arguments_of(name), **STARTS[name]}
    plain, refused = learnt(name, role, {}), []
    for option, value in known.items():
        try:
            changed = learnt(name, role, {option: another(option, value)})
        except UserError as mistake:
            refused.append(str(mistake))
            continue
        assert not oracles.same(plain, changed), f"{option} is accepted and ignored"
    assert all(f"{name}.{role}." in said and "which changes nothing" in said for said in refused)
    assert len(refused) <= 1


def test_an_option_for_both_networks_that_only_the_actors_has_is_the_actors():
    run = Run("Hopper-v4", mix={"kfac": 1}, optimizers={"kfac": {"exact_tape": True}})
    assert run.optimizers["kfac"]["actor"]["exact_tape"] is True
    assert "exact_tape" not in run.optimizers["kfac"]["critic"]
    for name in ("kfac", "diag_ggn"):
        with pytest.raises(UserError, match=f"set optimizers.{name}.actor.exact_tape"):
            Run("Hopper-v4", mix={name: 1}, optimizers={name: {"critic": {"exact_tape": True}}})
    # As they stand in the config.toml of older runs, for each network.
    old = {"kfac": {role: {"exact_tape": True} for role in optimizers.ROLES}}
    assert Run("Hopper-v4", mix={"kfac": 1}, optimizers=old) == run
    assert evolute.Run("Hopper-v4", mix={"kfac": 1}, optimizers={"kfac": {"critic": {"exact_tape": False}}}) == Run(
        "Hopper-v4", mix={"kfac": 1}
    )
