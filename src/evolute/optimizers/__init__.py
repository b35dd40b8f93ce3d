"""Optimizers by name: the one table from a kind to the functions that make it."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from evolute import options
from evolute.errors import UserError, closest
from evolute.optimizers import first_order
from evolute.optimizers.base import Contained as Contained
from evolute.optimizers.base import Optimizer as Optimizer
from evolute.optimizers.base import Rates as Rates
from evolute.optimizers.base import Tape as Tape
from evolute.optimizers.base import nothing_contained as nothing_contained
from evolute.optimizers.diag_ggn import DiagGGNOptions, diag_ggn
from evolute.optimizers.first_order import FirstOrderOptions
from evolute.optimizers.kfac import KFACOptions, kfac, kfac_empirical
from evolute.options import Setting

ROLES = ("actor", "critic")


class CurvatureKind(NamedTuple):
    """A second-order optimizer: its factory, its options and their defaults by network."""

    factory: Callable[[Any], Optimizer]
    options: type
    defaults: Mapping[str, Mapping[str, Any]]


# Defaults: chosen by the grid in results/optimizer_grid.md; kfac's cadence by results/cadence.md.
CURVATURE_KINDS: dict[str, CurvatureKind] = {
    "diag_ggn": CurvatureKind(
        diag_ggn,
        DiagGGNOptions,
        {
            "actor": {"learning_rate": 0.001, "damping": 0.1},
            "critic": {"learning_rate": 0.001, "damping": 0.1},
        },
    ),
    "kfac": CurvatureKind(
        kfac,
        KFACOptions,
        {
            "actor": {"learning_rate": 0.1, "damping": 0.1, "clip": 0.05, "statistics_every": 8, "inverse_every": 80},
            "critic": {"learning_rate": 0.1, "damping": 0.1, "clip": 0.05, "statistics_every": 8, "inverse_every": 80},
        },
    ),
    "kfac_empirical": CurvatureKind(
        kfac_empirical,
        KFACOptions,
        {
            "actor": {"learning_rate": 0.03, "damping": 0.1, "clip": 0.1},
            "critic": {"learning_rate": 0.03, "damping": 0.1, "clip": 0.2},
        },
    ),
}


def names() -> list[str]:
    """Return every optimizer name, the curvature methods first."""
    return [*CURVATURE_KINDS, *sorted(first_order.transformations())]


def has_damping(name: str) -> bool:
    """Return whether the optimizer has a damping."""
    return name in CURVATURE_KINDS and "damping" in _declared(name)


def check_name(name: str) -> None:
    """Raise UserError for an unknown optimizer."""
    if name not in CURVATURE_KINDS and name not in first_order.transformations():
        raise UserError(
            f"unknown optimizer {name!r}{closest(name, names())}; choose from {', '.join(CURVATURE_KINDS)} "
            "or any optimizer of optax with a learning rate, such as adam, adamw, sgd, rmsprop, muon."
        )


def resolve(used: Sequence[str], given: Mapping[str, Any], learning_rates: Mapping[str, float]) -> dict[str, Any]:
    """Return the full options of optimizers, by name and by network; raises UserError where one is wrong.

    Args:
        used: names of optimizers.
        given: what the user set, by optimizer: options for both networks, and tables "actor" and "critic" of a single one's.
            Optimizers that are not in `used` are resolved, too.
        learning_rates: the defaults for first-order optimizers, by network.
    """
    resolved: dict[str, Any] = {}
    for name in {**dict.fromkeys(used), **given}:
        check_name(name)
        table = given.get(name, {})
        if not isinstance(table, Mapping):
            raise UserError(f"optimizers.{name} is {table!r}; it must be a table of options, such as learning_rate = 0.001.")
        shared = {option: value for option, value in table.items() if option not in ROLES}
        own = {role: table.get(role, {}) for role in ROLES}
        for role, options_of_role in own.items():
            if not isinstance(options_of_role, Mapping):
                raise UserError(f"optimizers.{name}.{role} is {options_of_role!r}; it must be a table of options.")
        resolved[name] = {}
        for role, other in zip(ROLES, reversed(ROLES), strict=True):
            # What means something for one network alone is that network's where it is set for both, in whatever spelling.
            foreign = {option for option, setting in _declared(name).items() if setting.only == other}
            both = {option: value for option, value in shared.items() if option not in foreign}
            single = {o: value for o, value in own[role].items() if o not in foreign or value != own[other].get(o)}
            resolved[name][role] = resolve_options(name, role, {**both, **single}, learning_rates[role])
    return resolved


def resolve_options(name: str, role: str, given: Mapping[str, Any], learning_rate: float) -> dict[str, Any]:
    """Return the full options of one network's optimizer.

    Args:
        name: the optimizer.
        role: "actor" or "critic".
        given: what the user set, by option name.
        learning_rate: the default for first-order optimizers.
    """
    check_name(name)
    if name not in CURVATURE_KINDS:
        return first_order.resolve(name, role, {"learning_rate": learning_rate, **given})
    kind, declared = CURVATURE_KINDS[name], _declared(name)
    for option in given:
        if option not in declared:
            raise UserError(
                f"optimizers.{name} has no option {option!r}{closest(option, declared)}; choose from {', '.join(declared)}."
            )
    plain = options.completed(kind.options, kind.defaults[role])
    values = options.completed(kind.options, {**plain, **given}, f"optimizers.{name}.{role}.")
    for option, setting in declared.items():
        if setting.only not in ("", role) and values.pop(option) != plain[option]:
            raise UserError(
                f"optimizers.{name}.{role}.{option} is {given[option]}, which changes nothing; "
                f"set optimizers.{name}.{setting.only}.{option}."
            )
    return values


def _declared(name: str) -> dict[str, Setting]:
    """Return what a curvature optimizer's options declare, by name; nothing for an optimizer of optax."""
    fields = dataclasses.fields(CURVATURE_KINDS[name].options) if name in CURVATURE_KINDS else ()
    return {field.name: Setting.of(field) for field in fields}


def build(name: str, resolved: Mapping[str, Any]) -> Optimizer:
    """Return the optimizer of one network from its resolved options."""
    if name in CURVATURE_KINDS:
        kind = CURVATURE_KINDS[name]
        return kind.factory(kind.options(**resolved))
    return first_order.first_order(name, FirstOrderOptions.of(resolved))
