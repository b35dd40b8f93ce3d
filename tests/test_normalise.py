"""Observations in standard deviations, and rewards by a factor: what networks see, and what stays raw."""

import dataclasses
import json

import gymnasium
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from evolute import Run, UserError, resume, train
from evolute.environments.gym import Environment
from evolute.environments.normalise import EPSILON, Normaliser
from evolute.policy import Policy, Scaling
from faults import differences
from stepped import Stepped

SIZES = {
    "actor_layers": (8,),
    "critic_layers": (8,),
    "batch_size": 16,
    "buffer_size": 90,
    "learning_starts": 20,
    "episodes": 1,
    "final_episodes": 1,
    "truncation": 0.5,
}
MIX = {"adam": 1, "kfac": 1, "kfac_empirical": 1, "sac:kfac": 1}
SETTINGS = SIZES | {"mix": MIX, "steps": 120, "interval": 30, "normalize_observations": True, "reward_scale": 0.5}
RUN = Run("InvertedPendulum-v4", **SETTINGS)


def silent(_sentence):
    pass


@given(st.lists(st.tuples(*[st.floats(-1e4, 1e4, width=32)] * 3), min_size=2, max_size=40))
def test_mean_and_deviation_are_those_of_all_observations(rows):
    seen, normaliser = np.array(rows, np.float32), Normaliser(3)
    for obs in seen:
        normaliser.see(obs)
    exact = seen.astype(np.float64)
    np.testing.assert_allclose(normaliser.scaling.mean, exact.mean(0), rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(1.0 / normaliser.scaling.factor, np.sqrt(exact.var(0) + EPSILON), rtol=1e-5, atol=1e-6)


def test_far_from_zero_no_digit_is_lost():
    """A sum of squares of numbers like these has none of their variance's digits."""
    rng, normaliser = np.random.default_rng(0), Normaliser(1)
    seen = (1e6 + rng.standard_normal((5_000, 1))).astype(np.float32)
    for obs in seen:
        normaliser.see(obs)
    np.testing.assert_allclose(1.0 / normaliser.scaling.factor, seen.astype(np.float64).std(0), rtol=1e-6)


def test_before_two_observations_nothing_is_scaled_by_them():
    normaliser = Normaliser(2)
    assert np.array_equal(normaliser.scaling.apply(np.array([3.0, -4.0], np.float32)), [3.0, -4.0])
    normaliser.see(np.array([3.0, -4.0], np.float32))
    assert np.array_equal(normaliser.scaling.apply(np.array([3.5, -4.0], np.float32)), [0.5, 0.0])


def test_an_outlier_is_clipped():
    scaling = Scaling(np.zeros(2, np.float32), np.array([1e4, 1.0], np.float32))
    assert np.array_equal(scaling.apply(np.array([3e38, -11.0], np.float32)), [10.0, -10.0])


def test_networks_see_scaled_numbers_and_the_replay_holds_raw_ones():
    stepped = Stepped(Run("probe_envs:Distant-v0", **(SETTINGS | {"mix": {"adam": 1}})))
    stepped.roll_out()
    [member] = stepped.members
    held, scaling = member.replay.transitions(), member.normaliser.scaling
    # Steps, and the first observations of the interval's episodes of ten steps.
    assert member.normaliser.count == 30 + 4
    assert held[:, 0].min() > 900
    rows = member.sample(24, 2).rows
    assert np.array_equal(rows[16:], np.zeros_like(rows[16:]))
    raw = next(row for row in held if row[2] == rows[0, 2])
    np.testing.assert_array_equal(rows[0, :2], scaling.apply(raw[:2]))
    np.testing.assert_array_equal(rows[0, -2:], scaling.apply(raw[-2:]))
    assert rows[0, 3] == np.float32(0.5) * raw[3]
    assert rows[0, 4] == raw[4]
    assert np.array_equal(member.seen, scaling.apply(member.observation))
    # What never changes is zero, and not a division by zero.
    assert np.array_equal(rows[:16, 1], np.zeros(16))


def test_an_exploit_copies_it_also_between_algorithms():
    stepped = Stepped(RUN)
    stepped.interval()
    [first, _, _, last] = stepped.members
    assert not np.array_equal(first.normaliser.mean, last.normaliser.mean)
    stepped.host.take(3, stepped.host.give(0), True, 1)
    assert last.normaliser.count == first.normaliser.count > 30
    assert np.array_equal(first.normaliser.mean, last.normaliser.mean)
    last.normaliser.see(np.ones(4, np.float32))
    assert not np.array_equal(first.normaliser.mean, last.normaliser.mean)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole") / "run"
    assert train(RUN, folder, note=silent).lineage
    return folder


def test_a_resumed_run_is_the_same(tmp_path, whole):
    train(dataclasses.replace(RUN, steps=60), tmp_path / "run", note=silent)
    resume(tmp_path / "run", steps=120, note=silent)
    assert differences(tmp_path / "run", whole) == []


@pytest.mark.slow
def test_a_run_in_two_processes_is_the_same(tmp_path, whole):
    train(RUN, tmp_path / "run", note=silent, workers=2)
    assert differences(tmp_path / "run", whole) == []


def test_a_policy_scales_what_it_is_given_and_its_file_says_how(tmp_path, whole):
    policy = Policy.load(whole / "best")
    assert policy.scaling is not None
    assert json.loads((whole / "best" / "policy.json").read_text())["format"] == "evolute policy 2"
    obs = np.random.default_rng(0).standard_normal((5, 4)).astype(np.float32)
    x = (obs.astype(np.float64) - policy.scaling.mean) * policy.scaling.factor
    for n, (w, b) in enumerate(policy.weights):
        x = np.clip(x, -10.0, 10.0) if n == 0 else np.maximum(x, 0.0)
        x = x @ w + b
    np.testing.assert_allclose(policy.unit_action(obs), np.tanh(x), atol=1e-5)


def test_a_policy_whose_scaling_is_missing_or_wrong_is_refused(tmp_path):
    weights = [(np.zeros((2, 1)), np.zeros(1))]
    Policy(weights, np.array([-1.0]), np.array([1.0]), "any", Scaling(np.zeros(3), np.ones(3))).save(tmp_path / "wrong")
    with pytest.raises(UserError, match=r"the scaling of observations does not match the layers \[2, 1\]"):
        Policy.load(tmp_path / "wrong")
    Policy(weights, np.array([-1.0]), np.array([1.0]), "any").save(tmp_path / "none")
    path = tmp_path / "none" / "policy.json"
    path.write_text(path.read_text().replace("policy 1", "policy 2"))
    with pytest.raises(UserError, match=r"observation\.mean.* is missing"):
        Policy.load(tmp_path / "none")
    Policy(weights, np.array([-1.0]), np.array([1.0]), "any", Scaling(np.zeros(2), np.full(2, np.inf))).save(tmp_path / "inf")
    with pytest.raises(UserError, match="not finite"):
        Policy.load(tmp_path / "inf")


@pytest.mark.parametrize("kind", ["adam", "kfac", "sac:adam"])
def test_a_task_far_from_zero_is_learnt_with_it_and_not_without(kind):
    settings = {
        "mix": {kind: 1},
        "steps": 3_000,
        "interval": 3_000,
        "actor_layers": (32,),
        "critic_layers": (32,),
        "batch_size": 64,
        "learning_starts": 500,
        "discount": 0.1,
        "episodes": 20,
        "final_episodes": 20,
    }
    reached = {}
    for normalize in (True, False):
        result = train(Run("probe_envs:Distant-v0", normalize_observations=normalize, **settings), note=silent)
        reached[normalize] = result.evaluation.mean
    # Ten at best; the best action that knows nothing gets 10 (1 - 1/3).
    assert reached[True] > 9.3, reached
    assert reached[False] < 7.5, reached


def test_the_reward_scale_changes_what_is_learnt_and_not_what_is_reported():
    stepped = [
        Stepped(Run("InvertedPendulum-v4", **(SETTINGS | {"mix": {"adam": 1}, "reward_scale": scale}))) for scale in (1.0, 100.0)
    ]
    (plain, _), (large, _) = (one.interval() for one in stepped)
    assert plain[0]["training_return"] == large[0]["training_return"]
    assert plain[0]["critic_loss"] * 50 < large[0]["critic_loss"]


@pytest.mark.parametrize("wrapper", ["NormalizeObservation", "NormalizeReward"])
def test_wrappers_with_running_statistics_are_refused(wrapper):
    def made():
        return getattr(gymnasium.wrappers, wrapper)(gymnasium.make("probe_envs:Noisy-v0"))

    gymnasium.register("Scaled-v0", entry_point=made)
    try:
        with pytest.raises(
            UserError, match=rf"has the wrapper {wrapper}, whose running statistics .* set normalize_observations"
        ):
            Environment("Scaled-v0")
    finally:
        del gymnasium.registry["Scaled-v0"]


def test_statistics_that_stay_as_they_are_may_come_along():
    def made():
        env = gymnasium.wrappers.NormalizeObservation(gymnasium.make("probe_envs:Noisy-v0"))
        env.update_running_mean = False
        return env

    gymnasium.register("Steady-v0", entry_point=made)
    try:
        assert Environment("Steady-v0").shape == (2, 1)
    finally:
        del gymnasium.registry["Steady-v0"]


def test_n_step_returns_learn_and_resume_the_same(tmp_path):
    run = Run("InvertedPendulum-v4", **(SETTINGS | {"n_step": 3}))
    train(run, tmp_path / "whole", note=silent)
    train(dataclasses.replace(run, steps=60), tmp_path / "run", note=silent, workers=2)
    resume(tmp_path / "run", steps=120, note=silent)
    assert differences(tmp_path / "run", tmp_path / "whole") == []
    other = train(dataclasses.replace(run, n_step=1), note=silent)
    assert not np.array_equal(other.policy.weights[0][0], Policy.load(tmp_path / "whole" / "best").weights[0][0])
