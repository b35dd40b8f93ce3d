"""TD3 for one member: targets, losses, one learner step (Fujimoto et al. 2018, arXiv 1802.09477).

Actions are in [-1, 1] here; the environments rescale them. Both critics see [obs, action]. docs/maths.md E1-E6.
"""

from functools import partial, reduce
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from evolute import networks
from evolute.algorithms.actor_critic import burn_ins, gather, polyak, pulled_back, q_values, step_actor, update_critics
from evolute.algorithms.base import Algorithm, Batch, Sums, no_sums
from evolute.hyperparameters import Hyperparameters
from evolute.networks import MLP
from evolute.optimizers import Optimizer, Tape
from evolute.structure import PLAIN, Structure, sizes


class Settings(NamedTuple):
    """What is fixed for a group: compiled into its programs."""

    observations: int
    actions: int
    actor_layers: tuple[int, ...]
    critic_layers: tuple[int, ...]
    actor_optimizer: Optimizer
    critic_optimizer: Optimizer
    policy_delay: int = 1
    critics: int = 2
    structure: Structure = PLAIN


class Learner(NamedTuple):
    """What one member learns: networks, their targets, and the optimizers' states."""

    # every update
    critics: tuple[MLP, ...]
    critic_states: tuple[Any, ...]
    # every `policy_delay` updates
    actor: MLP
    actor_state: Any
    target_actor: MLP
    target_critics: tuple[MLP, ...]


def delayed_parts(learner: Learner) -> dict[str, Any]:
    """Return what changes every `policy_delay` updates, by name."""
    return {name: getattr(learner, name) for name in ("actor", "actor_state", "target_actor", "target_critics")}


def make(settings: Settings) -> Algorithm:
    """Return TD3 as an algorithm."""
    return Algorithm(
        observations=settings.observations,
        actions=settings.actions,
        structure=settings.structure,
        noise=settings.actions,
        init=partial(init, settings=settings),
        reset=partial(reset_optimizers, settings=settings),
        strip=without_optimizers,
        networks=networks_of,
        policy=lambda actor: actor,
        explore=partial(explore, structure=settings.structure),
        learn=partial(learn, settings=settings),
        burn_ins=tuple((count, partial(burn_in, settings=wanted)) for count, wanted in burn_ins(settings)),
    )


def init(rng: np.random.Generator, settings: Settings) -> Learner:
    """Return new networks as host arrays, with targets equal to them, and no optimizer states yet. The generator is consumed."""
    o, a = settings.observations, settings.actions
    structure = settings.structure
    actor = networks.init(rng, sizes(o, settings.actor_layers, a, structure), structure)
    of_critic = sizes(o + a, settings.critic_layers, 1, structure)
    critics = tuple(networks.init(rng, of_critic, structure) for _ in range(settings.critics))
    return Learner(critics, ((),) * len(critics), actor, (), actor, critics)


def reset_optimizers(learner: Learner, settings: Settings) -> Learner:
    """Return the learner with optimizer states as new."""
    return learner._replace(
        actor_state=settings.actor_optimizer.init(learner.actor),
        critic_states=tuple(settings.critic_optimizer.init(critic) for critic in learner.critics),
    )


def without_optimizers(learner: Learner) -> Learner:
    """Return the learner without optimizer states."""
    return learner._replace(actor_state=(), critic_states=((),) * len(learner.critics))


def networks_of(learner: Learner) -> dict[str, Any]:
    """Return the networks by name."""
    return {
        "actor": learner.actor,
        "critics": learner.critics,
        "target actor": learner.target_actor,
        "target critics": learner.target_critics,
    }


def act(actor: MLP, obs: jax.Array, structure: Structure = PLAIN) -> jax.Array:
    """Return the deterministic action [..., A] in [-1, 1]."""
    return jnp.tanh(networks.apply(actor, obs, structure))


def explore(actor: MLP, obs: jax.Array, hyper: Hyperparameters, noise: jax.Array, structure: Structure = PLAIN) -> jax.Array:
    """Return an action [A] for training, with standard normal `noise` [A] scaled and added, clipped to [-1, 1]."""
    return jnp.clip(act(actor, obs, structure) + hyper.exploration_noise * noise, -1.0, 1.0)


def targets(learner: Learner, batch: Batch, hyper: Hyperparameters, noise: jax.Array, structure: Structure = PLAIN) -> jax.Array:
    """Return the critics' targets [B] (E1), with `noise` [B, A] standard normal.

    They bootstrap from the next observation wherever the episode did not terminate: through truncation, too.
    """
    clipped = jnp.clip(hyper.target_noise * noise, -hyper.target_noise_clip, hyper.target_noise_clip)
    action = jnp.clip(act(learner.target_actor, batch.next_obs, structure) + clipped, -1.0, 1.0)
    values = [q_values(critic, batch.next_obs, action, structure) for critic in learner.target_critics]
    value = reduce(jnp.minimum, values)
    return batch.reward + hyper.discount * (1.0 - batch.terminated) * value


def actor_tape(
    actor: MLP, critic: MLP, batch: Batch, noise: jax.Array, exact: bool, structure: Structure = PLAIN
) -> tuple[MLP, Tape, jax.Array]:
    """Return the actor's gradient, its tape and its loss [] (E3, E16).

    The loss is -Q of the first critic. The curvature is the natural metric of a deterministic policy, the identity as output
    Hessian in action space (Silver et al. 2014, section 4.3): with `exact` one pull-back per action dimension, otherwise one
    of random signs, whose outer product is the identity on average: the signs of `noise` [B, A], standard normal.
    """
    z, inputs, pull_back = networks.taped(actor, batch.obs, structure)
    action = jnp.tanh(z)
    q, _, pull_back_q = networks.taped(critic, jnp.concatenate([batch.obs, action], axis=-1), structure)
    slope = -networks.to_input(critic, pull_back_q(jnp.ones_like(q)))[:, batch.obs.shape[-1] :]
    through_tanh = 1.0 - action**2
    pulled = pull_back(slope * through_tanh)
    if exact:
        columns = [jnp.zeros_like(action).at[:, k].set(1.0) for k in range(action.shape[-1])]
    else:
        columns = [jnp.where(noise < 0, -1.0, 1.0).astype(action.dtype)]
    sensitivities = pulled_back(pull_back, [column * through_tanh for column in columns])
    tape = Tape(inputs, pulled, sensitivities, batch.weight, jnp.ones((), action.dtype))
    return networks.gradients(inputs, pulled, batch.weight), tape, -jnp.vdot(batch.weight, q[:, 0])


def learn(
    learner: Learner, batch: Batch, hyper: Hyperparameters, noise: jax.Array, step: jax.Array, settings: Settings
) -> tuple[Learner, Sums]:
    """Do one update of the critics, and at every `policy_delay`-th one of the actor and all targets.

    Args:
        learner: the member before the update.
        batch: B transitions; weights sum to one.
        hyper: the member's hyperparameters, each [].
        noise: standard normal [B, A], for the target actions and for the actor's curvature.
        step: [] how many updates the cohort has done; shared by its members, so that the delay is one branch for all.
        settings: what is fixed.

    Returns:
        The learner after the update and its sums.
    """
    target = targets(learner, batch, hyper, noise, settings.structure)
    learner, sums = update_critics(learner, batch, target, hyper, step, settings)

    def delayed(_: Any, carry: tuple[dict[str, Any], Sums]) -> tuple[dict[str, Any], Sums]:
        before = learner._replace(**carry[0])
        after, sums = update_actor(before, batch, hyper, noise, step // settings.policy_delay, settings)
        return delayed_parts(move_targets(after, hyper.tau)), sums

    # A loop of no or one round instead of a branch, which copies all that comes out of it, taken or not; a loop works in place.
    due = jnp.int32((step + 1) % settings.policy_delay == 0)
    parts, actor_sums = jax.lax.fori_loop(0, due, delayed, (delayed_parts(learner), no_sums()))
    return learner._replace(**parts), jax.tree.map(jnp.add, sums, actor_sums)


def update_actor(
    learner: Learner, batch: Batch, hyper: Hyperparameters, noise: jax.Array, step: jax.Array, settings: Settings
) -> tuple[Learner, Sums]:
    """Do one optimizer step of the actor; `step` counts the actor's updates, `noise` [B, A] is standard normal."""
    optimizer = settings.actor_optimizer
    taped = actor_tape(learner.actor, learner.critics[0], batch, noise, optimizer.exact_tape, settings.structure)
    return step_actor(learner, taped, hyper, step, optimizer)


def move_targets(learner: Learner, tau: jax.Array | float) -> Learner:
    """Move all three targets towards their networks."""
    return learner._replace(
        target_actor=polyak(learner.target_actor, learner.actor, tau),
        target_critics=polyak(learner.target_critics, learner.critics, tau),
    )


def burn_in(learner: Learner, batch: Batch, hyper: Hyperparameters, noise: jax.Array, settings: Settings) -> Learner:
    """Let curvature optimizers gather a batch's statistics (actor_critic.gather)."""

    def step(learner: Learner, still: Hyperparameters, first: jax.Array) -> tuple[Learner, Sums]:
        return update_actor(learner, batch, still, noise, first, settings)

    target = targets(learner, batch, hyper, noise, settings.structure)
    return gather(learner, batch, target, hyper, settings, step)
