"""Who has which cores of which machine: Ray counts cores and pins nobody, and XLA would use all of them in every process."""

from collections.abc import Sequence


class Cores:
    """The cores of each machine, and how many workers each has. A machine is known once a worker on it says what it may use."""

    def __init__(self) -> None:
        self._users: dict[str, dict[int, int]] = {}

    def take(self, machine: str, usable: Sequence[int], count: int) -> list[int]:
        """Return cores for a worker: those that the fewest others have.

        Args:
            machine: its name.
            usable: cores that a process may use there; none where its system does not say.
            count: how many; at most all.
        """
        users = self._users.setdefault(machine, {})
        for core in usable:
            users.setdefault(core, 0)
        taken = sorted(sorted(usable, key=lambda core: (users[core], core))[: max(1, count)])
        for core in taken:
            users[core] += 1
        return taken

    def give_back(self, machine: str, cores: Sequence[int]) -> None:
        """Let others have the cores of a worker that is no more."""
        for core in cores:
            self._users[machine][core] -= 1


def cores_each(nodes: Sequence[int], workers: int) -> int:
    """Return the most cores that each of some workers can have, none of which lives on two nodes; 0 where they are too many.

    Args:
        nodes: free cores of each.
        workers: how many.
    """
    return next((own for own in range(max(nodes, default=0), 0, -1) if sum(free // own for free in nodes) >= workers), 0)
