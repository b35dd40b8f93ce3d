"""Deterministic returns: completed episodes only, on seeds that all members share."""

import math

import numpy as np
import pytest

from evolute.environments.gym import Environment
from evolute.training import evaluate
from evolute.training.evaluate import Evaluation


def still(obs):
    return np.zeros(1, np.float32)


@pytest.mark.parametrize("name", ["Limit", "Ends"])
def test_an_episode_ends_by_itself_or_by_the_limit(name):
    environment = Environment(f"probe_envs:{name}-v0")
    assert evaluate.play(environment, still, 0, limit=10) == (3.0, 3, True)
    assert evaluate.play(environment, still, 0, limit=3) == (3.0, 3, True)
    assert evaluate.play(environment, still, 0, limit=2) == (2.0, 2, False)


def test_a_policy_sees_each_observation_of_its_own_episode():
    environment, seen = Environment("probe_envs:Limit-v0"), []

    def act(obs):
        seen.append(obs.tolist())
        return np.zeros(1, np.float32)

    evaluate.by_episodes(environment, act, [1, 2])
    # (episode, step): never the last observation, which nobody acts on.
    assert seen == [[0, 0], [0, 1], [0, 2], [1, 0], [1, 1], [1, 2]]


def test_the_return_is_the_undiscounted_sum_of_what_the_actions_earn():
    environment = Environment("probe_envs:Bandit-v0")
    for action, reward in ((0.5, 1.0), (0.0, 0.75), (-0.5, 0.0)):
        assert evaluate.play(environment, lambda _, a=action: np.array([a], np.float32), 0, 9) == (reward, 1, True)


def test_seeds_decide_episodes_whoever_played_before():
    first, second = Environment("probe_envs:Noisy-v0"), Environment("probe_envs:Noisy-v0")
    evaluate.by_episodes(second, still, [99])
    results = [evaluate.by_episodes(environment, still, [4, 5, 4]) for environment in (first, second)]
    assert results[0] == results[1]
    a, b, c = results[0].returns
    assert a == c != b
    assert results[0].lengths == [3, 3, 3]


def test_by_steps_counts_completed_episodes_only():
    for name in ("Limit", "Ends"):
        environment = Environment(f"probe_envs:{name}-v0")
        assert evaluate.by_steps(environment, still, 10, seed=0) == Evaluation([3.0] * 3, [3] * 3)
        assert evaluate.by_steps(environment, still, 9, seed=0).lengths == [3] * 3
        assert evaluate.by_steps(environment, still, 2, seed=0) == Evaluation([], [])


def test_by_steps_takes_no_more_steps_than_asked():
    taken = []
    evaluate.by_steps(Environment("probe_envs:Limit-v0"), lambda obs: taken.append(1) or still(obs), 10, seed=0)
    assert len(taken) == 10


def test_by_steps_seeds_the_first_episode_alone():
    environment = Environment("probe_envs:Noisy-v0")
    one, other = evaluate.by_steps(environment, still, 9, seed=1), evaluate.by_steps(environment, still, 9, seed=1)
    assert one == other
    assert len(set(one.returns)) == 3
    assert evaluate.by_steps(environment, still, 9, seed=2) != one


def test_an_endless_episode_is_cut_and_counted(monkeypatch):
    monkeypatch.setattr(evaluate, "LONGEST_EPISODE", 25)
    assert evaluate.by_episodes(Environment("probe_envs:Endless-v0"), still, [0]) == Evaluation([25.0], [25], cut=1)


def test_mean_and_deviation():
    evaluation = Evaluation([1.0, 3.0], [5, 5])
    assert (evaluation.mean, evaluation.std) == (2.0, 1.0)
    assert math.isnan(Evaluation([], []).mean)
    assert math.isnan(Evaluation([], []).std)
