"""What is known of the machines of a cluster, and what each must be and see."""

import contextlib
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from evolute.cluster.actor import Where
from evolute.cluster.cores import Cores
from evolute.environments.gym import versions
from evolute.errors import RunStopped
from evolute.runs.circumstances import arithmetic_fingerprint
from evolute.training import needs


class Machines:
    """The machines of a cluster."""

    def __init__(self, folder: Path | None, note: Callable[[str], None]):
        """Know none yet.

        Args:
            folder: which all of them must see; it need not be there yet. None where nothing is written.
            note: is told of a machine that computes otherwise than this one.
        """
        self._folder, self._note, self._cores = folder, note, Cores()
        self._versions, self._arithmetic = versions(), arithmetic_fingerprint()
        self._different: set[str] = set()

    @contextlib.contextmanager
    def seen(self) -> Iterator[str | None]:
        """Make a file meanwhile, of which every machine is asked whether it sees it."""
        if self._folder is None:
            yield None
            return
        # Named as what a checkpoint clears away, should nobody come to do so here.
        with tempfile.NamedTemporaryFile(dir=needs.existing(self._folder), prefix=".seen", suffix=".partial") as made:
            yield made.name

    def admit(self, where: Where, sees: bool, count: int) -> list[int]:
        """Return the cores of a process that has begun on a machine; raises RunStopped where nothing can be trained there.

        Args:
            where: it runs.
            sees: whether it has seen the file.
            count: of cores.
        """
        if not sees:
            raise RunStopped(
                f"the machine {where.machine!r} of the cluster does not see {str(self._folder)!r}; with --out, choose a folder "
                "that all machines share."
            )
        pairs = {name: (where.versions.get(name), version) for name, version in self._versions.items()}
        told = ", ".join(f"{name} is {there} there and {here} here" for name, (there, here) in pairs.items() if here != there)
        if told:
            raise RunStopped(f"the machine {where.machine!r} of the cluster has other versions: {told}; install the same on all.")
        if where.arithmetic != self._arithmetic and where.machine not in self._different:
            self._different.add(where.machine)
            self._note(
                f"the processor of {where.machine!r} rounds otherwise than this one's, so numbers depend on what trains there, "
                "and do not repeat bit by bit elsewhere."
            )
        return self._cores.take(where.machine, where.usable, count)

    def leave(self, where: Where, cores: list[int]) -> None:
        """Let others have the cores of a process that is no more."""
        self._cores.give_back(where.machine, cores)
