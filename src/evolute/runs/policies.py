"""The policy that a member of a run has: it is in the newest checkpoint, as part of the learner."""

from pathlib import Path

import numpy as np

from evolute import algorithms, toml
from evolute.config import Run
from evolute.environments.normalise import Normaliser
from evolute.environments.spaces import Facts
from evolute.errors import Damaged, UserError
from evolute.files import CHECKPOINT_FOLDER
from evolute.policy import Policy
from evolute.runs import checkpoint
from evolute.training.arrays import like
from evolute.training.storage import load_arrays


def of_member(path: Path, slot: int, facts: Facts) -> Policy:
    """Return the latest policy of a run's member.

    Args:
        path: the run folder.
        slot: of the member.
        facts: of the run's environment.

    Raises:
        UserError: there is no such member, no checkpoint yet, or it is damaged or of another environment.
    """
    found, _ = checkpoint.newest(path)
    if found is None:
        raise UserError(f"there is no checkpoint in {str(path)!r} yet; wait for the end of the first interval.")
    members = found.manifest["members"]
    run = Run(**toml.parse(found.manifest["config"], "the checkpoint"))
    if slot >= min(len(members), len(run.kinds)):
        raise UserError(f"--member is {slot}; the run in {str(path)!r} has the members 0 to {len(members) - 1}.")
    algorithm = algorithms.build(run, run.kinds[slot], *facts.shape)
    learner = algorithm.init(np.random.default_rng(0))
    normaliser = Normaliser(facts.shape.observations) if run.normalize_observations else None
    try:
        arrays = load_arrays(path / CHECKPOINT_FOLDER, members[slot]["learner"])
        if normaliser is None:
            learner = like(learner, arrays)
        else:
            both = like({"learner": learner, "normaliser": normaliser.arrays}, arrays)
            learner = both["learner"]
            normaliser.become(both["normaliser"])
    except Damaged as damage:
        raise UserError(
            f"the checkpoint of interval {found.interval} in {str(path)!r} does not fit the environment {run.env!r} as it is "
            f"installed here: {damage}; install the versions that the run's metadata.json names."
        ) from None
    weights = [(np.asarray(layer.w), np.asarray(layer.b)) for layer in algorithm.policy(learner.actor)]
    return Policy(weights, facts.low, facts.high, run.env, normaliser and normaliser.scaling, algorithm.structure)
