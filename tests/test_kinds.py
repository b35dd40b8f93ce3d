"""Kinds with an algorithm in front, and settings by algorithm: what a run makes of them, and what is refused."""

import dataclasses

import pytest

from evolute import Run, UserError, kinds, overlay, toml
from evolute.commands import flags
from evolute.evolution import space_of
from evolute.presets import ALGORITHMS
from evolute.runs.naming import default_folder

MIXED = {"td3:adam": 1, "sac:adam": 2, "sac:adam/kfac": 1, "ddpg:kfac": 1}


def again(run: Run) -> Run:
    """The run that its own configuration file makes."""
    return Run(**toml.parse(toml.to_toml(run), "itself"))


def test_a_prefix_stands_once():
    with pytest.raises(UserError, match="'td3:td3' is no algorithm"):
        Run("Hopper-v4", mix={"td3:td3:adam": 1, "adam": 1})


def test_a_kind_is_an_algorithm_and_its_optimizers():
    assert kinds.of("kfac") == kinds.of("td3:kfac") == ("td3", "kfac", "kfac")
    assert kinds.of("sac:adam/kfac") == ("sac", "adam", "kfac")
    assert kinds.of("ddpg:adam") == ("ddpg", "adam", "adam")


def test_td3_in_front_of_a_kind_is_the_same_kind():
    run = Run("Hopper-v4", mix={"td3:adam": 2, "td3:adam/kfac": 1}, steps_per_interval={"td3:adam/kfac": 300})
    assert run == Run("Hopper-v4", mix={"adam": 2, "adam/kfac": 1}, steps_per_interval={"adam/kfac": 300})
    assert run.kinds == ["adam", "adam", "adam/kfac"]
    with pytest.raises(UserError, match="mix has 'adam' and td3:adam, which are one kind; give it once"):
        Run("Hopper-v4", mix={"td3:adam": 2, "adam": 1})
    with pytest.raises(UserError, match="steps_per_interval has 'adam' and td3:adam"):
        Run("Hopper-v4", steps_per_interval={"adam": 100, "td3:adam": 100})


MISTAKES = [
    ({"mix": {"sca:adam": 1}}, "'sca:adam'", "no algorithm (did you mean 'sac'?)", "choose from " + ", ".join(ALGORITHMS)),
    ({"mix": {":adam": 1}}, "':adam'", "'' is no algorithm", "choose from"),
    ({"mix": {"sac:": 1}}, "'sac:'", "must be OPTIMIZER or ACTOR/CRITIC", "such as"),
    ({"mix": {"sac:kfca": 1}}, "'kfca'", "unknown optimizer", "did you mean 'kfac'"),
    ({"mix": {"sac:adam:kfac": 1}}, "'sac:adam:kfac'", "'sac:adam' is no algorithm", "choose from"),
    ({"mix": {"sac:adam": 1}, "steps_per_interval": {"adam": 9}}, "'adam'", "not in the mix", "sac:adam"),
    ({"mix": {"sac:adam": 1}, "target_noise": 0.2}, "target_noise is 0.2", "no algorithm of the mix has it", "td3:adam=1"),
    ({"mix": {"ddpg:adam": 1}, "policy_delay": 1}, "policy_delay is 1", "no algorithm of the mix has it", "td3:adam=1"),
    ({"temperature_learning_rate": 0.1}, "temperature_learning_rate is 0.1", "no algorithm of the mix", "sac:adam=1"),
    ({"mix": {"sac:adam": 2}, "perturb": ["exploration_noise"]}, "perturb names exploration_noise", "no algorithm", "td3:adam=1"),
    ({"mix": {"ddpg:adam": 2}, "bounds": {"target_noise": (0.1, 1)}}, "bounds names target_noise", "no algorithm", "td3:adam=1"),
    ({"initial": {"temperature_learning_rate": (0.1, 1)}}, "initial names temperature_", "no algorithm", "sac:adam=1"),
    ({"algorithms": {"sac": {}}}, "'sac'", "not in the mix", "choose from td3"),
    ({"algorithms": {"td3": 3}}, "algorithms.td3 is 3", "must be a table", "such as discount = 0.99"),
    ({"algorithms": {"td3": {"discont": 3}}}, "'discont'", "no setting", "did you mean 'discount'"),
    ({"algorithms": {"td3": {"steps": 3}}}, "'steps'", "no setting", "choose from actor_layers"),
    ({"algorithms": {"td3": {"discount": 3}}}, "algorithms.td3.discount is 3", "between 0 and 1", "such as 0.99"),
    ({"algorithms": {"td3": {"actor_layers": [0]}}}, "algorithms.td3.actor_layers is 0", "positive numbers", "such as"),
    ({"algorithms": {"td3": {"optimizers": 1}}}, "algorithms.td3.optimizers is 1", "must be a table", "of optimizers"),
    ({"algorithms": {"td3": {"optimizers": {"kfac": {}}}}}, "'kfac'", "no kind of td3", "choose from adam"),
    (
        {"algorithms": {"td3": {"optimizers": {"adam": {"learning_rate": -1}}}}},
        "for td3, optimizers.adam.actor.learning_rate is -1",
        "positive",
        "such as",
    ),
    (
        {"algorithms": {"td3": {"batch_size": 500}}, "buffer_size": 300},
        "batch_size is 500",
        "more than the 300",
        "lower batch_size",
    ),
]


@pytest.mark.parametrize(("chosen", "value", "rule", "fix"), MISTAKES, ids=lambda part: str(part)[:40])
def test_a_mistake_is_one_sentence_with_value_rule_and_fix(chosen, value, rule, fix):
    with pytest.raises(UserError) as mistake:
        Run("Hopper-v4", **chosen)
    said = str(mistake.value)
    for part in (value, rule, fix):
        assert part in said
    assert "\n" not in said


def test_what_is_not_given_is_each_algorithms_own():
    """RL Baselines3 Zoo on MuJoCo v4: hyperparams/td3.yml, ddpg.yml and sac.yml."""
    run = Run("Swimmer-v4", mix=MIXED)
    td3, ddpg, sac = (run.settings_of(kind) for kind in ("adam", "ddpg:kfac", "sac:adam"))
    assert td3["actor_layers"] == ddpg["critic_layers"] == (400, 300)
    assert sac["actor_layers"] == sac["critic_layers"] == (256, 256)
    assert (td3["discount"], ddpg["discount"], sac["discount"]) == (0.9999, 0.9999, 0.999)
    assert sac["temperature_learning_rate"] == 3e-4
    assert {"target_noise", "policy_delay"} <= td3.keys()
    assert {"target_noise", "policy_delay"}.isdisjoint(ddpg)
    assert {"exploration_noise", "warm_up_noise"}.isdisjoint(sac)
    rates = {kind: run.initial_hyperparameters(kind)[1:3] for kind in run.mix}
    assert rates["adam"] == (1e-3, 1e-3)
    assert rates["sac:adam"] == (3e-4, 3e-4)
    assert rates["sac:adam/kfac"] == (3e-4, 0.1)
    assert rates["ddpg:kfac"] == (0.1, 0.1)
    clean = Run("Swimmer-v4", mix={"sac:adam": 1}, preset="cleanrl")
    assert clean.initial_hyperparameters("sac:adam")[1:3] == (3e-4, 1e-3)
    assert (clean.learning_starts, clean.temperature_learning_rate, clean.discount) == (5_000, 1e-3, 0.99)
    # The clock is the run's, by the first algorithm of the mix.
    assert Run("Humanoid-v4", mix={"sac:adam": 1}).steps == 2_000_000


def test_what_is_given_holds_for_every_algorithm_and_its_own_table_before_that():
    chosen = {"actor_layers": [8], "discount": 0.5, "optimizers": {"adam": {"learning_rate": 0.25}}}
    own = {"discount": 0.75, "critic_layers": 7, "optimizers": {"adam": {"critic": {"learning_rate": 0.125}}}}
    run = Run("Hopper-v4", mix=MIXED, algorithms={"sac": own}, **chosen)
    assert {run.settings_of(kind)["actor_layers"] for kind in run.mix} == {(8,)}
    assert [run.settings_of(kind)["discount"] for kind in run.mix] == [0.5, 0.75, 0.75, 0.5]
    assert run.settings_of("sac:adam")["critic_layers"] == (7,)
    assert run.settings_of("adam")["critic_layers"] == (400, 300)
    assert run.initial_hyperparameters("sac:adam")[1:3] == (0.25, 0.125)
    assert run.initial_hyperparameters("adam")[1:3] == (0.25, 0.25)
    assert run.initial_hyperparameters("sac:adam").discount == 0.75


def test_an_option_for_one_algorithm_reaches_no_other():
    options = {"sac": {"optimizers": {"adam": {"b1": 0.5, "actor": {"learning_rate": 0.01}}}}}
    run = Run("Hopper-v4", mix={"adam": 1, "sac:adam": 1}, algorithms=options)
    assert run.optimizers_of("adam")["actor"] == ("adam", {"learning_rate": 1e-3})
    assert run.optimizers_of("sac:adam")["actor"] == ("adam", {"learning_rate": 0.01, "b1": 0.5})
    assert run.optimizers_of("sac:adam")["critic"] == ("adam", {"learning_rate": 3e-4, "b1": 0.5})
    first = {"td3": {"optimizers": {"adam": {"b1": 0.5}}}}
    other = Run("Hopper-v4", mix={"adam": 1, "sac:adam": 1}, algorithms=first)
    assert "b1" not in other.optimizers_of("sac:adam")["actor"][1]
    assert again(other) == other


@pytest.mark.parametrize(
    "chosen",
    [
        {"mix": MIXED},
        {"mix": {"sac:adam": 2}},
        {"mix": {"sac:kfac": 1, "adam": 1}, "algorithms": {"td3": {"discount": 0.5}, "sac": {"tau": 0.5}}},
        {"mix": {"ddpg:adam": 1, "sac:adam": 1}, "discount": 0.9, "optimizers": {"kfac": {"damping": 1}, "adam": {"b1": 0.5}}},
        {"mix": MIXED, "algorithms": {"sac": {"optimizers": {"kfac": {"damping": 2, "critic": {"clip": 3}}}}}},
        {"mix": MIXED, "preset": "cleanrl"},
    ],
    ids=str,
)
def test_a_configuration_file_is_complete(chosen, monkeypatch):
    run = Run("Swimmer-v4", **chosen)
    # Whatever a preset says by then.
    monkeypatch.setitem(__import__("evolute.presets").presets.PRESETS, run.preset, lambda env, algorithm: nonsense())
    assert again(run) == run
    assert toml.to_toml(again(run)) == toml.to_toml(run)
    for kind in run.mix:
        assert again(run).settings_of(kind) == run.settings_of(kind)
        assert again(run).initial_hyperparameters(kind) == run.initial_hyperparameters(kind)
    assert dataclasses.replace(run, seed=3) == Run(**{**vars(run), "seed": 3})


def nonsense():
    from evolute import presets

    wrong = presets._zoo("Hopper-v4", "td3")
    return {name: value if name not in ("discount", "tau") else 0.111 for name, value in wrong.items()}


def test_a_setting_for_the_run_on_top_of_a_file_holds_for_every_algorithm():
    file = toml.parse(toml.to_toml(Run("Swimmer-v4", mix=MIXED)), "itself")
    over = {"discount": 0.25, "optimizers": {"adam": {"learning_rate": 0.5}}}
    run = Run(**overlay.merge(file, over))
    assert {run.settings_of(kind)["discount"] for kind in run.mix} == {0.25}
    assert run.initial_hyperparameters("sac:adam")[1:3] == (0.5, 0.5)
    assert run.settings_of("sac:adam")["actor_layers"] == (256, 256)
    own = Run(**overlay.merge(file, {"discount": 0.25, "algorithms": {"sac": {"discount": 0.125}}}))
    assert own.settings_of("sac:adam")["discount"] == 0.125
    assert own.settings_of("sac:adam")["actor_layers"] == (256, 256)


def test_what_a_kind_lacks_is_zero_and_never_perturbed_or_drawn():
    names = ("target_noise", "temperature_learning_rate", "exploration_noise", "critic_damping", "tau")
    starts = {"temperature_learning_rate": (0.1, 0.2), "target_noise": (0.3, 0.4)}
    run = Run("Hopper-v4", mix=MIXED, perturb=names, initial=starts)
    assert run.perturbed("adam") == ("target_noise", "exploration_noise", "tau")
    assert run.perturbed("sac:adam/kfac") == ("temperature_learning_rate", "critic_damping", "tau")
    assert run.perturbed("ddpg:kfac") == ("exploration_noise", "critic_damping", "tau")
    assert space_of(run).perturbed["sac:adam"] == ("temperature_learning_rate", "tau")
    assert [list(run.starts_of(kind)) for kind in ("adam", "sac:adam", "ddpg:kfac")] == [
        ["target_noise"],
        ["temperature_learning_rate"],
        [],
    ]
    sac = run.initial_hyperparameters("sac:adam")
    assert (sac.target_noise, sac.target_noise_clip, sac.exploration_noise) == (0, 0, 0)
    assert run.initial_hyperparameters("adam").temperature_learning_rate == 0
    assert run.initial_hyperparameters("ddpg:kfac").target_noise == 0


def test_the_command_line_takes_algorithms():
    words = ["Hopper-v4", "--mix", "td3:adam=4", "sac:adam=2", "sac:kfac=2", "--steps-per-interval", "sac:kfac=300"]
    words += ["--algorithms", "sac.discount=0.999", "sac.actor_layers=64,32", "sac.critic_layers=16"]
    words += ["sac.optimizers.kfac.actor.damping=0.5"]
    run = Run(**flags.settings_of(flags.parse(flags.train_flags(), "train", words)))
    assert run.mix == {"adam": 4, "sac:adam": 2, "sac:kfac": 2}
    assert run.steps_per_interval == {"sac:kfac": 300}
    own = run.settings_of("sac:kfac")
    assert (own["discount"], own["actor_layers"], own["critic_layers"]) == (0.999, (64, 32), (16,))
    assert run.initial_hyperparameters("sac:kfac").actor_damping == 0.5


def test_a_folder_has_no_colon_in_its_name():
    name = str(default_folder("Hopper-v4", {"adam": 4, "sac:adam/kfac": 2}, [0]))
    assert name.startswith("runs/Hopper-v4-adam4_sac+adam+kfac2-0-")
