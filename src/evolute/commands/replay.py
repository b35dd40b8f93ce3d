"""evolute replay: one agent goes through the ancestry of a run's winner."""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from evolute.commands.flags import OUT, AllowImportFlag, QuietFlag, RunArgument, WorkersFlag
from evolute.commands.folders import one_run
from evolute.commands.train import different
from evolute.commands.watching import admit, report, train_seeds, watching, workers_of

if TYPE_CHECKING:
    from evolute.commands.watching import Ended
    from evolute.report.replaying import Winner


@dataclass(frozen=True)
class Flags:
    """Train one agent through the ancestry of a run's best policy, with its kinds and hyperparameters at the same steps."""

    run: RunArgument = None
    seeds: Annotated[
        tuple[str, ...] | None, tyro.conf.arg(metavar="INT ...", help_behavior_hint="(default: the one after the run's)")
    ] = None
    """Seeds of independent agents to train side by side."""
    out: Annotated[Path | None, tyro.conf.arg(metavar="PATH", help_behavior_hint=f"(default: {OUT})")] = None
    """Folder for the records; must not hold a run yet."""
    workers: WorkersFlag = None
    allow_import: AllowImportFlag = None
    quiet: QuietFlag = False


def run(flags: Flags) -> None:
    """Train the agents, and print their results beside the population's."""
    path = one_run(flags.run)
    with watching(flags.quiet) as watcher:
        from evolute.environments.making import modules_of
        from evolute.report.replaying import replay_of
        from evolute.runs.folder import RunFolder

        one, winner = replay_of(path)
        seeds = [(one.seed + 1) % 2**32] if flags.seeds is None else different(flags.seeds)
        admit(modules_of(one.env, one.wrap), flags.allow_import or ())
        if watcher is not None:
            copies = f"{winner.exploits} cop{'y' if winner.exploits == 1 else 'ies'}"
            best = f"the best policy is member {winner.member}'s after {winner.steps:,} steps"
            watcher.say(f"The winner of {path}: {best}; its line of ancestors has {copies}.")
        ended = train_seeds(replace(one, seed=seeds[0]), seeds, flags.out, watcher, workers_of(flags) or 1)
        population = RunFolder.open(path).result()
    report(ended, watcher)
    if not flags.quiet:
        _compare(path, winner, population, ended)


def _compare(path: Path, winner: "Winner", result: "dict | None", ended: Sequence["Ended"]) -> None:
    """Print what became of the schedule without the population."""
    from evolute.report.tables import console, fitted, number, plain

    final = result.get("best", {}) if result else {}
    rows = [[plain(str(path)), "population", number(winner.fitness), number(_number(final.get("return_mean")))]]
    returns = []
    for one, out, _ in ended:
        best = one.summary["best"]
        returns.append(best["return_mean"])
        rows.append(
            [plain(str(out)), f"replay, seed {one.summary['seed']}", number(best["fitness"]), number(best["return_mean"])]
        )
    screen = console()
    columns = ("run", "what", "best fitness", "fresh episodes")
    screen.print(fitted("The schedule with and without the population", columns, rows, screen.width, columns[:2], ("run",)))
    if len(returns) > 1:
        mean, error = statistics.fmean(returns), statistics.stdev(returns) / math.sqrt(len(returns))
        screen.print(f"Replays: {number(mean)} ± {number(error)} (standard error over {len(returns)} seeds).", markup=False)


def _number(value: object) -> float | None:
    return float(value) if isinstance(value, int | float) else None
