"""evolute train: a population from start to end."""

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from evolute.commands.flags import separate, settings_of, train_flags, whole_number
from evolute.commands.watching import admit, report, train_seeds, watching, workers_of
from evolute.errors import UserError

if TYPE_CHECKING:
    from evolute.config import Run

Flags = train_flags()


def run(flags: Any) -> None:
    """Train one population for each seed."""
    with watching(flags.quiet) as watcher:
        wanted, seeds = asked_for(flags)
        ended = train_seeds(wanted, seeds, flags.out, watcher, workers_of(flags))
    report(ended, flags.quiet)


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
    seeds = [run.seed] if flags.seeds is None else _different(flags.seeds)
    for seed in seeds:
        dataclasses.replace(run, seed=seed)  # keeps the rule of a seed, or is refused
    # Who types an environment or a wrapper means its module, too.
    typed = modules_of(run.env if flags.env is not None else "", run.wrap if flags.wrap is not None else ())
    admit(modules_of(run.env, run.wrap), [*typed, *(flags.allow_import or ())])
    return run, seeds


def _different(words: Sequence[str]) -> list[int]:
    """Return the numbers that --seeds was given."""
    separate("--seeds", words, "0 1 2")
    seeds = [whole_number("--seeds", word, least=0) for word in words]
    if not seeds or len(set(seeds)) < len(seeds):
        given = " ".join(words) or "empty"
        raise UserError(f"--seeds is {given}; it must be one or more different whole numbers, such as 0 1 2.")
    return seeds
