"""Packed trees come back as they were, and hold as few arrays as possible."""

import jax
import jax.numpy as jnp
import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from evolute.training.packing import SMALL, pack, unpack

SHAPES = st.lists(
    st.tuples(st.sampled_from([(), (0,), (3,), (2, 5), (1, 1, 4), (SMALL,), (SMALL + 1,), (200, 100)]), st.booleans()), max_size=8
)


def tree_of(shapes):
    """Nested, with every number different."""
    leaves, at = [], 0
    for shape, whole in shapes:
        size = int(np.prod(shape))
        leaves.append(np.arange(at, at + size).reshape(shape).astype(np.int32 if whole else np.float32))
        at += size
    return {"first": leaves[::2], "second": (tuple(leaves[1::2]), ())}


def same(one, other):
    pairs = zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True)
    return jax.tree.structure(one) == jax.tree.structure(other) and all(
        np.array_equal(a, b) and a.dtype == b.dtype and a.shape == b.shape for a, b in pairs
    )


@given(SHAPES)
def test_what_was_packed_comes_back_to_the_bit(shapes):
    tree = tree_of(shapes)
    packed = pack(tree, np.concatenate)
    assert same(unpack(packed, tree), tree)
    assert len(packed.large) == sum(int(np.prod(shape)) > SMALL for shape, _ in shapes)
    assert len(packed.small) <= 2


def test_host_and_device_pack_alike_one_member_or_several():
    tree = tree_of([((3,), False), ((SMALL + 1,), False), ((2, 2), True), ((), False)])
    like = jax.eval_shape(lambda: tree)
    packed = pack(tree, np.concatenate)
    assert same(jax.jit(pack)(tree), packed)
    members = jax.tree.map(lambda x: np.stack([x, x + 1]), tree)
    together = jax.jit(jax.vmap(pack))(members)
    assert same(jax.tree.map(lambda x: x[0], together), packed)
    assert same(jax.vmap(lambda one: unpack(one, like))(together), members)
    assert same(jax.jit(lambda one: unpack(one, like))(packed), jax.tree.map(jnp.asarray, tree))
