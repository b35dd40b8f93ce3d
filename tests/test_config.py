"""What a run is: presets, files, layers, and one sentence for every mistake."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evolute import overlay, toml
from evolute.config import PRESETS, Run
from evolute.hyperparameters import BOUNDS, Hyperparameters

ZOO = {
    "steps": 1_000_000,
    "actor_layers": (400, 300),
    "critic_layers": (400, 300),
    "discount": 0.99,
    "tau": 0.005,
    "policy_delay": 2,
    "target_noise": 0.2,
    "target_noise_clip": 0.5,
    "exploration_noise": 0.1,
    "warm_up_noise": False,
    "learning_starts": 10_000,
    "buffer_size": 1_000_000,
    "batch_size": 256,
}
CLEANRL = ZOO | {"actor_layers": (256, 256), "critic_layers": (256, 256), "learning_starts": 25_000}


# ------------------------------------------------------------------------------------------------------------ presets


@pytest.mark.parametrize(
    ("preset", "env", "expected", "learning_rate"),
    [
        ("paper", "HalfCheetah-v4", ZOO, 1e-3),
        ("paper", "Swimmer-v4", ZOO | {"discount": 0.9999}, 1e-3),
        ("paper", "Humanoid-v4", ZOO | {"steps": 2_000_000}, 1e-3),
        ("paper", "HumanoidStandup-v4", ZOO, 1e-3),
        ("sb3", "Hopper-v4", ZOO | {"warm_up_noise": True}, 1e-3),
        ("sb3", "Swimmer-v5", ZOO | {"discount": 0.9999, "warm_up_noise": True}, 1e-3),
        ("cleanrl", "Ant-v4", CLEANRL, 3e-4),
        ("cleanrl", "Swimmer-v4", CLEANRL, 3e-4),
        ("cleanrl", "Humanoid-v4", CLEANRL, 3e-4),
    ],
)
def test_presets_are_their_sources_values(preset, env, expected, learning_rate):
    run = Run(env, preset=preset)
    assert {name: getattr(run, name) for name in expected} == expected
    hyper = run.initial_hyperparameters("adam")
    assert (hyper.actor_learning_rate, hyper.critic_learning_rate) == (learning_rate, learning_rate)


def test_population_based_training_starts_from_the_papers_values():
    run = Run("Hopper-v4")
    assert (run.interval, run.truncation, run.factors, run.episodes) == (10_000, 0.2, (0.8, 1.2), 5)
    assert run.perturb == (
        "batch_size",
        "actor_learning_rate",
        "critic_learning_rate",
        "actor_damping",
        "critic_damping",
    )
    assert run.bounds_of("batch_size") == (32, 1024)
    assert run.copy_optimizer_state


# --------------------------------------------------------------------------------------------------------------- TOML

positive = st.floats(1e-6, 10.0)
kinds = st.sampled_from(["kfac", "diag_ggn", "kfac_empirical", "kfac/diag_ggn", "diag_ggn/kfac", "adam/kfac"])
curvature_options = st.fixed_dictionaries(
    {},
    optional={
        "learning_rate": positive,
        "damping": positive,
        "clip": st.one_of(positive, st.just(math.inf)),
        "average": st.floats(0, 0.99),
        "actor": st.fixed_dictionaries({}, optional={"damping": positive, "exact_tape": st.booleans()}),
        "critic": st.fixed_dictionaries({}, optional={"learning_rate": positive}),
    },
)


@st.composite
def valid_settings(draw):
    mix = draw(st.dictionaries(kinds, st.integers(1, 3), min_size=1, max_size=3))
    batch, interval = draw(st.integers(32, 512)), draw(st.integers(1, 20_000))
    optional = {
        "seed": st.integers(0, 2**32 - 1),
        "preset": st.sampled_from(sorted(PRESETS)),
        "steps": st.integers(30_000, 2 * 10**9),
        "actor_layers": st.lists(st.integers(1, 999), min_size=1, max_size=3).map(tuple),
        "discount": st.floats(0.5, 0.9999),
        "target_noise": st.floats(0.0, 9.0),
        "warm_up_noise": st.booleans(),
        "learning_starts": st.integers(0, 1_000),
        "optimizers": st.dictionaries(st.sampled_from(["kfac", "diag_ggn"]), curvature_options),
        "steps_per_interval": st.dictionaries(st.sampled_from(sorted(mix)), st.integers(max(1, interval // 2), interval)),
        "shrink": st.sampled_from(["both", "gradient"]),
        "truncation": st.floats(0.01, 0.5),
        "factors": st.lists(st.floats(0.1, 10.0), min_size=1, max_size=4).map(tuple),
        "perturb": st.sets(st.sampled_from(["batch_size", "tau", "actor_damping", "discount"])).map(tuple),
        "bounds": st.fixed_dictionaries({}, optional={"batch_size": st.just((1, 512)), "tau": st.just((1e-5, 0.25))}),
        "copy_optimizer_state": st.booleans(),
        "steps_per_round": st.integers(1, 9),
        "precision": st.sampled_from(["float32", "tensorfloat32", "bfloat16"]),
        "placement": st.sampled_from(["auto", "map", "vmap"]),
    }
    chosen = draw(st.fixed_dictionaries({}, optional=optional))
    sizes = {"batch_size": batch, "buffer_size": draw(st.integers(batch, 2_000)), "interval": interval, "mix": mix}
    return {"learning_starts": 100, "steps": 30_000} | chosen | sizes


@settings(max_examples=60)
@given(valid_settings())
def test_a_run_comes_back_from_its_toml(tmp_path_factory, chosen):
    run = Run("Swimmer-v4", **chosen)
    file = tmp_path_factory.mktemp("toml") / "config.toml"
    file.write_text(toml.to_toml(run), encoding="utf-8")
    again = Run(**toml.read(file))
    assert again == run
    assert toml.to_toml(again) == toml.to_toml(run)
    assert {name: getattr(run, name) for name in chosen if name not in ("optimizers", "bounds")} == {
        name: value for name, value in chosen.items() if name not in ("optimizers", "bounds")
    }


def test_an_infinite_clip_comes_back_from_toml(tmp_path):
    run = Run("Hopper-v4", mix={"kfac": 1}, optimizers={"kfac": {"clip": math.inf}})
    (tmp_path / "run.toml").write_text(toml.to_toml(run))
    assert Run(**toml.read(tmp_path / "run.toml")).optimizers["kfac"]["critic"]["clip"] == math.inf


def test_toml_may_use_lists_for_tuples_and_whole_numbers_for_real_ones(tmp_path):
    (tmp_path / "run.toml").write_text(
        'env = "Hopper-v4"\nactor_layers = [8, 4]\ndiscount = 1\nsteps = 2e6\nmix = {kfac = 2}\n'
        "[optimizers.kfac]\ndamping = 1\n[bounds]\nbatch_size = [64, 512]\n"
    )
    run = Run(**toml.read(tmp_path / "run.toml"))
    assert (run.actor_layers, run.discount, run.steps) == ((8, 4), 1.0, 2_000_000)
    assert (type(run.discount), type(run.steps)) == (float, int)
    assert run.optimizers["kfac"]["actor"]["damping"] == 1.0
    assert run.bounds_of("batch_size") == (64, 512)


# -------------------------------------------------------------------------------------------------------------- merge


def test_merging_goes_into_tables_and_replaces_everything_else():
    base = {"steps": 1, "mix": {"adam": 2}, "optimizers": {"kfac": {"damping": 1.0, "clip": 2.0}}, "factors": [0.5]}
    over = {"steps": 3, "mix": {"kfac": 1}, "optimizers": {"kfac": {"damping": 4.0}, "sgd": {}}, "factors": [2.0]}
    assert overlay.merge(base, over) == {
        "steps": 3,
        "mix": {"kfac": 1},
        "optimizers": {"kfac": {"damping": 4.0, "clip": 2.0}, "sgd": {}},
        "factors": [2.0],
    }
    assert base["optimizers"]["kfac"]["damping"] == 1.0  # untouched


def test_an_option_for_both_networks_overrides_those_of_one_network_below_it():
    # A run's own config.toml names every option by network; a flag on top of it must not be lost.
    base = {"optimizers": {"kfac": {"actor": {"damping": 1.0, "clip": 2.0}, "critic": {"damping": 3.0}}}}
    over = {"optimizers": {"kfac": {"damping": 4.0, "critic": {"clip": 5.0}}}}
    run = Run("Hopper-v4", mix={"kfac": 1}, **overlay.merge(base, over))
    actor, critic = (run.optimizers["kfac"][role] for role in ("actor", "critic"))
    assert (actor["damping"], actor["clip"], critic["damping"], critic["clip"]) == (4.0, 2.0, 4.0, 5.0)


# ---------------------------------------------------------------------------------------------------------- optimizers


def test_options_hold_for_both_networks_or_for_one():
    run = Run(
        "Hopper-v4",
        mix={"kfac": 1},
        optimizers={"kfac": {"damping": 0.5, "actor": {"damping": 0.25, "learning_rate": 0.75}}},
    )
    assert run.optimizers["kfac"]["actor"]["damping"] == 0.25
    assert run.optimizers["kfac"]["critic"]["damping"] == 0.5
    hyper = run.initial_hyperparameters("kfac")
    assert (hyper.actor_damping, hyper.critic_damping, hyper.actor_learning_rate) == (0.25, 0.5, 0.75)
    assert hyper.critic_learning_rate == run.optimizers["kfac"]["critic"]["learning_rate"] != 0.75


def test_a_composite_kind_takes_each_networks_optimizer_and_its_options():
    options = {"adam": {"learning_rate": 0.002}, "kfac": {"damping": 0.5, "learning_rate": 0.04}}
    run = Run("Hopper-v4", mix={"adam/kfac": 2, "kfac/adam": 1}, optimizers=options)
    assert run.kinds == ["adam/kfac", "adam/kfac", "kfac/adam"]
    h = run.initial_hyperparameters("adam/kfac")
    assert (h.actor_learning_rate, h.critic_learning_rate) == (0.002, 0.04)
    assert (h.actor_damping, h.critic_damping) == (0.0, 0.5)
    h = run.initial_hyperparameters("kfac/adam")
    assert (h.actor_learning_rate, h.critic_learning_rate) == (0.04, 0.002)
    assert (h.actor_damping, h.critic_damping) == (0.5, 0.0)


@pytest.mark.parametrize(
    ("kind", "dampings"),
    [("adam", set()), ("kfac", {"actor", "critic"}), ("adam/kfac", {"critic"}), ("diag_ggn/adam", {"actor"})],
)
def test_only_what_an_optimizer_has_is_perturbed(kind, dampings):
    perturbed = Run("Hopper-v4", mix={kind: 1}).perturbed(kind)
    assert {name for name in perturbed if name.endswith("damping")} == {f"{role}_damping" for role in dampings}
    assert {"batch_size", "actor_learning_rate", "critic_learning_rate"} <= set(perturbed)


def test_each_hyperparameter_has_bounds_and_starts_as_set():
    assert set(BOUNDS) == set(Hyperparameters._fields)
    chosen = {"batch_size": 64, "discount": 0.9, "tau": 0.25, "target_noise": 0.5, "target_noise_clip": 0.75}
    run = Run("Hopper-v4", mix={"kfac": 1}, exploration_noise=0.3, **chosen)
    hyper = run.initial_hyperparameters("kfac")._asdict()
    assert {name: hyper[name] for name in chosen} == chosen
    assert hyper["exploration_noise"] == 0.3


# -------------------------------------------------------------------------------------------------- intervals, bounds


def test_slow_kinds_take_their_share_of_an_interval():
    run = Run("Hopper-v4", mix={"kfac": 1, "diag_ggn": 1}, interval=10_000, steps_per_interval={"kfac": 3_000})
    assert [run.interval_steps("diag_ggn", n) for n in (10_000, 1)] == [10_000, 1]
    assert [run.interval_steps("kfac", n) for n in (10_000, 5_000, 10)] == [3_000, 1_500, 3]


def test_exploration_never_grows_a_batch_beyond_the_buffer():
    run = Run("Hopper-v4", mix={"kfac": 2}, buffer_size=300, batch_size=32)
    assert run.bounds_of("batch_size") == (32, 300)
    run = Run("Hopper-v4", mix={"kfac": 2}, buffer_size=300, batch_size=100, bounds={"batch_size": [64, 200]})
    assert run.bounds_of("batch_size") == (64, 200)
    run = Run("Hopper-v4", mix={"kfac": 2}, buffer_size=300, batch_size=100, bounds={"batch_size": [64, 900]})
    assert run.bounds_of("batch_size") == (64, 300)


def test_defaults_are_not_shared_between_runs():
    first, second = Run("Hopper-v4", mix={"kfac": 1}), Run("Hopper-v4", mix={"kfac": 1})
    first.bounds["tau"] = first.optimizers["kfac"]["actor"]["damping"] = (1.0, 2.0)
    assert second == Run("Hopper-v4", mix={"kfac": 1}) != first
