"""Settings on top of settings: a file on a preset, flags on a file, an algorithm's own on the run's."""

from collections.abc import Mapping
from typing import Any

from evolute.optimizers import ROLES


def merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Return `base` with `over` on top; tables are merged key by key, except a mix, which replaces the whole.

    An optimizer's option for both networks also replaces what lies below for each network, and a setting for the whole run
    what lies below for each algorithm.
    """
    merged = dict(base)
    if isinstance(tables := base.get("algorithms"), Mapping):
        merged["algorithms"] = {
            algorithm: less(table, over) if isinstance(table, Mapping) else table for algorithm, table in tables.items()
        }
    for name, value in over.items():
        old = merged.get(name)
        if isinstance(old, Mapping) and isinstance(value, Mapping) and name != "mix":
            value = merge(_uncovered(old, value), value)
        merged[name] = value
    return merged


def less(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """Return a table without the entries that `above` sets, too."""
    left: dict[str, Any] = {}
    for name, value in _uncovered(below, above).items():
        if name not in above:
            left[name] = value
        elif isinstance(value, Mapping) and isinstance(above[name], Mapping):
            left[name] = less(value, above[name])
    return left


def difference(table: Mapping[str, Any], common: Mapping[str, Any]) -> dict[str, Any]:
    """Return what `merge` has to put on `common` to get a table: the entries that `common` lacks or has otherwise."""
    found: dict[str, Any] = {}
    for name, value in table.items():
        other = common.get(name)
        if isinstance(value, Mapping) and isinstance(other, Mapping):
            value = difference(value, other)
            if not value:
                continue
        elif name in common and value == other:
            continue
        found[name] = value
    return found


def _uncovered(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Return an optimizer's options less those of a single network that `over` sets for both."""
    left = dict(base)
    for role in ROLES:
        if isinstance(own := left.get(role), Mapping):
            left[role] = {option: value for option, value in own.items() if option not in over}
    return left
