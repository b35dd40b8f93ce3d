"""What puts a member into quarantine, apart from faults of its environment."""

from collections.abc import Sequence

from evolute.algorithms.base import Sums


def divergence(broken: Sequence[str], sums: Sums) -> str | None:
    """Return in words how a member has diverged in an interval; None for a sound one.

    Args:
        broken: which of its networks have a parameter that is not finite.
        sums: of its updates.
    """
    if broken:
        return f"parameters of its {' and '.join(broken)} are not finite"
    network_updates = sums.critic_updates + sums.actor_updates + sums.contained.losses
    if network_updates and sums.contained.steps >= network_updates:
        return "no update of it was finite"
    # One that is contained does no harm, such as a transition's that paid more than single precision can square: every batch
    # that draws it has such a loss. A member whose values have grown without end has them all the time.
    if 2 * sums.contained.losses > network_updates:
        return f"the losses of {sums.contained.losses:.0f} of its {network_updates:.0f} updates of a network were not finite"
    return None
