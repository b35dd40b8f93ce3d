"""Kinds by name, `[ALGORITHM:]ACTOR[/CRITIC]`: what a slot learns by, and the optimizers of its networks."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from evolute import optimizers
from evolute.errors import UserError, closest
from evolute.presets import ALGORITHMS

# What a kind without a prefix learns by.
USUAL = "td3"


class Kind(NamedTuple):
    """A kind's parts: names of an algorithm and of optimizers."""

    algorithm: str
    actor: str
    critic: str


def of(kind: str) -> Kind:
    """Return a kind's parts: "kfac" is TD3 with one optimizer for all networks, "sac:adam/kfac" names them apart."""
    algorithm, colon, rest = kind.rpartition(":")
    actor, _, critic = rest.partition("/")
    return Kind(algorithm if colon else USUAL, actor, critic or actor)


def plain(kind: str) -> str:
    """Return a kind as it is written everywhere: without the prefix that it has anyway."""
    rest = kind.removeprefix(f"{USUAL}:")
    return kind if ":" in rest else rest


def check(kind: str) -> None:
    """Raise UserError unless a kind names an algorithm, or none, and one optimizer or two."""
    algorithm, colon, rest = kind.rpartition(":")
    if colon and algorithm not in ALGORITHMS:
        raise UserError(
            f"mix has the kind {kind!r}, and {algorithm!r} is no algorithm{closest(algorithm, ALGORITHMS)}; choose from "
            f"{', '.join(ALGORITHMS)}, such as sac:adam."
        )
    parts = rest.split("/")
    if len(parts) > 2 or not all(parts):
        raise UserError(
            f"mix has the kind {kind!r}; it must be OPTIMIZER or ACTOR/CRITIC, such as kfac or adam/kfac, with an algorithm in "
            "front where that is not TD3, such as sac:adam."
        )
    for name in parts:
        optimizers.check_name(name)


def by_plain_name(name: str, table: Mapping[str, Any]) -> dict[str, Any]:
    """Return a table by kind with its kinds as they are written everywhere; raises UserError where one stands there twice.

    Args:
        name: of the setting.
        table: what it holds.
    """
    found: dict[str, Any] = {}
    for kind, value in table.items():
        if plain(kind) in found:
            raise UserError(f"{name} has {plain(kind)!r} and {USUAL}:{plain(kind)}, which are one kind; give it once.")
        found[plain(kind)] = value
    return found
