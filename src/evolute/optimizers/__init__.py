"""Optimizers by name: the one table from a kind to the functions that make it."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from evolute import limits
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
            "actor": {"learning_rate": 0.1, "damping": 0.1, "clip": 0.01, "statistics_every": 8, "inverse_every": 80},
            "critic": {"learning_rate": 0.1, "damping": 0.1, "clip": 0.02, "statistics_every": 8, "inverse_every": 80},
        },
    ),
    "kfac_empirical": CurvatureKind(
        kfac_empirical,
        KFACOptions,
        {
            "actor": {"learning_rate": 0.03, "damping": 0.1, "clip": 0.01},
            "critic": {"learning_rate": 0.03, "damping": 0.1, "clip": 0.02},
        },
    ),
}


def names() -> list[str]:
    """Return every optimizer name, the curvature methods first."""
    return [*CURVATURE_KINDS, *sorted(first_order.transformations())]


def networks_of(kind: str) -> tuple[str, str]:
    """Return the optimizer names of the actor and the critics of a kind: "kfac" means both, "adam/kfac" names them apart."""
    actor, _, critic = kind.partition("/")
    return actor, critic or actor


def has_damping(name: str) -> bool:
    """Return whether the optimizer has a damping."""
    return name in CURVATURE_KINDS


def check_name(name: str) -> None:
    """Raise UserError for an unknown optimizer."""
    if name not in CURVATURE_KINDS and name not in first_order.transformations():
        raise UserError(
            f"unknown optimizer {name!r}{closest(name, names())}; choose from {', '.join(CURVATURE_KINDS)} "
            "or any optimizer of optax with a learning rate, such as adam, adamw, sgd, rmsprop, muon."
        )


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
        resolved = {"learning_rate": learning_rate, **given}
        _check_rates(name, role, resolved)
        first_order.check(name, FirstOrderOptions.of(resolved))
        return resolved
    kind = CURVATURE_KINDS[name]
    fields = {f.name: f for f in dataclasses.fields(kind.options)}
    for option in given:
        if option not in fields:
            raise UserError(
                f"optimizers.{name} has no option {option!r}{closest(option, fields)}; choose from {', '.join(fields)}."
            )
    base = {n: f.default for n, f in fields.items() if f.default is not dataclasses.MISSING}
    resolved = {**base, **kind.defaults[role], **given}
    for option, value in resolved.items():
        expected = type(base[option]) if option in base else float
        if expected is float and isinstance(value, int) and not isinstance(value, bool):
            value = resolved[option] = float(value)
        if type(value) is not expected:
            raise UserError(
                f"optimizers.{name}.{role}.{option} is {value!r} ({type(value).__name__}); it must be of type "
                f"{expected.__name__}, such as {base.get(option, 0.1)!r}."
            )
    _check_rates(name, role, resolved)
    return resolved


def _check_rates(name: str, role: str, resolved: Mapping[str, Any]) -> None:
    where = f"optimizers.{name}.{role}"
    for option in ("learning_rate", "damping", "clip"):
        value = resolved.get(option)
        if value is None:
            continue
        if isinstance(value, bool) or not isinstance(value, int | float) or not value > 0:
            raise UserError(f"{where}.{option} is {value!r}; it must be a positive number, such as 0.001.")
        if option != "clip" and value == float("inf"):
            raise UserError(f"{where}.{option} is {value!r}; it must be finite, such as 0.001.")
    for option, value in resolved.items():
        if type(value) is int and value > limits.UPDATES:
            raise UserError(f"{where}.{option} is {value}; it must be at most {limits.UPDATES}, such as 20.")
    if name in CURVATURE_KINDS:
        for option in ("statistics_every", "inverse_every", "burn_in"):
            if option in resolved and resolved[option] < 1:
                raise UserError(f"{where}.{option} is {resolved[option]}; it must be at least 1.")
        if resolved.get("burn_in", 0) > limits.BURN_IN:
            raise UserError(f"{where}.burn_in is {resolved['burn_in']}; it must be at most {limits.BURN_IN}, such as 10.")
    for option in ("average", "momentum"):
        value = resolved.get(option)
        if name in CURVATURE_KINDS and value is not None and not 0 <= value < 1:
            raise UserError(f"{where}.{option} is {value!r}; it must be at least 0 and below 1, such as 0.9.")


def build(name: str, options: Mapping[str, Any]) -> Optimizer:
    """Return the optimizer of one network from its resolved options."""
    if name in CURVATURE_KINDS:
        kind = CURVATURE_KINDS[name]
        return kind.factory(kind.options(**options))
    return first_order.first_order(name, FirstOrderOptions.of(options))
