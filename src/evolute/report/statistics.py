"""Statistics of few runs: what Agarwal et al. 2021 (arXiv 2108.13264) advise, and success over time where returns are bimodal.

Scores are arrays [runs] of one task, or a sequence of such, one for each task; tasks may have different numbers of runs.
"""

import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from scipy import stats

RESAMPLES = 10_000
LEVEL = 0.95


class Interval(NamedTuple):
    """An estimate, and an interval that is to hold the truth with the probability LEVEL.

    A bootstrap of few runs falls short of it: of normal returns, the interval of an interquartile mean holds the truth in 74% of
    cases with three runs, 89% with five, 94% with ten.
    """

    value: float
    low: float
    high: float


def interquartile_mean(scores: Sequence[np.ndarray]) -> float:
    """Return the mean of the middle half of all scores: robust as the median, and less noisy."""
    pooled = np.concatenate([np.asarray(task, float) for task in scores])
    return float(stats.trim_mean(pooled, 0.25))


def bootstrap(
    scores: Sequence[np.ndarray],
    statistic: Callable[[Sequence[np.ndarray]], float] = interquartile_mean,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Interval:
    """Return a statistic with its stratified bootstrap interval (percentiles): runs are drawn anew within each task.

    Args:
        scores: by task.
        statistic: of such scores.
        resamples: how often they are drawn.
        seed: of the draws.

    Returns:
        The interval is of no width where every task has one run.
    """
    tasks = [np.asarray(task, float) for task in scores]
    rng = np.random.default_rng(seed)
    draws = [task[rng.integers(len(task), size=(resamples, len(task)))] for task in tasks]
    if statistic is interquartile_mean:
        found = stats.trim_mean(np.concatenate(draws, axis=1), 0.25, axis=1)
    else:
        found = np.array([statistic([draw[n] for draw in draws]) for n in range(resamples)])
    return _interval(statistic(tasks), found)


def probability_of_improvement(
    better: Sequence[np.ndarray], worse: Sequence[np.ndarray], resamples: int = RESAMPLES, seed: int = 0
) -> Interval:
    """Return how probable it is that a run of the one beats a run of the other, ties counted half, averaged over tasks."""
    rng = np.random.default_rng(seed)
    values, found = [], []
    for x, y in zip(better, worse, strict=True):
        x, y = np.asarray(x, float), np.asarray(y, float)
        wins = (x[:, None] > y[None, :]) + 0.5 * (x[:, None] == y[None, :])
        values.append(wins.mean())
        # A resample of runs is a number of times for each of them.
        times_x = rng.multinomial(len(x), np.full(len(x), 1 / len(x)), size=resamples) / len(x)
        times_y = rng.multinomial(len(y), np.full(len(y), 1 / len(y)), size=resamples) / len(y)
        found.append(np.einsum("ri,ij,rj->r", times_x, wins, times_y))
    return _interval(float(np.mean(values)), np.mean(found, axis=0))


def performance_profile(scores: Sequence[np.ndarray], thresholds: np.ndarray) -> np.ndarray:
    """Return the share of runs whose score is above each threshold [T], averaged over tasks: [T]."""
    return np.mean([(np.asarray(task, float)[:, None] > thresholds[None, :]).mean(axis=0) for task in scores], axis=0)


def difference(x: np.ndarray, y: np.ndarray) -> float:
    """Return how probable such a difference is between runs that are alike: p of the Mann-Whitney U test, two-sided."""
    if len(x) < 2 or len(y) < 2:
        return math.nan
    return float(stats.mannwhitneyu(x, y, alternative="two-sided").pvalue)


def least_difference(runs: int, others: int) -> float:
    """Return the least p that `difference` has for so many runs: that of runs which all beat all of the others."""
    return difference(np.arange(runs), runs + np.arange(others))


def holm(p_values: Mapping[str, float]) -> dict[str, float]:
    """Return p values corrected for their number (Holm 1979): the chance that any of them is as low by accident.

    NaN stays, and does not count.
    """
    ordered = sorted((p, name) for name, p in p_values.items() if not math.isnan(p))
    found, largest = dict(p_values), 0.0
    for place, (p, name) in enumerate(ordered):
        largest = max(largest, min(1.0, p * (len(ordered) - place)))
        found[name] = largest
    return found


def success_rate(successes: int, runs: int) -> Interval:
    """Return the share of runs that succeeded with Wilson's interval, which is sound at 0 and at 1 and for few runs."""
    if runs == 0:
        return Interval(math.nan, 0.0, 1.0)
    interval = stats.binomtest(successes, runs).proportion_ci(LEVEL, method="wilson")
    return Interval(successes / runs, float(interval.low), float(interval.high))


class Waits(NamedTuple):
    """How long each run took until it succeeded; for one that did not, how long it was watched."""

    times: np.ndarray  # [runs]
    succeeded: np.ndarray  # [runs], whether the time is that of a success

    @property
    def censored(self) -> "stats.CensoredData":
        """The same for SciPy: a run that ended without success would have succeeded later, or never."""
        return stats.CensoredData(self.times[self.succeeded], right=self.times[~self.succeeded])


def waits(curves: Sequence[tuple[Sequence[float], Sequence[float | None]]], threshold: float) -> Waits:
    """Return when each run's curve first reached a threshold.

    Args:
        curves: of each run: steps, and the return at each; None where there was none.
        threshold: the least return that counts as success.
    """
    times, succeeded = [], []
    for steps, returns in curves:
        reached = [step for step, value in zip(steps, returns, strict=True) if value is not None and value >= threshold]
        times.append(reached[0] if reached else steps[-1])
        succeeded.append(bool(reached))
    return Waits(np.asarray(times, float), np.asarray(succeeded, bool))


def survival(found: Waits) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return the share of runs that have not succeeded after each time (Kaplan-Meier): times, share, and its interval's ends.

    The interval is the log-log one, and Wilson's where that is undefined: where none has succeeded, or all have.
    """
    estimate = stats.ecdf(found.censored).sf
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        ends = estimate.confidence_interval(LEVEL, method="log-log")
    share = np.asarray(estimate.probabilities)
    none, every = (success_rate(successes, len(found.times)) for successes in (0, len(found.times)))
    low = np.where(np.isnan(ends.low.probabilities), np.where(share > 0.5, 1 - none.high, 0.0), ends.low.probabilities)
    high = np.where(np.isnan(ends.high.probabilities), np.where(share > 0.5, 1.0, 1 - every.low), ends.high.probabilities)
    return np.asarray(estimate.quantiles), share, low, high


def median_wait(found: Waits) -> float:
    """Return the time after which half of the runs have succeeded; infinite where fewer did."""
    times, share, _, _ = survival(found)
    # A product of fractions may miss a half by a rounding.
    below = times[share <= 0.5 + 1e-9]
    return float(below[0]) if len(below) else math.inf


def later(x: Waits, y: Waits) -> float:
    """Return how probable such a difference is between waits that are alike: p of the log-rank test, two-sided."""
    if len(x.times) < 2 or len(y.times) < 2 or not (x.succeeded.any() or y.succeeded.any()):
        return math.nan
    with np.errstate(invalid="ignore"):
        p = float(stats.logrank(x.censored, y.censored).pvalue)
    # Where all succeed at one time nothing could differ.
    return 1.0 if math.isnan(p) else p


def _interval(value: float, found: np.ndarray) -> Interval:
    rest = 100 * (1 - LEVEL) / 2
    low, high = np.percentile(found, [rest, 100 - rest])
    return Interval(float(value), float(low), float(high))
