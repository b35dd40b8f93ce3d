"""Figures of an experiment, by matplotlib, as PNG and SVG."""

import io
import itertools
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from evolute.errors import UserError
from evolute.experiments.evidence import Evidence, Record
from evolute.experiments.grid import combination, settings_of
from evolute.files import write_whole
from evolute.report import statistics

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Okabe and Ito's, which people with any colour vision tell apart; and dashes, for those without any.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#999999")
DASHES = ("-", "--", "-.", ":")
MOST_IN_A_ROW = 3


TITLES = {
    "curves": "Fitness against steps",
    "seconds": "Fitness against processor seconds",
    "updates": "Fitness against gradient steps",
    "survival": "Time until success",
    "profiles": "Performance profiles",
    "grid": "Mean return over the grid",
}
_CURVES = (
    "The best member's fitness: its mean return over an interval's few episodes, by which it was also chosen, so larger "
    "populations look better than in the tables. Interquartile mean over runs with its 95% bootstrap interval; runs that failed "
    "are left out."
)
CAPTIONS = {
    "curves": _CURVES,
    "seconds": f"{_CURVES} Processor seconds depend on what else the machine did.",
    "updates": _CURVES,
    "survival": "The share of runs whose best member's fitness has not passed the threshold yet (Kaplan-Meier), with its 95% "
    "interval.",
    "profiles": "The share of runs with a higher return, on held-out seeds, than a multiple of the reference's mean; "
    "environments where that mean is not above zero by two standard errors have no such scale and are left out.",
    "grid": "The mean return, on held-out seeds, of runs that did not fail, and how many failed.",
}
# What steps are where members of some kinds take fewer of them than others.
CLOCK, MEMBERS = "steps of the run's clock (some kinds take fewer)", "environment steps of a member"


def draw(evidence: Evidence, name: str, folder: Path) -> str | None:
    """Draw a figure as PNG and SVG, and return its title; None where there is nothing to be drawn yet.

    Raises:
        UserError: matplotlib is missing.
        RunStopped: a file cannot be written.
    """
    try:
        import matplotlib
    except ImportError:
        raise UserError("figures need matplotlib; install it with: pip install 'evolute[plot]'.") from None
    matplotlib.use("Agg")
    # The same file for the same numbers.
    matplotlib.rcParams["svg.hashsalt"] = "evolute"
    figure = MAKERS[name](evidence)
    if figure is None:
        return None
    for ending, about in (("png", {"Software": None}), ("svg", {"Date": None})):
        drawn = io.BytesIO()
        figure.savefig(drawn, format=ending, dpi=130, metadata=about)
        write_whole(folder / f"{name}.{ending}", drawn.getvalue())
    return TITLES[name]


def curves(evidence: Evidence) -> "Figure | None":
    """Fitness of the best member against environment steps: interquartile mean over runs, and its 95% bootstrap interval."""
    return _curves(evidence, "steps", _steps(evidence))


def seconds(evidence: Evidence) -> "Figure | None":
    """The same against the processor seconds of the whole population."""
    return _curves(evidence, "processor_seconds", "processor seconds of the population")


def updates(evidence: Evidence) -> "Figure | None":
    """The same against the gradient steps of the whole population."""
    return _curves(evidence, "gradient_steps", "gradient steps of the population")


def _curves(evidence: Evidence, against: str, label: str) -> "Figure | None":
    envs = [env for env, arms in evidence.found.items() if any(arms.values())]
    if not envs:
        return None
    figure, axes = _grid(envs)
    for env, axis in zip(envs, axes, strict=False):
        for number, (arm, runs) in enumerate(evidence.found[env].items()):
            curve = _band([run for run in runs if run["final"]["mean"] is not None], against)
            if curve is None:
                continue
            at, middle, low, high = curve
            axis.plot(at, middle, label=f"{arm} ({len(evidence.sound(env, arm))})", **_style(number))
            axis.fill_between(at, low, high, color=COLOURS[number % len(COLOURS)], alpha=0.15, linewidth=0)
        axis.set(title=env, xlabel=label, ylabel="fitness of the best member")
        axis.legend(frameon=False, title="arm (runs)")
    return figure


def _band(runs: Sequence[Record], against: str) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray] | None:
    """Return where a band is drawn, its middle and its ends; None where nothing was measured."""
    lines = []
    for record in runs:
        pairs = [(x, y) for x, y in zip(record["curve"][against], record["curve"]["best"], strict=True) if None not in (x, y)]
        if len(pairs) > 1:
            lines.append(np.asarray(pairs, float).T)
    if not lines:
        return None
    # As far as every run came.
    at = np.linspace(max(line[0, 0] for line in lines), min(line[0, -1] for line in lines), 60)
    values = np.stack([np.interp(at, *line) for line in lines])
    bands = [statistics.bootstrap([column], resamples=1_000) for column in values.T]
    middle, low, high = np.asarray(bands).T
    return at, middle, low, high


def survival(evidence: Evidence) -> "Figure | None":
    """Share of runs whose best member has not passed the threshold yet, against environment steps (Kaplan-Meier)."""
    envs = [env for env, arms in evidence.found.items() if env in evidence.experiment.success and any(arms.values())]
    if not envs:
        return None
    figure, axes = _grid(envs)
    for env, axis in zip(envs, axes, strict=False):
        for number, (arm, runs) in enumerate(evidence.found[env].items()):
            if not runs:
                continue
            found = evidence.waits(env, arm)
            times, share, low, high = statistics.survival(found)
            end = max(times[-1], found.times.max())
            # Until the first success it is as doubtful as a rate of zero.
            first = 1.0, 1.0 - statistics.success_rate(0, len(runs)).high, 1.0
            at = np.concatenate([[0.0], times, [end]])
            steps = [np.concatenate([[before], x, x[-1:]]) for before, x in zip(first, (share, low, high), strict=True)]
            axis.step(at, steps[0], where="post", label=f"{arm} ({len(runs)})", **_style(number))
            axis.fill_between(at, steps[1], steps[2], step="post", color=COLOURS[number % len(COLOURS)], alpha=0.1, linewidth=0)
        threshold = evidence.experiment.success[env]
        axis.set(title=env, xlabel=_steps(evidence), ylabel=f"runs still below {threshold:.0f}", ylim=(0, 1.03))
        axis.yaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
        axis.legend(frameon=False, title="arm (runs)")
    return figure


def profiles(evidence: Evidence) -> "Figure | None":
    """Performance profiles: share of runs above a score, over all environments; a score is a return over the reference's mean."""
    reference = evidence.experiment.reference
    scale = {env: _scale(evidence.sound(env, reference)) for env, arms in evidence.found.items() if arms.get(reference)}
    envs = [env for env, value in scale.items() if value is not None and all(evidence.found[env].values())]
    if not envs:
        return None
    figure, (axis, *_) = _grid(["profiles"])
    thresholds = np.linspace(0.0, 2.0, 201)
    for number, arm in enumerate(evidence.found[envs[0]]):
        scores = [evidence.returns(env, arm) / scale[env] for env in envs]
        axis.plot(thresholds, statistics.performance_profile(scores, thresholds), label=arm, **_style(number))
    axis.set(
        title=", ".join(envs), xlabel=f"return over the mean of {reference}", ylabel="share of runs above it", ylim=(0, 1.03)
    )
    axis.legend(frameon=False, title="arm")
    return figure


def grid(evidence: Evidence) -> "Figure | None":
    """A heat map of the mean return over a grid's two settings."""
    settings = list(evidence.experiment.grid.items())
    envs = [env for env, arms in evidence.found.items() if any(arms.values())]
    if len(settings) != 2 or not envs:
        return None
    (down, rows), (across, columns) = settings
    figure, axes = _grid(envs)
    for env, axis in zip(envs, axes, strict=False):
        means, failed = np.full((len(rows), len(columns)), math.nan), np.zeros((len(rows), len(columns)), int)
        for (row, down_value), (column, across_value) in itertools.product(enumerate(rows), enumerate(columns)):
            arm = combination((down_value, across_value))
            if evidence.found[env].get(arm):
                sound = evidence.sound(env, arm)
                failed[row, column] = len(evidence.found[env][arm]) - len(sound)
                means[row, column] = np.mean(sound) if len(sound) else math.nan
        image = axis.imshow(means, cmap="cividis", aspect="auto", origin="lower")
        for (row, column), value in np.ndenumerate(means):
            shade = "white" if value < (np.nanmin(means) + np.nanmax(means)) / 2 else "black"
            said = [f"{value:.0f}"] * (not math.isnan(value)) + [f"{failed[row, column]} failed"] * bool(failed[row, column])
            axis.text(column, row, "\n".join(said) or "-", ha="center", va="center", color=shade)
        axis.set(title=env, xlabel=across, ylabel=down)
        axis.set_xticks(range(len(columns)), [f"{value:g}" for value in columns])
        axis.set_yticks(range(len(rows)), [f"{value:g}" for value in rows])
        figure.colorbar(image, ax=axis, label="mean return")
    return figure


MAKERS: dict[str, Callable[[Evidence], "Figure | None"]] = {
    "curves": curves,
    "seconds": seconds,
    "updates": updates,
    "survival": survival,
    "profiles": profiles,
    "grid": grid,
}


def _steps(evidence: Evidence) -> str:
    experiment = evidence.experiment
    settings = [settings_of(experiment, env, arm) for env in experiment.envs for arm in experiment.arms]
    return CLOCK if any("steps_per_interval" in table for table in settings) else MEMBERS


def _scale(returns: np.ndarray) -> float | None:
    """Return the mean of some returns; None where it is not above zero by two standard errors."""
    if len(returns) < 2:
        return float(returns[0]) if len(returns) and returns[0] > 0 else None
    mean, error = float(np.mean(returns)), float(np.std(returns, ddof=1)) / math.sqrt(len(returns))
    return mean if mean > 2 * error else None


def _style(number: int) -> dict[str, Any]:
    # Every colour comes with every dash before two lines are alike.
    dash = DASHES[(number + number // len(COLOURS)) % len(DASHES)]
    return {"color": COLOURS[number % len(COLOURS)], "linestyle": dash, "linewidth": 2}


def _grid(titles: Sequence[str]) -> tuple["Figure", list[Any]]:
    """Return a figure with a place for each title."""
    from matplotlib.figure import Figure

    columns = min(len(titles), MOST_IN_A_ROW)
    rows = math.ceil(len(titles) / columns)
    figure = Figure(figsize=(5.2 * columns, 3.9 * rows), layout="constrained")
    axes = list(np.ravel(figure.subplots(rows, columns, squeeze=False)))
    for axis in axes:
        axis.spines[["top", "right"]].set_visible(False)
        # More numbers of six digits would touch.
        axis.locator_params(axis="x", nbins=6)
    for axis in axes[len(titles) :]:
        axis.set_visible(False)
    return figure, axes
