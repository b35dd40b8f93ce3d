"""Many small arrays as few: a compiled program spends microseconds on each array that it takes or gives, however small."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

# Arrays of more numbers stay on their own: copying them would cost more than handing them over.
SMALL = 16_384


class Packed(NamedTuple):
    """The arrays of a pytree, in its order."""

    large: list[jax.Array]
    small: dict[str, jax.Array]  # by type: the numbers of all small arrays, one after the other


def pack(tree: Any, concatenate: Callable[[list[Any]], Any] = jnp.concatenate) -> Packed:
    """Return a pytree's arrays packed. On the host let `concatenate` be NumPy's."""
    leaves = jax.tree.leaves(tree)
    small: dict[str, list[Any]] = {}
    for leaf in leaves:
        if leaf.size <= SMALL:
            small.setdefault(str(leaf.dtype), []).append(leaf.ravel())
    return Packed([leaf for leaf in leaves if leaf.size > SMALL], {dtype: concatenate(parts) for dtype, parts in small.items()})


def unpack(packed: Packed, like: Any) -> Any:
    """Return the pytree that was packed; `like` has its structure, shapes and types."""
    large, offsets = iter(packed.large), dict.fromkeys(packed.small, 0)

    def next_like(leaf: Any) -> Any:
        if leaf.size > SMALL:
            return next(large)
        dtype, offset = str(leaf.dtype), offsets[str(leaf.dtype)]
        offsets[dtype] += leaf.size
        return packed.small[dtype][offset : offset + leaf.size].reshape(leaf.shape)

    return jax.tree.map(next_like, like)
