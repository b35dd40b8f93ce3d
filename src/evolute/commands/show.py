"""evolute show: a run's leaderboard, lineage and learning curves."""

from dataclasses import dataclass
from pathlib import Path

from evolute.commands.flags import RunArgument, folder_of
from evolute.commands.folders import seed_folders
from evolute.errors import printable


@dataclass(frozen=True)
class Flags:
    """Print a run's leaderboard, lineage, hyperparameters and learning curves; also while it trains."""

    run: RunArgument = None


def run(flags: Flags) -> None:
    """Print the tables of one run, or of the runs of several seeds."""
    path = folder_of(flags.run)
    folders = seed_folders(path) or [path]
    for folder in folders:
        if len(folders) > 1:
            print(f"{printable(str(folder))}:")
        show_run(folder)


def show_run(path: Path) -> None:
    """Print a run's tables."""
    from evolute.report.story import standings
    from evolute.report.tables import console, curves_table, leaderboard_table, lineage_table, networks_table
    from evolute.runs.folder import RunFolder

    folder, screen = RunFolder.open(path), console()
    metrics, result = folder.metrics(), folder.result()
    exploits = [event for event in folder.events() if event["event"] == "exploit"]
    if not metrics:
        screen.print("No interval has ended yet.")
        return
    screen.print(leaderboard_table(result["leaderboard"] if result else standings(metrics, exploits), screen.width))
    screen.print(curves_table(metrics, screen.width))
    screen.print(networks_table(metrics, screen.width))
    screen.print(lineage_table(exploits, screen.width) if exploits else "Nobody has copied anybody.")
    if not result:
        screen.print("The run has not ended.")
