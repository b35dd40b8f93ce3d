"""What was found of an experiment: records by environment and arm, and the numbers that tables and figures need."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from evolute import options
from evolute.config import Run
from evolute.errors import UserError
from evolute.experiments import grid, records
from evolute.experiments.grid import Experiment
from evolute.report.statistics import Waits, waits
from evolute.runs import changes
from evolute.runs.folder import RunFolder

Record = Mapping[str, Any]
# The tables of runs that nobody planned as an experiment.
COMPARED = ("returns", "compared", "ancestors")
# Settings that an arm's name leaves out, and the most that it holds.
UNNAMED, NAMED = ("env", "seed", "mix"), 3


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
        """Return the mean return on held-out seeds of each run [runs], of the best member of the end; -inf for one that failed.

        A run failed if all of its members diverged, or no episode of its last evaluation came to an end.
        """
        values = [record["final"]["mean"] for record in self.found[env][arm]]
        return np.asarray([-np.inf if value is None else value for value in values], float)

    def sound(self, env: str, arm: str) -> np.ndarray:
        """Return the same [runs] without runs that failed."""
        found = self.returns(env, arm)
        return found[np.isfinite(found)]

    def waits(self, env: str, arm: str) -> Waits:
        """Return after how many steps of the run's clock the best member first passed the environment's threshold.

        A run whose members all diverged is watched as long as the longest run.
        """
        longest = max((record["curve"]["steps"][-1] for rows in self.found[env].values() for record in rows), default=0)
        curves = []
        for record in self.found[env][arm]:
            steps, best = record["curve"]["steps"], record["curve"]["best"]
            went_on = record.get("stopped") is not None and steps[-1] < longest
            curves.append(([*steps, longest], [*best, None]) if went_on else (steps, best))
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
        UserError: a folder is damaged, no interval of its run has ended, or two runs are the same.
    """
    runs = [folder.run() for folder in folders]
    groups = grouped(runs, [str(folder.path) for folder in folders])
    labels = named([runs[members[0]] for members in groups], [str(folders[members[0]].path) for members in groups])
    arms = {label: {"mix": runs[members[0]].mix} for label, members in zip(labels, groups, strict=True)}
    found: dict[str, dict[str, list[Record]]] = {run.env: {label: [] for label in labels} for run in runs}
    for label, members in zip(labels, groups, strict=True):
        for number in members:
            record, result = records.of_run(folders[number]), folders[number].result()
            if result is not None:
                best = result["best"]
                record["final"] = {"mean": best["return_mean"], "std": best["return_std"], "episodes": best["episodes"]}
                found[runs[number].env][label].append(record)
    experiment = Experiment(
        title="Comparison", envs=tuple(found), arms=arms, reference=labels[0], tables=COMPARED, figures=("curves",)
    )
    ended = sum(len(rows) for arms_ in found.values() for rows in arms_.values())
    return Evidence(experiment, found, len(folders), ended, "the return of the run's best policy over its final episodes")


def grouped(runs: Sequence[Run], places: Sequence[str]) -> list[list[int]]:
    """Return the numbers of the runs of each arm: all their settings are equal, or all that are not the environment's preset.

    Args:
        runs: any.
        places: of the runs, in words.

    Raises:
        UserError: two runs of an arm have one environment and one seed: they would count twice.
    """
    groups: list[list[int]] = []
    whole = [_own(changes.differences(runs[0], run)) for run in runs]
    chosen = [_own(_chosen(run)) for run in runs]
    for number, run in enumerate(runs):
        for members in groups:
            alike = any(whole[number] == whole[other] or chosen[number] == chosen[other] for other in members)
            there = [other for other in members if runs[other].env == run.env]
            if alike and all(whole[number] == whole[other] for other in there):
                for other in there:
                    if runs[other].seed == run.seed:
                        raise UserError(
                            f"{places[other]!r} and {places[number]!r} have the same settings and seed, so they would count "
                            "twice; name one of them."
                        )
                members.append(number)
                break
        else:
            groups.append([number])
    return groups


def named(runs: Sequence[Run], names: Sequence[str]) -> list[str]:
    """Return what arms are called: the mix, what is not as in the first one, and the run's folder where that tells nothing.

    Args:
        runs: one of each arm.
        names: of their folders, all different.
    """
    labels = []
    for run in runs:
        # Presets of two environments differ, and say nothing of the arm.
        telling = {**_chosen(runs[0]), **_chosen(run)}
        mix = " ".join(f"{kind}={count}" for kind, count in run.mix.items())
        changed = [(name, new) for name, (_, new) in changes.differences(runs[0], run).items() if name in telling]
        own = [(name, new) for name, new in changed if name.partition(".")[0] not in UNNAMED]
        labels.append(" ".join([mix, *(f"{name}={options.shown(value)}" for name, value in own[:NAMED])]))
    return [label if labels.count(label) == 1 else f"{label} ({name})" for label, name in zip(labels, names, strict=True)]


def _chosen(run: Run) -> dict[str, list[Any]]:
    """Return what a run has otherwise than its environment's preset."""
    return changes.differences(Run(run.env, mix=run.mix, preset=run.preset), run)


def _own(differences: Mapping[str, list[Any]]) -> dict[str, str]:
    return {name: repr(new) for name, (_, new) in differences.items() if name not in ("env", "seed")}
