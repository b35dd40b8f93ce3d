"""evolute sweep: train a grid of runs, here or on a cluster."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from evolute.commands.cells import admit_all, jobs_of, missing_of, ready, train_missing
from evolute.commands.flags import AllowImportFlag, OnFlag, QuietFlag, WithoutTokenFlag, value_of, whole_number
from evolute.commands.hints import quoted
from evolute.errors import RunStopped, UserError
from evolute.streams import complain, make_output_optional

FileArgument = tyro.conf.Positional[
    Annotated[
        str | None,
        tyro.conf.arg(metavar="GRID", help="TOML file of environments, arms and seeds.", help_behavior_hint="(needed)"),
    ]
]


@dataclass(frozen=True)
class Flags:
    """Train every run of a grid that has not ended; the same command goes on with those that were stopped."""

    grid: FileArgument = None
    on: OnFlag = None
    without_token: WithoutTokenFlag = False
    scale: Annotated[str, tyro.conf.arg(metavar="{full,small,smoke}")] = "full"
    """full: as the file says; small: within hours; smoke: within minutes."""
    seeds: Annotated[str | None, tyro.conf.arg(metavar="INT", help_behavior_hint="(default: the file's)")] = None
    """How many repetitions, such as 3 for the seeds 0, 1 and 2."""
    out: Annotated[Path | None, tyro.conf.arg(metavar="PATH", help_behavior_hint="(default: experiments/<scale>)")] = None
    """Folder for runs and records; on a cluster all machines must share it, unless there is a storage."""
    storage: Annotated[str | None, tyro.conf.arg(metavar="URL", help_behavior_hint="(default: none)")] = None
    """Copy of that folder, such as s3://bucket/sweep: written after each checkpoint; a run elsewhere goes on from it."""
    jobs: Annotated[
        str | None, tyro.conf.arg(metavar="INT", help_behavior_hint="(default: one for each core; on a cluster all that fit)")
    ] = None
    """Runs that train at the same time."""
    cores: Annotated[str | None, tyro.conf.arg(metavar="INT", help_behavior_hint="(default: the file's workers)")] = None
    """Cores of each run on a cluster."""
    gpus: Annotated[str | None, tyro.conf.arg(metavar="FLOAT", help_behavior_hint="(default: 0)")] = None
    """GPUs of each run on a cluster; a part of one, such as 0.25, lets several runs share it."""
    keep: Annotated[bool, tyro.conf.FlagCreatePairsOff, tyro.conf.arg(help_behavior_hint="(default: remove them)")] = False
    """Keep replay and checkpoints of runs that have ended; without them a run folder has a few megabytes."""
    allow_import: AllowImportFlag = None
    quiet: QuietFlag = False


def run(flags: Flags) -> None:
    """Train what is missing."""
    from evolute.cluster import connection
    from evolute.commands.compile_cache import remember_compiled_programs
    from evolute.experiments import grid
    from evolute.experiments.jobs import Kept
    from evolute.experiments.mirror import Mirror

    make_output_optional()
    if flags.grid is None:
        raise UserError("no grid is given; name a TOML file, such as grid.toml (docs/experiments.md).")
    on = connection.LOCAL if flags.on is None else flags.on
    connection.check(on, flags.without_token)
    for name in ("cores", "gpus"):
        if on == connection.LOCAL and getattr(flags, name) is not None:
            raise UserError(f"--{name} is for a cluster; leave it out, or train on one with --on ray.")
    seeds = None if flags.seeds is None else whole_number("--seeds", flags.seeds, least=1)
    jobs, gpus = jobs_of(flags), _gpus(flags.gpus)
    out = (flags.out or Path("experiments") / flags.scale).absolute()
    cells = grid.cells(grid.load(flags.grid, flags.scale), seeds=seeds)
    cores = max(cell.workers for cell in cells) if flags.cores is None else whole_number("--cores", flags.cores, least=1)
    admit_all(cells, flags.allow_import or ())
    kept = Kept(out, flags.keep, flags.storage)
    mirror = None if kept.storage is None else Mirror(out, kept.storage)
    if mirror is not None:
        mirror.fetch_records()
    missing, failed = missing_of(cells, out), ""
    if missing:
        remember_compiled_programs()
    if missing and on == connection.LOCAL:
        from evolute.experiments.local import Processes
        from evolute.training.placement import usable_cores

        ready(out)
        failed = train_missing(missing, Processes(kept, min(jobs or usable_cores(), len(missing))), flags.quiet)
    elif missing:
        with connection.connected(on, flags.without_token):
            from evolute.cluster.sweep import Actors, Share

            ready(out)
            failed = train_missing(missing, Actors(kept, Share(cores, gpus, jobs), complain), flags.quiet)
    if mirror is not None:
        mirror.fetch_records()
    if failed:
        raise RunStopped(failed)
    if not flags.quiet:
        words = ["evolute", "reproduce", flags.grid, "--tables"]
        words += ["--scale", flags.scale] if flags.scale != "full" else []
        words += ["--seeds", flags.seeds] if flags.seeds is not None else []
        words += ["--out", str(flags.out)] if flags.out is not None else []
        print(f"All {len(cells)} runs have ended; for tables and figures: {' '.join(map(quoted, words))}")


def _gpus(given: str | None) -> float:
    value = 0 if given is None else value_of(given)
    if type(value) not in (int, float) or not 0 <= value <= 64:
        raise UserError(f"--gpus is {given}; it must be a number of GPUs or a part of one, such as 1 or 0.25.")
    return float(value)
