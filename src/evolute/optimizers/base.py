"""The contract of an optimizer: two pure functions over one network, and the tape that curvature methods read."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from evolute.networks import MLP
from evolute.options import LIMIT, SWITCH, Setting


class Tape(NamedTuple):
    """What one forward and backward pass leaves behind, layer by layer (maths.md E5, E6).

    Axes: B samples, i inputs and o outputs of a layer, K columns of the output Hessian's root.
    """

    inputs: tuple[jax.Array, ...]  # [B, i]: what each layer was fed
    gradients: tuple[jax.Array, ...]  # [B, o]: each sample's loss pulled back to the pre-activations
    sensitivities: tuple[jax.Array, ...]  # [K, B, o]: the root of the loss's output Hessian pulled back likewise
    weights: jax.Array  # [B]: sums to one, zero for padding
    # [] The squared unit in which the norm constraint counts a change of the output (E14).
    trust: jax.Array


class Rates(NamedTuple):
    """The hyperparameters of one network's optimizer: data, so changing them never recompiles."""

    learning_rate: jax.Array | float  # []
    damping: jax.Array | float  # []


class Contained(NamedTuple):
    """What was kept from doing harm in one update; all [] float32, and sums over updates make sense (maths.md E14, E17)."""

    # because something was not finite
    statistics: jax.Array  # batches that did not enter a moving average
    inverses: jax.Array  # layers whose previous inverses were kept
    steps: jax.Array  # updates that were left out
    losses: jax.Array  # losses that do not enter the reported means; the learner counts them
    # because it went too far
    shortened: jax.Array  # steps that the norm constraint shortened
    shortening: jax.Array  # the fraction of a step that it took away, 0 where it left the step alone


def nothing_contained() -> Contained:
    """Return the counts of an update in which all went well."""
    return Contained(*(jnp.zeros((), jnp.float32) for _ in Contained._fields))


def all_finite(tree: Any) -> jax.Array:
    """Return whether every real number in a pytree is finite []; counts and keys are left alone."""
    real = [leaf for leaf in jax.tree.leaves(tree) if jnp.issubdtype(leaf.dtype, jnp.inexact)]
    # A sum instead of a test per number costs a quarter: with an infinity or a NaN among its terms, it is one of them, too.
    return jnp.stack([jnp.isfinite(jnp.sum(leaf)) for leaf in real]).all()


def squares_finite(tree: Any) -> jax.Array:
    """Return whether the squares of all numbers in a pytree add up to a finite number []."""
    return jnp.isfinite(sum(jnp.sum(jnp.square(leaf)) for leaf in jax.tree.leaves(tree)))


def keep_if(condition: jax.Array, new: Any, old: Any) -> Any:
    """Return `new` where the condition [] holds, else `old`, leaf by leaf."""
    return jax.tree.map(lambda n, o: jnp.where(condition, n, o), new, old)


InitFn = Callable[[MLP], Any]
# (gradients, state, parameters, rates, tape, step) -> (parameters, state, what was contained)
UpdateFn = Callable[[MLP, Any, MLP, Rates, Tape, jax.Array], tuple[MLP, Any, Contained]]


class Optimizer(NamedTuple):
    """An optimizer of one network, for one member; the engine maps it over members.

    `step` counts this network's updates from zero and is shared by all members of a cohort, so a schedule (refresh every ten
    steps) is one branch for the whole cohort. At step 0 everything is refreshed. Whatever the input, the parameters and the
    state that come out are finite: what is not is contained and counted.
    """

    init: InitFn
    update: UpdateFn
    # Batches whose curvature is gathered, at learning rate zero, before the first step after an initialisation.
    burn_in: int = 0
    # Whether the tape needs one column per output (exact) or one random combination of them (unbiased, cheaper).
    exact_tape: bool = False


# A critic has one output, so its tape is exact in any case.
CLIP = Setting(
    "Largest step, momentum included, as root-mean-square change of the network's output on the batch: in standard deviations of "
    "the targets for a critic, in the action's unit for an actor; inf: no norm constraint.",
    LIMIT,
    "0.01",
)
EXACT_TAPE = Setting(
    "An actor's curvature from one pass per action dimension instead of one random combination of them.",
    SWITCH,
    "true",
    only="actor",
)
