"""Checkpoints: all that a run needs to go on as if it had never stopped. docs/durability.md says what that promises.

A checkpoint belongs to an interval's end: environments and random streams begin anew at every interval, so neither has a state
to keep. It is a manifest that names every other file by size and SHA-256 and is written last, so a checkpoint is whole or absent;
the one before it is kept as well. Replay is written once: each interval's new transitions of a member are a segment that never
changes, and an exploit copies the list of segments, not what is in them.
"""

import contextlib
import errno
import hashlib
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import safetensors
import safetensors.numpy

from evolute import limits
from evolute.environments.gym import versions
from evolute.errors import Damaged, RunStopped, UserError
from evolute.files import make_folder, partial_name, read_at_most, sync_folder, unwritable, write_whole
from evolute.runs import forms
from evolute.runs.arrays import storable
from evolute.runs.folder import CHECKPOINT_FOLDER as FOLDER
from evolute.runs.folder import CONFIG_FILE, REPLAY_FOLDER
from evolute.state import State
from evolute.training.member import Member
from evolute.training.replay import ReplayBuffer, Segment

FORMAT = "evolute checkpoint 4"
KEPT = 2
MANIFEST_NAME = re.compile(r"[0-9]{6,}\.json")
HASHED_AT_ONCE = 1 << 20
# What a file cannot be read for although nothing is wrong with it.
NOT_DAMAGE = {errno.EACCES, errno.EPERM, errno.EMFILE, errno.ENFILE, errno.ENOMEM}


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
    make_folder(run / REPLAY_FOLDER, parents=False)
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
        RunStopped: it cannot be written, or replay that it needs is gone; the older ones are as they were.
    """
    _require_segments(run, state)
    make_folder(run / FOLDER, parents=False)
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
        "memory": state.memory,
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
    delete_unneeded(run, state.interval)


def _require_segments(run: Path, state: State) -> None:
    """Raise RunStopped where somebody removed or changed replay that was written before."""
    for segment in {segment for member in state.members for segment in member.replay.segments}:
        path = run / REPLAY_FOLDER / segment.file
        try:
            wrong = "" if path.stat().st_size == segment.bytes else "is another one"
        except OSError as error:
            wrong = f"cannot be found ({error.strerror})"
        if wrong:
            raise RunStopped(f"{str(path)!r}, which this run wrote and goes on to need, {wrong}; put it back from a copy.")


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


def delete_unneeded(run: Path, newest: int) -> None:
    """Delete what no checkpoint that is kept names, and halves of files; other people's files stay.

    Args:
        run: the run folder.
        newest: the interval of the checkpoint that was just written or gone on from; it and the one before it are kept, and
            what is later belongs to an end that the run no longer has.
    """
    whole: dict[Path, dict[str, Any]] = {}
    paths = manifests(run)
    for path in paths:
        with contextlib.suppress(Damaged, UserError):
            whole[path] = _read(path)
    kept = [path for path in whole if _number_of(path) <= newest][-KEPT:]
    needed = {(folder, described["file"]) for path in kept for folder, described in _files(whole[path])}
    try:
        for path in paths:
            # One that is damaged and later than this run has come is nobody's that is known.
            if path not in kept and (path in whole or _number_of(path) < newest):
                path.unlink()
        for folder in (FOLDER, REPLAY_FOLDER):
            for path in (run / folder).glob("*.safetensors"):
                if (folder, path.name) not in needed and forms.PLAIN_NAME.fullmatch(path.name):
                    path.unlink()
        for path in (*run.glob(partial_name("*")), *run.glob(f"*/{partial_name('*')}")):
            path.unlink()
    except OSError as error:
        raise unwritable(Path(error.filename or run), error, 0) from None


def manifests(run: Path) -> list[Path]:
    """Return the manifests of a run, whole or not, oldest first."""
    return sorted((path for path in (run / FOLDER).glob("*.json") if MANIFEST_NAME.fullmatch(path.name)), key=_number_of)


def _number_of(path: Path) -> int:
    return int(path.stem)


# -------------------------------------------------------------------------------------------------------------- reading


def newest(run: Path, wanted: Callable[[dict[str, Any]], bool] = lambda manifest: True) -> tuple[Checkpoint | None, list[str]]:
    """Return the newest checkpoint that is whole and whose manifest is wanted, and what is wrong with newer ones.

    Returns:
        The checkpoint, or None where there is none; one clause for each damaged one.

    Raises:
        UserError: all that could be gone on from are damaged, or one cannot be read here: it is another version's, or not ours
            to read.
    """
    damages = []
    for path in reversed(manifests(run)):
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
    if damages:
        raise UserError(
            f"{str(run)!r} cannot be resumed: {'; '.join(damages)}; there is no older one, so restore these files from a copy, "
            f"or train the run anew in another folder: evolute train --config {run / CONFIG_FILE}."
        )
    return None, damages


def _read(path: Path) -> dict[str, Any]:
    """Return a manifest that is what was written; raises Damaged otherwise, and UserError where another version wrote it."""
    try:
        digest, _, body = read_at_most(path, limits.MANIFEST_BYTES).partition(b"\n")
        if hashlib.sha256(body).hexdigest().encode() != digest:
            raise Damaged("it does not match its checksum")
        manifest = json.loads(body)
    except OSError as error:
        raise _unreadable(path, error) from None
    except UserError as mistake:
        raise Damaged(str(mistake)) from None
    except (ValueError, RecursionError):
        raise Damaged("it is no JSON") from None
    written = manifest.get("format") if isinstance(manifest, dict) else None
    if isinstance(written, str) and written != FORMAT:
        raise UserError(
            f"the checkpoint {str(path)!r} was written by {written_by(manifest)} as {written!r}, and this is evolute "
            f"{versions()['evolute']}, which reads {FORMAT!r}; resume it with the version that wrote it."
        )
    if isinstance(manifest, dict):
        # One of before strategies remembered anything.
        manifest.setdefault("memory", {})
    # A checksum proves no good will.
    if (wrong := forms.fault(manifest, forms.MANIFEST)) is not None:
        raise Damaged(f"it is not of the form {FORMAT!r}: {wrong}")
    if manifest["interval"] != _number_of(path):
        raise Damaged(f"it is of interval {manifest['interval']}")
    return manifest


def written_by(manifest: dict[str, Any]) -> str:
    """Return the version of evolute that wrote a manifest of any form, in words."""
    version: Any = manifest
    for name in ("circumstances", "versions", "evolute"):
        version = version.get(name) if isinstance(version, dict) else None
    return f"evolute {version}" if isinstance(version, str) else "another version of evolute"


def _unreadable(path: Path, error: OSError) -> Damaged | UserError:
    if error.errno in NOT_DAMAGE:
        # Going on from an older checkpoint would lose this one.
        return UserError(f"{str(path)!r} cannot be read: {error.strerror}; fix that first.")
    return Damaged(f"{path.name} cannot be read: {error.strerror}")


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
        raise _unreadable(path, error) from None
    if found.hexdigest() != digest:
        raise Damaged(f"{path.name} does not match its checksum")
