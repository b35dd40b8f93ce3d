"""Diagonal Gauss-Newton: every parameter is scaled by its own curvature.

References: the paper's equation 9; Dangel, Kunstner & Hennig 2019 (BackPACK's DiagGGNExact); docs/maths.md E7, E8.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from evolute.networks import MLP
from evolute.optimizers.base import CLIP, EXACT_TAPE, Contained, Optimizer, Rates, Tape, all_finite, keep_if, nothing_contained
from evolute.optimizers.curvature import as_counts, diagonal, shorten
from evolute.options import DECAY, declared, positive, setting


@declared
class DiagGGNOptions:
    """Options of one network's diagonal Gauss-Newton."""

    learning_rate: float = setting("Step size.", positive(), "0.001")
    damping: float = setting("Added to every diagonal entry.", positive(), "0.1")
    clip: float = setting(*CLIP, default=float("inf"))
    average: float = setting(
        "Decay of a bias-corrected moving average of the diagonal; 0 (the paper): the current batch alone.",
        DECAY,
        "0.95",
        default=0.0,
    )
    exact_tape: bool = setting(*EXACT_TAPE, default=False)


class DiagGGNState(NamedTuple):
    """One network's state; only a moving average needs one."""

    weight: jax.Array  # []
    diagonal: MLP


def diag_ggn(options: DiagGGNOptions) -> Optimizer:
    """Return θ ← θ - lr · g / (diagonal + damping) as an optimizer (E8)."""

    def init(parameters: MLP) -> DiagGGNState | tuple[()]:
        if options.average == 0.0:
            return ()
        return DiagGGNState(jnp.zeros(()), jax.tree.map(jnp.zeros_like, parameters))

    def update(
        gradients: MLP, state: DiagGGNState | tuple[()], parameters: MLP, rates: Rates, tape: Tape, step: jax.Array
    ) -> tuple[MLP, DiagGGNState | tuple[()], Contained]:
        del step
        curvature = diagonal(tape)
        contained = nothing_contained()
        if isinstance(state, DiagGGNState):
            averaged = DiagGGNState(
                options.average * state.weight + 1.0,
                jax.tree.map(lambda old, new: options.average * old + new, state.diagonal, curvature),
            )
            finite = all_finite(averaged)
            averaged = keep_if(finite, averaged, state)
            weight = jnp.maximum(averaged.weight, 1.0)
            curvature = jax.tree.map(lambda total: total / weight, averaged.diagonal)
            state = averaged
            contained = contained._replace(statistics=jnp.float32(~finite))
        direction = jax.tree.map(lambda g, d: g / (d + rates.damping), gradients, curvature)
        change, taken = shorten(jax.tree.map(lambda d: -rates.learning_rate * d, direction), options.clip, tape)
        new = jax.tree.map(jnp.add, parameters, change)
        finite = all_finite(new)
        contained = contained._replace(steps=jnp.float32(~finite), **as_counts(taken))
        return keep_if(finite, new, parameters), state, contained

    return Optimizer(init, update, exact_tape=options.exact_tape)
