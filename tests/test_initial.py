"""Different starts: what each member draws before its first step."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from evolute import Run, UserError, train
from evolute.hyperparameters import Hyperparameters, drawn
from evolute.runs.folder import RunFolder

START = Hyperparameters(256, 1e-3, 1e-3, 0.0, 0.0, 0.99, 0.005, 0.2, 0.5, 0.1)
TINY = {"steps": 60, "interval": 30, "learning_starts": 20, "episodes": 1, "final_episodes": 1, "batch_size": 32}


def rng(seed=0):
    return np.random.default_rng(seed)


def test_two_values_are_a_range_and_its_logarithm_is_drawn_evenly():
    found = [drawn(START, {"actor_learning_rate": (1e-4, 1e-1)}, rng(seed)).actor_learning_rate for seed in range(1_000)]
    shares = np.sort((np.log10(found) + 4) / 3)
    # Kolmogorov's distance from the uniform distribution, at one in a thousand.
    assert np.abs(shares - np.arange(1_000) / 1_000).max() < 1.95 / math.sqrt(1_000)
    assert min(found) >= 1e-4
    assert max(found) <= 1e-1


def test_three_values_are_a_choice_and_a_batch_is_whole():
    assert {drawn(START, {"batch_size": (32, 64, 256)}, rng(seed)).batch_size for seed in range(50)} == {32, 64, 256}
    sizes = [drawn(START, {"batch_size": (10, 20)}, rng(seed)).batch_size for seed in range(200)]
    assert set(sizes) == set(range(10, 21))
    assert {type(size) for size in sizes} == {int}


@given(st.permutations(["tau", "batch_size", "critic_learning_rate"]), st.integers(0, 99))
def test_the_order_of_names_changes_nothing_and_others_stay(names, seed):
    ranges = {"tau": (0.001, 0.1), "batch_size": (16, 512), "critic_learning_rate": (1e-5, 1e-2)}
    found = drawn(START, {name: ranges[name] for name in names}, rng(seed))
    assert found == drawn(START, ranges, rng(seed))
    assert found._replace(**{name: getattr(START, name) for name in ranges}) == START


def first_rows(folder, **settings):
    train(Run("InvertedPendulum-v4", **TINY | settings), folder)
    return [row["hyperparameters"] for row in RunFolder.open(folder).metrics() if row["interval"] == 1]


def test_members_start_apart_by_the_seed_and_only_in_what_they_have(tmp_path):
    starts = {"mix": {"adam": 2, "kfac": 1}, "initial": {"actor_learning_rate": (1e-4, 1e-2), "critic_damping": (0.01, 1.0)}}
    first, again, other = (first_rows(tmp_path / name, seed=seed, **starts) for name, seed in (("a", 0), ("b", 0), ("c", 1)))
    assert first == again
    assert len({row["actor_learning_rate"] for row in first + other}) == 6
    assert [row["critic_damping"] for row in first[:2]] == [0.0, 0.0]
    assert first[2]["critic_damping"] != other[2]["critic_damping"]
    assert {row["critic_learning_rate"] for row in first[:2]} == {1e-3}
    # A member's start is its own: the population around it changes nothing.
    assert first_rows(tmp_path / "d", mix={"adam": 1}, initial={"actor_learning_rate": (1e-4, 1e-2)}) == first[:1]


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"initial": {"rate": (1, 2)}}, "'rate' is no hyperparameter"),
        ({"initial": {"tau": 0.1}}, r"initial.tau is 0.1; it must be two positive numbers, least first, or three or more"),
        ({"initial": {"tau": (0.2, 0.1)}}, "least first"),
        ({"initial": {"tau": (0.0, 0.1)}}, "two positive numbers"),
        ({"initial": {"tau": (0.1, math.nan)}}, "two positive numbers"),
        ({"initial": {"tau": (True, 2)}}, "two positive numbers"),
        ({"initial": {"tau": (0.1, 2)}}, "a start of tau is 2.0; it must be above 0 and at most 1"),
        ({"initial": {"batch_size": (32.5, 64)}}, "a start of batch_size is 32.5; it must be a whole number"),
        ({"initial": {"batch_size": (32, 900)}, "buffer_size": 500}, "initial.batch_size goes up to 900, more than the 500"),
        ({"initial": {"actor_damping": (0.1, 1)}}, "no kind of the mix has it"),
        ({"mix": {"adam": 2}, "initial": {"actor_learning_rate": (1e-9, 1)}}, "outside its bounds 1e-06 to 10; .* bounds.actor_"),
    ],
)
def test_a_mistake_is_one_sentence(settings, words):
    with pytest.raises(UserError, match=words):
        Run("Hopper-v4", **settings)
