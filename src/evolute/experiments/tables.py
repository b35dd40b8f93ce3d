"""Tables of an experiment: what was found beside what was published, with the doubt that few runs leave."""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from evolute.experiments import grid
from evolute.experiments.evidence import Evidence, Record
from evolute.report import statistics
from evolute.report.statistics import Interval

NOT_RUN = "not run"


class Table(NamedTuple):
    """A table for people and for programs: text in cells."""

    name: str
    title: str
    # What must be known to read it, one sentence each.
    notes: Sequence[str]
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]


def returns(evidence: Evidence) -> Table:
    """Mean and standard deviation over runs, as the paper gives them, above the published numbers."""
    experiment = evidence.experiment
    published = grid.published(experiment.published) if experiment.published else {}
    rows = []
    for env, arms in evidence.found.items():
        rows.append([env, "here", *(spread(evidence.returns(env, arm)) for arm in arms)])
        if env in published:
            pairs = [published[env].get(arm) for arm in arms]
            rows.append([env, "published", *("-" if pair is None else f"{pair[0]:.0f} ± {pair[1]:.0f}" for pair in pairs)])
    arms = list(next(iter(evidence.found.values())))
    notes = [f"Mean ± standard deviation over runs (their number) of {evidence.measured}."]
    return Table("returns", "Return at the end of training", notes, ["environment", "", *arms], rows)


def compared(evidence: Evidence) -> Table:
    """Every arm beside the reference: interquartile means, probability of improvement, and a corrected p value."""
    reference = evidence.experiment.reference
    pairs = [(env, arm) for env, arms in evidence.found.items() for arm in arms if arm in evidence.others() and reference in arms]
    p_values = {
        f"{env} {arm}": statistics.difference(evidence.returns(env, arm), evidence.returns(env, reference)) for env, arm in pairs
    }
    corrected, rows = statistics.holm(p_values), []
    for env, arm in pairs:
        ours, theirs = evidence.returns(env, arm), evidence.returns(env, reference)
        if len(ours) < 2 or len(theirs) < 2:
            rows.append([env, arm, str(len(ours)), NOT_RUN, NOT_RUN, "", "", ""])
            continue
        better = statistics.probability_of_improvement([ours], [theirs])
        means = [between(statistics.bootstrap([x]), "{:.0f}") for x in (ours, theirs)]
        key = f"{env} {arm}"
        rows.append([env, arm, str(len(ours)), *means, between(better, "{:.2f}"), p(p_values[key]), p(corrected[key])])
    notes = [
        "Interquartile means with 95% bootstrap intervals; probability that a run beats one of the reference, with the same.",
        f"p: Mann-Whitney. Comparisons made here: {len(p_values)}; the last column corrects for their number (Holm).",
    ]
    columns = [
        "environment",
        "arm",
        "runs",
        "interquartile mean",
        f"that of {reference}",
        "probability of improvement",
        "p",
        "corrected",
    ]
    return Table("compared", f"Compared with {reference}", notes, columns, rows)


def improvements(evidence: Evidence) -> Table:
    """Improvement of the best mixed population over single agents and over populations of the reference, in percent."""
    experiment, rows = evidence.experiment, []
    for env, arms in evidence.found.items():
        means = {arm: float(np.mean(evidence.returns(env, arm))) for arm in arms if len(evidence.returns(env, arm))}
        mixed = {arm: mean for arm, mean in means.items() if len(experiment.arms[arm].get("mix", {})) > 1}
        if not mixed:
            rows.append([env, NOT_RUN, "", ""])
            continue
        best = max(mixed, key=lambda arm: mixed[arm])
        rows.append([env, best, *(percent(mixed[best], means.get(over)) for over in ("adam", experiment.reference))])
    notes = [
        "The best of several arms is chosen by the numbers that it is then compared by, as in the paper: it flatters the mixes."
    ]
    columns = ["environment", "best mixed arm", "over single Adam agents", f"over {experiment.reference}"]
    return Table("improvements", "Improvement in percent", notes, columns, rows)


def success(evidence: Evidence) -> Table:
    """How many runs succeed, and after how many steps the best member first does."""
    experiment, rows = evidence.experiment, []
    reference = experiment.reference
    for env in (env for env in evidence.found if env in experiment.success):
        arms = evidence.found[env]
        p_values = {
            arm: statistics.later(evidence.waits(env, arm), evidence.waits(env, reference))
            for arm in arms
            if arm in evidence.others() and arms[arm] and arms.get(reference)
        }
        corrected = statistics.holm(p_values)
        for arm, runs in arms.items():
            if not runs:
                rows.append([env, arm, "0", NOT_RUN, "", "", "", ""])
                continue
            rate = statistics.success_rate(evidence.successes(env, arm), len(runs))
            waited = evidence.waits(env, arm)
            half = statistics.median_wait(waited)
            first = statistics.success_rate(int(waited.succeeded.sum()), len(runs))
            steps = f"{half:,.0f}" if math.isfinite(half) else f"more than {waited.times.max():,.0f}"
            tests = [p(p_values[arm]), p(corrected[arm])] if arm in p_values else ["", ""]
            rows.append([env, arm, str(len(runs)), between(rate, "{:.0%}"), between(first, "{:.0%}"), steps, *tests])
    limits = ", ".join(f"{value:.0f} on {env}" for env, value in experiment.success.items() if env in evidence.found)
    notes = [
        f"A run succeeds with a return of at least {limits}. Intervals are Wilson's, 95%.",
        "At the end: on held-out seeds. At some time: the best member's fitness of an interval.",
        f"p: log-rank test of the time until then against {reference}; the last column corrects for the number of arms (Holm).",
    ]
    columns = ["environment", "arm", "runs", "at the end", "at some time", "steps until half of the runs", "p", "corrected"]
    return Table("success", "Success", notes, columns, rows)


def ancestors(evidence: Evidence) -> Table:
    """Which kinds trained the winner's ancestors, beside their share of the slots."""
    rows = []
    for env, arms in evidence.found.items():
        for arm, runs in arms.items():
            mix = evidence.experiment.arms[arm].get("mix", {})
            for kind in mix if len(mix) > 1 and runs else ():
                share = statistics.bootstrap([evidence.shares(env, arm, kind)], lambda scores: float(np.mean(scores[0])), 2_000)
                won = sum(record["winner"]["kind"] == kind for record in runs)
                slots = mix[kind] / sum(mix.values())
                rows.append([env, arm, kind, f"{slots:.0%}", between(share, "{:.0%}"), f"{won} of {len(runs)}"])
    notes = [
        "Share of intervals in which the winner's ancestors were trained by a kind: mean over runs, 95% bootstrap interval.",
        "Where kinds do not matter it is the kind's share of the slots, on average.",
    ]
    columns = ["environment", "arm", "kind", "of the slots", "of the winner's ancestors", "runs that it wins"]
    return Table("ancestors", "Who the winner descends from", notes, columns, rows)


def seconds(evidence: Evidence) -> Table:
    """Processor seconds of ten thousand gradient steps of one member."""
    rows = []
    for env, arms in evidence.found.items():
        cells = []
        for runs in arms.values():
            spent = [cost for record in runs if (cost := _cost(record)) is not None]
            cells.append(f"{np.median(spent):.1f}" if spent else NOT_RUN)
        rows.append([env, *cells])
    notes = [
        "A core's seconds for 10,000 gradient steps of one member, with acting, environment and evaluation; median over runs.",
        "Without the first interval, in which programs are compiled.",
    ]
    return Table("seconds", "Processor seconds", notes, ["environment", *next(iter(evidence.found.values()))], rows)


def _cost(record: Record) -> float | None:
    spent, updates = record["curve"]["processor_seconds"], record["curve"]["gradient_steps"]
    if len(spent) < 2 or spent[0] is None or spent[-1] is None or updates[-1] == updates[0]:
        return None
    return 10_000 * (spent[-1] - spent[0]) / (updates[-1] - updates[0])


MAKERS: dict[str, Callable[[Evidence], Table]] = {
    "returns": returns,
    "compared": compared,
    "improvements": improvements,
    "success": success,
    "ancestors": ancestors,
    "seconds": seconds,
}


# -------------------------------------------------------------------------------------------------------------- numbers


def spread(values: np.ndarray) -> str:
    """Return mean, standard deviation and number of runs."""
    if not len(values):
        return NOT_RUN
    deviation = f" ± {np.std(values, ddof=1):.0f}" if len(values) > 1 else ""
    return f"{np.mean(values):.0f}{deviation} ({len(values)})"


def between(interval: Interval, form: str) -> str:
    """Return an estimate with its interval."""
    value, low, high = (form.format(x) for x in interval)
    return f"{value} [{low}, {high}]"


def p(value: float) -> str:
    """Return a p value."""
    return "-" if math.isnan(value) else f"{value:.3f}" if value >= 0.001 else "< 0.001"


def percent(value: float, base: float | None) -> str:
    """Return an improvement over a base in percent."""
    return NOT_RUN if base is None else f"{100 * (value - base) / abs(base):+.0f}%"


# ---------------------------------------------------------------------------------------------------------------- forms


def markdown(table: Table) -> str:
    """Return a table as Markdown."""

    def line(cells: Sequence[str]) -> str:
        return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"

    lines = [line(table.columns), "|" + " --- |" * len(table.columns), *map(line, table.rows)]
    return f"## {table.title}\n\n" + " ".join(table.notes) + "\n\n" + "\n".join(lines) + "\n"


def csv(table: Table) -> str:
    """Return a table as CSV (RFC 4180, but for lines that end as on POSIX)."""

    def cell(text: str) -> str:
        return '"' + text.replace('"', '""') + '"' if any(c in text for c in ',"\n') else text

    return "".join(",".join(map(cell, row)) + "\n" for row in [table.columns, *table.rows])


def latex(table: Table) -> str:
    """Return a table as LaTeX; it needs the package booktabs."""

    def line(cells: Sequence[str]) -> str:
        return " & ".join(map(_tex, cells)) + r" \\"

    return "\n".join(
        [
            r"\begin{tabular}{" + "l" * len(table.columns) + "}",
            r"\toprule",
            line(table.columns),
            r"\midrule",
            *map(line, table.rows),
            r"\bottomrule",
            r"\end{tabular}",
            "",
        ]
    )


_TEX = {"\\": r"\textbackslash{}", "±": r"$\pm$", "<": r"$<$", ">": r"$>$", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}


def _tex(text: str) -> str:
    return "".join(_TEX.get(c, "\\" + c if c in "%&$#_{}" else c) for c in text)
