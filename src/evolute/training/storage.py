"""A member's part of a checkpoint: its learner's arrays, and its replay in segments that never change."""

import errno
import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import safetensors
import safetensors.numpy

from evolute.environments.spaces import Shape
from evolute.errors import Damaged, RunStopped, UserError
from evolute.files import CHECKPOINT_FOLDER, REPLAY_FOLDER, make_folder, write_whole
from evolute.training.arrays import like, storable
from evolute.training.member import Episode, Member
from evolute.training.placement import Group
from evolute.training.replay import ReplayBuffer, Segment, Steps, fits

HASHED_AT_ONCE = 1 << 20
# What a file cannot be read for although nothing is wrong with it.
NOT_DAMAGE = {errno.EACCES, errno.EPERM, errno.EMFILE, errno.ENFILE, errno.ENOMEM}

# -------------------------------------------------------------------------------------------------------------- writing


def save_replay(run: Path, member: Member, interval: int) -> None:
    """Write a member's new transitions as a segment. To be called before an evolution, so that copies share it."""
    make_folder(run / REPLAY_FOLDER, parents=False)
    replay = member.replay
    new = replay.unsaved()
    if len(new.steps):
        name = f"{interval:06}-{member.slot:03}.safetensors"
        data = safetensors.numpy.save(new._asdict())
        digest = write(run / REPLAY_FOLDER / name, data)
        replay.segments.append(Segment(name, len(new.steps), digest, len(data)))
    replay.saved = replay.inserted
    forget_overwritten(replay)


def forget_overwritten(replay: ReplayBuffer) -> None:
    """Forget the segments whose transitions the buffer has overwritten with later ones."""
    while replay.segments and sum(segment.rows for segment in replay.segments[1:]) >= len(replay):
        del replay.segments[0]


def save(run: Path, member: Member, group: Group, interval: int, scheduled: bool = False) -> dict[str, Any]:
    """Write a member's learner and return what the checkpoint's manifest says of the member, as far as its worker knows it.

    Its kind is in it where a schedule may have changed that.
    """
    make_folder(run / CHECKPOINT_FOLDER, parents=False)
    return {
        **({"kind": member.kind} if scheduled else {}),
        "environment_steps": member.environment_steps,
        "gradient_steps": member.gradient_steps,
        "updates": group.updates,
        "needs_burn_in": member.needs_burn_in,
        "inserted": member.replay.inserted,
        "life": [list(episode) for episode in member.life] if member.carries else [],
        "segments": [segment._asdict() for segment in member.replay.segments],
        "learner": save_arrays(run, f"{interval:06}-{member.slot:03}", _arrays_of(member, group)),
    }


def _arrays_of(member: Member, group: Group) -> Any:
    """Return a member's arrays as a pytree: its learner, and its normaliser's where it has one."""
    learner = group.take(member.lane)
    return learner if member.normaliser is None else {"learner": learner, "normaliser": member.normaliser.arrays}


def require_segments(run: Path, members: Sequence[Member]) -> None:
    """Raise RunStopped where somebody removed or changed replay that was written before."""
    for segment in {segment for member in members for segment in member.replay.segments}:
        path = run / REPLAY_FOLDER / segment.file
        try:
            wrong = "" if path.stat().st_size == segment.bytes else "is another one"
        except OSError as error:
            wrong = f"cannot be found ({error.strerror})"
        if wrong:
            raise RunStopped(f"{str(path)!r}, which this run wrote and goes on to need, {wrong}; put it back from a copy.")


def save_arrays(run: Path, name: str, tree: Any) -> dict[str, Any]:
    """Write a pytree's arrays and return how to find and verify them."""
    file = f"{name}.safetensors"
    data = safetensors.numpy.save(storable(tree))
    return {"file": file, "bytes": len(data), "sha256": write(run / CHECKPOINT_FOLDER / file, data)}


def write(path: Path, data: bytes | memoryview) -> str:
    """Write a file and return its SHA-256."""
    write_whole(path, data)
    return hashlib.sha256(data).hexdigest()


# -------------------------------------------------------------------------------------------------------------- reading


def restore(run: Path, member: Member, group: Group, described: dict[str, Any]) -> None:
    """Bring a new member to where a checkpoint left the old one; raises Damaged where what it names is of no use for it."""
    arrays = like(_arrays_of(member, group), load_arrays(run / CHECKPOINT_FOLDER, described["learner"]))
    if member.normaliser is not None:
        member.normaliser.become(arrays["normaliser"])
        arrays = arrays["learner"]
    group.put(member.lane, arrays, reset_optimizers=False)
    group.updates = described["updates"]
    restore_replay(run, member.replay, described, member.environment.shape)
    member.environment_steps = described["environment_steps"]
    member.gradient_steps = described["gradient_steps"]
    member.needs_burn_in = described["needs_burn_in"]
    member.life = [Episode(*pair) for pair in described["life"]]


def load_arrays(folder: Path, described: dict[str, Any]) -> dict[str, Any]:
    """Return the arrays of a file by name; raises Damaged where it cannot be read."""
    try:
        return safetensors.numpy.load((folder / described["file"]).read_bytes())
    except (OSError, ValueError, safetensors.SafetensorError) as error:
        raise Damaged(f"{described['file']} cannot be read: {error}") from None


def files_of(described: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    """Return (folder, description) of every file that a manifest names for a member."""
    return [(CHECKPOINT_FOLDER, described["learner"]), *((REPLAY_FOLDER, segment) for segment in described["segments"])]


def restore_replay(run: Path, replay: ReplayBuffer, described: dict[str, Any], shape: Shape) -> None:
    """Bring a new buffer to where `described` says, by its `inserted` and `segments`; raises Damaged where they are of no use."""
    segments = [Segment(*(segment[name] for name in Segment._fields)) for segment in described["segments"]]
    total, held = sum(segment.rows for segment in segments), min(described["inserted"], replay.capacity)
    if not held <= total <= described["inserted"] or sum(segment.rows for segment in segments[1:]) >= max(held, 1):
        raise Damaged("its replay has another number of transitions")
    parts = []
    for segment in segments:
        arrays = load_arrays(run / REPLAY_FOLDER, segment._asdict())
        if arrays.keys() != set(Steps._fields):
            raise Damaged(f"{segment.file} has other arrays than replay has")
        part = Steps(**arrays)
        if not fits(part, segment.rows, shape.observations, shape.actions):
            raise Damaged(f"{segment.file} has arrays of other shapes than replay has here")
        parts.append(part)
    replay.restore(parts, described["inserted"], segments)


def verify(path: Path, size: int, digest: str) -> None:
    """Raise Damaged unless a file has this size and this SHA-256; UserError where it is not ours to read."""
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
        raise unreadable(path, error) from None
    if found.hexdigest() != digest:
        raise Damaged(f"{path.name} does not match its checksum")


def unreadable(path: Path, error: OSError) -> Damaged | UserError:
    """Return what is to be raised where a file cannot be read."""
    if error.errno in NOT_DAMAGE:
        # Going on from an older checkpoint would lose this one.
        return UserError(f"{str(path)!r} cannot be read: {error.strerror}; fix that first.")
    return Damaged(f"{path.name} cannot be read: {error.strerror}")
