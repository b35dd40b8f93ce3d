"""Checkpoints: all that a run needs to go on as if it had never stopped. docs/durability.md says what that promises.

A checkpoint belongs to an interval's end: random streams begin anew at every interval, and so do environments, unless a long
episode goes on, which is repeated from its seed and its actions; so neither has a state to keep. It is a manifest that names
every other file by size and SHA-256 and is written last, so a checkpoint is whole or absent; the one before it is kept as well.
Replay is written once: each interval's new transitions of a member are a segment that never changes, and an exploit copies the
list of segments, not what is in them.
"""

import contextlib
import hashlib
import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from evolute import limits
from evolute.environments.gym import versions
from evolute.errors import Damaged, UserError
from evolute.files import CHECKPOINT_FOLDER as FOLDER
from evolute.files import REPLAY_FOLDER, partial_name, read_at_most, sync_folder, unwritable
from evolute.runs import forms
from evolute.runs.folder import CONFIG_FILE
from evolute.state import Profile, State
from evolute.training import storage

FORMAT = "evolute checkpoint 4"
KEPT = 2
MANIFEST_NAME = re.compile(r"[0-9]{6,}\.json")


class Checkpoint(NamedTuple):
    """A manifest whose files were found whole."""

    manifest: dict[str, Any]

    @property
    def interval(self) -> int:
        """Intervals that had ended."""
        return self.manifest["interval"]


# -------------------------------------------------------------------------------------------------------------- writing


def save(run: Path, state: State, saved: Mapping[int, dict[str, Any]], carried: dict[str, Any]) -> None:
    """Write a checkpoint's manifest after an interval's end, and delete what neither it nor the one before needs.

    Args:
        run: the run folder.
        state: of the run.
        saved: what the workers say of the members whose parts they wrote, by lane.
        carried: what else belongs to the run so far (RunFolder.carried).

    Raises:
        RunStopped: it cannot be written; the older ones are as they were.
    """
    name, best = f"{state.interval:06}", state.best
    manifest = {
        "format": FORMAT,
        "interval": state.interval,
        "steps": state.steps_done,
        "evolved": state.evolved,
        "memory": state.memory,
        "quarantines": state.quarantines,
        "seconds": state.earlier_seconds,
        "best": best and {**best._asdict(), "policy": storage.save_arrays(run, f"{name}-best", best.policy.pairs)},
        # What a worker says of a member that misses intervals is of an older checkpoint.
        "members": [{**saved[state.lane(member.slot)], **_described(member)} for member in state.members],
        **carried,
    }
    # Its own digest comes first: a flipped bit in it must not pass for another run.
    body = json.dumps(manifest, allow_nan=True).encode()
    # The manifest is on the disk only after everything that it names.
    sync_folder(run / REPLAY_FOLDER)
    sync_folder(run / FOLDER)
    storage.write(run / FOLDER / f"{name}.json", hashlib.sha256(body).hexdigest().encode() + b"\n" + body)
    sync_folder(run / FOLDER)
    delete_unneeded(run, state.interval)


def _described(member: Profile) -> dict[str, Any]:
    own = {"fitness": member.fitness, "parent": member.parent, "hyperparameters": member.hyperparameters._asdict()}
    return {**own, "missed": member.missed, "absent": member.absent}


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
                storage.verify(run / folder / name, size, digest)
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
        raise storage.unreadable(path, error) from None
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
        # One of before strategies remembered anything, episodes went on, and members could miss an interval.
        manifest.setdefault("memory", {})
        for member in manifest["members"] if isinstance(manifest.get("members"), list) else ():
            if isinstance(member, dict):
                member.setdefault("life", [])
                member.setdefault("missed", 0)
                member.setdefault("absent", False)
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


def _files(manifest: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    """Return (folder, description) of every file that a manifest names."""
    found = [file for member in manifest["members"] for file in storage.files_of(member)]
    return found + ([(FOLDER, manifest["best"]["policy"])] if manifest["best"] else [])
