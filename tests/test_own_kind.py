"""A curvature kind with as little as one may have: no damping, no tape, and a burn-in of any length."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import pytest

import evolute
from evolute import engine, optimizers, options
from evolute.errors import UserError
from evolute.networks import MLP
from evolute.optimizers import Optimizer


class Counted(NamedTuple):
    """How often `update` was called, and how often at step 0 and learning rate zero: a burn-in."""

    calls: jax.Array
    burn_ins: jax.Array


@options.declared
class PlainOptions:
    """No damping, no burn-in, no tape: as little as an optimizer may have."""

    learning_rate: float = options.setting("Step size.", options.positive(), "0.1")
    gain: float = options.setting("Factor of the gradient.", options.positive(), "2", default=1.0)


def plain_kind(actor_batches: int, critic_batches: int) -> optimizers.CurvatureKind:
    """Gradient descent that wants as many batches as it is told before its first step; the critics' learning rate is 0.5."""

    def factory(own: PlainOptions) -> Optimizer:
        def init(parameters: MLP) -> Counted:
            return Counted(jnp.zeros((), jnp.int32), jnp.zeros((), jnp.int32))

        def update(gradients, state, parameters, rates, tape, step):
            new = jax.tree.map(lambda p, g: p - own.gain * rates.learning_rate * g, parameters, gradients)
            still = jnp.int32((step == 0) & (rates.learning_rate == 0))
            return new, Counted(state.calls + 1, state.burn_ins + still), optimizers.nothing_contained()

        return Optimizer(init, update, burn_in=critic_batches if own.learning_rate == 0.5 else actor_batches)

    return optimizers.CurvatureKind(factory, PlainOptions, {"actor": {"learning_rate": 0.1}, "critic": {"learning_rate": 0.5}})


@pytest.mark.parametrize(("actor_batches", "critic_batches"), [(0, 0), (3, 3), (2, 5), (4, 0)])
def test_a_kind_without_damping_trains_and_gathers_as_many_batches_as_it_asks_for(monkeypatch, actor_batches, critic_batches):
    monkeypatch.setitem(optimizers.CURVATURE_KINDS, "plain", plain_kind(actor_batches, critic_batches))
    assert not optimizers.has_damping("plain")
    sizes = {"steps": 60, "interval": 30, "learning_starts": 20, "batch_size": 32, "policy_delay": 2}
    run = evolute.Run(
        "probe_envs:Limit-v0", mix={"plain": 2}, actor_layers=[4], critic_layers=[4], episodes=1, final_episodes=1, **sizes
    )
    assert set(run.perturbed("plain")) == {"batch_size", "actor_learning_rate", "critic_learning_rate"}
    [state], [host] = engine.start([run])
    try:
        engine.go_on([state], [host], [None], None)
        for member in host.members.values():
            learner = host.group_of(member.lane).take(member.lane)
            assert member.gradient_steps == 40
            assert learner.actor_state == Counted(20 + actor_batches, actor_batches)
            assert learner.critic_states == (Counted(40 + critic_batches, critic_batches),) * 2
    finally:
        engine.close([host])


def test_a_kinds_own_options_are_checked_like_all_others(monkeypatch):
    monkeypatch.setitem(optimizers.CURVATURE_KINDS, "plain", plain_kind(0, 0))
    for wrong, said in {"gain": "a finite positive number, such as 2", "gian": "did you mean 'gain'"}.items():
        with pytest.raises(UserError, match=said):
            optimizers.resolve_options("plain", "actor", {wrong: -1.0}, 1e-3)
