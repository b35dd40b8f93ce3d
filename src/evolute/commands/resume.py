"""evolute resume: go on with a run."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import tyro

from evolute.commands.flags import (
    AllowImportFlag,
    LogFlag,
    OnFlag,
    QuietFlag,
    RunArgument,
    StragglersFlag,
    TrackFlag,
    WithoutTokenFlag,
    WorkersFlag,
    whole_number,
)
from evolute.commands.folders import one_run
from evolute.commands.watching import admit, hiring, noting, report, trackers_of, tracking, watch, watching

if TYPE_CHECKING:
    from evolute.state import Observer, Result


@dataclass(frozen=True)
class Flags:
    """Go on with a run that was stopped, from its newest whole checkpoint; or make a run longer."""

    run: RunArgument = None
    steps: Annotated[str | None, tyro.conf.arg(metavar="INT", help_behavior_hint="(default: as the run was asked for)")] = None
    """Environment steps of each member, in all: the run's new length."""
    allow_version_change: Annotated[
        bool,
        tyro.conf.FlagCreatePairsOff,
        tyro.conf.arg(
            help="Go on with other versions or another physics than the run was trained with.",
            help_behavior_hint="(default: refuse)",
        ),
    ] = False
    workers: WorkersFlag = None
    on: OnFlag = None
    stragglers: StragglersFlag = False
    without_token: WithoutTokenFlag = False
    track: TrackFlag = None
    allow_import: AllowImportFlag = None
    log: LogFlag = "auto"
    quiet: QuietFlag = False


def run(flags: Flags) -> None:
    """Train the rest of the run."""
    path = one_run(flags.run)
    folder = path.absolute()
    steps = None if flags.steps is None else whole_number("--steps", flags.steps, least=1)
    allowed, trackers = flags.allow_import or (), trackers_of("--track", flags.track)
    with watching(flags.quiet, flags.log) as watcher, hiring(flags) as workers:
        from evolute.resumption import resume

        def train(observer: "Observer") -> list["Result"]:
            note = noting(str(path), watcher)
            return [resume(path, steps, observer, flags.allow_version_change, allowed, note, workers)]

        admit(allowed, allowed)
        told = tracking(trackers, lambda seed: folder, watcher) if trackers else None
        ended = watch(train, [path], [folder], allowed, watcher, told)
    report(ended, watcher)
