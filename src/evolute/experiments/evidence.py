"""What was found of an experiment: records by environment and arm, and the numbers that tables and figures need."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from evolute import options
from evolute.config import Run
from evolute.experiments import grid, records
from evolute.experiments.grid import Experiment
from evolute.report.statistics import Waits, waits
from evolute.runs import changes
from evolute.runs.folder import RunFolder

Record = Mapping[str, Any]
# The tables of runs that nobody planned as an experiment.
COMPARED = ("returns", "compared", "ancestors")
# Settings that an arm's name leaves out, and the most that it holds.
UNNAMED, NAMED = ("env", "seed", "mix", "algorithms", "optimizers", "bounds"), 3


class Evidence(NamedTuple):
    """An experiment and its records."""

    experiment: Experiment
    # By environment and arm, in the order of the seeds; empty where none has ended.
    found: dict[str, dict[str, list[Record]]]
    # How many there are to be, and how many there are.
    asked: int
    ended: int
    # What a run's final return is, in words.
    measured: str

    def returns(self, env: str, arm: str) -> np.ndarray:
        """Return the mean return on held-out seeds of each run [runs]: of the best member of the end."""
        values = [record["final"]["mean"] for record in self.found[env][arm]]
        return np.asarray([np.nan if value is None else value for value in values], float)

    def waits(self, env: str, arm: str) -> Waits:
        """Return after how many environment steps of a member the best member first passed the environment's threshold."""
        curves = [(record["curve"]["steps"], record["curve"]["best"]) for record in self.found[env][arm]]
        return waits(curves, self.experiment.success[env])

    def successes(self, env: str, arm: str) -> int:
        """Return how many runs end above the environment's threshold, on held-out seeds."""
        return int((self.returns(env, arm) >= self.experiment.success[env]).sum())

    def shares(self, env: str, arm: str, kind: str) -> np.ndarray:
        """Return the share of intervals in which the winner's ancestors were trained by a kind, for each run [runs]."""
        lines = [record["ancestors"] for record in self.found[env][arm]]
        return np.asarray([line.count(kind) / len(line) for line in lines if line], float)

    def others(self) -> list[str]:
        """Return the arms that are compared with the reference."""
        reference = self.experiment.reference
        return [arm for arm in self.experiment.arms if reference and arm != reference]


def gather(
    experiment: Experiment, out: Path, envs: Sequence[str] = (), arms: Sequence[str] = (), seeds: int | None = None
) -> Evidence:
    """Return what the records of a folder say of an experiment; the arguments are those of `grid.cells`."""
    there, ended = records.read_all(out), 0
    kept = arms or list(experiment.arms)
    found: dict[str, dict[str, list[Record]]] = {env: {arm: [] for arm in kept} for env in envs or experiment.envs}
    cells = grid.cells(experiment, envs, arms, seeds)
    for cell in cells:
        record = there.get(records.name(cell.run, cell.evaluation_steps))
        if record is not None:
            found[cell.env][cell.arm].append(record)
            ended += 1
    measured = (
        f"the return of the run's last best member over {experiment.evaluation_steps:,} environment steps, on seeds that no "
        "member was chosen by"
    )
    return Evidence(experiment, found, len(cells), ended, measured)


def of_folders(folders: Sequence[RunFolder]) -> Evidence:
    """Return what any runs are evidence of: those that differ by environment and seed alone are one arm.

    Raises:
        UserError: a folder is damaged, or no interval of its run has ended.
    """
    runs = [folder.run() for folder in folders]
    arms: dict[str, dict[str, Any]] = {}
    found: dict[str, dict[str, list[Record]]] = {run.env: {} for run in runs}
    labels = [label(run, runs[0]) for run in runs]
    for run, name in zip(runs, labels, strict=True):
        arms.setdefault(name, {"mix": run.mix})
    for rows in found.values():
        rows |= {name: [] for name in arms}
    for folder, run, name in zip(folders, runs, labels, strict=True):
        record, result = records.of_run(folder), folder.result()
        if result is not None:
            best = result["best"]
            record["final"] = {"mean": best["return_mean"], "std": best["return_std"], "episodes": best["episodes"]}
            found[run.env][name].append(record)
    experiment = Experiment(
        title="Comparison", envs=tuple(found), arms=arms, reference=labels[0], tables=COMPARED, figures=("curves",)
    )
    ended = sum(len(rows) for arms_ in found.values() for rows in arms_.values())
    return Evidence(experiment, found, len(folders), ended, "the return of the run's best policy over its final episodes")


def label(run: Run, first: Run) -> str:
    """Return what a run's arm is called: its mix, and what else is not as in the first run."""
    mix = " ".join(f"{kind}={count}" for kind, count in run.mix.items())
    named = [(name, new) for name, (_, new) in changes.differences(first, run).items() if name.partition(".")[0] not in UNNAMED]
    return " ".join([mix, *(f"{name}={options.shown(value)}" for name, value in named[:NAMED])])
