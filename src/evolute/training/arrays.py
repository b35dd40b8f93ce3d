"""A pytree as named arrays, and back: of a symmetric matrix one half is kept."""

from typing import Any

import jax
import numpy as np

from evolute.errors import Damaged

# Ends the name of an array that is a symmetric matrix's lower triangle.
TRIANGLE = " lower"


def storable(tree: Any) -> dict[str, np.ndarray]:
    """Return a pytree's arrays under the names of their places in it; of a symmetric matrix the lower triangle [n (n + 1) / 2].

    Curvature and its inverses are most of what a second-order member has, and they are symmetric to the last bit.
    """
    arrays = {name: np.array(leaf, order="C") for name, leaf in _named(tree)}
    return dict(
        (name + TRIANGLE, array[np.tril_indices(len(array))]) if _is_symmetric(array) else (name, array)
        for name, array in arrays.items()
    )


def like(template: Any, arrays: dict[str, np.ndarray]) -> Any:
    """Return a pytree of what `storable` made; raises Damaged where an array is missing or not like the template's."""
    leaves = []
    for name, leaf in _named(template):
        array = arrays.get(name)
        if array is None and name + TRIANGLE in arrays:
            array = _whole(arrays[name + TRIANGLE], leaf.shape)
        if array is None or array.shape != leaf.shape or array.dtype != leaf.dtype:
            raise Damaged(f"the array {name} is missing or of another shape")
        leaves.append(array)
    return jax.tree.unflatten(jax.tree.structure(template), leaves)


def _is_symmetric(array: np.ndarray) -> bool:
    if array.ndim != 2 or array.shape[0] != array.shape[1]:
        return False
    # Bits, not numbers: 0.0 equals -0.0, and NaN not even itself.
    bits = array.view(f"u{array.itemsize}")
    return np.array_equal(bits, bits.T)


def _named(tree: Any) -> list[tuple[str, Any]]:
    """Return a pytree's arrays under the names of their places in it."""
    return [(jax.tree_util.keystr(path), leaf) for path, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]]


def _whole(triangle: np.ndarray, shape: tuple[int, ...]) -> np.ndarray | None:
    """Return the symmetric matrix with this lower triangle, or None where it has another shape."""
    if len(shape) != 2 or shape[0] != shape[1] or triangle.shape != (shape[0] * (shape[0] + 1) // 2,):
        return None
    matrix = np.empty(shape, triangle.dtype)
    rows, columns = np.tril_indices(shape[0])
    matrix[rows, columns] = matrix[columns, rows] = triangle
    return matrix
