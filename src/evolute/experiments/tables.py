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
FAILED = (
    "A run failed where all of its members diverged, or no episode of its last evaluation came to an end: it is left out of "
    "means, and any other run beats it."
)


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
        rows.append([env, "here", *(spread(evidence.sound(env, arm), len(runs)) for arm, runs in arms.items())])
        if env in published:
            pairs = [published[env].get(arm) for arm in arms]
            rows.append([env, "published", *("-" if pair is None else f"{pair[0]:.0f} ± {pair[1]:.0f}" for pair in pairs)])
    arms = list(next(iter(evidence.found.values())))
    notes = [f"Mean ± standard deviation over runs (their number) of {evidence.measured}.", *failures(evidence)]
    return Table("returns", "Return at the end of training", notes, ["environment", "", *arms], rows)


def compared(evidence: Evidence) -> Table:
    """Every arm beside the reference: interquartile means, probability of improvement, and a corrected p value."""
    reference = evidence.experiment.reference
    pairs = [(env, arm) for env, arms in evidence.found.items() for arm in arms if arm in evidence.others() and reference in arms]
    scores = {(env, arm): evidence.returns(env, arm) for env, arms in evidence.found.items() for arm in arms}
    p_values = {f"{env} {arm}": statistics.difference(scores[env, arm], scores[env, reference]) for env, arm in pairs}
    corrected, rows = statistics.holm(p_values), []
    for env, arm in pairs:
        ours, theirs = scores[env, arm], scores[env, reference]
        means = [middle(evidence.sound(env, name), len(scores[env, name])) for name in (arm, reference)]
        key, better = f"{env} {arm}", ""
        if len(ours) and len(theirs):
            better = between(statistics.probability_of_improvement([ours], [theirs]), "{:.2f}", min(len(ours), len(theirs)))
        tests = [p(p_values[key]), p(corrected[key])] if better else ["", ""]
        rows.append([env, arm, str(len(ours)), *means, better, *tests])
    for arm in evidence.others():
        both = [(scores[env, arm], scores[env, reference]) for env, other in pairs if other == arm]
        both = [(ours, theirs) for ours, theirs in both if len(ours) and len(theirs)]
        if len(both) > 1:
            better = statistics.probability_of_improvement([ours for ours, _ in both], [theirs for _, theirs in both])
            most = max(len(scores) for pair in both for scores in pair)
            count = str(sum(len(ours) for ours, _ in both))
            rows.append([f"all {len(both)}", arm, count, "", "", between(better, "{:.2f}", most), "", ""])
    tested = [(env, arm) for env, arm in pairs if not math.isnan(p_values[f"{env} {arm}"])]
    lowest = [statistics.least_difference(len(scores[env, arm]), len(scores[env, reference])) for env, arm in tested]
    notes = [
        "Interquartile means with 95% bootstrap intervals; probability that a run beats one of the reference, with the same, "
        "drawn within each environment. Intervals of few runs are too narrow: those of five hold the truth in 89% of cases.",
        f"p: Mann-Whitney. Comparisons made here: {len(tested)}; the last column corrects for their number (Holm).",
        *(least_corrected(min(1.0, len(tested) * min(lowest))) if tested else []),
        *failures(evidence),
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
    published = grid.published_percent(experiment.published)
    for env, arms in evidence.found.items():
        means = {arm: float(np.mean(evidence.sound(env, arm))) for arm in arms if len(evidence.sound(env, arm))}
        mixed = {arm: mean for arm, mean in means.items() if len(grid.settings_of(experiment, env, arm).get("mix", {})) > 1}
        if mixed:
            best = max(mixed, key=lambda arm: mixed[arm])
            rows.append([env, best, *(percent(mixed[best], means.get(over)) for over in ("adam", experiment.reference))])
        else:
            rows.append([env, NOT_RUN, "", ""])
        if theirs := published.get(env):
            rows.append(
                [env, "published", *(f"{theirs[over]:+.0f}%" if over in theirs else "-" for over in ("single", "pbt_adam"))]
            )
    notes = [
        "The best of several arms is chosen by the numbers that it is then compared by, as in the paper: it flatters the mixes.",
        *failures(evidence),
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
            mix = grid.settings_of(evidence.experiment, env, arm).get("mix", {})
            for kind in mix if len(mix) > 1 and runs else ():
                shares = evidence.shares(env, arm, kind)
                mean = statistics.bootstrap([shares], lambda scores: float(np.mean(scores[0])), 2_000)
                won = sum(record["winner"]["kind"] == kind for record in runs)
                slots = mix[kind] / sum(mix.values())
                rows.append([env, arm, kind, f"{slots:.0%}", between(mean, "{:.0%}", len(shares)), f"{won} of {len(runs)}"])
    notes = [
        "Share of intervals in which the winner's ancestors were trained by a kind: mean over runs, 95% bootstrap interval.",
        "Where kinds do not matter it is the kind's share of the slots, on average.",
    ]
    columns = ["environment", "arm", "kind", "of the slots", "of the winner's ancestors", "runs that it wins"]
    return Table("ancestors", "Who the winner descends from", notes, columns, rows)


def seconds(evidence: Evidence) -> Table:
    """What training took: processor and wall-clock seconds, median over runs."""
    rows = []
    for env, arms in evidence.found.items():
        for name, cost in COSTS.items():
            cells = []
            for runs in arms.values():
                spent = [seconds for record in runs if (seconds := cost(record)) is not None]
                cells.append(f"{np.median(spent):.1f}" if spent else NOT_RUN)
            rows.append([env, name, *cells])
    notes = [
        "Medians over runs, with acting, environments and evaluation, without the first interval, in which programs are "
        "compiled. Processor seconds add up all cores; a GPU's time is not in them.",
        "Runs that trained beside others took longer: only figures of a quiet machine can be compared.",
    ]
    return Table("seconds", "Seconds", notes, ["environment", "seconds", *next(iter(evidence.found.values()))], rows)


def per_updates(record: Record) -> float | None:
    """Return the processor seconds of ten thousand gradient steps of one member."""
    spent, updates = record["curve"]["processor_seconds"], record["curve"]["gradient_steps"]
    if len(spent) < 2 or spent[0] is None or spent[-1] is None or updates[-1] == updates[0]:
        return None
    return 10_000 * (spent[-1] - spent[0]) / (updates[-1] - updates[0])


def per_processor_interval(record: Record) -> float | None:
    """Return the processor seconds of an interval of the whole population."""
    spent = record["curve"]["processor_seconds"]
    if len(spent) < 2 or spent[0] is None or spent[-1] is None:
        return None
    return (spent[-1] - spent[0]) / (len(spent) - 1)


def per_interval(record: Record) -> float | None:
    """Return the wall-clock seconds of an interval of the whole population."""
    found = [sum(phases) for phases in zip(*record.get("seconds", {}).values(), strict=False)][1:]
    return float(np.median(found)) if found else None


COSTS: dict[str, Callable[[Record], float | None]] = {
    "processor, 10,000 gradient steps of a member": per_updates,
    "processor, an interval of the population": per_processor_interval,
    "wall clock, an interval of the population": per_interval,
}


MAKERS: dict[str, Callable[[Evidence], Table]] = {
    "returns": returns,
    "compared": compared,
    "improvements": improvements,
    "success": success,
    "ancestors": ancestors,
    "seconds": seconds,
}


# -------------------------------------------------------------------------------------------------------------- numbers


def spread(values: np.ndarray, runs: int) -> str:
    """Return mean, standard deviation and number of the runs that did not fail, and how many of all failed."""
    if not runs:
        return NOT_RUN
    failed = f"{runs - len(values)} failed"
    if not len(values):
        return failed
    deviation = f" ± {np.std(values, ddof=1):.0f}" if len(values) > 1 else ""
    return f"{np.mean(values):.0f}{deviation} ({len(values)})" + f", {failed}" * (len(values) < runs)


def middle(values: np.ndarray, runs: int) -> str:
    """Return the interquartile mean of the runs that did not fail, with its interval where there are several."""
    if len(values) < 2:
        return spread(values, runs)
    return between(statistics.bootstrap([values]), "{:.0f}") + f", {runs - len(values)} failed" * (len(values) < runs)


def failures(evidence: Evidence) -> list[str]:
    """Return what must be known of runs that failed, where there are any."""
    every = [evidence.returns(env, arm) for env, arms in evidence.found.items() for arm in arms]
    return [FAILED] if any(np.isinf(values).any() for values in every) else []


def between(interval: Interval, form: str, runs: int = 2) -> str:
    """Return an estimate with its interval, for which one run is not enough."""
    value, low, high = (form.format(x) for x in interval)
    return f"{value} [{low}, {high}]" if runs > 1 else value


def p(value: float) -> str:
    """Return a p value."""
    return "-" if math.isnan(value) else f"{value:.3f}" if value >= 0.001 else "< 0.001"


def least_corrected(value: float) -> list[str]:
    """Return the note that so few runs cannot have a smaller p value, corrected; none where it is below what is shown."""
    return [f"It cannot be less than {p(value)} with these runs, whatever they are."] if value >= 0.001 else []


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
