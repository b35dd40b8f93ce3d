"""Bringing a new population to where a checkpoint left the old one; every number is checked before it is believed."""

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from evolute import evolution, schedule
from evolute.config import Run
from evolute.errors import Damaged, UserError
from evolute.files import CHECKPOINT_FOLDER
from evolute.hyperparameters import Hyperparameters
from evolute.policy import Policy, Scaling
from evolute.runs.checkpoint import Checkpoint, written_by
from evolute.state import Best, Profile, State
from evolute.structure import Structure, sizes
from evolute.training.arrays import like
from evolute.training.storage import load_arrays
from evolute.training.worker import Worker

# The compiled programs take hyperparameters in single precision.
LARGEST = float(np.finfo(np.float32).max)


def restore(run: Path, checkpoint: Checkpoint, state: State, workers: Sequence[Worker]) -> None:
    """Bring a new population to where a checkpoint left the old one.

    Args:
        run: the run folder.
        checkpoint: of the run.
        state: of the new population.
        workers: that train it.

    Raises:
        UserError: the checkpoint belongs to another configuration, or its numbers cannot be those of this run.
    """
    manifest = checkpoint.manifest
    strategy = evolution.build(state.run)
    try:
        if manifest["memory"] and not strategy.sound(manifest["memory"]):
            raise Damaged("its strategy remembers what it cannot have seen")
        if len(manifest["members"]) != len(state.members):
            raise Damaged(f"it has {len(manifest['members'])} members")
        if checkpoint.interval > state.intervals:
            raise Damaged(f"it is of interval {checkpoint.interval} of {state.intervals}")
        for member, described in zip(state.members, manifest["members"], strict=True):
            member.kind = _kind(member, described, checkpoint.interval, manifest["evolved"], state.run)
            _check_counts(member, described, manifest["steps"], state.run)
            member.environment_steps = described["environment_steps"]
            member.gradient_steps = described["gradient_steps"]
            member.fitness = described["fitness"]
            member.parent = described["parent"]
            member.absent, member.missed = described["absent"], described["missed"]
            member.hyperparameters = _hyperparameters(member, described["hyperparameters"], state.run)
        for one in workers:
            one.restore(run, {lane: manifest["members"][slot] for slot, lane in enumerate(state.lanes) if lane in one.lanes})
        state.best = _best(run, manifest["best"], state)
    except Damaged as damage:
        raise UserError(
            f"the checkpoint of interval {checkpoint.interval} does not fit the run's configuration: {damage}; "
            f"resume it with the config.toml that it was trained with, and with {written_by(manifest)}."
        ) from None
    state.interval = checkpoint.interval
    state.evolved = manifest["evolved"]
    state.memory = manifest["memory"] or state.memory
    state.quarantines = manifest["quarantines"]
    state.earlier_seconds = manifest["seconds"]


def _kind(member: Profile, described: dict[str, Any], interval: int, evolved: bool, run: Run) -> str:
    """Return a member's kind after so many intervals; raises Damaged where its schedule says another."""
    if not run.schedule:
        return member.kind
    due = schedule.kind_at(run.schedule, interval if evolved else max(interval - 1, 0))
    if described.get("kind") != due:
        raise Damaged(f"member {member.slot} is of the kind {described.get('kind')!r}, where the schedule says {due!r}")
    return due


def _check_counts(member: Profile, described: dict[str, Any], steps: int, run: Run) -> None:
    """Raise Damaged where a member cannot have counted so far by `steps` of the run's clock."""
    intervals, rest = divmod(steps, run.interval)
    own = intervals * run.interval_steps(member.kind, run.interval) + run.interval_steps(member.kind, rest)
    if run.schedule:
        own = schedule.steps_taken(run, steps)
    taken = steps if run.shrink == "gradient" else own
    if described["environment_steps"] + described["missed"] != taken:
        counted = f"{described['environment_steps']:,} steps and missed {described['missed']:,}"
        raise Damaged(f"member {member.slot} has taken {counted} of {taken:,}")
    if not described["updates"] == described["gradient_steps"] <= taken:
        raise Damaged(f"member {member.slot} has done {described['updates']:,} updates in {taken:,} steps")
    if described["inserted"] > steps:
        raise Damaged(f"member {member.slot} has gathered {described['inserted']:,} transitions in {steps:,} steps")


def _hyperparameters(member: Profile, given: dict[str, Any], run: Run) -> Hyperparameters:
    """Return a member's hyperparameters; one that another version did not have starts as in a new run."""
    known = {name: value for name, value in given.items() if name in Hyperparameters._fields}
    start = run.initial_hyperparameters(member.kind)
    hyper = start._replace(**known)
    scheduled = [entry["batch_size"] for entry in run.schedule.values()]
    most = max(start.batch_size, run.bounds_of("batch_size")[1], *run.initial.get("batch_size", ()), *scheduled)
    if type(hyper.batch_size) is not int or not 1 <= hyper.batch_size <= most:
        raise Damaged(f"member {member.slot} has a batch size of {hyper.batch_size}")
    for name, value in hyper._asdict().items():
        if not 0 <= value <= LARGEST:
            raise Damaged(f"the {name} of member {member.slot} is {value}")
    return hyper


def _best(run: Path, described: dict[str, Any] | None, state: State) -> Best | None:
    if described is None:
        return None
    if described["kind"] not in state.run.mix:
        raise Damaged(f"its best policy is of the kind {described['kind']!r}")
    facts, arrays = state.facts, load_arrays(run / CHECKPOINT_FOLDER, described["policy"])
    settings = state.run.settings_of(described["kind"])
    structure = Structure.of(settings)
    chain = sizes(facts.shape.observations, settings["actor_layers"], facts.shape.actions, structure)
    template = [(np.zeros((i, o), np.float32), np.zeros(o, np.float32)) for i, o in itertools.pairwise(chain)]
    scaling = [Scaling(*np.zeros((2, chain[0]), np.float32))] if state.run.normalize_observations else []
    *weights, last = like([*template, *map(tuple, scaling)], arrays)
    scaled = Scaling(*last) if scaling else None
    policy = Policy(weights if scaling else [*weights, last], facts.low, facts.high, state.run.env, scaled, structure)
    return Best(policy, **{name: described[name] for name in ("fitness", "slot", "kind", "environment_steps")})
