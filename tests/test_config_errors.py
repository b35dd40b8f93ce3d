"""Every mistake in a run's settings is one sentence with the value, the rule and the fix."""

import pytest

from evolute import toml
from evolute.config import Run
from evolute.errors import UserError, closest
from evolute.optimizers import CURVATURE_KINDS

K = {"mix": {"kfac": 1}}
TWO = {"mix": {"kfac": 2}}


def kfac(**options):
    return K | {"optimizers": {"kfac": options}}


# settings, value, rule, fix
MISTAKES = [
    ({"env": ""}, "env is ''", "names a Gymnasium environment", "such as HalfCheetah-v4"),
    ({"env": ["Hopper-v4"]}, "env is ['Hopper-v4']", "text that names", "such as HalfCheetah-v4"),
    ({"preset": "papers"}, "preset is 'papers'", "it must be 'paper', 'sb3' or 'cleanrl'", "did you mean 'paper'?)"),
    ({"preset": ["paper"]}, "preset is ['paper']", "it must be 'paper', 'sb3' or 'cleanrl'", "such as 'paper'"),
    ({"mix": {}}, "mix is empty", "one or more optimizer kinds", "such as adam=1"),
    ({"mix": {"adam": 0}}, "mix is adam=0", "positive number of slots", "such as adam=1"),
    ({"mix": {"kfac": -2}}, "mix is kfac=-2", "positive number of slots", "such as adam=1"),
    ({"mix": {"adam": "x"}}, "mix.adam is 'x'", "whole number", "such as adam=1"),
    ({"mix": {"adam": 1.5}}, "mix.adam is 1.5", "whole number", "such as adam=1"),
    ({"mix": "adam"}, "mix is 'adam'", "a table of names and values", "such as adam=1"),
    ({"mix": {"adamm": 1}}, "'adamm'", "unknown optimizer", "did you mean 'adam'?); choose from " + ", ".join(CURVATURE_KINDS)),
    ({"mix": {"adam/kfca": 1}}, "'kfca'", "unknown optimizer", "did you mean 'kfac'?"),
    *[
        ({"mix": {kind: 1}}, f"the kind {kind!r}", "must be OPTIMIZER or ACTOR/CRITIC", "such as kfac or adam/kfac")
        for kind in ("", "/", "/kfac", "adam/", "adam//kfac", "adam/kfac/sgd", "adam/kfac/")
    ],
    ({"mix": {"adam / kfac": 1}}, "'adam '", "unknown optimizer", "did you mean 'adam'?"),
    (K | {"steps": 0}, "steps is 0", "positive number of environment steps", "such as 1000000"),
    (K | {"steps": "many"}, "steps is 'many'", "whole number", "such as 1000000"),
    (K | {"steps": True}, "steps is True", "whole number", "such as 1000000"),
    (K | {"steps": 10_000}, "steps is 10000", "not more than the 10000 of learning_starts", "raise steps or lower"),
    (K | {"steps": 500, "learning_starts": 900}, "steps is 500", "the 900 of learning_starts", "raise steps or lower"),
    (
        K | {"steps": 30_000, "steps_per_interval": {"kfac": 3_000}},
        "steps is 30000, of which kfac takes 9000",
        "not more than the 10000 of learning_starts",
        "raise steps or lower",
    ),
    (K | {"seed": -1}, "seed is -1", "from 0 to 4294967295", "such as 0"),
    (K | {"seed": 2**32}, "seed is 4294967296", "from 0 to 4294967295", "such as 0"),
    (K | {"discount": 1.1}, "discount is 1.1", "between 0 and 1", "such as 0.99"),
    (K | {"discount": float("nan")}, "discount is nan", "between 0 and 1", "such as 0.99"),
    (K | {"tau": 0}, "tau is 0.0", "above 0 and at most 1", "such as 0.005"),
    (K | {"policy_delay": 0}, "policy_delay is 0", "positive number of updates", "such as 2"),
    (K | {"target_noise": -0.1}, "target_noise is -0.1", "finite number not below 0", "such as 0.2"),
    (K | {"target_noise_clip": float("inf")}, "target_noise_clip is inf", "finite number", "such as 0.5"),
    (K | {"exploration_noise": "loud"}, "exploration_noise is 'loud'", "a number", "such as 0.1"),
    (K | {"warm_up_noise": "yes"}, "warm_up_noise is 'yes'", "must be", "true or false"),
    (K | {"learning_starts": -1}, "learning_starts is -1", "not below 0", "such as 10000"),
    (K | {"actor_layers": []}, "actor_layers is empty", "one or more positive numbers of units", "such as 400 300"),
    (K | {"critic_layers": (8, 0)}, "critic_layers is 8 0", "positive numbers of units", "such as 400 300"),
    (K | {"actor_layers": 400}, "actor_layers is 400", "a list", "such as 400 300"),
    (K | {"actor_layers": ["a"]}, "actor_layers is 'a'", "whole number", "such as 400 300"),
    (K | {"batch_size": 0}, "batch_size is 0", "positive number of transitions", "such as 256"),
    (
        K | {"batch_size": 64, "buffer_size": 63},
        "batch_size is 64",
        "more than the 63 transitions",
        "lower batch_size or",
    ),
    (K | {"interval": 0}, "interval is 0", "positive number of environment steps", "such as 10000"),
    (K | {"interval": -5}, "interval is -5", "positive number of environment steps", "such as 10000"),
    (K | {"interval": "soon"}, "interval is 'soon'", "whole number", "such as 10000"),
    (K | {"interval": 0.5}, "interval is 0.5", "whole number", "such as 10000"),
    (K | {"steps_per_interval": {"kfca": 5}}, "'kfca'", "not in the mix", "did you mean 'kfac'?); choose from kfac"),
    (
        K | {"steps_per_interval": {"kfac": 0}},
        "steps_per_interval is kfac=0",
        "positive number of environment steps for each kind",
        "kfac=3000",
    ),
    (K | {"steps_per_interval": {"kfac": 10_001}}, "steps_per_interval.kfac is 10001", "at most the interval", "10000"),
    (K | {"shrink": "all"}, "shrink is 'all'", "must be", "'both' or 'gradient'"),
    (K | {"truncation": 0.6}, "truncation is 0.6", "above 0 and at most 0.5", "such as 0.2"),
    (K | {"truncation": 0.0}, "truncation is 0.0", "above 0 and at most 0.5", "such as 0.2"),
    (K | {"factors": ()}, "factors is empty", "one or more positive numbers", "such as 0.8 1.2"),
    (K | {"factors": (0.8, 0.0)}, "factors is 0.8 0.0", "one or more positive numbers", "such as 0.8 1.2"),
    (
        K | {"perturb": ("batchsize",)},
        "'batchsize'",
        "is no hyperparameter",
        "did you mean 'batch_size'?); choose from",
    ),
    (K | {"perturb": "tau"}, "perturb is 'tau'", "a list", "such as batch_size"),
    (K | {"bounds": {"tua": (1, 2)}}, "'tua'", "is no hyperparameter", "did you mean 'tau'?"),
    (K | {"bounds": {"tau": (2, 1)}}, "bounds.tau is 2 1", "two positive numbers, least first", "such as 0.001, 0.1"),
    (K | {"bounds": {"tau": 0.5}}, "bounds.tau is 0.5", "two positive numbers", "such as 0.001, 0.1"),
    (K | {"bounds": {"tau": (True, 2)}}, "bounds.tau is True 2", "two positive numbers", "such as 0.001, 0.1"),
    (K | {"bounds": {"batch_size": (3.2, 3.8)}}, "bounds.batch_size is 3.2 3.8", "whole numbers", "such as 64, 512"),
    (
        TWO | {"batch_size": 16},
        "batch_size of kfac starts at 16",
        "outside its bounds 32 to 1024",
        "set bounds.batch_size",
    ),
    (
        TWO | {"batch_size": 32, "buffer_size": 300, "bounds": {"batch_size": (64, 900)}},
        "batch_size of kfac starts at 32",
        "outside its bounds 64 to 300",
        "set bounds.batch_size",
    ),
    (
        TWO | {"bounds": {"critic_damping": (1, 2)}},
        "critic_damping of kfac starts at 0.1",
        "outside its bounds 1 to 2",
        "set bounds.critic_damping",
    ),
    (K | {"episodes": 0}, "episodes is 0", "positive number of episodes", "such as 5"),
    (K | {"final_episodes": 0}, "final_episodes is 0", "positive number of episodes", "such as 10"),
    (K | {"steps_per_round": 0}, "steps_per_round is 0", "positive number of environment steps", "such as 1"),
    (K | {"precision": "float16"}, "precision is 'float16'", "must be", "'float32', 'tensorfloat32' or 'bfloat16'"),
    (K | {"placement": "tpu"}, "placement is 'tpu'", "must be", "'auto', 'map' or 'vmap'"),
    (
        {"optimizers": {"adam": {"learning_rate": 0}}},
        "adam.actor.learning_rate is 0",
        "positive number",
        "such as 0.001",
    ),
    ({"optimizers": {"adam": {"learning_rate": "x"}}}, "learning_rate is 'x'", "a number", "such as 0.001"),
    ({"optimizers": {"adam": {"b7": 0.5}}}, "'b7'", "has no option", "optax.adam takes learning_rate, b1, b2"),
    ({"optimizers": {"admw": {}}}, "'admw'", "unknown optimizer", "did you mean 'adamw'?"),
    ({"optimizers": {"adam": 3}}, "optimizers.adam is 3", "a table of options", "such as learning_rate = 0.001"),
    ({"optimizers": 3}, "optimizers is 3", "a table of names and values", "such as kfac.damping=0.1"),
    (kfac(learning_rate=-1.0), "kfac.actor.learning_rate is -1.0", "positive number", "such as 0.1"),
    (kfac(learning_rate=float("inf")), "learning_rate is inf", "finite", "such as 0.1"),
    (kfac(damping=0.0), "kfac.actor.damping is 0.0", "positive number", "such as 0.1"),
    (kfac(critic={"damping": -1}), "kfac.critic.damping is -1.0", "positive number", "such as 0.1"),
    (kfac(damping=float("nan")), "damping is nan", "positive number", "such as 0.1"),
    (kfac(damping="low"), "damping is 'low'", "a number", "such as 0.1"),
    (kfac(dampin=1.0), "'dampin'", "optimizers.kfac has no option", "did you mean 'damping'?); choose from"),
    (kfac(burn_in=0), "burn_in is 0", "a positive number of batches", "such as 10"),
    (kfac(momentum=1.0), "momentum is 1.0", "at least 0 and below 1", "such as 0.9"),
    (kfac(actor=3), "optimizers.kfac.actor is 3", "must be", "a table of options"),
]


@pytest.mark.parametrize(("chosen", "value", "rule", "fix"), MISTAKES, ids=lambda part: str(part)[:40])
def test_a_mistake_is_one_sentence_with_value_rule_and_fix(chosen, value, rule, fix):
    with pytest.raises(UserError) as mistake:
        Run(**({"env": "Hopper-v4"} | chosen))
    message = str(mistake.value)
    for part in (value, rule, fix):
        assert part in message
    assert "\n" not in message
    assert message.endswith(".")


@pytest.mark.parametrize(
    ("content", "parts"),
    [
        (b'env = "Hopper-v4"\nintervall = 5\n', ["unknown key 'intervall' in", "did you mean 'interval'?", "--help"]),
        (b"zzz = 5\n", ["unknown key 'zzz' in", "see `evolute train --help`."]),
        (b"env = \n", ["is not valid TOML", "line 1"]),
        (b"seed = 1\nseed = 2\n", ["is not valid TOML", "line 2"]),
        (b"\xff\xfe", ["is not UTF-8 text", "save it"]),
    ],
)
def test_a_bad_file_is_named_with_what_is_wrong(tmp_path, content, parts):
    file = tmp_path / "bad.toml"
    file.write_bytes(content)
    with pytest.raises(UserError) as mistake:
        toml.read(file)
    for part in [str(file), *parts]:
        assert part in str(mistake.value)


def test_a_missing_file_or_a_folder_is_no_configuration(tmp_path):
    with pytest.raises(UserError, match=r"nowhere\.toml' does not exist; check the path"):
        toml.read(tmp_path / "nowhere.toml")
    with pytest.raises(UserError, match="cannot be read: Is a directory"):
        toml.read(tmp_path)


def test_the_closest_choice_is_offered_only_where_it_is_close():
    assert closest("ADAM", ["adam", "sgd"]) == " (did you mean 'adam'?)"
    assert closest("intervall", ["steps", "interval"]) == " (did you mean 'interval'?)"
    assert closest("xyz", ["adam", "sgd"]) == ""
    assert closest("", ["adam"]) == ""
