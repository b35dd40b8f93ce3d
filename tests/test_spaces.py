"""Spaces: actions that never leave their box, boxes that are refused, and advice that works when it is followed."""

import re

import gymnasium
import numpy as np
import pytest

import evolute
import probe_envs
from evolute import Run, train
from evolute.environments.gym import Environment, EnvironmentFault, physics_fingerprint
from evolute.errors import UserError
from evolute.policy import Policy, in_units_of
from faults import differences

TINY = {"actor_layers": (8,), "critic_layers": (8,), "batch_size": 16, "episodes": 1, "final_episodes": 1}
UNITS = [np.float32(1), np.float32(-1), np.nextafter(np.float32(1), np.float32(0)), np.float32(0), np.float32(-0.0)]


def bounds(rng, dtype):
    """Return bounds of any size and sign: from the least denormal number to the largest, with equal and extreme ones."""
    info = np.finfo(dtype)
    exponents = rng.uniform(np.log2(float(info.smallest_subnormal)), np.log2(float(info.max)), (2, 4))
    pair = (rng.choice([-1.0, 1.0], (2, 4)) * 2.0**exponents).astype(dtype)
    pair[:, 1] = rng.normal(size=2).astype(dtype)
    pair[rng.integers(2), 2] = rng.choice([info.max, info.min, 0.0, info.smallest_subnormal])
    pair[1, 3] = pair[0, 3] if rng.random() < 0.5 else -pair[0, 3]
    return pair.min(0), pair.max(0)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_an_action_is_in_its_box_and_of_its_type_for_any_bounds(dtype):
    rng = np.random.default_rng(0)
    for _ in range(4_000):
        low, high = bounds(rng, dtype)
        box = gymnasium.spaces.Box(low, high, dtype=dtype)
        for unit in [np.full(4, rng.choice(UNITS)), rng.uniform(-1, 1, 4).astype(np.float32)]:
            action = in_units_of(low, high, unit)
            assert action.dtype == dtype
            assert box.contains(action), (low, high, unit)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_actions_reach_both_bounds_and_lie_between_them_in_proportion(dtype):
    rng = np.random.default_rng(1)
    for _ in range(500):
        low, high = bounds(rng, dtype)
        assert np.array_equal(in_units_of(low, high, np.full(4, -1, np.float32)), low)
        # One rounding of the type, and one of the wider sum.
        scale = np.maximum(np.abs(low), np.abs(high)).astype(np.longdouble)
        tolerance = 4 * np.maximum(scale * np.finfo(dtype).eps, np.finfo(dtype).smallest_subnormal)
        for unit in rng.uniform(-1, 1, (3, 4)).astype(np.float32):
            wide = np.longdouble(unit)
            exact = (low.astype(np.longdouble) * (1 - wide) + high.astype(np.longdouble) * (1 + wide)) / 2
            assert (np.abs(in_units_of(low, high, unit) - exact) <= tolerance).all()
            assert (np.abs(in_units_of(low, high, np.full(4, 1, np.float32)) - high.astype(np.longdouble)) <= tolerance).all()


@pytest.mark.parametrize("name", probe_envs.STRICT)
@pytest.mark.parametrize("time_limit", [0.0, 20.0])
def test_a_strict_environment_meets_no_action_that_it_refuses(name, time_limit):
    environment = Environment(f"probe_envs:{name}-v0", time_limit)
    size = environment.shape.actions
    for unit in UNITS:
        environment.reset(0)
        environment.step(np.full(size, unit, np.float32))
    environment.close()


@pytest.mark.parametrize("name", probe_envs.STRICT)
def test_training_evaluation_and_the_stored_policy_keep_to_the_box(name, tmp_path):
    settings = {"learning_starts": 20, "interval": 40, "steps": 80, "exploration_noise": 2.0, "warm_up_noise": True}
    # One fault would stop it.
    run = evolute.Run(f"probe_envs:{name}-v0", **TINY, **settings, max_faults=0, on_faults="stop")
    result = evolute.train(run, out=tmp_path / "run")
    low, high, dtype = probe_envs.STRICT[name]
    box = gymnasium.spaces.Box(np.array(low, dtype), np.array(high, dtype), dtype=np.dtype(dtype).type)
    for policy in (result.policy, Policy.load(tmp_path / "run" / "best")):
        w, b = policy.weights[-1]
        for saturated in (np.zeros_like(b), np.full_like(b, 100), np.full_like(b, -100)):
            extreme = Policy([*policy.weights[:-1], (w, saturated)], policy.low, policy.high, policy.env)
            extreme.save(tmp_path / "extreme", {})
            for one in (extreme, Policy.load(tmp_path / "extreme")):
                action = one(np.zeros(len(low), np.float32))
                assert action.dtype == np.dtype(dtype)
                assert box.contains(action)
                assert one(np.zeros((5, len(low)))).shape == (5, len(low))


def test_a_policy_of_an_older_file_has_actions_in_its_bounds(tmp_path):
    for high, dtype in ((0.5, np.float32), (0.12, np.float64)):
        policy = Policy([(np.zeros((1, 1)), np.full(1, 100.0))], np.array([-2.0]), np.array([high]), "Old-v0")
        policy.save(tmp_path, {})
        about = (tmp_path / "policy.json").read_text()
        (tmp_path / "policy.json").write_text(re.sub(r',\s*"action_dtype": "float64"', "", about))
        assert "action_dtype" not in (tmp_path / "policy.json").read_text()
        action = Policy.load(tmp_path)(np.zeros(1))
        assert action.dtype == dtype
        assert action == high


@pytest.mark.parametrize(
    ("dtype", "said"),
    [("int64", "action_dtype must be one of float16"), ([], "action_dtype must be"), ("float16", "of the type float16")],
)
def test_a_policy_with_a_wrong_type_of_actions_is_damaged(tmp_path, dtype, said):
    Policy([(np.zeros((1, 1)), np.zeros(1))], np.array([-1e9]), np.array([1e9]), "Any-v0").save(tmp_path, {})
    about = (tmp_path / "policy.json").read_text()
    (tmp_path / "policy.json").write_text(about.replace('"float64"', str(dtype).join('""') if dtype else "[]"))
    with pytest.raises(UserError, match=f"is damaged: .*{said}"):
        Policy.load(tmp_path)


REFUSED = {
    "Whole": ["Box(0, 4, (2,), int64)", "float16, float32 or float64", "TransformAction"],
    "Bytes": ["Box(0, 255, (2,), uint8)", "float16, float32 or float64"],
    "Switches": ["bool", "float16, float32 or float64"],
    "LongActions": ["float16, float32 or float64"],
    "NoActions": ["(0,)", "must hold 1 to 1,000,000 numbers"],
    "SeveralActions": ["Tuple actions", "the algorithms need continuous ones"],
    "UnboundedSquare": ["bounded on both sides", "TransformAction"],
    "Turned": ["no lower bound may be above the upper one"],
    "NaNBound": ["nan", "bounded on both sides"],
    "ActionsInThemselves": ["Dict actions"],
    "NoSpace": ["NoneType actions"],
    "NoNumbers": ["(0,)", "must hold 1 to 1,000,000 numbers"],
    "Words": ["observation space Text", "and not Text"],
    "AnyLength": ["observation space Sequence", "and not Sequence", "choose another environment"],
    "InItself": ["spaces that cannot be read"],
    "NoObservationSpace": ["observation space None", "choose another environment"],
    "Image": ["holds images", "wrap it to observe numbers"],
    "Raising": ["spaces that cannot be read", "the simulator has not started", "fix them"],
}


# What networks see as one array.
FLATTENED = ("Pair", "Levels", "Number", "Nested")


def test_every_space_has_its_sentence():
    assert {*REFUSED, *FLATTENED, "OneNumber"} >= set(probe_envs.SPACES)


@pytest.mark.parametrize("name", REFUSED)
def test_a_space_of_no_use_is_refused_in_one_sentence(name, tmp_path):
    with pytest.raises(UserError) as mistake:
        evolute.train(evolute.Run(f"probe_envs:{name}-v0", **TINY, steps=20, learning_starts=5), out=tmp_path / "run")
    assert str(mistake.value).endswith(".")
    assert "\n" not in str(mistake.value)
    for part in REFUSED[name]:
        assert part in str(mistake.value)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("name", ["Unbounded", "UnboundedSquare"])
def test_the_advice_for_an_action_space_works(name, monkeypatch):
    with pytest.raises(UserError) as mistake:
        Environment(f"probe_envs:{name}-v0")
    advice = re.search(r"gymnasium\.wrappers\.TransformAction\(.*\)(?= and bounds)", str(mistake.value))

    def wrapped():
        env = gymnasium.make(f"probe_envs:{name}-v0")
        return eval(advice[0], {"gymnasium": gymnasium, "env": env})

    gymnasium.register("Advised-v0", entry_point=wrapped)
    try:
        environment = Environment("Advised-v0")
        seen = []
        plain = environment._env._env.unwrapped
        monkeypatch.setattr(plain, "paid", lambda action: float(seen.append(action) or 1.0))
        environment.reset(0)
        environment.step(np.full(environment.shape.actions, 0.5, np.float32))
        assert seen[0].shape == plain.action_space.shape
        assert (seen[0] == 0.5).all()
        environment.close()
    finally:
        del gymnasium.registry["Advised-v0"]


@pytest.mark.parametrize("time_limit", [0.0, 20.0])
@pytest.mark.parametrize("name", FLATTENED)
def test_observations_are_flattened_in_gymnasiums_order(name, time_limit):
    environment = Environment(f"probe_envs:{name}-v0", time_limit)
    space = gymnasium.make(f"probe_envs:{name}-v0").observation_space
    assert environment.shape.observations == gymnasium.spaces.flatdim(space)
    twin = gymnasium.make(f"probe_envs:{name}-v0", disable_env_checker=True)
    for seed in (0, 1):
        # Both have the same space, unless one lives in another process.
        space.seed(seed)
        seen = environment.reset(seed)
        space.seed(seed)
        expected = gymnasium.spaces.flatten(space, twin.reset(seed=seed)[0])
        assert seen.dtype == np.float32
        assert seen.shape == expected.shape
        assert time_limit or np.array_equal(seen, expected.astype(np.float32))
    environment.close()


def test_an_observation_that_is_not_of_its_space_is_a_fault():
    environment = Environment("probe_envs:Parts-v0")
    with pytest.raises(EnvironmentFault, match="which is not of its space"):
        environment.reset(0)
    environment.close()


@pytest.mark.parametrize(("name", "shape"), [("Square", (2, 2)), ("OneNumber", ())])
def test_actions_of_any_shape_are_flat_outside_and_come_back_in_their_shape(name, shape, monkeypatch):
    environment, seen = Environment(f"probe_envs:{name}-v0"), []
    monkeypatch.setattr(environment._env._env.unwrapped, "paid", lambda action: float(seen.append(action) or 1.0))
    size = int(np.prod(shape))
    assert environment.shape.actions == size
    environment.reset(0)
    environment.step(np.linspace(-1.0, 1.0, size, dtype=np.float32))
    assert seen[0].shape == shape
    assert np.array_equal(seen[0].ravel(), np.linspace(-1.0, 1.0, size, dtype=np.float32))
    environment.close()


def test_a_run_says_that_it_flattens_and_trains(tmp_path):
    notes = []
    evolute.train(evolute.Run("probe_envs:Pair-v0", **TINY, steps=20, learning_starts=5), out=tmp_path / "run", note=notes.append)
    assert "observations of 'probe_envs:Pair-v0' are flattened to 5 numbers, in the order of gymnasium.spaces.flatten" in notes[0]


@pytest.mark.parametrize("name", ["Changing", "Growing"])
@pytest.mark.parametrize("time_limit", [0.0, 20.0])
def test_spaces_that_change_are_a_fault_of_the_environment_made_anew(name, time_limit):
    environment = Environment(f"probe_envs:{name}-v0", time_limit)
    before = environment.facts
    with pytest.raises(EnvironmentFault, match=r"in make: it has Shape\(.* now, and had Shape\("):
        environment.rebuild()
    assert environment.facts.alike(before)
    environment.close()
    assert physics_fingerprint(f"probe_envs:{name}-v0") == "unrepeatable"


def test_whole_numbers_are_observed_as_what_they_are():
    values = {
        "uint8": [0, 255],
        "int8": [-128, 127],
        "uint64": [0, 2**64 - 1],
        "int64": [-(2**63), 2**63 - 1],
        "bool": [False, True],
    }
    for dtype, row in values.items():
        space = gymnasium.spaces.Box(0, 1, (2,), np.dtype(dtype).type)
        gymnasium.register("Counts-v0", entry_point=lambda space=space: probe_envs.Spaces(observations=space))
        try:
            environment = Environment("Counts-v0")
            environment._env._env.unwrapped.observed = lambda row=row, dtype=dtype: np.array(row, dtype)
            assert environment.reset(0).tolist() == [float(np.float32(float(value))) for value in row]
        finally:
            del gymnasium.registry["Counts-v0"]


@pytest.mark.parametrize("value", [True, np.True_, 1, np.int64(1), np.array(True), np.uint8(1)])
@pytest.mark.parametrize("ended", [0, 1])
def test_answers_to_whether_an_episode_ends(value, ended):
    environment = Environment("probe_envs:Endless-v0")
    environment.reset(0)
    answers = [False, np.zeros_like(np.asarray(value))[()]]
    answers[ended] = value
    environment._env._env.unwrapped.ending = ()
    environment._env._env.unwrapped.step = lambda action: (np.zeros(2), 1.0, *answers, {})
    step = environment.step(np.zeros(1, np.float32))
    assert [step.terminated, step.truncated] == [ended == 0, ended == 1]
    assert type(step.terminated) is type(step.truncated) is bool


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("NumbersAsText", "its observation is array(['0', '1'], dtype='<U1'), which is no array of numbers"),
        ("ComplexObservation", "its observation is array([0.+1.j, 3.+1.j], dtype=complex64), which is no array of numbers"),
        ("TextInObservation", "its observation is array([0.0, '1'], dtype=object), which is no array of numbers"),
        ("HugeObservation", "its observation is not finite in single precision: [0.e+00 1.e+39]"),
        ("TextTerminated", "its terminated is 'False', which is neither True nor False"),
        ("TextTruncated", "its truncated is 'False', which is neither True nor False"),
        ("NoTerminated", "its terminated is None, which is neither True nor False"),
        ("NoTruncated", "its truncated is None, which is neither True nor False"),
        ("ArrayTerminated", "its terminated is array([False, False]), which is neither True nor False"),
        ("EmptyTruncated", "its truncated is [], which is neither True nor False"),
        ("TwiceTerminated", "its terminated is 2, which is neither True nor False"),
        ("NaNTruncated", "its truncated is nan, which is neither True nor False"),
        ("TextReward", "its reward is '1.0', which is no number"),
        ("ComplexReward", "its reward is (1+0j), which is no number"),
        ("ObjectReward", "its reward is <object object"),
    ],
)
def test_what_a_step_returns_is_no_transition(name, said):
    environment = Environment(f"probe_envs:{name}-v0")
    environment.reset(0)
    environment.step(np.zeros(1, np.float32))
    environment.step(np.zeros(1, np.float32))
    with pytest.raises(EnvironmentFault) as fault:
        environment.step(np.zeros(1, np.float32))
    assert fault.value.call == "step"
    assert fault.value.message.startswith(said)


def test_a_goal_environment_trains_from_its_id(tmp_path):
    settings = {"mix": {"adam": 1, "kfac": 1, "sac:kfac": 1}, "steps": 150, "interval": 50, "batch_size": 32}
    settings |= {"actor_layers": (8,), "critic_layers": (8,), "learning_starts": 40, "episodes": 1, "final_episodes": 1}
    run = Run("gymnasium_robotics:FetchReachDense-v4", normalize_observations=True, **settings)
    notes = []
    result = train(run, tmp_path / "run", note=notes.append)
    [said] = [note for note in notes if "are flattened" in note]
    assert "flattened to 16 numbers" in said
    assert result.evaluation.mean < 0.0
    train(run, tmp_path / "two", note=notes.append, workers=2)
    assert differences(tmp_path / "two", tmp_path / "run") == []
