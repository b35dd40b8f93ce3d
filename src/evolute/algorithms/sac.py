"""SAC for one member: a squashed Gaussian actor, its temperature, one learner step (Haarnoja et al. 2018, arXiv 1812.05905).

The order of updates is Stable-Baselines3's. The actor is one MLP with 2A outputs, [mean, log of the standard deviation], before
the tanh; the policy that is evaluated and kept is the tanh of the mean. docs/maths.md E22 to E26.
"""

from functools import partial, reduce
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from evolute import networks, optimizers
from evolute.algorithms.actor_critic import burn_ins, gather, polyak, pulled_back, q_values, step_actor, update_critics
from evolute.algorithms.base import Algorithm, Batch, Sums
from evolute.hyperparameters import Hyperparameters
from evolute.networks import MLP, Layer, PullBack
from evolute.optimizers import Optimizer, Rates, Tape
from evolute.structure import PLAIN, Structure, sizes

# The log of the standard deviation is kept between these, as in Stable-Baselines3.
LOG_STD = (-20.0, 2.0)
# Keeps the log of tanh's slope finite, as there.
SLOPE = 1e-6
# The temperature's optimizer; its learning rate is a hyperparameter.
ADAM = optimizers.build("adam", {"learning_rate": 3e-4})


class Settings(NamedTuple):
    """What is fixed for a group: compiled into its programs."""

    observations: int
    actions: int
    actor_layers: tuple[int, ...]
    critic_layers: tuple[int, ...]
    actor_optimizer: Optimizer
    critic_optimizer: Optimizer
    structure: Structure = PLAIN


class Learner(NamedTuple):
    """What one member learns: networks, the critics' targets, the temperature, and the optimizers' states."""

    critics: tuple[MLP, ...]
    critic_states: tuple[Any, ...]
    actor: MLP
    actor_state: Any
    target_critics: tuple[MLP, ...]
    log_temperature: jax.Array  # []
    temperature_state: Any


class Draw(NamedTuple):
    """Actions drawn from the actor's distribution, with what gradients need. Axes: B samples, A actions."""

    action: jax.Array  # [B, A], in (-1, 1)
    log_prob: jax.Array  # [B]
    std: jax.Array  # [B, A]
    free: jax.Array  # [B, A], 1 where the log of the standard deviation is not clamped, else 0
    inputs: tuple[jax.Array, ...]  # of every layer of the actor
    pull_back: PullBack  # through the actor


def make(settings: Settings) -> Algorithm:
    """Return SAC as an algorithm."""
    return Algorithm(
        observations=settings.observations,
        actions=settings.actions,
        structure=settings.structure,
        # For the next actions, and for the current ones.
        noise=2 * settings.actions,
        init=partial(init, settings=settings),
        reset=partial(reset_optimizers, settings=settings),
        strip=without_optimizers,
        networks=networks_of,
        policy=policy,
        explore=partial(explore, structure=settings.structure),
        learn=partial(learn, settings=settings),
        burn_ins=tuple((count, partial(burn_in, settings=wanted)) for count, wanted in burn_ins(settings)),
    )


def init(rng: np.random.Generator, settings: Settings) -> Learner:
    """Return new networks as host arrays, a temperature of 1, and no optimizer states yet. The generator is consumed."""
    o, a = settings.observations, settings.actions
    structure = settings.structure
    actor = networks.init(rng, sizes(o, settings.actor_layers, 2 * a, structure), structure)
    of_critic = sizes(o + a, settings.critic_layers, 1, structure)
    critics = tuple(networks.init(rng, of_critic, structure) for _ in range(2))
    return Learner(critics, ((), ()), actor, (), critics, np.zeros((), np.float32), ())  # type: ignore[arg-type]


def reset_optimizers(learner: Learner, settings: Settings) -> Learner:
    """Return the learner with optimizer states as new."""
    return learner._replace(
        actor_state=settings.actor_optimizer.init(learner.actor),
        critic_states=tuple(settings.critic_optimizer.init(critic) for critic in learner.critics),
        temperature_state=ADAM.init(learner.log_temperature),  # type: ignore[arg-type]
    )


def without_optimizers(learner: Learner) -> Learner:
    """Return the learner without optimizer states."""
    return learner._replace(actor_state=(), critic_states=((), ()), temperature_state=())


def networks_of(learner: Learner) -> dict[str, Any]:
    """Return the networks, and the temperature, by name."""
    return {
        "actor": learner.actor,
        "critics": learner.critics,
        "target critics": learner.target_critics,
        "temperature": learner.log_temperature,
    }


def policy(actor: MLP) -> MLP:
    """Return the network whose tanh is the deterministic action: the actor without the outputs of its standard deviation."""
    *hidden, last = actor
    actions = last.b.shape[-1] // 2
    return (*hidden, Layer(last.w[..., :actions], last.b[..., :actions]))


def explore(actor: MLP, obs: jax.Array, hyper: Hyperparameters, noise: jax.Array, structure: Structure = PLAIN) -> jax.Array:
    """Return an action [A] in [-1, 1] drawn from the actor's distribution, with standard normal `noise` [A]."""
    del hyper
    mean, log_std = jnp.split(networks.apply(actor, obs, structure), 2, axis=-1)
    return jnp.tanh(mean + jnp.exp(jnp.clip(log_std, *LOG_STD)) * noise)


def draw(actor: MLP, obs: jax.Array, noise: jax.Array, structure: Structure = PLAIN) -> Draw:
    """Return actions for observations [B, O] and standard normal `noise` [B, A], and their log-probabilities (E22)."""
    z, inputs, pull_back = networks.taped(actor, obs, structure)
    mean, raw = jnp.split(z, 2, axis=-1)
    log_std = jnp.clip(raw, *LOG_STD)
    std = jnp.exp(log_std)
    action = jnp.tanh(mean + std * noise)
    density = -0.5 * noise**2 - log_std - 0.5 * np.log(2 * np.pi)
    log_prob = jnp.sum(density - jnp.log(1.0 - action**2 + SLOPE), axis=-1)
    free = jnp.where((raw >= LOG_STD[0]) & (raw <= LOG_STD[1]), 1.0, 0.0).astype(z.dtype)
    return Draw(action, log_prob, std, free, inputs, pull_back)


def targets(
    learner: Learner,
    batch: Batch,
    hyper: Hyperparameters,
    temperature: jax.Array,
    noise: jax.Array,
    structure: Structure = PLAIN,
) -> jax.Array:
    """Return the critics' targets [B] (E23), with `noise` [B, A] standard normal.

    They bootstrap from the next observation wherever the episode did not terminate: through truncation, too.
    """
    drawn = draw(learner.actor, batch.next_obs, noise, structure)
    values = [q_values(critic, batch.next_obs, drawn.action, structure) for critic in learner.target_critics]
    value = reduce(jnp.minimum, values)
    return batch.reward + hyper.discount * (1.0 - batch.terminated) * (value - temperature * drawn.log_prob)


def actor_tape(
    actor: MLP,
    critics: tuple[MLP, ...],
    batch: Batch,
    temperature: jax.Array,
    noise: jax.Array,
    signs: jax.Array,
    exact: bool,
    structure: Structure = PLAIN,
) -> tuple[MLP, Tape, jax.Array]:
    """Return the actor's gradient, its tape and its loss [] (E24, E24a, E25).

    Args:
        actor: before the step.
        critics: of which each sample's smaller one judges.
        batch: B transitions.
        temperature: [].
        noise: [B, A] standard normal, of the actions.
        signs: [B, 2A] numbers of which the signs are drawn: of the one column that stands for all where not `exact`.
        exact: one pull-back for each of the 2A outputs instead.
        structure: of the networks.
    """
    drawn = draw(actor, batch.obs, noise, structure)
    action, through_tanh = drawn.action, 1.0 - drawn.action**2
    both = [networks.taped(critic, jnp.concatenate([batch.obs, action], axis=-1), structure) for critic in critics]
    values = jnp.concatenate([q for q, _, _ in both], axis=-1)
    smaller = jax.nn.one_hot(jnp.argmin(values, axis=-1), len(critics), dtype=values.dtype)
    q_slope = sum(
        networks.to_input(critic, pull_back(smaller[:, n : n + 1]))[:, batch.obs.shape[-1] :]
        for n, (critic, (_, _, pull_back)) in enumerate(zip(critics, both, strict=True))
    )
    to_mean = temperature * 2.0 * action * through_tanh / (through_tanh + SLOPE) - q_slope * through_tanh
    to_log_std = (to_mean * drawn.std * noise - temperature) * drawn.free
    pulled = drawn.pull_back(jnp.concatenate([to_mean, to_log_std], axis=-1))
    root = jnp.concatenate([1.0 / drawn.std, np.sqrt(2.0).astype(action.dtype) * drawn.free], axis=-1)
    if exact:
        columns = [jnp.zeros_like(root).at[:, k].set(root[:, k]) for k in range(root.shape[-1])]
    else:
        columns = [jnp.where(signs < 0, -root, root)]
    sensitivities = pulled_back(drawn.pull_back, columns)
    tape = Tape(drawn.inputs, pulled, sensitivities, batch.weight, jnp.ones((), action.dtype))
    loss = jnp.vdot(batch.weight, temperature * drawn.log_prob - values.min(axis=-1))
    return networks.gradients(drawn.inputs, pulled, batch.weight), tape, loss


def learn(
    learner: Learner, batch: Batch, hyper: Hyperparameters, noise: jax.Array, step: jax.Array, settings: Settings
) -> tuple[Learner, Sums]:
    """Do one update of the temperature, the critics, the actor and the targets, in this order.

    The temperature of before its update enters all the others, and the actor of before its update every action.

    Args:
        learner: the member before the update.
        batch: B transitions; weights sum to one.
        hyper: the member's hyperparameters, each [].
        noise: standard normal [B, 2A]: the first half for the next actions, the second for the current ones.
        step: [] how many updates the cohort has done; shared by its members.
        settings: what is fixed.

    Returns:
        The learner after the update and its sums.
    """
    before = learner
    temperature, target = jnp.exp(before.log_temperature), targets_of(before, batch, hyper, noise, settings.structure)
    learner = update_temperature(before, batch, hyper, noise, step, settings.structure)
    learner, sums = update_critics(learner, batch, target, hyper, step, settings)
    learner, of_actor = update_actor(learner, batch, hyper, temperature, noise, step, settings)
    learner = learner._replace(target_critics=polyak(learner.target_critics, learner.critics, hyper.tau))
    return learner, jax.tree.map(jnp.add, sums, of_actor)


def targets_of(learner: Learner, batch: Batch, hyper: Hyperparameters, noise: jax.Array, structure: Structure) -> jax.Array:
    """Return the critics' targets [B] with the learner's own temperature and the first half of `noise` [B, 2A]."""
    temperature, next_noise = jnp.exp(learner.log_temperature), jnp.split(noise, 2, axis=-1)[0]
    return targets(learner, batch, hyper, temperature, next_noise, structure)


def update_temperature(
    learner: Learner, batch: Batch, hyper: Hyperparameters, noise: jax.Array, step: jax.Array, structure: Structure
) -> Learner:
    """Do one step of the temperature towards an entropy of -A (E26); one that is not finite is left out."""
    drawn = draw(learner.actor, batch.obs, jnp.split(noise, 2, axis=-1)[1], structure)
    gradient = -jnp.vdot(batch.weight, drawn.log_prob - drawn.action.shape[-1])
    rates: Any = Rates(hyper.temperature_learning_rate, jnp.zeros(()))
    given: Any = (gradient, learner.temperature_state, learner.log_temperature, rates, None, step)
    log_temperature, state, _ = ADAM.update(*given)
    return learner._replace(log_temperature=log_temperature, temperature_state=state)


def update_actor(
    learner: Learner,
    batch: Batch,
    hyper: Hyperparameters,
    temperature: jax.Array,
    noise: jax.Array,
    step: jax.Array,
    settings: Settings,
) -> tuple[Learner, Sums]:
    """Do one optimizer step of the actor at a temperature []; `noise` [B, 2A] is standard normal."""
    optimizer = settings.actor_optimizer
    next_noise, own = jnp.split(noise, 2, axis=-1)
    # The slope of a standard deviation has its own noise's sign as factor, so that sign is not drawn for it.
    signs = jnp.concatenate([own, next_noise], axis=-1)
    given = (batch, temperature, own, signs, optimizer.exact_tape, settings.structure)
    taped = actor_tape(learner.actor, learner.critics, *given)
    return step_actor(learner, taped, hyper, step, optimizer)


def burn_in(learner: Learner, batch: Batch, hyper: Hyperparameters, noise: jax.Array, settings: Settings) -> Learner:
    """Let curvature optimizers gather a batch's statistics (actor_critic.gather)."""

    def step(learner: Learner, still: Hyperparameters, first: jax.Array) -> tuple[Learner, Sums]:
        return update_actor(learner, batch, still, jnp.exp(learner.log_temperature), noise, first, settings)

    target = targets_of(learner, batch, hyper, noise, settings.structure)
    return gather(learner, batch, target, hyper, settings, step)
