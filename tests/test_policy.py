"""A policy without JAX: the same actions as the actor it came from, and a file that cannot execute code."""

import json
import re
import subprocess
import sys
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

import evolute
from evolute import networks
from evolute.algorithms import td3
from evolute.environments.gym import Environment
from evolute.errors import UserError
from evolute.policy import DESCRIPTION_FILE, WEIGHTS_FILE, Policy

LOW, HIGH = np.array([-1.0, 0.0], np.float32), np.array([3.0, 0.5], np.float32)


def made(sizes=(5, 16, 8, 2), seed=0):
    mlp = networks.init(np.random.default_rng(seed), list(sizes))
    return Policy([(np.asarray(layer.w), np.asarray(layer.b)) for layer in mlp], LOW, HIGH, "Hopper-v4"), mlp


@given(arrays.arrays(np.float32, (3, 5), elements=st.floats(-100, 100, width=32)))
def test_actions_are_those_of_the_actor_in_jax(obs):
    policy, mlp = made()
    expected = np.asarray(td3.act(mlp, jnp.asarray(obs)))
    assert policy.unit_action(obs) == pytest.approx(expected, abs=1e-6)
    assert policy.unit_action(obs[0]) == pytest.approx(expected[0], abs=1e-6)
    assert np.abs(policy.unit_action(obs)).max() <= 1.0


def test_actions_are_rescaled_to_the_environments_units():
    policy, _ = made()
    obs = np.random.default_rng(1).normal(size=(50, 5))
    unit = policy.unit_action(obs)
    action = policy(obs)
    assert action[:, 0] == pytest.approx(1 + 2 * unit[:, 0], abs=1e-6)
    assert action[:, 1] == pytest.approx(0.25 + 0.25 * unit[:, 1], abs=1e-6)
    assert action.dtype == unit.dtype == np.float32


def test_the_action_is_the_one_the_environment_takes():
    environment = Environment("probe_envs:Bounds-v0")
    _, mlp = made((3, 4, 3))
    policy = Policy(list(mlp), environment.low, environment.high, "probe_envs:Bounds-v0")
    obs = environment.reset()
    # The environment observes the action that reached it.
    assert np.array_equal(environment.step(policy.unit_action(obs)).obs, policy(obs))


def test_a_weight_that_is_not_finite_is_noticed():
    for layer, part in ((0, 0), (2, 1)):
        policy, _ = made()
        assert policy.finite
        policy.weights[layer][part].flat[0] = np.nan
        assert not policy.finite


def test_a_policy_comes_back_from_its_files(tmp_path):
    policy, _ = made()
    policy.save(tmp_path / "best", {"fitness": 12.5})
    loaded = Policy.load(tmp_path / "best")
    for (w, b), (w2, b2) in zip(policy.weights, loaded.weights, strict=True):
        assert np.array_equal(w, w2)
        assert np.array_equal(b, b2)
    assert (loaded.env, loaded.low.tolist(), loaded.high.tolist()) == ("Hopper-v4", LOW.tolist(), HIGH.tolist())
    about = json.loads((tmp_path / "best" / DESCRIPTION_FILE).read_text())
    assert about["fitness"] == 12.5
    assert about["layers"] == [5, 16, 8, 2]
    assert {file.name for file in (tmp_path / "best").iterdir()} == {WEIGHTS_FILE, DESCRIPTION_FILE}


@pytest.mark.parametrize("actions", [1, 2, 3])
def test_a_policy_of_parts_of_larger_arrays_comes_back_from_its_files(tmp_path, actions):
    """As SAC's: the actions' means are half of the last layer's outputs."""
    rng = np.random.default_rng(0)
    w, b = rng.normal(size=(16, 2 * actions)).astype(np.float32), rng.normal(size=2 * actions).astype(np.float32)
    part = Policy([(w[:, :actions], b[:actions])], -np.ones(actions), np.ones(actions), "any")
    part.save(tmp_path)
    [(kept, _)] = Policy.load(tmp_path).weights
    np.testing.assert_array_equal(kept, w[:, :actions])
    obs = rng.normal(size=(7, 16))
    np.testing.assert_array_equal(Policy.load(tmp_path).unit_action(obs), part.unit_action(obs))


def test_a_newer_policy_replaces_an_older_one(tmp_path):
    made(seed=0)[0].save(tmp_path, {})
    newer, _ = made((5, 3, 2), seed=1)
    newer.save(tmp_path, {})
    assert np.array_equal(Policy.load(tmp_path).weights[0][0], newer.weights[0][0])


def rewrite(folder, **changes):
    about = json.loads((folder / DESCRIPTION_FILE).read_text())
    about = {name: value for name, value in (about | changes).items() if value is not None}
    (folder / DESCRIPTION_FILE).write_text(json.dumps(about))


def reshape(folder, name, shape):
    tensors = safetensors.numpy.load_file(folder / WEIGHTS_FILE)
    tensors[name] = np.zeros(shape, np.float32)
    (folder / WEIGHTS_FILE).write_bytes(safetensors.numpy.save(tensors))


def without(folder, name):
    tensors = safetensors.numpy.load_file(folder / WEIGHTS_FILE)
    del tensors[name]
    (folder / WEIGHTS_FILE).write_bytes(safetensors.numpy.save(tensors))


def cut(folder):
    data = (folder / WEIGHTS_FILE).read_bytes()
    (folder / WEIGHTS_FILE).write_bytes(data[: len(data) // 2])


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda f: (f / WEIGHTS_FILE).unlink(), "there is no policy in .*'policy.safetensors' is missing"),
        (lambda f: (f / DESCRIPTION_FILE).unlink(), "there is no policy in .*'policy.json' is missing"),
        (cut, "is damaged"),
        (lambda f: (f / WEIGHTS_FILE).write_bytes(b"\x80\x04cbuiltins\nexec"), "is damaged"),
        (lambda f: (f / WEIGHTS_FILE).write_bytes(b""), "is damaged"),
        (lambda f: (f / DESCRIPTION_FILE).write_text("{"), "is damaged"),
        (lambda f: (f / DESCRIPTION_FILE).write_text("[1, 2]"), "is damaged"),
        (lambda f: (f / DESCRIPTION_FILE).write_bytes(b"\xff\xfe"), "is damaged"),
        (
            lambda f: reshape(f, "1.w", (16, 9)),
            r"is damaged: the weights' shapes .* do not match the layers \[5, 16, 8, 2\]",
        ),
        (lambda f: reshape(f, "2.b", (1,)), "do not match the layers"),
        (lambda f: without(f, "1.b"), "is damaged: '1.b' is missing"),
        (lambda f: rewrite(f, layers=[5, 16, 8]), "do not match"),
        (lambda f: rewrite(f, layers=[5]), "do not match"),
        (lambda f: rewrite(f, layers=[]), "do not match"),
        (lambda f: rewrite(f, layers=3), "is damaged"),
        (lambda f: rewrite(f, env=None), "is damaged: 'env' is missing"),
        (lambda f: rewrite(f, action_low=[-1.0]), "the action bounds do not match"),
        (lambda f: rewrite(f, action_high=["high", "higher"]), "is damaged"),
    ],
)
def test_a_damaged_policy_is_one_sentence(tmp_path, damage, said):
    made()[0].save(tmp_path, {})
    damage(tmp_path)
    with pytest.raises(UserError, match=said) as mistake:
        Policy.load(tmp_path)
    assert str(tmp_path) in str(mistake.value)
    assert str(mistake.value).endswith(".")


def test_nothing_in_the_package_can_execute_what_it_reads():
    forbidden = re.compile(r"\b(pickle|cloudpickle|dill|joblib|shelve|marshal|exec|eval|allow_pickle|np\.load)\b(?=[(\s.])")
    for file in Path(evolute.__file__).parent.rglob("*.py"):
        code = "\n".join(line for line in file.read_text(encoding="utf-8").splitlines() if "import" in line or "(" in line)
        assert not forbidden.findall(code), file.name


def test_a_policy_is_loaded_and_played_without_jax(tmp_path):
    made()[0].save(tmp_path, {})
    code = (
        "import sys; sys.modules['jax'] = None; sys.modules['optax'] = None\n"
        "import importlib.util as u\n"
        "import types; package = types.ModuleType('evolute'); package.__path__ = [sys.argv[1]]\n"
        "sys.modules['evolute'] = package\n"
        "from evolute.policy import Policy\nfrom pathlib import Path; import numpy as np\n"
        "print(Policy.load(Path(sys.argv[2]))(np.zeros(5)).shape)\n"
    )
    arguments = [sys.executable, "-c", code, str(Path(evolute.__file__).parent), str(tmp_path)]
    done = subprocess.run(arguments, capture_output=True, text=True, check=False)
    assert done.stdout == "(2,)\n", done.stderr


def test_a_policy_is_saved_and_loaded_by_any_kind_of_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    policy = Policy([(np.ones((2, 1)), np.zeros(1))], np.array([-1.0]), np.array([2.0]), "Env-v0")
    policy.save("deep/folder")
    for path in ("deep/folder", Path("deep/folder"), str(tmp_path / "deep" / "folder")):
        assert np.array_equal(Policy.load(path).weights[0][0], policy.weights[0][0])
    for path in ("nowhere", "deep/folder/policy.json", "x" * 300, "a\0b"):
        with pytest.raises(UserError, match="check the path"):
            Policy.load(path)
