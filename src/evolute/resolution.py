"""Which settings hold for which algorithm: what is given for it alone, else what is given for the run, else its preset's."""

import dataclasses
import typing
from collections.abc import Mapping, Sequence
from typing import Any

from evolute import kinds, optimizers, options
from evolute.errors import UserError, closest
from evolute.options import Setting
from evolute.overlay import difference, merge
from evolute.presets import ALGORITHMS

# What belongs to an algorithm: members of others may have another value of it, or none.
OF_ALGORITHMS = frozenset(name for names in ALGORITHMS.values() for name in names)


def resolve(
    record: type, mix: Sequence[str], given: Mapping[str, Any], presets: Mapping[str, Mapping[str, Any]]
) -> dict[str, Any]:
    """Return all settings of a run by name, checked.

    A setting that is not given is that of the first algorithm of the mix that has it, and `algorithms` holds what is another one
    for an algorithm. A setting that no algorithm of the mix has is None. The same comes of what comes out.

    Args:
        record: what a run is: its fields are declared by `setting`.
        mix: the kinds, each once.
        given: settings by name, without those that are left out.
        presets: of each algorithm of the mix, in its order.

    Raises:
        UserError: a value is missing, of another type, or breaks its rule, or nobody has the setting.
    """
    usual: dict[str, Any] = {}
    for algorithm, preset in presets.items():
        usual = {name: x for name, x in preset.items() if name not in OF_ALGORITHMS or name in ALGORITHMS[algorithm]} | usual
    absent = OF_ALGORITHMS - usual.keys()
    for name in absent & given.keys():
        refuse(f"{name} is {options.shown(given[name])}", name)
    common: dict[str, Any] = {
        **options.completed(record, {**usual, **given}, without=absent),
        **dict.fromkeys(absent),
    }
    tables = own_tables(common["algorithms"], list(presets))
    of_run = common["optimizers"]
    used = {algorithm: optimizers_of(mix, algorithm) for algorithm in presets}
    common["optimizers"] = {}
    for algorithm, preset in presets.items():
        rates = preset["learning_rate"]
        theirs = {name: table for name, table in of_run.items() if name in used[algorithm]}
        resolved = optimizers.resolve(used[algorithm], theirs, rates)
        common["optimizers"] |= {name: table for name, table in resolved.items() if name not in common["optimizers"]}
    others = {name: table for name, table in of_run.items() if name not in common["optimizers"]}
    common["optimizers"] |= optimizers.resolve([], others, next(iter(presets.values()))["learning_rate"])
    common["algorithms"] = {}
    for algorithm, preset in presets.items():
        table = tables.get(algorithm, {})
        own = own_settings(record, algorithm, table, {name: common[name] for name in given if name in OF_ALGORITHMS}, preset)
        theirs = own_optimizers(algorithm, table.get("optimizers", {}), of_run, used[algorithm], preset["learning_rate"])
        if differs := difference(own | {"optimizers": theirs}, common):
            common["algorithms"][algorithm] = differs
    return common


def refuse(said: str, name: str) -> typing.NoReturn:
    """Raise UserError, which begins with what was said, because no algorithm of the mix has a setting."""
    other = next(algorithm for algorithm, names in ALGORITHMS.items() if name in names)
    raise UserError(f"{said}, and no algorithm of the mix has it; leave it out or add one, such as {other}:adam=1.")


def own_tables(given: Mapping[str, Any], used: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Return each algorithm's own settings as they are given; raises UserError for one that is unknown."""
    for algorithm, table in given.items():
        if algorithm not in used:
            raise UserError(
                f"algorithms names {algorithm!r}, which is not in the mix{closest(algorithm, used)}; "
                f"choose from {', '.join(used)}."
            )
        if not isinstance(table, Mapping):
            raise UserError(f"algorithms.{algorithm} is {table!r}; it must be a table of settings, such as discount = 0.99.")
        known = (*ALGORITHMS[algorithm], "optimizers")
        for name in table:
            if name not in known:
                raise UserError(
                    f"algorithms.{algorithm} has no setting {name!r}{closest(name, known)}; choose from {', '.join(known)}."
                )
    return {algorithm: dict(table) for algorithm, table in given.items()}


def own_settings(
    record: type, algorithm: str, table: Mapping[str, Any], given: Mapping[str, Any], preset: Mapping[str, Any]
) -> dict[str, Any]:
    """Return all settings of an algorithm but its optimizers' options."""
    hints, fields = typing.get_type_hints(record), {field.name: field for field in dataclasses.fields(record)}
    found = {}
    for name in ALGORITHMS[algorithm]:
        found[name] = given.get(name, preset[name])
        if name in table:
            # The command line has no list of one number.
            listed = typing.get_origin(hints[name]) is tuple and not isinstance(table[name], list | tuple)
            value = (table[name],) if listed else table[name]
            found[name] = options.checked(f"algorithms.{algorithm}.{name}", value, hints[name], Setting.of(fields[name]))
    return found


def own_optimizers(
    algorithm: str, table: Any, of_run: Mapping[str, Any], used: Sequence[str], rates: Mapping[str, float]
) -> dict[str, Any]:
    """Return the full options of an algorithm's optimizers, by name and by network."""
    if not isinstance(table, Mapping):
        raise UserError(f"algorithms.{algorithm}.optimizers is {table!r}; it must be a table of optimizers.")
    for name in table:
        if name not in used:
            raise UserError(
                f"algorithms.{algorithm}.optimizers names {name!r}, which no kind of {algorithm} in the mix has"
                f"{closest(name, used)}; choose from {', '.join(used)}."
            )
    given = {name: own for name, own in of_run.items() if name in used}
    try:
        return optimizers.resolve(used, merge(given, table), rates)
    except UserError as mistake:
        raise UserError(f"for {algorithm}, {mistake}") from None


def optimizers_of(mix: Sequence[str], algorithm: str) -> list[str]:
    """Return the names of the optimizers that an algorithm's kinds have, each once."""
    found = [kinds.of(kind) for kind in mix]
    return list(dict.fromkeys(name for kind in found if kind.algorithm == algorithm for name in (kind.actor, kind.critic)))
