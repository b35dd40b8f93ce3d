"""Starting members from a policy: actors from its weights, normalisers from its scaling; critics are new."""

from pathlib import Path
from typing import Any

import numpy as np

from evolute.algorithms.base import Learner
from evolute.config import Run
from evolute.environments.normalise import EPSILON, Normaliser
from evolute.errors import UserError
from evolute.files import BEST_FOLDER
from evolute.networks import Layer
from evolute.policy import Policy
from evolute.structure import PLAIN, Structure

# As how many observations the scaling of a policy counts, which does not say how many it was made of.
COUNTED_AS = 10_000


def policy_of(run: Run) -> Policy | None:
    """Return the policy that members of a run start from, if any; raises UserError where there is none to be read."""
    if run.init_from == "none":
        return None
    path = Path(run.init_from)
    policy = Policy.load(path / BEST_FOLDER if (path / BEST_FOLDER).is_dir() else path)
    if (policy.scaling is not None) != run.normalize_observations:
        does, other = ("scales", "true") if policy.scaling else ("does not scale", "false")
        raise UserError(
            f"init_from is {run.init_from!r}, whose policy {does} observations, and normalize_observations is "
            f"{str(run.normalize_observations).lower()}; set it to {other}."
        )
    return policy


def with_policy(learner: Learner, policy: Policy, kind: str, actions: int, structure: Structure = PLAIN) -> Learner:
    """Return a new learner, as host arrays, whose actor is a policy; a standard deviation that it has besides stays as new.

    Args:
        learner: without optimizer states.
        policy: to start from.
        kind: of the learner.
        actions: how many numbers an action has, A.
        structure: of the learner's networks.

    Raises:
        UserError: their sizes or structures differ.
    """
    if policy.structure != structure:
        raise UserError(
            f"the actor of init_from is {policy.structure}, and that of members of the kind {kind} is {structure}; set "
            f"{' and '.join(differing(policy.structure, structure))}, or start from another policy."
        )
    own = learner.actor
    theirs = (len(policy.weights[0][0]), *(len(b) for _, b in policy.weights))
    mine = (*(layer.w.shape[0] for layer in own), actions)
    if theirs != mine:
        raise UserError(
            f"init_from has an actor of {shown(theirs)}, and members of the kind {kind} have {shown(mine)}; choose actor_layers "
            "and an environment that fit, or start from another policy."
        )
    *hidden, last = (Layer(*pair) for pair in policy.weights)  # type: ignore[arg-type]
    if own[-1].b.shape[-1] == 2 * actions:
        # The outputs of the mean come first.
        both = zip(last, own[-1], strict=True)
        last = Layer(*(np.concatenate([x, np.asarray(old)[..., actions:]], axis=-1) for x, old in both))  # type: ignore[arg-type]
    given = (*hidden, last)
    changed: dict[str, Any] = {"actor": given}
    if hasattr(learner, "target_actor"):
        changed["target_actor"] = given
    return learner._replace(**changed)


def differing(wanted: Structure, own: Structure) -> list[str]:
    """Return the settings, with their values, that make one structure another."""
    pairs = zip(wanted._asdict().items(), own, strict=True)
    return [f"{name} to {str(value).lower()}" for (name, value), old in pairs if value != old]


def begin(normaliser: Normaliser, policy: Policy) -> None:
    """Let a new normaliser begin with what a policy scales by."""
    assert policy.scaling is not None, "policy_of refuses others"
    normaliser.count = COUNTED_AS
    normaliser.mean = policy.scaling.mean.astype(np.float64)
    deviation = 1.0 / policy.scaling.factor.astype(np.float64)
    normaliser.squares = COUNTED_AS * np.maximum(deviation**2 - EPSILON, 0.0)


def shown(numbers: tuple[int, ...]) -> str:
    """Return sizes as people write them."""
    return "-".join(map(str, numbers))
