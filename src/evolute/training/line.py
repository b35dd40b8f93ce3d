"""The contract of a line: how a worker that is elsewhere is reached. Pipes are in processes.py, those of Ray in cluster/."""

from typing import Any, Protocol

from evolute.training.worker import Tell


class Lost(Exception):
    """A worker is no more; says how it ended."""


class Gone(Exception):
    """A parcel was lost with the machine that it was on."""


class Line(Protocol):
    """How a worker is reached, from its start to its end. What it is asked first is answered by what its environment says.

    Attributes:
        keeps: whether what a worker gave outlives it.
        unready: what to do where it is lost before it was ready, in words.
    """

    keeps: bool
    unready: str

    def send(self, call: str, arguments: tuple[Any, ...]) -> None:
        """Ask for something; where nobody hears it, `receive` finds out."""
        ...

    def receive(self, tell: Tell | None) -> Any:
        """Return the next answer; raises what the worker raised, Lost where none comes, and Gone for a parcel that is no more."""
        ...

    def ready(self) -> bool:
        """Return whether an answer is there already; raises Lost where none comes."""
        ...

    def stand_aside(self) -> None:
        """Count as somebody who has done all steps: the others do not wait for it."""
        ...

    def could_move(self) -> bool:
        """Return whether a new worker would have a better place."""
        ...

    def end(self, kindly: bool) -> None:
        """End the worker for certain; `kindly` lets it close its environments first."""
        ...
