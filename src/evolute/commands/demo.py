"""evolute demo: a mixed population within minutes."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from evolute.commands.flags import OUT, QuietFlag, SeedFlag, value_of
from evolute.commands.report import REPORT_FILE, write
from evolute.commands.watching import report, train_seeds, watching


@dataclass(frozen=True)
class Flags:
    """Train a mixed population of four on HalfCheetah-v4, in a few minutes on two cores."""

    seed: SeedFlag = "0"
    """Seed of everything random in the run."""
    out: Annotated[Path | None, tyro.conf.arg(metavar="PATH", help_behavior_hint=f"(default: {OUT})")] = None
    """Folder for the run's records; must not hold a run yet."""
    quiet: QuietFlag = False


def run(flags: Flags) -> None:
    """Train the population."""
    with watching(flags.quiet) as watcher:
        from evolute.config import Run

        # Small networks and a short warm-up: enough to run, literally, within minutes.
        population = Run(
            "HalfCheetah-v4",
            mix={"adam": 2, "kfac": 1, "diag_ggn": 1},
            steps=30_000,
            seed=value_of(flags.seed),
            actor_layers=(64, 64),
            critic_layers=(64, 64),
            batch_size=128,
            learning_starts=1_000,
            interval=3_000,
            episodes=2,
        )
        ended = train_seeds(population, [population.seed], flags.out, watcher)
    report(ended, watcher)
    for _, out, _ in () if flags.quiet else ended:
        write([out], out / REPORT_FILE)
