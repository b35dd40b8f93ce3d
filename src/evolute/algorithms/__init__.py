"""What a member learns by: the contract is in base.py."""

from collections.abc import Callable, Mapping
from typing import Any

from evolute import kinds, optimizers
from evolute.algorithms import ddpg, sac, td3
from evolute.algorithms.base import Algorithm as Algorithm
from evolute.config import Run
from evolute.structure import Structure

# By name: (what every algorithm's settings have, the run's settings for it) -> the algorithm. presets.py names the same ones.
MAKERS: dict[str, Callable[[dict[str, Any], Mapping[str, Any]], Algorithm]] = {
    "td3": lambda common, own: td3.make(td3.Settings(**common, policy_delay=own["policy_delay"])),
    "ddpg": lambda common, own: ddpg.make(td3.Settings(**common)),
    "sac": lambda common, own: sac.make(sac.Settings(**common)),
}


def build(run: Run, kind: str, observations: int, actions: int) -> Algorithm:
    """Return what members of a kind learn by, with observations [O] and actions [A]."""
    own = run.settings_of(kind)
    common = {
        "observations": observations,
        "actions": actions,
        "actor_layers": own["actor_layers"],
        "critic_layers": own["critic_layers"],
        "structure": Structure.of(own),
        **{f"{role}_optimizer": optimizers.build(*named) for role, named in run.optimizers_of(kind).items()},
    }
    return MAKERS[kinds.of(kind).algorithm](common, own)
