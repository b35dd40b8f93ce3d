"""Checkpoints: all that a run needs to go on as if it had never stopped. docs/durability.md says what that promises.

A checkpoint belongs to an interval's end: environments and random streams begin anew at every interval, so neither has a state
to keep. It is a manifest that names every other file by size and SHA-256 and is written last, so a checkpoint is whole or absent;
the one before it is kept as well. Replay is written once: each interval's new transitions of a member are a segment that never
changes, and an exploit copies the list of segments, not what is in them.
"""

import contextlib
import hashlib
import itertools
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import safetensors
import safetensors.numpy

from evolute import limits
from evolute.errors import UserError
from evolute.files import make_folder, partial_name, read_at_most, sync_folder, unwritable, write_whole
from evolute.hyperparameters import Hyperparameters
from evolute.policy import Policy
from evolute.population import Member
from evolute.records import CHECKPOINT_FOLDER as FOLDER
from evolute.records import REPLAY_FOLDER
from evolute.replay import ReplayBuffer, Segment, Steps, fits
from evolute.spaces import Shape
from evolute.state import Best, State

FORMAT = "evolute checkpoint 3"
KEPT = 2
# Names that a manifest may give: a file beside it, never a path that leads elsewhere.
PLAIN_NAME = re.compile(r"[0-9]{6,}(-[0-9]{3,}|-best)\.safetensors")
HASHED_AT_ONCE = 1 << 20
# Ends the name of an array that is a symmetric matrix's lower triangle.
TRIANGLE = " lower"


class Damaged(Exception):
    """A checkpoint is not what it was when it was written."""


class Checkpoint(NamedTuple):
    """A manifest whose files were found whole."""

    manifest: dict[str, Any]

    @property
    def interval(self) -> int:
        """Intervals that had ended."""
        return self.manifest["interval"]


# -------------------------------------------------------------------------------------------------------------- writing


def save_replay(run: Path, state: State) -> None:
    """Write every member's new transitions as a segment. To be called before an evolution, so that copies share them."""
    make_folder(run / REPLAY_FOLDER)
    for member in state.members:
        replay = member.replay
        new = replay.unsaved()
        if len(new.steps):
            name = f"{state.interval:06}-{member.slot:03}.safetensors"
            data = safetensors.numpy.save(new._asdict())
            digest = _write(run / REPLAY_FOLDER / name, data)
            replay.segments.append(Segment(name, len(new.steps), digest, len(data)))
        replay.saved = replay.inserted
        forget_overwritten(replay)


def forget_overwritten(replay: ReplayBuffer) -> None:
    """Forget the segments whose transitions the buffer has overwritten with later ones."""
    while replay.segments and sum(segment.rows for segment in replay.segments[1:]) >= len(replay):
        del replay.segments[0]


def save(run: Path, state: State, carried: dict[str, Any]) -> None:
    """Write a checkpoint of an interval's end, and delete what neither it nor the one before needs.

    Args:
        run: the run folder.
        state: after `save_replay`.
        carried: what else belongs to the run so far (RunFolder.carried).

    Raises:
        RunStopped: it cannot be written; the older ones are as they were.
    """
    make_folder(run / FOLDER)
    name = f"{state.interval:06}"
    members = []
    for member in state.members:
        group = state.group_of(member)
        arrays = _save_arrays(run, f"{name}-{member.slot:03}", group.take(member.lane))
        members.append(_describe(member, group.updates, arrays))
    best = state.best
    manifest = {
        "format": FORMAT,
        "interval": state.interval,
        "steps": state.steps_done,
        "evolved": state.evolved,
        "quarantines": state.quarantines,
        "seconds": state.earlier_seconds,
        "best": best and {**best._asdict(), "policy": _save_arrays(run, f"{name}-best", best.policy.weights)},
        "members": members,
        **carried,
    }
    # Its own digest comes first: a flipped bit in it must not pass for another run.
    body = json.dumps(manifest, allow_nan=True).encode()
    # The manifest is on the disk only after everything that it names.
    sync_folder(run / REPLAY_FOLDER)
    sync_folder(run / FOLDER)
    _write(run / FOLDER / f"{name}.json", hashlib.sha256(body).hexdigest().encode() + b"\n" + body)
    sync_folder(run / FOLDER)
    delete_unneeded(run)


def _describe(member: Member, updates: int, arrays: dict[str, Any]) -> dict[str, Any]:
    return {
        "environment_steps": member.environment_steps,
        "gradient_steps": member.gradient_steps,
        "updates": updates,
        "fitness": member.fitness,
        "parent": member.parent,
        "needs_burn_in": member.needs_burn_in,
        "hyperparameters": member.hyperparameters._asdict(),
        "inserted": member.replay.inserted,
        "segments": [segment._asdict() for segment in member.replay.segments],
        "learner": arrays,
    }


def _save_arrays(run: Path, name: str, tree: Any) -> dict[str, Any]:
    """Write a pytree's arrays and return how to find and verify them."""
    file = f"{name}.safetensors"
    data = safetensors.numpy.save(storable(tree))
    return {"file": file, "bytes": len(data), "sha256": _write(run / FOLDER / file, data)}


def _write(path: Path, data: bytes | memoryview) -> str:
    write_whole(path, data)
    return hashlib.sha256(data).hexdigest()


def delete_unneeded(run: Path) -> None:
    """Delete checkpoints before the kept ones, every segment and array that no kept one names, and halves of files."""
    manifests = sorted((run / FOLDER).glob("*.json"))
    needed: set[tuple[str, str]] = set()
    for path in manifests[-KEPT:]:
        with contextlib.suppress(Damaged):
            needed |= {(folder, described["file"]) for folder, described in _files(_read(path))}
    try:
        for path in manifests[:-KEPT]:
            path.unlink()
        for folder in (FOLDER, REPLAY_FOLDER):
            for path in (run / folder).glob("*.safetensors"):
                if (folder, path.name) not in needed:
                    path.unlink()
        for path in (*run.glob(partial_name("*")), *run.glob(f"*/{partial_name('*')}")):
            path.unlink()
    except OSError as error:
        raise unwritable(Path(error.filename or run), error, 0) from None


# -------------------------------------------------------------------------------------------------------------- reading


def newest(run: Path, wanted: Callable[[dict[str, Any]], bool] = lambda manifest: True) -> tuple[Checkpoint | None, list[str]]:
    """Return the newest checkpoint that is whole and whose manifest is wanted, and what is wrong with newer ones.

    Returns:
        The checkpoint, or None where there is none; one clause for each damaged one.

    Raises:
        UserError: there are checkpoints, and all of them are damaged.
    """
    paths = sorted((run / FOLDER).glob("*.json"), reverse=True)
    damages = []
    for path in paths:
        try:
            manifest = _read(path)
            if not wanted(manifest):
                continue
            # Copies share their segments.
            for folder, name, size, digest in {(f, d["file"], d["bytes"], d["sha256"]) for f, d in _files(manifest)}:
                _verify(run / folder / name, size, digest)
            return Checkpoint(manifest), damages
        except Damaged as damage:
            damages.append(f"the checkpoint {path.name} is damaged: {damage}")
    if paths and len(damages) == len(paths):
        raise UserError(
            f"{str(run)!r} cannot be resumed: {'; '.join(damages)}; there is no older one, so restore these files from a copy "
            f"or delete the folder {FOLDER!r} to begin this run anew."
        )
    return None, damages


def _read(path: Path) -> dict[str, Any]:
    """Return a manifest that is what was written; raises Damaged otherwise."""
    try:
        digest, _, body = read_at_most(path, limits.MANIFEST_BYTES).partition(b"\n")
        if hashlib.sha256(body).hexdigest().encode() != digest:
            raise Damaged("it does not match its checksum")
        manifest = json.loads(body)
    except OSError as error:
        raise Damaged(f"it cannot be read: {error.strerror}") from None
    except UserError as mistake:
        raise Damaged(str(mistake)) from None
    except (ValueError, RecursionError):
        raise Damaged("it is no JSON") from None
    _check_manifest(manifest)
    return manifest


def _check_manifest(manifest: Any) -> None:
    """Raise Damaged unless a manifest has the form that `save` gives it: a checksum proves no good will."""
    member = {
        "environment_steps": _count,
        "gradient_steps": _count,
        "updates": lambda x: _count(x) and x < 2**31,
        "fitness": _number,
        "parent": lambda x: x is None or _count(x),
        "needs_burn_in": lambda x: isinstance(x, bool),
        "hyperparameters": lambda x: (
            isinstance(x, dict)
            and list(x) == list(Hyperparameters._fields)
            and all(map(_number, x.values()))
            and _count(x["batch_size"])
        ),
        "inserted": _count,
        "segments": lambda x: isinstance(x, list) and all(_matches(s, segment) for s in x),
        "learner": lambda x: _matches(x, file),
    }
    segment = {"file": _name, "rows": _count, "bytes": _count, "sha256": lambda x: isinstance(x, str)}
    file = {"file": _name, "bytes": _count, "sha256": lambda x: isinstance(x, str)}
    best = {
        "policy": lambda x: _matches(x, file),
        "fitness": _number,
        "slot": _count,
        "kind": lambda x: isinstance(x, str),
        "environment_steps": _count,
    }
    circumstances = {
        "versions": lambda x: isinstance(x, dict),
        "devices": lambda x: isinstance(x, list),
        "cores": _count,
        "physics_fingerprint": lambda x: isinstance(x, str),
        "arithmetic_fingerprint": lambda x: isinstance(x, str),
    }
    whole = {
        "format": lambda x: x == FORMAT,
        "interval": _count,
        "steps": _count,
        "evolved": lambda x: isinstance(x, bool),
        "quarantines": _count,
        "seconds": _number,
        "best": lambda x: x is None or _matches(x, best),
        "members": lambda x: isinstance(x, list) and all(_matches(m, member) for m in x),
        "config": lambda x: isinstance(x, str),
        "circumstances": lambda x: _matches(x, circumstances),
        "records": lambda x: isinstance(x, dict) and all(isinstance(text, str) for text in x.values()),
    }
    if not _matches(manifest, whole):
        raise Damaged(f"it is not of the form {FORMAT!r}")


def _matches(value: Any, rules: dict[str, Any]) -> bool:
    return isinstance(value, dict) and value.keys() == rules.keys() and all(rule(value[key]) for key, rule in rules.items())


def _count(value: Any) -> bool:
    return type(value) is int and 0 <= value < 2**53


def _number(value: Any) -> bool:
    return type(value) is float or (type(value) is int and abs(value) < 2**63)


def _name(value: Any) -> bool:
    return isinstance(value, str) and PLAIN_NAME.fullmatch(value) is not None


def _files(manifest: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    """Return (folder, description) of every file that a manifest names."""
    found = [(FOLDER, member["learner"]) for member in manifest["members"]]
    found += [(REPLAY_FOLDER, segment) for member in manifest["members"] for segment in member["segments"]]
    return found + ([(FOLDER, manifest["best"]["policy"])] if manifest["best"] else [])


def _verify(path: Path, size: int, digest: str) -> None:
    try:
        # The size first: nobody waits for the hash of a file that is the wrong one anyway.
        if path.stat().st_size != size:
            raise Damaged(f"{path.name} has {path.stat().st_size:,} bytes instead of {size:,}")
        found = hashlib.sha256()
        with path.open("rb") as file:
            while part := file.read(HASHED_AT_ONCE):
                found.update(part)
    except FileNotFoundError:
        raise Damaged(f"{path.name} is missing") from None
    except OSError as error:
        raise Damaged(f"{path.name} cannot be read: {error.strerror}") from None
    if found.hexdigest() != digest:
        raise Damaged(f"{path.name} does not match its checksum")


# ------------------------------------------------------------------------------------------------------------ restoring


def restore(run: Path, checkpoint: Checkpoint, state: State) -> None:
    """Bring a new population to where a checkpoint left the old one.

    Raises:
        UserError: the checkpoint belongs to another configuration.
    """
    manifest = checkpoint.manifest
    try:
        if len(manifest["members"]) != len(state.members):
            raise Damaged(f"it has {len(manifest['members'])} members")
        most = max(state.run.batch_size, state.run.bounds_of("batch_size")[1])
        for member, described in zip(state.members, manifest["members"], strict=True):
            if not 1 <= described["hyperparameters"]["batch_size"] <= most:
                raise Damaged(f"it has a batch size of {described['hyperparameters']['batch_size']}")
            group = state.group_of(member)
            arrays = _load_arrays(run / FOLDER, described["learner"])
            group.put(member.lane, like(group.take(member.lane), arrays), reset_optimizers=False)
            group.updates = described["updates"]
            _restore_replay(run, member.replay, described, member.environment.shape)
            member.environment_steps = described["environment_steps"]
            member.gradient_steps = described["gradient_steps"]
            member.fitness = described["fitness"]
            member.parent = described["parent"]
            member.needs_burn_in = described["needs_burn_in"]
            member.hyperparameters = Hyperparameters(**described["hyperparameters"])
        state.best = _best(run, manifest["best"], state)
    except Damaged as damage:
        raise UserError(
            f"the checkpoint of interval {checkpoint.interval} does not fit the run's configuration: {damage}; "
            "resume it with the config.toml that it was trained with."
        ) from None
    state.interval = checkpoint.interval
    state.evolved = manifest["evolved"]
    state.quarantines = manifest["quarantines"]
    state.earlier_seconds = manifest["seconds"]


def _best(run: Path, described: dict[str, Any] | None, state: State) -> Best | None:
    if described is None:
        return None
    environment, arrays = state.evaluation_environment, _load_arrays(run / FOLDER, described["policy"])
    sizes = [environment.shape.observations, *state.run.actor_layers, environment.shape.actions]
    template = [(np.zeros((i, o), np.float32), np.zeros(o, np.float32)) for i, o in itertools.pairwise(sizes)]
    policy = Policy(like(template, arrays), environment.low, environment.high, state.run.env)
    return Best(policy, **{name: described[name] for name in ("fitness", "slot", "kind", "environment_steps")})


def _load_arrays(folder: Path, described: dict[str, Any]) -> dict[str, np.ndarray]:
    try:
        return safetensors.numpy.load((folder / described["file"]).read_bytes())
    except (OSError, ValueError, safetensors.SafetensorError) as error:
        raise Damaged(f"{described['file']} cannot be read: {error}") from None


def _restore_replay(run: Path, replay: ReplayBuffer, described: dict[str, Any], shape: Shape) -> None:
    segments = [Segment(**segment) for segment in described["segments"]]
    total, held = sum(segment.rows for segment in segments), min(described["inserted"], replay.capacity)
    if not held <= total <= described["inserted"] or sum(segment.rows for segment in segments[1:]) >= max(held, 1):
        raise Damaged("its replay has another number of transitions")
    parts = []
    for segment in segments:
        arrays = _load_arrays(run / REPLAY_FOLDER, segment._asdict())
        if arrays.keys() != set(Steps._fields):
            raise Damaged(f"{segment.file} has other arrays than replay has")
        part = Steps(**arrays)
        if not fits(part, segment.rows, shape.observations, shape.actions):
            raise Damaged(f"{segment.file} has arrays of other shapes than replay has here")
        parts.append(part)
    replay.restore(parts, described["inserted"], segments)


def storable(tree: Any) -> dict[str, np.ndarray]:
    """Return a pytree's arrays under the names of their places in it; of a symmetric matrix the lower triangle [n (n + 1) / 2].

    Curvature and its inverses are most of what a second-order member has, and they are symmetric to the last bit.
    """
    arrays = {name: np.array(leaf, order="C") for name, leaf in _named(tree)}
    return dict(
        (name + TRIANGLE, array[np.tril_indices(len(array))]) if _is_symmetric(array) else (name, array)
        for name, array in arrays.items()
    )


def _is_symmetric(array: np.ndarray) -> bool:
    if array.ndim != 2 or array.shape[0] != array.shape[1]:
        return False
    # Bits, not numbers: 0.0 equals -0.0, and NaN not even itself.
    bits = array.view(f"u{array.itemsize}")
    return np.array_equal(bits, bits.T)


def _named(tree: Any) -> list[tuple[str, Any]]:
    """Return a pytree's arrays under the names of their places in it."""
    return [(jax.tree_util.keystr(path), leaf) for path, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]]


def like(template: Any, arrays: dict[str, np.ndarray]) -> Any:
    """Return a pytree of what `storable` made; raises Damaged where an array is missing or not like the template's."""
    leaves = []
    for name, leaf in _named(template):
        array = arrays.get(name)
        if array is None and name + TRIANGLE in arrays:
            array = _whole(arrays[name + TRIANGLE], leaf.shape)
        if array is None or array.shape != leaf.shape or array.dtype != leaf.dtype:
            raise Damaged(f"the array {name} is missing or of another shape")
        leaves.append(array)
    return jax.tree.unflatten(jax.tree.structure(template), leaves)


def _whole(triangle: np.ndarray, shape: tuple[int, ...]) -> np.ndarray | None:
    """Return the symmetric matrix with this lower triangle, or None where it has another shape."""
    if len(shape) != 2 or shape[0] != shape[1] or triangle.shape != (shape[0] * (shape[0] + 1) // 2,):
        return None
    matrix = np.empty(shape, triangle.dtype)
    rows, columns = np.tril_indices(shape[0])
    matrix[rows, columns] = matrix[columns, rows] = triangle
    return matrix
