"""Independent truths for the tests: dense curvature by automatic differentiation, golden arrays, random problems."""

from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from evolute import networks
from evolute.algorithms import actor_critic
from evolute.algorithms.base import Batch
from evolute.hyperparameters import SETTINGS, Hyperparameters
from evolute.networks import MLP, Layer
from evolute.optimizers import Contained, Optimizer, Rates, Tape
from evolute.structure import PLAIN, Structure

Arrays = dict[str, np.ndarray]


def golden(name: str, under: str = "") -> Arrays:
    """The arrays of one file of tests/golden; with `under`, only those of that prefix, without it."""
    with np.load(Path(__file__).parent / "golden" / name, allow_pickle=False) as file:
        return {key.removeprefix(under): file[key] for key in file.files if key.startswith(under)}


def golden_mlp(arrays: Arrays, prefix: str) -> MLP:
    """The network whose layers are stored as PREFIX/0/w, PREFIX/0/b, PREFIX/1/w..."""
    layers = []
    while f"{prefix}/{len(layers)}/w" in arrays:
        n = len(layers)
        layers.append(Layer(jnp.asarray(arrays[f"{prefix}/{n}/w"]), jnp.asarray(arrays[f"{prefix}/{n}/b"])))
    assert layers, prefix
    return tuple(layers)


def random_mlp(rng: np.random.Generator, sizes: Sequence[int], dtype: type = np.float64) -> MLP:
    """A network with normal weights and biases."""
    return tuple(
        Layer(jnp.asarray(rng.normal(size=(i, o)), dtype), jnp.asarray(rng.normal(size=o), dtype)) for i, o in pairwise(sizes)
    )


def open_mlp(rng: np.random.Generator, sizes: Sequence[int]) -> MLP:
    """A network with positive weights and biases: on positive inputs no unit is rectified, so it is linear there."""
    return jax.tree.map(jnp.abs, random_mlp(rng, sizes))


def random_batch(rng: np.random.Generator, size: int, observations: int, actions: int, dtype: type = np.float32) -> Batch:
    """Transitions, a fifth of them terminal, with equal weights."""
    arrays = {
        "obs": rng.normal(size=(size, observations)),
        "action": rng.uniform(-1, 1, (size, actions)),
        "reward": rng.normal(size=size),
        "next_obs": rng.normal(size=(size, observations)),
        "terminated": rng.random(size) < 0.2,
        "weight": np.full(size, 1 / size),
    }
    return Batch(**{name: jnp.asarray(x, dtype) for name, x in arrays.items()})


def random_weights(rng: np.random.Generator, size: int) -> jax.Array:
    """Weights of a batch that sum to one and differ."""
    weights = rng.uniform(0.5, 1.5, size)
    return jnp.asarray(weights / weights.sum())


def hyperparameters(**changes: float) -> Hyperparameters:
    """Hyperparameters with which all terms of an update are of some size; one that is not named here is its setting's example."""
    return Hyperparameters(
        **{
            **{name: float(own.example) for name, own in SETTINGS.items()},
            "batch_size": 16,
            "actor_learning_rate": 0.02,
            "critic_learning_rate": 0.03,
            "actor_damping": 0.1,
            "critic_damping": 0.2,
            "discount": 0.9,
            "tau": 0.1,
            "target_noise": 0.5,
            "target_noise_clip": 0.4,
            "exploration_noise": 0.3,
            "temperature_learning_rate": 0.04,
            **changes,
        }
    )


def on_device(hyper: Hyperparameters) -> Hyperparameters:
    """The same, as the arrays that a compiled program gets."""
    return Hyperparameters(*(jnp.asarray(x, jnp.float32) for x in hyper))


def rates(learning_rate: float, damping: float = 0.1, dtype: type = np.float32) -> Rates:
    return Rates(jnp.asarray(learning_rate, dtype), jnp.asarray(damping, dtype))


def critic_problem(
    mlp: MLP, x: jax.Array, target: jax.Array, weight: jax.Array, structure: Structure = PLAIN
) -> tuple[MLP, Tape]:
    """Gradient and tape of the weighted mean squared error of a network with one output, by the real learner's code."""
    batch = Batch(x[:, :-1], x[:, -1:], target, x[:, :-1], jnp.zeros_like(target), weight)
    return actor_critic.critic_tape(mlp, batch, target, structure)[:2]


def vector_problem(
    mlp: MLP, x: jax.Array, target: jax.Array, weight: jax.Array, structure: Structure = PLAIN
) -> tuple[MLP, Tape]:
    """Gradient and tape of half the squared error summed over outputs: its output Hessian is the identity."""
    z, inputs, pull_back = networks.taped(mlp, x, structure)
    slopes = pull_back(z - target)
    columns = [pull_back(jnp.zeros_like(z).at[:, k].set(1.0)) for k in range(z.shape[1])]
    roots = tuple(jnp.stack(layer) for layer in zip(*columns, strict=True))
    return networks.gradients(inputs, slopes, weight), Tape(inputs, slopes, roots, weight, jnp.ones((), z.dtype))


def change(
    optimizer: Optimizer, gradients: MLP, state: Any, parameters: MLP, rates: Rates, tape: Tape, step: jax.Array
) -> tuple[MLP, Any, Contained]:
    """One update of parameters that are zero, so that what comes out is their change to the last bit; else as Optimizer.update.

    Not for optimizers whose step depends on the parameters themselves.
    """
    return optimizer.update(gradients, state, jax.tree.map(jnp.zeros_like, parameters), rates, tape, step)


def flat(mlp: MLP) -> jax.Array:
    """All parameters [P], layer by layer; within one, rows are inputs and then the bias, columns are outputs."""
    return jnp.concatenate([matrix(layer).ravel() for layer in mlp])


def matrix(layer: Layer) -> jax.Array:
    return jnp.vstack([layer.w, layer.b])


def blocks(mlp: MLP) -> list[slice]:
    """Each layer's place in `flat`."""
    edges = np.cumsum([0, *((len(layer.w) + 1) * len(layer.b) for layer in mlp)])
    return [slice(int(a), int(b)) for a, b in pairwise(edges)]


def dense_gauss_newton(
    function: Callable[[MLP, jax.Array], jax.Array], mlp: MLP, x: jax.Array, weights: jax.Array, hessian: np.ndarray
) -> np.ndarray:
    """Σ_n w_n J_nᵀ H J_n [P, P] with J_n = ∂f(x_n)/∂θ by automatic differentiation and H [D, D]."""
    jacobians = jax.jit(jax.jacrev(function))(mlp, x)
    batch, outputs = len(x), len(hessian)
    J = np.concatenate(
        [
            np.concatenate([np.asarray(j.w), np.asarray(j.b)[:, :, None, :]], axis=2).reshape(batch, outputs, -1)
            for j in jacobians
        ],
        axis=2,
    )
    return np.einsum("n,ndp,de,neq->pq", np.asarray(weights), J, hessian, J)


def leaves(tree: object) -> list[np.ndarray]:
    return [np.asarray(leaf) for leaf in jax.tree.leaves(tree)]


def same(one: object, other: object) -> bool:
    """Whether two pytrees are equal to the last bit."""
    pairs = list(zip(leaves(one), leaves(other), strict=True))
    return all(a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes() for a, b in pairs)


def assert_close(one: object, other: object, rtol: float, atol: float) -> None:
    assert jax.tree.structure(one) == jax.tree.structure(other)
    for a, b in zip(leaves(one), leaves(other), strict=True):
        np.testing.assert_allclose(a, b, rtol=rtol, atol=atol)
