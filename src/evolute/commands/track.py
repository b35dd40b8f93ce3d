"""evolute track: what trackers of other programs get of a run, when it is over."""

from dataclasses import dataclass
from typing import Annotated

import tyro

from evolute.commands.flags import RunArgument
from evolute.commands.folders import one_run
from evolute.commands.watching import trackers_of
from evolute.errors import RunStopped, UserError, printable


@dataclass(frozen=True)
class Flags:
    """Write a run's metrics for a tracker, as --track does while a run trains; what it wrote before is replaced."""

    run: RunArgument = None
    to: Annotated[str, tyro.conf.arg(metavar="{tensorboard,wandb}")] = "tensorboard"
    """The tracker."""


def run(flags: Flags) -> None:
    """Write it, and say how to look at it."""
    from evolute.report.trackers import TRACKERS
    from evolute.report.tracking import Feed
    from evolute.runs.folder import RunFolder

    path = one_run(flags.run)
    (name,) = trackers_of("--to", [flags.to])

    def fail(name: str, why: str) -> None:
        raise RunStopped(f"{name} failed: {why}.")

    folder = RunFolder.open(path)
    # A process that trains it may be telling the same tracker.
    with folder.held():
        try:
            told = Feed(path, [name], fail).close()
        except RunStopped as stop:
            raise UserError(f"{path} cannot be told to {stop}") from None
    print(printable(f"{told:,} points; look at them with: {TRACKERS[name].look(path)}"))
