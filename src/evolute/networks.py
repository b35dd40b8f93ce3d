"""Multilayer perceptrons as plain functions of their parameters, and the tape that curvature methods read.

Axes: B samples, i inputs and o outputs of a layer. Hidden units are rectified; the output is linear, and whoever needs a bounded
output (the actor) applies tanh itself. docs/maths.md, E5.
"""

import itertools
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np


class Layer(NamedTuple):
    """One affine layer, z = a w + b."""

    w: jax.Array  # [i, o]
    b: jax.Array  # [o]


MLP = tuple[Layer, ...]


def init(rng: np.random.Generator, sizes: Sequence[int]) -> MLP:
    """Return an MLP with the given layer sizes [input, hidden..., output], as host arrays.

    Weights and biases are uniform in ±1/sqrt(fan-in): PyTorch's default, which CleanRL and SB3 train from. The generator is
    consumed.
    """

    def layer(i: int, o: int) -> Layer:
        bound = i**-0.5
        w, b = rng.uniform(-bound, bound, (i, o)), rng.uniform(-bound, bound, o)
        return Layer(w.astype(np.float32), b.astype(np.float32))  # type: ignore[arg-type]

    return tuple(layer(i, o) for i, o in itertools.pairwise(sizes))


def product(a: jax.Array, b: jax.Array) -> jax.Array:
    """Return the matrix product a b in the precision of JAX's `default_matmul_precision`; sums are float32 in any."""
    if jax.config.jax_default_matmul_precision == "bfloat16":  # pyright: ignore[reportAttributeAccessIssue]
        # XLA may ignore that setting: on a CPU only narrow factors make narrow products.
        return jnp.matmul(a.astype(jnp.bfloat16), b.astype(jnp.bfloat16), preferred_element_type=a.dtype)
    return jnp.matmul(a, b)


def forward(mlp: MLP, x: jax.Array) -> tuple[jax.Array, tuple[jax.Array, ...]]:
    """Return the output [B, o] and the input of every layer, each [B, i]."""
    inputs = []
    for n, layer in enumerate(mlp):
        inputs.append(x)
        x = product(x, layer.w) + layer.b
        if n < len(mlp) - 1:
            x = jax.nn.relu(x)
    return x, tuple(inputs)


def apply(mlp: MLP, x: jax.Array) -> jax.Array:
    """Return the output [B, o] for inputs [B, i]."""
    return forward(mlp, x)[0]


def pull_back(mlp: MLP, inputs: tuple[jax.Array, ...], cotangent: jax.Array) -> tuple[jax.Array, ...]:
    """Pull a cotangent of the output [B, o] back to every layer's pre-activation, each [B, o_l] (maths.md E5)."""
    pulled = [cotangent]
    for layer, x in zip(mlp[:0:-1], inputs[:0:-1], strict=True):
        # The next layer's input is the rectified pre-activation: positive exactly where the derivative is one.
        pulled.append(jnp.where(x > 0, product(pulled[-1], layer.w.T), 0.0))
    return tuple(reversed(pulled))


def pull_back_to_input(mlp: MLP, inputs: tuple[jax.Array, ...], cotangent: jax.Array) -> jax.Array:
    """Pull a cotangent of the output [B, o] back to the network's input [B, i]."""
    return product(pull_back(mlp, inputs, cotangent)[0], mlp[0].w.T)


def gradients(inputs: tuple[jax.Array, ...], pulled: tuple[jax.Array, ...], weights: jax.Array) -> MLP:
    """Return Σ_n weights_n ā_n g_nᵀ for every layer: the gradient when `pulled` holds the losses' cotangents (E5)."""
    weighted = [g * weights[:, None] for g in pulled]
    return tuple(Layer(product(x.T, g), g.sum(0)) for x, g in zip(inputs, weighted, strict=True))
