"""evolute train: a population from start to end."""

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from evolute.commands.flags import separate, settings_of, train_flags, whole_number
from evolute.commands.watching import admit, hiring, report, trackers_of, train_seeds, watching, workers_of
from evolute.errors import UserError
from evolute.streams import complain

if TYPE_CHECKING:
    from evolute.config import Run

Flags = train_flags()


def run(flags: Any) -> None:
    """Train one population for each seed."""
    if flags.dry_run:
        wanted, seeds = asked_for(flags)
        print_plan(wanted, seeds, workers_of(flags) or 1)
        return
    trackers = trackers_of("--track", flags.track)
    with watching(flags.quiet, flags.log) as watcher:
        wanted, seeds = asked_for(flags)
        with hiring(flags) as workers:
            ended = train_seeds(wanted, seeds, flags.out, watcher, workers, trackers)
    report(ended, watcher)


def asked_for(flags: Any) -> tuple["Run", list[int]]:
    """Return the run that flags and file describe, and its seeds."""
    from evolute.config import Run
    from evolute.environments.making import modules_of

    settings = settings_of(flags)
    if "env" not in settings:
        raise UserError("no environment is given; name one, such as: evolute train HalfCheetah-v4.")
    if flags.seed is not None and flags.seeds is not None:
        raise UserError("both --seed and --seeds are given; choose one.")
    run = Run(**settings)
    seeds = [run.seed] if flags.seeds is None else different(flags.seeds)
    for seed in seeds:
        dataclasses.replace(run, seed=seed)  # keeps the rule of a seed, or is refused
    # Who types an environment or a wrapper means its module, too.
    typed = modules_of(run.env if flags.env is not None else "", run.wrap if flags.wrap is not None else ())
    admit(modules_of(run.env, run.wrap), [*typed, *(flags.allow_import or ())])
    return run, seeds


def print_plan(run: "Run", seeds: Sequence[int], workers: int) -> None:
    """Print what populations will take of this machine, from a short measurement of each kind of member."""
    from evolute.commands.compile_cache import remember_compiled_programs
    from evolute.environments.gym import Environment
    from evolute.environments.making import making_of
    from evolute.experiments import costs
    from evolute.experiments.grid import Cell
    from evolute.report.tables import duration
    from evolute.training import needs, placement

    probe = Environment(run.env, run.time_limit, making_of(run))
    probe.close()
    remember_compiled_programs()
    takes = len(seeds) * sum(costs.plan([Cell(run.env, "", run, 0)], complain))
    need = needs.needs(run, len(seeds), probe.shape, workers)
    cores = min(placement.usable_cores(), len(run.kinds) * len(seeds))
    size = needs.size
    print(
        f"Up to {size(need.memory)} of memory, {size(need.disk)} of disk, and {need.environments} environments at once; about "
        f"{duration(takes / cores)} on {cores} core{'s' if cores > 1 else ''}, and a minute of compilation"
    )
    needs.check(run, need, [])


def different(words: Sequence[str]) -> list[int]:
    """Return the numbers that --seeds was given."""
    separate("--seeds", words, "0 1 2")
    seeds = [whole_number("--seeds", word, least=0) for word in words]
    if not seeds or len(set(seeds)) < len(seeds):
        given = " ".join(words) or "empty"
        raise UserError(f"--seeds is {given}; it must be one or more different whole numbers, such as 0 1 2.")
    return seeds
