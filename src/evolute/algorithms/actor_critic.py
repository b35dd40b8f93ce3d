"""What learners from replay with an actor and critics have in common: how critics learn, how targets follow, what is counted.

A learner here is any NamedTuple with `critics` and `critic_states`; settings are any with `actor_optimizer`,
`critic_optimizer` and `structure`. docs/maths.md E2, E4, E5, E17.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

import jax
import jax.numpy as jnp

from evolute import networks
from evolute.algorithms.base import Batch, Sums, no_sums
from evolute.hyperparameters import Hyperparameters
from evolute.networks import MLP, PullBack
from evolute.optimizers import Optimizer, Rates, Tape
from evolute.structure import PLAIN, Structure

S = TypeVar("S")


def q_values(critic: MLP, obs: jax.Array, action: jax.Array, structure: Structure = PLAIN) -> jax.Array:
    """Return Q [B]."""
    return networks.apply(critic, jnp.concatenate([obs, action], axis=-1), structure)[:, 0]


def critic_tape(
    critic: MLP, batch: Batch, target: jax.Array, structure: Structure = PLAIN
) -> tuple[MLP, Tape, jax.Array, jax.Array]:
    """Return one critic's gradient, its tape, its loss [] and mean Q [] (E2, E5).

    One pull-back of ones gives both: the gradient weighs it by the loss's slope 2 (q - y), the Gauss-Newton matrix by the
    output Hessian's root, sqrt(2).
    """
    q, inputs, pull_back = networks.taped(critic, jnp.concatenate([batch.obs, batch.action], axis=-1), structure)
    error = q[:, 0] - target
    ones = pull_back(jnp.ones_like(q))
    slopes = tuple(2.0 * error[:, None] * s for s in ones)
    mean_target = jnp.vdot(batch.weight, target)
    variance = jnp.vdot(batch.weight, (target - mean_target) ** 2)
    loss = jnp.vdot(batch.weight, error**2)
    tape = Tape(
        inputs=inputs,
        gradients=slopes,
        sensitivities=tuple(jnp.sqrt(2.0) * s[None] for s in ones),
        weights=batch.weight,
        trust=2.0 * jnp.maximum(variance, loss),
    )
    return networks.gradients(inputs, slopes, batch.weight), tape, loss, jnp.vdot(batch.weight, q[:, 0])


def update_critics(
    learner: Any, batch: Batch, target: jax.Array, hyper: Hyperparameters, step: jax.Array, settings: Any
) -> tuple[Any, Sums]:
    """Do one optimizer step of every critic towards `target` [B]; return the learner and the critics' sums."""
    optimizer: Optimizer = settings.critic_optimizer
    count, rates = len(learner.critics), Rates(hyper.critic_learning_rate, hyper.critic_damping)
    critics, states = [], []
    sums = no_sums()._replace(updates=jnp.ones(()), critic_updates=jnp.float32(count))
    for critic, state in zip(learner.critics, learner.critic_states, strict=True):
        gradient, tape, loss, q_value = critic_tape(critic, batch, target, settings.structure)
        critic, state, contained = optimizer.update(gradient, state, critic, rates, tape, step)
        critics.append(critic)
        states.append(state)
        sums = sums._replace(
            critic_loss=sums.critic_loss + loss,
            q_value=sums.q_value + q_value / count,
            critic_contained=jax.tree.map(jnp.add, sums.critic_contained, contained),
        )
    learner = learner._replace(critics=tuple(critics), critic_states=tuple(states))
    return learner, without_infinite_losses(sums, "critic_contained", count)


def pulled_back(pull_back: PullBack, columns: Sequence[jax.Array]) -> tuple[jax.Array, ...]:
    """Return an actor's sensitivities, [K, B, o] by layer, for K columns [B, outputs] of the output Hessian's root (E6)."""
    # A loop, not vmap: products of matrices with a batch axis are slow on a CPU.
    roots = [pull_back(column) for column in columns]
    return tuple(jnp.stack(layer) for layer in zip(*roots, strict=True))


def step_actor(
    learner: Any, taped: tuple[MLP, Tape, jax.Array], hyper: Hyperparameters, step: jax.Array, optimizer: Optimizer
) -> tuple[Any, Sums]:
    """Do one optimizer step of the actor with its gradient, tape and loss []; return the learner and the actor's sums."""
    gradient, tape, loss = taped
    rates = Rates(hyper.actor_learning_rate, hyper.actor_damping)
    actor, state, contained = optimizer.update(gradient, learner.actor_state, learner.actor, rates, tape, step)
    sums = no_sums()._replace(actor_updates=jnp.ones(()), actor_loss=loss, actor_contained=contained)
    return learner._replace(actor=actor, actor_state=state), without_infinite_losses(sums, "actor_contained", 1)


def gather(
    learner: Any,
    batch: Batch,
    target: jax.Array,
    hyper: Hyperparameters,
    settings: Any,
    update_actor: Callable[[Any, Hyperparameters, jax.Array], tuple[Any, Sums]],
) -> Any:
    """Let curvature optimizers gather a batch's statistics and refresh everything, without moving a parameter.

    A step at learning rate zero does it, because velocities hold changes of parameters. First-order optimizers are left alone:
    their moments would count the batch as a step.

    Args:
        learner: of which the optimizers gather.
        batch: B transitions.
        target: of the critics [B].
        hyper: the member's hyperparameters.
        settings: with both optimizers, and the networks' structure.
        update_actor: (learner, hyperparameters, step) -> the learner after a step of its actor, and its sums.
    """
    still = hyper._replace(actor_learning_rate=jnp.zeros(()), critic_learning_rate=jnp.zeros(()))
    first = jnp.zeros((), jnp.int32)
    if settings.critic_optimizer.burn_in:
        learner, _ = update_critics(learner, batch, target, still, first, settings)
    if settings.actor_optimizer.burn_in:
        learner, _ = update_actor(learner, still, first)
    return learner


def without_infinite_losses(sums: Sums, contained: str, networks: int) -> Sums:
    """Return an update's sums; where a loss of its networks is not finite, the losses are counted instead of added.

    Args:
        sums: of the critics or of the actor.
        contained: the field that counts them.
        networks: how many losses there are.
    """
    values = {name: value for name, value in sums._asdict().items() if not name.endswith("contained")}
    finite = jnp.stack([jnp.isfinite(value) for value in values.values()]).all()
    kept = {name: jnp.where(finite, value, 0.0) for name, value in values.items()}
    losses = jnp.where(finite, 0.0, jnp.float32(networks))
    return sums._replace(**kept, **{contained: getattr(sums, contained)._replace(losses=losses)})


def polyak(target: Any, online: Any, tau: jax.Array | float) -> Any:
    """Move the targets towards the networks by the fraction tau (E4)."""
    return jax.tree.map(lambda t, p: t + tau * (p - t), target, online)


def burn_ins(settings: S) -> Iterator[tuple[int, S]]:
    """Yield for how many batches which optimizers gather curvature: who wants fewer than the other has finished before it."""
    given: Any = settings
    actor, critic = given.actor_optimizer, given.critic_optimizer
    done = 0
    for until in sorted({actor.burn_in, critic.burn_in} - {0}):
        actor_left, critic_left = (one._replace(burn_in=max(0, one.burn_in - done)) for one in (actor, critic))
        yield until - done, given._replace(actor_optimizer=actor_left, critic_optimizer=critic_left)
        done = until
