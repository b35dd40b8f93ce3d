"""Who copies whom, and with which hyperparameters: the contract is in base.py."""

from evolute.config import Run
from evolute.evolution import controls, mfpbt, pb2, pbt, replay
from evolute.evolution.base import Space
from evolute.evolution.base import Strategy as Strategy
from evolute.hyperparameters import Hyperparameters
from evolute.schedule import hyperparameters


def build(run: Run) -> Strategy:
    """Return the strategy of a run."""
    if run.strategy == "pb2":
        return pb2.make(pb2.Options(run.truncation, run.factors), space_of(run))
    if run.strategy == "mfpbt":
        return mfpbt.make(mfpbt.Options(run.frequencies, run.factors), space_of(run))
    if run.strategy == "blind":
        return controls.blind(pbt.Options(run.truncation, run.factors), space_of(run))
    if run.strategy == "replay":
        due = {int(name): replay.Due(entry["kind"], hyperparameters(entry)) for name, entry in run.schedule.items()}
        return replay.make(due)
    if run.strategy == "none":
        return controls.none()
    return pbt.make(pbt.Options(run.truncation, run.factors), space_of(run))


def space_of(run: Run) -> Space:
    """Return what a run's strategy may change."""
    return Space({kind: run.perturbed(kind) for kind in run.mix}, {name: run.bounds_of(name) for name in Hyperparameters._fields})
