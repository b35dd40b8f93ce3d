"""The schedule of a run with one member: from which interval on it is of which kind, with which hyperparameters.

It is a table of a run's settings: the number of an interval, from 0, and what holds from it on.
"""

import itertools
import typing
from collections.abc import Mapping
from typing import Any

from evolute import limits, options
from evolute.errors import UserError, closest
from evolute.hyperparameters import SETTINGS, Hyperparameters

# A run as config.py makes it, which imports this file.
Run = Any
Schedule = Mapping[str, Mapping[str, Any]]


def completed(run: Run) -> dict[str, dict[str, Any]]:
    """Return a run's schedule with every hyperparameter in each entry, in order; raises UserError where it is none.

    What an entry leaves out is as in the one before; where the kind changes, as that kind starts in this run.
    """
    numbers = [_number(name) for name in run.schedule]
    if 0 not in numbers or len(set(numbers)) < len(numbers):
        raise UserError("schedule has no entry for interval 0, or one twice; begin with one, such as 0.kind=adam.")
    full: dict[str, dict[str, Any]] = {}
    kind, hyper = "", Hyperparameters(*[0] * len(Hyperparameters._fields))
    for name in sorted(run.schedule, key=int):
        entry = run.schedule[name]
        if not isinstance(entry, Mapping):
            raise UserError(
                f"schedule.{name} is {entry!r}; it must be a table of a kind and hyperparameters, such as kind = 'adam'."
            )
        new = entry.get("kind", kind)
        if type(new) is not str or new not in run.mix:
            raise UserError(f"schedule.{name}.kind is {new!r}, which is not in the mix; choose from {', '.join(run.mix)}.")
        start = hyper if new == kind else run.initial_hyperparameters(new)
        kind, hyper = new, start._replace(**_values(run, name, entry))
        if not 1 <= hyper.batch_size <= run.buffer_size:
            raise UserError(
                f"schedule.{name}.batch_size is {hyper.batch_size}; it must fit into the buffer of {run.buffer_size}."
            )
        full[str(int(name))] = {"kind": kind, **{key: value for key, value in hyper._asdict().items() if value}}
    if any(count > 1 for count in run.mix.values()) or {entry["kind"] for entry in full.values()} != set(run.mix):
        raise UserError(
            f"mix is {options.shown(dict(run.mix))}, and the strategy 'replay' trains one member, which is of each kind of the "
            "mix at some time; give each kind of the schedule once."
        )
    return full


def _number(name: str) -> int:
    if not (name.isdecimal() and name.isascii() and int(name) <= limits.RUN_STEPS):
        raise UserError(f"schedule has an entry {name!r}; it must be the number of an interval, such as 0.")
    return int(name)


def _values(run: Run, name: str, entry: Mapping[str, Any]) -> dict[str, Any]:
    known, hints = ("kind", *Hyperparameters._fields), typing.get_type_hints(Hyperparameters)
    for key in entry:
        if key not in known:
            raise UserError(f"schedule.{name} has no setting {key!r}{closest(key, known)}; choose from {', '.join(known)}.")
    return {
        key: options.checked(f"schedule.{name}.{key}", value, hints[key], SETTINGS[key])
        for key, value in entry.items()
        if key != "kind"
    }


def kind_at(schedule: Schedule, interval: int) -> str:
    """Return the kind in an interval, from 0."""
    return schedule[str(max(number for number in map(int, schedule) if number <= interval))]["kind"]


def hyperparameters(entry: Mapping[str, Any]) -> Hyperparameters:
    """Return the hyperparameters of an entry; what its kind does not have is zero."""
    return Hyperparameters(
        **{name: entry.get(name, 0) if name == "batch_size" else entry.get(name, 0.0) for name in Hyperparameters._fields}
    )


def steps_taken(run: Run, clock: int) -> int:
    """Return how many environment steps a run's one member takes in so many of the run's clock."""
    intervals, rest = divmod(clock, run.interval)
    whole = sum(count * run.interval_steps(kind, run.interval) for kind, count in stretches(run.schedule, intervals))
    return whole + run.interval_steps(kind_at(run.schedule, intervals), rest)


def stretches(schedule: Schedule, intervals: int) -> list[tuple[str, int]]:
    """Return the kinds of so many intervals in turn, each with how many of them it lasts."""
    starts = sorted(number for number in map(int, schedule) if number < intervals)
    return [(schedule[str(start)]["kind"], end - start) for start, end in itertools.pairwise([*starts, intervals])]
