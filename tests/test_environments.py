"""The adapter to Gymnasium: MuJoCo tasks, third-party ones, and every way in which an environment is of no use."""

import sys

import gymnasium
import numpy as np
import pytest

import probe_envs
from evolute.environments.gym import Environment, physics_fingerprint, versions
from evolute.errors import UserError

SHAPES = {
    "Ant-v4": (27, 8),
    "HalfCheetah-v4": (17, 6),
    "Hopper-v4": (11, 3),
    "Humanoid-v4": (376, 17),
    "Swimmer-v4": (8, 2),
    "Walker2d-v4": (17, 6),
    "Ant-v5": (105, 8),
    "HalfCheetah-v5": (17, 6),
    "Hopper-v5": (11, 3),
    "Humanoid-v5": (348, 17),
    "Swimmer-v5": (8, 2),
    "Walker2d-v5": (17, 6),
}


@pytest.mark.parametrize("env_id", SHAPES)
def test_mujoco_tasks_step_as_plain_gymnasium_does(env_id):
    environment, plain = Environment(env_id), gymnasium.make(env_id)
    assert environment.shape == SHAPES[env_id]
    bound = 0.4 if env_id.startswith("Humanoid") else 1.0
    assert environment.high == pytest.approx(bound)
    assert environment.low == pytest.approx(-bound)
    obs, (expected, _) = environment.reset(seed=3), plain.reset(seed=3)
    assert np.array_equal(obs, expected.astype(np.float32))
    rng = np.random.default_rng(0)
    for _ in range(30):
        # Multiples of 1/64 are rescaled without rounding, whatever the order of operations.
        unit = rng.integers(-64, 65, environment.shape.actions) / 64
        step = environment.step(unit.astype(np.float32))
        expected, reward, terminated, truncated, _ = plain.step((unit * environment.high).astype(np.float32))
        assert step.obs.dtype == np.float32
        assert step.obs.shape == (environment.shape.observations,)
        assert np.array_equal(step.obs, expected.astype(np.float32))
        assert (step.reward, step.terminated, step.truncated) == (float(reward), terminated, truncated)
        assert type(step.reward) is float
        if terminated or truncated:
            assert np.array_equal(environment.reset(), plain.reset()[0].astype(np.float32))
    environment.close()
    plain.close()


@pytest.mark.parametrize(
    ("unit", "expected"),
    [
        ((-1, -1, -1), (-1, 0, 5)),
        ((1, 1, 1), (3, 0.5, 7)),
        ((0, 0, 0), (1, 0.25, 6)),
        ((0.5, -0.5, 0.25), (2, 0.125, 6.25)),
    ],
)
def test_actions_are_rescaled_to_asymmetric_bounds(unit, expected):
    environment = Environment("probe_envs:Bounds-v0")
    environment.reset()
    assert environment.step(np.array(unit, np.float32)).obs == pytest.approx(expected)


def test_rescaled_actions_never_leave_the_bounds():
    environment, rng = Environment("probe_envs:Bounds-v0"), np.random.default_rng(0)
    environment.reset()
    # The environment itself refuses what is outside; the largest float below 1 is where rounding would show.
    edge = np.nextafter(np.float32(1), np.float32(0))
    for unit in [np.full(3, edge), np.full(3, -edge), *rng.uniform(-1, 1, (200, 3))]:
        taken = environment.step(unit.astype(np.float32)).obs
        assert (environment.low <= taken).all()
        assert (taken <= environment.high).all()


def test_double_observations_become_single_and_keep_their_values():
    environment = Environment("probe_envs:Bounds-v0")
    assert environment.reset().dtype == np.float32
    assert environment.step(np.zeros(3, np.float32)).obs.tolist() == [1.0, 0.25, 6.0]


def test_termination_and_truncation_are_told_apart_and_nothing_resets_itself():
    for name, ending in (("Limit", (False, True)), ("Ends", (True, False))):
        environment = Environment(f"probe_envs:{name}-v0")
        assert environment.reset().tolist() == [0, 0]
        steps = [environment.step(np.zeros(1, np.float32)) for _ in range(probe_envs.LIMIT)]
        assert [step.obs.tolist() for step in steps] == [[0, 1], [0, 2], [0, 3]]
        assert [(step.terminated, step.truncated) for step in steps] == [(False, False)] * 2 + [ending]
        assert environment.reset().tolist() == [1, 0]


def test_a_seed_decides_an_episode():
    environment = Environment("probe_envs:Noisy-v0")

    def rewards(seed):
        environment.reset(seed)
        return [environment.step(np.zeros(1, np.float32)).reward for _ in range(3)]

    assert rewards(5) == rewards(5) != rewards(6)
    # Without a seed the environment goes on with its own randomness.
    assert rewards(None) != rewards(None)


def test_a_third_partys_module_is_imported_as_gymnasium_does(tmp_path, monkeypatch):
    (tmp_path / "a_third_party.py").write_text(
        "import gymnasium\nfrom probe_envs import Episodes\ngymnasium.register('Theirs-v3', Episodes)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    assert "Theirs-v3" not in gymnasium.registry
    environment = Environment("a_third_party:Theirs-v3")
    assert environment.shape == (2, 1)
    del sys.modules["a_third_party"], gymnasium.registry["Theirs-v3"]


@pytest.mark.parametrize(
    ("env_id", "said"),
    [
        ("HalfCheeta-v4", ["unknown environment 'HalfCheeta-v4'", "did you mean 'HalfCheetah-v4'?", "Gymnasium knows"]),
        ("halfcheetah-v4", ["unknown environment", "did you mean 'HalfCheetah-v4'?"]),
        ("Nothing/Like-It-v0", ["unknown environment 'Nothing/Like-It-v0'; name one", "such as HalfCheetah-v4"]),
        ("probe_envs:Limits-v0", ["unknown environment", "did you mean 'probe_envs:Limit-v0'?"]),
        ("Hopper-v77", ["unknown environment 'Hopper-v77'", "did you mean 'Hopper-v"]),
        ("Hopper", ["'Hopper' has no version", "name it in full, such as Hopper-v5"]),
        ("probe_envs:Limit", ["has no version", "such as probe_envs:Limit-v0"]),
        ("no_such_module:Env-v0", ["cannot be created", "No module named 'no_such_module'", "choose another"]),
        ("two words", ["cannot be created", "Malformed environment ID: two words"]),
        ("probe_envs:Broken-v0", ["cannot be created", "'the licence of the simulator has expired.'", "fix it"]),
        ("CartPole-v1", ["'CartPole-v1' has discrete actions", "the algorithms need continuous ones", "choose another"]),
        ("probe_envs:Unbounded-v0", ["action space Box(0.0, inf", "bounded on both sides", "TransformAction"]),
        ("probe_envs:Image-v0", ["observation space Box(0, 255, (8, 8, 3)", "which holds images"]),
    ],
)
def test_an_unusable_environment_is_a_users_mistake(env_id, said):
    with pytest.raises(UserError) as mistake:
        Environment(env_id)
    assert "\n" not in str(mistake.value)
    assert str(mistake.value).endswith(".")
    for part in said:
        assert part in str(mistake.value)


def test_a_fingerprint_tells_environments_apart_and_is_the_same_twice():
    same = [physics_fingerprint("InvertedPendulum-v4") for _ in range(2)]
    assert same[0] == same[1]
    assert len(same[0]) == 16
    # Limit and NaN observe the same and end alike; their rewards differ.
    names = ("Limit", "NaN", "Noisy", "Bandit", "Bounds")
    prints = {name: physics_fingerprint(f"probe_envs:{name}-v0") for name in names}
    assert len({*prints.values(), same[0]}) == len(names) + 1


def test_versions_name_what_decides_the_numbers():
    found = versions()
    assert found["gymnasium"] == gymnasium.__version__
    assert found["mujoco"].startswith("3.")
    assert {"python", "machine", "system", "evolute", "jax", "jaxlib", "optax", "numpy"} <= set(found)
