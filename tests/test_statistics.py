"""Statistics of few runs against closed forms, NumPy loops, and rliable's numbers (tests/golden/rliable.json)."""

import itertools
import json
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from evolute.report import statistics
from evolute.report.statistics import Waits

GOLDEN = json.loads((Path(__file__).parent / "golden" / "rliable.json").read_text())
SCORES, OTHERS = ([np.asarray(task) for task in GOLDEN[name]] for name in ("scores", "others"))


def test_interquartile_mean_and_its_interval_are_those_of_rliable():
    found = statistics.bootstrap(SCORES)
    assert found.value == pytest.approx(GOLDEN["interquartile_mean"], rel=1e-12)
    # Two samples of 10,000 resamples each differ.
    width = GOLDEN["interquartile_interval"][1] - GOLDEN["interquartile_interval"][0]
    assert [found.low, found.high] == pytest.approx(GOLDEN["interquartile_interval"], abs=0.05 * width)


def test_probability_of_improvement_and_its_interval_are_those_of_rliable():
    found = statistics.probability_of_improvement(SCORES, OTHERS)
    assert found.value == pytest.approx(GOLDEN["improvement"], rel=1e-12)
    width = GOLDEN["improvement_interval"][1] - GOLDEN["improvement_interval"][0]
    assert [found.low, found.high] == pytest.approx(GOLDEN["improvement_interval"], abs=0.05 * width)


def test_performance_profiles_are_those_of_rliable():
    thresholds = np.asarray(GOLDEN["thresholds"])
    assert statistics.performance_profile(SCORES, thresholds) == pytest.approx(np.asarray(GOLDEN["profile"]), rel=1e-12)


def test_any_statistic_can_be_bootstrapped_within_tasks():
    tasks = [np.zeros(5), np.ones(7)]
    found = statistics.bootstrap(tasks, lambda scores: float(np.mean(np.concatenate(scores))), resamples=200)
    # Drawn across tasks, the share of ones would scatter.
    assert found == pytest.approx((7 / 12, 7 / 12, 7 / 12))


@given(st.lists(st.integers(-3, 3), min_size=1, max_size=6), st.lists(st.integers(-3, 3), min_size=1, max_size=6))
def test_two_improvements_add_up_to_one(x, y):
    one, other = (statistics.probability_of_improvement([np.array(a)], [np.array(b)], 10).value for a, b in ((x, y), (y, x)))
    assert one + other == pytest.approx(1.0)
    assert one == pytest.approx(np.mean([(a > b) + 0.5 * (a == b) for a, b in itertools.product(x, y)]))


def test_holm_corrects_as_by_hand():
    assert statistics.holm({"a": 0.01, "b": 0.04, "c": 0.03, "d": math.nan}) == pytest.approx(
        {"a": 0.03, "b": 0.06, "c": 0.06, "d": math.nan}, nan_ok=True
    )


def test_one_run_says_nothing_of_a_difference():
    assert math.isnan(statistics.difference(np.array([1.0]), np.array([2.0, 3.0])))
    # All of four above all of four: 2 of the 70 ways to divide eight runs.
    assert statistics.difference(np.arange(4.0), np.arange(4.0) + 10) == pytest.approx(2 / 70)


@pytest.mark.parametrize(("successes", "runs"), [(0, 10), (3, 10), (10, 10), (1, 1)])
def test_success_rates_have_wilsons_interval(successes, runs):
    z, share = 1.959963984540054, successes / runs
    middle = (share + z**2 / (2 * runs)) / (1 + z**2 / runs)
    half = z / (1 + z**2 / runs) * math.sqrt(share * (1 - share) / runs + z**2 / (4 * runs**2))
    assert statistics.success_rate(successes, runs) == pytest.approx((share, middle - half, middle + half), abs=1e-12)


def test_waits_end_with_the_first_success_or_with_the_run():
    found = statistics.waits([([10, 20, 30], [1.0, None, 5.0]), ([10, 20], [0.0, 4.9]), ([10], [9.0])], 5.0)
    assert found.times.tolist() == [30.0, 20.0, 10.0]
    assert found.succeeded.tolist() == [True, False, True]


def kaplan_meier(times, succeeded):
    """The product over times of success, by its definition."""
    share, found = 1.0, {}
    for time in sorted(set(times)):
        at_risk = sum(t >= time for t in times)
        share *= 1 - sum(t == time and s for t, s in zip(times, succeeded, strict=True)) / at_risk
        found[time] = share
    return found


@given(st.lists(st.tuples(st.integers(1, 6), st.booleans()), min_size=2, max_size=12))
def test_survival_is_kaplan_and_meiers_product(runs):
    times, succeeded = (np.array(column) for column in zip(*runs, strict=True))
    at, share, low, high = statistics.survival(Waits(times.astype(float), succeeded))
    expected = kaplan_meier(times.tolist(), succeeded.tolist())
    assert dict(zip(at.tolist(), share.tolist(), strict=True)) == pytest.approx(expected)
    assert ((low <= share + 1e-12) & (share <= high + 1e-12)).all()
    # Few runs never leave no doubt.
    assert (high - low > 0.01).all()


def test_survival_before_the_first_success_is_as_doubtful_as_a_rate_of_zero():
    _, share, low, high = statistics.survival(Waits(np.full(4, 10.0), np.full(4, False)))
    assert (share[0], high[0]) == (1.0, 1.0)
    assert low[0] == pytest.approx(1 - statistics.success_rate(0, 4).high)


@pytest.mark.parametrize("runs", range(2, 41, 2))
def test_half_is_half_for_any_number_of_runs(runs):
    times = np.arange(1.0, runs + 1)
    assert statistics.median_wait(Waits(times, times <= runs / 2)) == runs / 2


def test_the_least_p_is_that_of_runs_that_all_differ():
    assert statistics.least_difference(4, 4) == pytest.approx(2 / 70)
    assert statistics.least_difference(5, 5) == pytest.approx(2 / 252)
    assert math.isnan(statistics.least_difference(1, 5))


def test_half_of_the_runs_may_never_succeed():
    some = Waits(np.array([10.0, 20.0, 30.0, 40.0]), np.array([True, True, False, False]))
    assert statistics.median_wait(some) == 20.0
    few = some._replace(succeeded=np.array([True, False, False, False]))
    assert statistics.median_wait(few) == math.inf


def test_the_log_rank_test_sees_who_succeeds_earlier():
    early, never = (Waits(np.full(8, time), np.full(8, time < 10)) for time in (5.0, 10.0))
    assert statistics.later(early, never) < 0.001
    assert statistics.later(early, early) == pytest.approx(1.0)
    # Nobody has succeeded: there is nothing to be compared.
    assert math.isnan(statistics.later(never, never))
