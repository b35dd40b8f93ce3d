"""What an exploit copies between algorithms: the networks as far as they are alike."""

from typing import Any

from evolute.algorithms.base import Learner
from evolute.networks import MLP


def graft(own: Learner, other: Learner) -> Learner:
    """Return `own` with what is alike in `other`; both are host arrays without optimizer states.

    - Each critic, and its target, is that of the same number where the sizes agree. A second critic that the other does not have
      stays as it is: two critics that are equal get equal gradients, so their minimum would mean nothing for ever.
    - The actor's hidden layers where all their sizes agree, and then its last layer, too, where that has the same size.
    - The target actor where the actor came whole and the other has one; else it is the actor.

    Args:
        own: a new learner of the algorithm that goes on.
        other: the learner to copy from, of another algorithm.
    """
    count = min(len(own.critics), len(other.critics))
    alike = [shapes(own.critics[n]) == shapes(other.critics[n]) for n in range(count)]
    alike += [False] * (len(own.critics) - count)
    actor = grown(own.actor, other.actor)
    changed: dict[str, Any] = {
        "actor": actor,
        "critics": tuple(other.critics[n] if same else own.critics[n] for n, same in enumerate(alike)),
        "target_critics": tuple(other.target_critics[n] if same else own.target_critics[n] for n, same in enumerate(alike)),
    }
    if hasattr(own, "target_actor"):
        whole = hasattr(other, "target_actor") and shapes(own.actor) == shapes(other.actor)
        changed["target_actor"] = other.target_actor if whole else actor
    return own._replace(**changed)


def shapes(mlp: MLP) -> list[tuple[int, ...]]:
    """Return the shapes of a network's weights [i, o]."""
    return [layer.w.shape for layer in mlp]


def grown(own: MLP, other: MLP) -> MLP:
    """Return `other`'s hidden layers, and its last one where that has the shape of `own`'s; `own` where hidden sizes differ."""
    if shapes(own)[:-1] != shapes(other)[:-1]:
        return own
    last = other[-1] if other[-1].w.shape == own[-1].w.shape else own[-1]
    return (*other[:-1], last)
