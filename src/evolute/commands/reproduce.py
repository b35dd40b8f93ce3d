"""evolute reproduce: train what is missing of an experiment, and make its tables and figures."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from evolute.commands.cells import admit_all, jobs_of, missing_of, ready, show_page, train_missing
from evolute.commands.flags import AllowImportFlag, QuietFlag, whole_number
from evolute.errors import RunStopped, UserError, printable
from evolute.streams import complain, make_output_optional

if TYPE_CHECKING:
    from evolute.experiments.grid import Cell

NamesArgument = tyro.conf.Positional[
    Annotated[
        tuple[str, ...],
        tyro.conf.arg(metavar="NAME ...", help="Experiments: names, or TOML files of your own.", help_behavior_hint="(needed)"),
    ]
]


@dataclass(frozen=True)
class Flags:
    """Train what is missing of an experiment, and write its tables and figures beside the published numbers."""

    name: NamesArgument = ()
    list: Annotated[bool, tyro.conf.FlagCreatePairsOff, tyro.conf.arg(help_behavior_hint="(default: train)")] = False
    """List the experiments, and train nothing."""
    scale: Annotated[str, tyro.conf.arg(metavar="{full,small,smoke}")] = "full"
    """full: as the experiment says, which for the paper's is its protocol; small: within hours; smoke: within minutes."""
    env: Annotated[tuple[str, ...] | None, tyro.conf.arg(metavar="ENV ...", help_behavior_hint="(default: all)")] = None
    """Only these of its environments; of several experiments, each takes those that it has."""
    arms: Annotated[tuple[str, ...] | None, tyro.conf.arg(metavar="ARM ...", help_behavior_hint="(default: all)")] = None
    """Only these of its arms; of several experiments, each takes those that it has."""
    seeds: Annotated[str | None, tyro.conf.arg(metavar="INT", help_behavior_hint="(default: the experiment's)")] = None
    """How many repetitions, such as 3 for the seeds 0, 1 and 2."""
    out: Annotated[Path | None, tyro.conf.arg(metavar="PATH", help_behavior_hint="(default: experiments/<scale>)")] = None
    """Folder for runs, records, tables and figures; what is there already is not trained again."""
    jobs: Annotated[str | None, tyro.conf.arg(metavar="INT", help_behavior_hint="(default: one for each core)")] = None
    """Runs that train at the same time, each on its share of the cores."""
    dry_run: Annotated[bool, tyro.conf.FlagCreatePairsOff, tyro.conf.arg(help_behavior_hint="(default: train)")] = False
    """Print the runs and the time that they will take, from a short measurement, and train nothing."""
    tables: Annotated[bool, tyro.conf.FlagCreatePairsOff, tyro.conf.arg(help_behavior_hint="(default: train)")] = False
    """Train nothing: make tables and figures of the records that are there."""
    keep: Annotated[bool, tyro.conf.FlagCreatePairsOff, tyro.conf.arg(help_behavior_hint="(default: remove them)")] = False
    """Keep replay and checkpoints of runs that have ended; without them a run folder has a few megabytes."""
    allow_import: AllowImportFlag = None
    quiet: QuietFlag = False


def run(flags: Flags) -> None:
    """Train, and write tables and figures."""
    from evolute.experiments import evidence, grid, page
    from evolute.training.placement import usable_cores

    make_output_optional()
    if flags.list or not flags.name:
        if not flags.list:
            raise UserError(f"no experiment is named; choose from {', '.join(grid.names())}, or give a TOML file.")
        longest = max(map(len, grid.names()))
        for name in grid.names():
            print(f"{name:{longest}} {grid.load(name).title}")
        return
    seeds = None if flags.seeds is None else whole_number("--seeds", flags.seeds, least=1)
    jobs = jobs_of(flags) or usable_cores()
    out = (flags.out or Path("experiments") / flags.scale).absolute()
    experiments = [grid.load(name, flags.scale) for name in flags.name]
    envs = _shares("environment", flags.env, flags.name, [one.envs for one in experiments])
    arms = _shares("arm", flags.arms, flags.name, [list(one.arms) for one in experiments])
    cells = [cell for choice in zip(experiments, envs, arms, strict=True) for cell in grid.cells(*choice, seeds)]
    if not flags.tables:
        admit_all(cells, flags.allow_import or ())
    missing, failed = missing_of(cells, out), ""
    if flags.dry_run:
        _print_plan(cells, missing, min(jobs, max(1, len(missing))))
        return
    if missing and not flags.tables:
        from evolute.commands.compile_cache import remember_compiled_programs
        from evolute.experiments.jobs import Kept
        from evolute.experiments.local import Processes

        ready(out)
        remember_compiled_programs()
        failed = train_missing(missing, Processes(Kept(out, flags.keep), min(jobs, len(missing))), flags.quiet)
    for name, experiment, its_envs, its_arms in zip(flags.name, experiments, envs, arms, strict=True):
        folder = out / Path(name).stem
        found = evidence.gather(experiment, out, its_envs, its_arms, seeds)
        show_page(found, _command(name, flags, its_envs, its_arms), folder, page.reductions(name, flags.scale))
        if not flags.quiet:
            print(f"{experiment.title}: {found.ended} of {found.asked} runs; {printable(str(folder / page.PAGE))}")
    if failed:
        # After the pages: what there is stands in them.
        raise RunStopped(failed)


def _shares(
    what: str, asked: Sequence[str] | None, experiments: Sequence[str], theirs: Sequence[Sequence[str]]
) -> list[list[str]]:
    """Return which of the names asked for each experiment takes: those that are its own."""
    from evolute.experiments.grid import check_there

    if asked is None:
        return [[] for _ in experiments]
    known = dict.fromkeys(one for names in theirs for one in names)
    check_there(what, asked, list(known), " or ".join(experiments))
    shares = [[one for one in asked if one in names] for names in theirs]
    for experiment, names, share in zip(experiments, theirs, shares, strict=True):
        if not share:
            wanted = " or ".join(map(repr, asked))
            raise UserError(f"{experiment} has no {what} {wanted}; leave it out, or name one of its own: {', '.join(names)}.")
    return shares


def _command(name: str, flags: Flags, envs: Sequence[str], arms: Sequence[str]) -> list[str]:
    """Return the command that makes an experiment's page again, as words."""
    words = ["evolute", "reproduce", name, "--scale", flags.scale]
    for flag, values in (("--env", envs), ("--arms", arms)):
        words += [flag, *values] if values else []
    words += ["--seeds", flags.seeds] if flags.seeds is not None else []
    words += ["--allow-import", *flags.allow_import] if flags.allow_import else []
    return [*words, *(["--out", str(flags.out)] if flags.out else [])]


def _print_plan(cells: "Sequence[Cell]", missing: "Sequence[Cell]", jobs: int) -> None:
    """Print which runs are missing, and what they will take."""
    from evolute.commands.compile_cache import remember_compiled_programs
    from evolute.experiments import costs
    from evolute.report.tables import duration

    remember_compiled_programs()
    takes = costs.plan(missing, complain)
    for cell, one in zip(missing, takes, strict=True):
        print(printable(f"{cell.env} {cell.arm} seed {cell.run.seed}: {cell.run.steps:,} steps, {duration(one)} of a core"))
    print(
        f"{len(missing)} of {len(cells)} runs are missing: {duration(sum(takes))} of a core, about {duration(sum(takes) / jobs)} "
        f"with --jobs {jobs}, plus a minute of compilation for each kind of run that is new"
    )
