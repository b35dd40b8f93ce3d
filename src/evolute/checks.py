"""The checks of a run's settings against each other: what no setting can say of itself alone."""

import math
from typing import Any

from evolute import limits, options, schedule
from evolute.errors import UserError, closest
from evolute.hyperparameters import SETTINGS, Hyperparameters
from evolute.resolution import OF_ALGORITHMS, refuse
from evolute.structure import Structure, weights_within

# A run as config.py makes it, which imports this file.
Run = Any


def check(run: Run) -> None:
    """Raise UserError where settings do not fit each other; bounds and starts become what is meant by them."""
    _check_schedule(run)
    _check(run)
    _check_networks(run)
    _check_bounds(run)
    _check_initial(run)


def _check_schedule(run: Run) -> None:
    if (run.strategy == "replay") != bool(run.schedule):
        raise UserError(
            f"strategy is {run.strategy!r} and schedule is {'given' if run.schedule else 'empty'}; the strategy 'replay' follows "
            "a schedule, and no other does: `evolute replay` makes one of a run."
        )
    if run.schedule:
        full = schedule.completed(run)
        run.schedule.clear()
        run.schedule.update(full)
        taken = schedule.steps_taken(run, run.steps) if run.shrink == "both" else run.steps
        if taken <= run.learning_starts:
            raise UserError(
                f"the schedule takes {taken} steps, not more than the {run.learning_starts} of learning_starts, so nothing would "
                "be learnt; raise steps or lower learning_starts."
            )


def _check(run: Run) -> None:
    """Check what no setting can say of itself alone."""
    for kind in run.mix:
        batch_size = run.settings_of(kind)["batch_size"]
        if batch_size > run.buffer_size:
            raise UserError(
                f"batch_size is {batch_size}, more than the {run.buffer_size} transitions of the buffer; "
                "lower batch_size or raise buffer_size."
            )
    for kind, steps in run.steps_per_interval.items():
        if kind not in run.mix:
            raise UserError(
                f"steps_per_interval names {kind!r}, which is not in the mix{closest(kind, run.mix)}; "
                f"choose from {', '.join(run.mix)}."
            )
        if steps > run.interval:
            raise UserError(f"steps_per_interval.{kind} is {steps}; it must be at most the interval, {run.interval}.")
    for kind in run.mix if not run.schedule else ():
        share = run.steps_per_interval.get(kind, run.interval) / run.interval if run.shrink == "both" else 1.0
        if run.steps * share <= run.learning_starts:
            raise UserError(
                f"steps is {run.steps}{f', of which {kind} takes {run.steps * share:.0f}' if share < 1 else ''}, "
                f"not more than the {run.learning_starts} of learning_starts, so nothing would be learnt; "
                "raise steps or lower learning_starts."
            )
    # Each sub-population is ranked into quarters.
    parts = 4 * len(run.frequencies)
    if run.strategy == "mfpbt" and len(run.kinds) % parts:
        raise UserError(
            f"strategy is 'mfpbt' with {len(run.frequencies)} frequencies, and mix has {len(run.kinds)} members; their number "
            f"must be a multiple of {parts}, four times the frequencies."
        )
    for name in (*run.perturb, *run.bounds, *run.initial):
        if name not in Hyperparameters._fields:
            raise UserError(
                f"{name!r} is no hyperparameter{closest(name, Hyperparameters._fields)}; "
                f"choose from {', '.join(Hyperparameters._fields)}."
            )
    known = {name for kind in run.mix for name in run.settings_of(kind)}
    for setting in ("perturb", "bounds", "initial"):
        for name in getattr(run, setting):
            if name in OF_ALGORITHMS - known:
                refuse(f"{setting} names {name}", name)


def _check_networks(run: Run) -> None:
    for kind in run.mix:
        settings = run.settings_of(kind)
        structure = Structure.of(settings)
        if structure.network == "simba" and structure.layer_norm:
            raise UserError("layer_norm is true, which changes nothing in a simba network; leave it out.")
        for name in ("actor_layers", "critic_layers"):
            hidden = settings[name]
            if structure.network == "simba" and len(set(hidden)) > 1:
                raise UserError(
                    f"{name} is {options.shown(hidden)}, and network is 'simba'; it must be one width for each residual block, "
                    "all equal, such as 128 128."
                )
            if 1 in hidden and (structure.layer_norm or structure.network == "simba"):
                raise UserError(
                    f"{name} is {options.shown(hidden)}; a normalised layer must have at least 2 units, because one alone is "
                    "always 0, so raise it."
                )
            if weights_within(hidden, structure) > limits.WEIGHTS:
                raise UserError(
                    f"{name} is {options.shown(hidden)}, and network is 'simba', which makes "
                    f"{weights_within(hidden, structure):,} weights of it; it must be at most {limits.WEIGHTS:,}, so lower it."
                )


def _check_bounds(run: Run) -> None:
    for name, pair in run.bounds.items():
        whole, own = name == "batch_size", SETTINGS[name]
        ok = isinstance(pair, list | tuple) and len(pair) == 2 and all(type(x) in (int, float) for x in pair)
        if not ok or not 0 < pair[0] <= pair[1] < math.inf or (whole and any(x != int(x) for x in pair)):
            rule = "two positive whole numbers" if whole else "two positive numbers"
            example = "64, 512" if whole else "0.001, 0.1"
            raise UserError(f"bounds.{name} is {options.shown(pair)}; it must be {rule}, least first, such as {example}.")
        for bound in pair:
            options.checked(f"a bound of {name}", bound, int if whole else float, own)
        run.bounds[name] = (pair[0], pair[1])
    low, high = run.bounds_of("batch_size")
    if "batch_size" in run.perturb and high > run.buffer_size:
        # Exploration must not grow a batch beyond the buffer.
        low = low if "batch_size" in run.bounds else min(low, *(run.settings_of(kind)["batch_size"] for kind in run.mix))
        run.bounds["batch_size"] = (min(low, run.buffer_size), run.buffer_size)
    for kind in run.mix if len(run.kinds) > 1 else ():
        start = run.initial_hyperparameters(kind)
        for name in (name for name in run.perturbed(kind) if name not in run.initial):
            low, high = run.bounds_of(name)
            if not low <= getattr(start, name) <= high:
                raise UserError(
                    f"{name} of {kind} starts at {getattr(start, name):g}, outside its bounds {low:g} to {high:g}; "
                    f"change it or set bounds.{name}."
                )


def _check_initial(run: Run) -> None:
    for name, given in run.initial.items():
        whole, own = name == "batch_size", SETTINGS[name]
        ok = isinstance(given, list | tuple) and 2 <= len(given) <= limits.ENTRIES and all(type(x) in (int, float) for x in given)
        if not ok or not all(0 < x < math.inf for x in given) or (len(given) == 2 and given[0] > given[1]):
            raise UserError(
                f"initial.{name} is {options.shown(given)}; it must be two positive numbers, least first, or three or more to "
                f"choose from, such as {'64, 512' if whole else '0.0001, 0.01'}."
            )
        run.initial[name] = tuple(options.checked(f"a start of {name}", x, int if whole else float, own) for x in given)
        if not any(name in run.starts_of(kind) for kind in run.mix):
            raise UserError(f"initial.{name} is given, and no kind of the mix has it; leave it out or add one, such as kfac=1.")
        low, high = run.bounds_of(name)
        if name in run.perturb and len(run.kinds) > 1 and not low <= min(given) <= max(given) <= high:
            raise UserError(
                f"initial.{name} is {options.shown(tuple(given))}, outside its bounds {low:g} to {high:g}; change it or set "
                f"bounds.{name}."
            )
        if whole and max(given) > run.buffer_size:
            raise UserError(
                f"initial.batch_size goes up to {max(given)}, more than the {run.buffer_size} transitions of the buffer; "
                "lower it or raise buffer_size."
            )
