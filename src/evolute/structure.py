"""How a network computes, apart from its parameters: one definition for JAX and for NumPy alone.

A network of any structure is a chain of linear layers; what lies between them has no parameters. docs/maths.md, E5 to E5d.
"""

import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from evolute import limits

NETWORKS = ("mlp", "simba")
ACTIVATIONS = ("relu", "tanh", "elu")
# Hidden units of a residual block, for each of its outputs.
EXPANSION = 4
# Keeps a layer normalisation finite where all units are equal.
EPSILON = 1e-6


class Structure(NamedTuple):
    """What is fixed of a network beside its sizes; the fields are settings of an algorithm by the same names."""

    network: str = "mlp"
    activation: str = "relu"
    layer_norm: bool = False

    @classmethod
    def of(cls, settings: Mapping[str, Any]) -> "Structure":
        """Return what settings by name say."""
        return cls(**{name: settings[name] for name in cls._fields})

    def __str__(self) -> str:
        norm = ["layer norm"] if self.layer_norm else []
        return " with ".join([self.network, " and ".join([self.activation, *norm])])


PLAIN = Structure()


def sizes(inputs: int, hidden: Sequence[int], outputs: int, structure: Structure) -> list[int]:
    """Return the sizes of a network's chain of linear layers, [input, ..., output].

    Args:
        inputs: numbers that the network sees.
        hidden: units of each hidden layer; of a simba network the width, once for each residual block.
        outputs: numbers that it returns.
        structure: how it computes.
    """
    if structure.network == "simba":
        hidden = [hidden[0], *(units for width in hidden for units in (EXPANSION * width, width))]
    return [inputs, *hidden, outputs]


def is_chain(chain: Sequence[int], structure: Structure) -> bool:
    """Return whether sizes [input, ..., output] are those of some network of a structure, with an output and within limits."""
    hidden = chain[1:-1]
    if structure.network == "mlp":
        return 0 <= len(hidden) <= limits.LAYERS and not (structure.layer_norm and 1 in hidden)
    blocks = len(hidden) // 2
    if not 0 < blocks <= limits.LAYERS or hidden[0] == 1:
        return False
    return list(chain) == sizes(chain[0], [hidden[0]] * blocks, chain[-1], structure)


def weights_within(hidden: Sequence[int], structure: Structure) -> int:
    """Return how many weights lie between the hidden layers of a network."""
    return sum(i * o for i, o in itertools.pairwise(sizes(1, hidden, 1, structure)[1:-1]))


def compute(
    structure: Structure,
    layers: int,
    x: Any,
    linear: Callable[[int, Any], Any],
    activate: Callable[[Any], Any],
    root: Callable[[Any], Any],
) -> Any:
    """Return the output of a network.

    Args:
        structure: how it computes.
        layers: how many linear layers it has.
        x: what it sees [..., i].
        linear: (n, input of the n-th linear layer) -> its pre-activation.
        activate: pre-activation -> hidden units.
        root: square root.
    """

    def normalise(z: Any) -> Any:
        centred = z - z.mean(-1, keepdims=True)
        return centred / root((centred**2).mean(-1, keepdims=True) + EPSILON)

    last = layers - 1
    if structure.network == "simba":
        x = linear(0, x)
        for n in range(1, last, 2):
            x = x + linear(n + 1, activate(linear(n, normalise(x))))
        return linear(last, normalise(x))
    for n in range(last):
        z = linear(n, x)
        x = activate(normalise(z) if structure.layer_norm else z)
    return linear(last, x)


# ---------------------------------------------------------------------------------------------------------- with NumPy

IN_NUMPY: Mapping[str, Callable[[np.ndarray], np.ndarray]] = {
    "relu": lambda z: np.maximum(z, 0.0),
    "tanh": np.tanh,
    "elu": lambda z: np.where(z > 0, z, np.expm1(np.minimum(z, 0.0))),
}
# The derivative of each, from the hidden unit's own value; NaN counts as a slope.
SLOPES: Mapping[str, Callable[[np.ndarray], np.ndarray]] = {
    "relu": lambda a: np.where(a == 0, 0.0, 1.0),
    "tanh": lambda a: 1.0 - a**2,
    "elu": lambda a: np.where(a > 0, 1.0, a + 1.0),
}


def output(weights: Sequence[Sequence[np.ndarray]], x: np.ndarray, structure: Structure) -> np.ndarray:
    """Return the output [..., o] of a network of NumPy arrays, (w [i, o], b [o]) for each linear layer, for inputs [..., i]."""
    return _computed(weights, x, structure)[0]


def hidden_units(weights: Sequence[Sequence[np.ndarray]], x: np.ndarray, structure: Structure) -> list[np.ndarray]:
    """Return the hidden units [..., o] of each activation, in order, as `output` computes them."""
    return _computed(weights, x, structure)[1]


def _computed(weights: Sequence[Sequence[np.ndarray]], x: np.ndarray, structure: Structure) -> tuple[Any, list[np.ndarray]]:
    units: list[np.ndarray] = []

    def linear(n: int, a: np.ndarray) -> np.ndarray:
        w, b = weights[n]
        return a @ w + b

    def activate(z: np.ndarray) -> np.ndarray:
        units.append(IN_NUMPY[structure.activation](z))
        return units[-1]

    return compute(structure, len(weights), x, linear, activate, np.sqrt), units
