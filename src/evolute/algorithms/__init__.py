"""What a member learns by: the contract is in base.py."""

from evolute import optimizers
from evolute.algorithms import td3
from evolute.algorithms.base import Algorithm as Algorithm
from evolute.config import Run


def build(run: Run, kind: str, observations: int, actions: int) -> Algorithm:
    """Return what members of a kind learn by, with observations [O] and actions [A]."""
    actor, critic = optimizers.networks_of(kind)
    return td3.make(
        td3.Settings(
            observations=observations,
            actions=actions,
            actor_layers=run.actor_layers,
            critic_layers=run.critic_layers,
            policy_delay=run.policy_delay,
            actor_optimizer=optimizers.build(actor, run.optimizers[actor]["actor"]),
            critic_optimizer=optimizers.build(critic, run.optimizers[critic]["critic"]),
        )
    )
