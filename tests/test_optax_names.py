"""Every optimizer that optax has, by its name: it learns at the rate it is given, or is refused with a reason."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import oracles
from evolute import optimizers
from evolute.algorithms import actor_critic
from evolute.errors import UserError
from evolute.networks import MLP
from evolute.optimizers import Rates, first_order

# What optax needs for these is not to be had from a learner step, or only with further options.
UNUSABLE = {"dpsgd", "schedule_free", "sophia"}
# These find their own step size; their learning rate is a factor near one.
WITHOUT_A_RATE = {"dadapt_adamw", "dog", "dowg", "prodigy"}
deprecated_by_optax = pytest.mark.filterwarnings("ignore:.*is deprecated.*:DeprecationWarning")


@deprecated_by_optax
@pytest.mark.parametrize("name", first_order.transformations())
def test_an_optimizer_of_optax_either_passes_its_check_or_says_why_not(name):
    options = first_order.FirstOrderOptions(1e-3, {})
    if name in UNUSABLE:
        with pytest.raises(UserError, match=f"optimizer '{name}' cannot be used with these options: optax says "):
            first_order.check(name, options)
    else:
        first_order.check(name, options)


@pytest.mark.slow
@deprecated_by_optax
@pytest.mark.parametrize("name", sorted(set(first_order.transformations()) - UNUSABLE))
def test_an_optimizer_of_optax_that_passes_its_check_learns_at_the_rate_it_is_given(name):
    optimizer = optimizers.build(name, optimizers.resolve_options(name, "critic", {}, 1e-3))
    rng = np.random.default_rng(0)
    start, batch = oracles.random_mlp(rng, (4, 3, 1), np.float32), oracles.random_batch(rng, 8, 3, 1)

    @jax.jit
    @jax.vmap
    def train(learning_rate: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
        def one_step(carry: tuple[MLP, Any], step: jax.Array):
            mlp, state = carry
            gradients, tape, loss, _ = actor_critic.critic_tape(mlp, batch, batch.reward)
            rates = Rates(learning_rate, jnp.float32(0))
            mlp, state, contained = optimizer.update(gradients, state, mlp, rates, tape, step)
            return (mlp, state), (loss, sum(contained))

        (mlp, _), (losses, counts) = jax.lax.scan(one_step, (start, optimizer.init(start)), jnp.arange(40))
        return losses, counts.sum(), oracles.flat(mlp)

    losses, contained, parameters = train(jnp.float32([0.5, 1.0] if name in WITHOUT_A_RATE else [1e-3, 3e-3]))
    assert np.isfinite(losses).all()
    np.testing.assert_array_equal(contained, 0)
    assert np.all(losses[:, -1] < losses[:, 0])
    assert np.any(parameters[0] != parameters[1])
