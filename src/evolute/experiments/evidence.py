"""What was found of an experiment: records by environment and arm, and the numbers that tables and figures need."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from evolute.experiments import grid, records
from evolute.experiments.grid import Experiment
from evolute.report.statistics import Waits, waits

Record = Mapping[str, Any]


class Evidence(NamedTuple):
    """An experiment and its records."""

    experiment: Experiment
    # By environment and arm, in the order of the seeds; empty where none has ended.
    found: dict[str, dict[str, list[Record]]]
    # How many there are to be, and how many there are.
    asked: int
    ended: int

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
    return Evidence(experiment, found, len(cells), ended)
