"""Networks as plain functions of their parameters, and the tape that curvature methods read.

Axes: B samples, i inputs and o outputs of a layer. The output is linear, and whoever needs a bounded output (the actor) applies
tanh itself. What lies between the linear layers is in structure.py. docs/maths.md, E5.
"""

import itertools
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from evolute.structure import PLAIN, Structure, compute

ACTIVATIONS = {"relu": jax.nn.relu, "tanh": jnp.tanh, "elu": jax.nn.elu}


class Layer(NamedTuple):
    """One affine layer, z = a w + b."""

    w: jax.Array  # [i, o]
    b: jax.Array  # [o]


# The linear layers of a network of any structure, in the order in which it computes them.
MLP = tuple[Layer, ...]
# A cotangent of the output [B, o] -> the same pulled back to every linear layer's pre-activation, each [B, o_l].
PullBack = Callable[[jax.Array], tuple[jax.Array, ...]]


def init(rng: np.random.Generator, sizes: Sequence[int], structure: Structure = PLAIN) -> MLP:
    """Return a network with the given sizes of its linear layers [input, hidden..., output], as host arrays.

    An MLP's weights and biases are uniform in ±1/sqrt(fan-in): PyTorch's default, which CleanRL and SB3 train from. A simba
    network's are as in Lee et al. 2024: orthogonal, in the blocks normal with variance 2/fan-in, and biases zero. The generator
    is consumed.
    """

    def uniform(n: int, i: int, o: int) -> tuple[np.ndarray, np.ndarray]:
        del n
        bound = i**-0.5
        return rng.uniform(-bound, bound, (i, o)), rng.uniform(-bound, bound, o)

    def simba(n: int, i: int, o: int) -> tuple[np.ndarray, np.ndarray]:
        draw = rng.normal(size=(i, o))
        return orthogonal(draw) if n in (0, len(sizes) - 2) else draw * (2 / i) ** 0.5, np.zeros(o)

    draw = simba if structure.network == "simba" else uniform
    drawn = [draw(n, i, o) for n, (i, o) in enumerate(itertools.pairwise(sizes))]
    return tuple(Layer(w.astype(np.float32), b.astype(np.float32)) for w, b in drawn)  # type: ignore[arg-type]


def orthogonal(normal: np.ndarray) -> np.ndarray:
    """Return a matrix of orthonormal rows or columns, whichever are fewer, drawn evenly, from one of normal numbers [i, o]."""
    i, o = normal.shape
    q, r = np.linalg.qr(normal if i >= o else normal.T)
    q = q * np.sign(np.diag(r))
    return q if i >= o else q.T


def product(a: jax.Array, b: jax.Array) -> jax.Array:
    """Return the matrix product a b in the precision of JAX's `default_matmul_precision`; sums are float32 in any."""
    if jax.config.jax_default_matmul_precision == "bfloat16":  # pyright: ignore[reportAttributeAccessIssue]
        # XLA may ignore that setting: on a CPU only narrow factors make narrow products.
        return jnp.matmul(a.astype(jnp.bfloat16), b.astype(jnp.bfloat16), preferred_element_type=a.dtype)
    return jnp.matmul(a, b)


def apply(mlp: MLP, x: jax.Array, structure: Structure = PLAIN) -> jax.Array:
    """Return the output [B, o] for inputs [B, i]."""
    return compute(
        structure, len(mlp), x, lambda n, a: product(a, mlp[n].w) + mlp[n].b, ACTIVATIONS[structure.activation], jnp.sqrt
    )


def taped(mlp: MLP, x: jax.Array, structure: Structure = PLAIN) -> tuple[jax.Array, tuple[jax.Array, ...], PullBack]:
    """Return the output [B, o], the input of every linear layer, each [B, i], and what pulls cotangents back (maths.md E5).

    Zeros are added to every pre-activation: a cotangent pulled back to there is the derivative in them, whatever comes after.
    A rectified MLP needs none: written out, its program is rounded as it has always been.
    """
    if structure == PLAIN:
        inputs = [x]
        for layer in mlp[:-1]:
            inputs.append(jax.nn.relu(product(inputs[-1], layer.w) + layer.b))
        output = product(inputs[-1], mlp[-1].w) + mlp[-1].b
        return output, tuple(inputs), lambda cotangent: _rectified(mlp, inputs, cotangent)

    def tapped(taps: tuple[jax.Array, ...]) -> tuple[jax.Array, tuple[jax.Array, ...]]:
        inputs = []

        def linear(n: int, a: jax.Array) -> jax.Array:
            inputs.append(a)
            return _product(a, mlp[n].w) + mlp[n].b + taps[n]

        return compute(structure, len(mlp), x, linear, ACTIVATIONS[structure.activation], jnp.sqrt), tuple(inputs)

    zeros = tuple(jnp.zeros((*x.shape[:-1], layer.b.shape[-1]), x.dtype) for layer in mlp)
    output, back, inputs = jax.vjp(tapped, zeros, has_aux=True)
    return output, inputs, lambda cotangent: back(cotangent)[0]


def _rectified(mlp: MLP, inputs: Sequence[jax.Array], cotangent: jax.Array) -> tuple[jax.Array, ...]:
    """Pull a cotangent of a rectified MLP's output [B, o] back to every layer's pre-activation, each [B, o_l]."""
    pulled = [cotangent]
    for layer, x in zip(mlp[:0:-1], inputs[:0:-1], strict=True):
        # The next layer's input is the rectified pre-activation: positive exactly where the derivative is one.
        pulled.append(jnp.where(x > 0, product(pulled[-1], layer.w.T), 0.0))
    return tuple(reversed(pulled))


# JAX would differentiate a narrow product with a cotangent that is not narrow.
_product = jax.custom_vjp(product)
_product.defvjp(lambda a, b: (product(a, b), (a, b)), lambda ab, g: (product(g, ab[1].T), product(ab[0].T, g)))


def to_input(mlp: MLP, pulled: tuple[jax.Array, ...]) -> jax.Array:
    """Return a cotangent that was pulled back to every pre-activation, pulled back to the network's input [B, i]."""
    return product(pulled[0], mlp[0].w.T)


def gradients(inputs: tuple[jax.Array, ...], pulled: tuple[jax.Array, ...], weights: jax.Array) -> MLP:
    """Return Σ_n weights_n ā_n g_nᵀ for every layer: the gradient when `pulled` holds the losses' cotangents (E5)."""
    weighted = [g * weights[:, None] for g in pulled]
    return tuple(Layer(product(x.T, g), g.sum(0)) for x, g in zip(inputs, weighted, strict=True))
