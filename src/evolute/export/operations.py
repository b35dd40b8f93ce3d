"""A policy as a list of operations, which is what exporters translate.

An operation that a network gets is a record here and a case in each exporter that can express it; the others refuse it.
"""

from collections.abc import Callable
from typing import NamedTuple, NoReturn

import numpy as np

from evolute.errors import UserError
from evolute.policy import LARGEST_SCALED, Policy
from evolute.structure import EPSILON

# How far an exported action may be from the policy's, as a share of half the distance of its bounds.
TOLERANCE = 1e-5
# Observations that an export is tried on.
TRIALS = 1_000


class Scale(NamedTuple):
    """(x - mean) * factor, clipped at ±limit."""

    mean: np.ndarray  # [O] float32
    factor: np.ndarray  # [O] float32
    limit: float


class Affine(NamedTuple):
    """X w + b."""

    w: np.ndarray  # [i, o] float32
    b: np.ndarray  # [o] float32


class Relu(NamedTuple):
    """The larger of x and 0."""


class Tanh(NamedTuple):
    """The hyperbolic tangent of x."""


class Elu(NamedTuple):
    """X where it is positive, exp(x) - 1 elsewhere."""


class Normalise(NamedTuple):
    """Layer normalisation without parameters: less its mean over the units, over the root of their variance plus epsilon."""

    units: int
    epsilon: float


class Residual(NamedTuple):
    """X plus what the operations make of it."""

    operations: tuple["Operation", ...]


class Units(NamedTuple):
    """From [-1, 1] to the bounds, in double precision; the result is within them and of their type."""

    low: np.ndarray  # [A]
    high: np.ndarray  # [A]


Operation = Scale | Affine | Relu | Tanh | Elu | Normalise | Residual | Units
# Of hidden units.
ACTIVATIONS: dict[str, Relu | Tanh | Elu] = {"relu": Relu(), "tanh": Tanh(), "elu": Elu()}


def operations_of(policy: Policy) -> list[Operation]:
    """Return what a policy does to an observation [O] in single precision, in order."""
    found: list[Operation] = [] if policy.scaling is None else [Scale(*policy.scaling, LARGEST_SCALED)]
    network, activation, layer_norm = policy.structure
    activate = ACTIVATIONS[activation]
    *hidden, last = (Affine(*pair) for pair in policy.weights)
    if network == "simba":
        normalise = Normalise(len(hidden[0].b), EPSILON)
        found.append(hidden[0])
        found += [Residual((normalise, wide, activate, narrow)) for wide, narrow in zip(hidden[1::2], hidden[2::2], strict=True)]
        found.append(normalise)
    else:
        for layer in hidden:
            found += [layer, *([Normalise(len(layer.b), EPSILON)] if layer_norm else []), activate]
    return [*found, last, Tanh(), Units(policy.low, policy.high)]


def refuse(operation: Operation, target: str) -> NoReturn:
    """Raise UserError: a target has no such operation."""
    raise UserError(f"--to {target} cannot express a network with {type(operation).__name__}; choose another target.")


def observations_for(policy: Policy) -> np.ndarray:
    """Return observations [N, O] to try a policy on: about as far apart as those that it saw, and some far outside."""
    rng = np.random.default_rng(0)
    normal = rng.standard_normal((TRIALS, len(policy.weights[0][0])), np.float32)
    normal[TRIALS // 2 :] *= 10.0
    return normal if policy.scaling is None else normal / policy.scaling.factor + policy.scaling.mean


def difference(policy: Policy, act: Callable[[np.ndarray], np.ndarray], target: str) -> float:
    """Return how far actions are from the policy's at most, as a share of half the distance of their bounds.

    Args:
        policy: what was exported.
        act: observations [N, O] to actions [N, A], or of any shape with as many numbers.
        target: what it was exported to.

    Raises:
        UserError: they differ by more than the tolerance and the rounding of the actions' type.
    """
    observations = observations_for(policy)
    expected = policy(observations).astype(np.float64)
    actions = np.asarray(act(observations)).reshape(expected.shape).astype(np.float64)
    low, high = policy.low.astype(np.float64), policy.high.astype(np.float64)
    half = np.maximum(0.5 * high - 0.5 * low, np.finfo(np.float64).tiny)
    rounding = float(np.finfo(policy.low.dtype).eps) * np.maximum(abs(low), abs(high))
    apart = abs(actions - expected)
    if not (apart <= TOLERANCE * half + rounding).all():
        raise UserError(
            f"--to {target} gives other actions than the policy, up to {(apart / half).max():.1g} of half their range apart; "
            "choose another target."
        )
    return float((apart / half).max())
