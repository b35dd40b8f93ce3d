"""The policies of a run: its best, and the latest of every member, which is in the newest checkpoint as part of the learner.

JAX is imported for a member's alone: the best needs NumPy.
"""

from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from evolute.errors import Damaged, UserError
from evolute.files import CHECKPOINT_FOLDER, is_folder
from evolute.policy import DESCRIPTION_FILE, Policy
from evolute.runs.folder import RunFolder

if TYPE_CHECKING:
    from evolute.config import Run
    from evolute.environments.spaces import Facts
    from evolute.runs.checkpoint import Checkpoint


class Source(NamedTuple):
    """A policy of a run, and where it comes from."""

    policy: Policy
    # Whose it is; "best" is what it is called where it is the best of the run.
    name: str
    member: int
    kind: str
    # Mean return of the evaluation that it was measured by, and the member's environment steps by then.
    fitness: float
    environment_steps: int


def load_policy(path: str | Path, member: int | None = None) -> Policy:
    """Return a trained policy, `policy(obs) -> action` in the environment's units.

    Args:
        path: a run folder, or a folder that holds a policy, such as RUN/best.
        member: of the run, whose latest policy is wanted; None for the best policy of all.

    Raises:
        UserError: there is no such policy, or it is damaged.
    """
    path = Path(path)
    if member is not None:
        return source(RunFolder.open(path), member).policy
    holds_policy = is_folder(path) and (path / DESCRIPTION_FILE).is_file()
    return Policy.load(path) if holds_policy else RunFolder.open(path).best_policy()


def source(folder: RunFolder, member: int | None) -> Source:
    """Return a run's best policy, or the latest of a member, with where it comes from; raises what `of_member` does."""
    best = folder.best_policy()
    if member is None:
        about = folder.about_best()
        return Source(best, "best", about["member"], about["kind"], about["fitness"], about["environment_steps"])
    from evolute.environments.spaces import Facts, Shape

    found = newest(folder.path)
    facts = Facts(Shape(len(best.weights[0][0]), len(best.low)), best.low, best.high, None)
    policy = of_member(folder.path, member, facts, found)
    if not policy.finite:
        raise UserError(f"the policy of member {member} in {str(folder.path)!r} has diverged: it is not finite; choose another.")
    own = found.manifest["members"][member]
    return Source(
        policy, f"member-{member}", member, own.get("kind", run_of(found).kinds[member]), own["fitness"], own["environment_steps"]
    )


def newest(path: Path) -> "Checkpoint":
    """Return a run's newest checkpoint; raises UserError where there is none, or all are damaged."""
    from evolute.runs import checkpoint

    found, _ = checkpoint.newest(path)
    if found is None:
        raise UserError(f"there is no checkpoint in {str(path)!r} yet; wait for the end of the first interval.")
    return found


def run_of(found: "Checkpoint") -> "Run":
    """Return the run that a checkpoint is of; raises UserError where its configuration is of no use."""
    from evolute import toml
    from evolute.config import Run

    return Run(**toml.parse(found.manifest["config"], "the checkpoint"))


def of_member(path: Path, slot: int, facts: "Facts", found: "Checkpoint | None" = None) -> Policy:
    """Return the latest policy of a run's member.

    Args:
        path: the run folder.
        slot: of the member.
        facts: of the run's environment.
        found: the run's newest checkpoint, where that was read before.

    Raises:
        UserError: there is no such member, no checkpoint yet, or it is damaged or of another environment.
    """
    from evolute import algorithms
    from evolute.environments.normalise import Normaliser
    from evolute.training.arrays import like
    from evolute.training.storage import load_arrays

    found = found or newest(path)
    members, run = found.manifest["members"], run_of(found)
    if not 0 <= slot < min(len(members), len(run.kinds)):
        raise UserError(f"--member is {slot}; the run in {str(path)!r} has the members 0 to {len(members) - 1}.")
    algorithm = algorithms.build(run, members[slot].get("kind", run.kinds[slot]), *facts.shape)
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
