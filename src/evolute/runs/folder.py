"""A run folder: data that cannot run code, in TOML, JSON and safetensors; README lists the files. Imports no JAX."""

import contextlib
import errno
import json
import math
import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evolute import limits
from evolute.errors import RunStopped, UserError
from evolute.files import (
    BEST_FOLDER,
    CHECKPOINT_FOLDER,
    REPLAY_FOLDER,
    append,
    check_plain,
    is_folder,
    make_folder,
    partial_name,
    read_at_most,
    reason,
    unwritable,
    write_whole,
)
from evolute.policy import DESCRIPTION_FILE, WEIGHTS_FILE, Policy
from evolute.runs import columns, forms
from evolute.runs.circumstances import circumstances
from evolute.runs.lock import LOCK_FILE, locked

if TYPE_CHECKING:
    from evolute.config import Run

CONFIG_FILE = "config.toml"
METADATA_FILE = "metadata.json"
METRICS_FILE = "metrics.jsonl"
EVENTS_FILE = "events.jsonl"
RESULT_FILE = "result.json"
FILES = (CONFIG_FILE, METADATA_FILE, METRICS_FILE, EVENTS_FILE, RESULT_FILE, LOCK_FILE)
FOLDERS = (BEST_FOLDER, CHECKPOINT_FOLDER, REPLAY_FOLDER)
# What a process leaves that was killed while it made a folder for a run.
BEGUN = {LOCK_FILE, METADATA_FILE, METRICS_FILE, EVENTS_FILE} | {
    partial_name(name) for name in (CONFIG_FILE, METADATA_FILE, METRICS_FILE, EVENTS_FILE)
}


class RunFolder:
    """The files of one run."""

    def __init__(self, path: Path):
        self.path = path
        # What the numbers of the process that trains depend on besides the configuration; known while it trains.
        self.circumstances: dict[str, Any] = {}
        # What was told when the run began, one sentence each.
        self.notes: list[str] = []
        # What write_best wrote last.
        self._best: Policy | None = None
        # The folder itself, whatever becomes of its name; while it is held.
        self._descriptor: int | None = None

    @classmethod
    @contextmanager
    def create(cls, path: Path, run: "Run", notes: Sequence[str] = ()) -> Iterator["RunFolder"]:
        """Make a folder for a run and hold its lock; raises UserError where it holds one already or cannot be written."""
        from evolute.runs import cautions

        refuse_existing(path)
        # Before an environment is made, which may change the working folder.
        path = path.absolute()
        folder = cls(path)
        # Before anything is written: the fingerprint plays the environment, which may fail.
        folder.circumstances = circumstances(run)
        folder.notes = [*notes, *cautions.repetition(run.env, folder.circumstances)]
        begun = False
        try:
            make_folder(path)
            refuse_links(path, hard=True)
            with folder.held():
                # Another process may have come first.
                refuse_existing(path)
                started = time.strftime("%Y-%m-%dT%H:%M:%S%z")
                folder.write_metadata({"started": started, **folder.circumstances, "notes": folder.notes, "resumed": []})
                folder.restore_records({})
                # Last: a folder without it holds no run.
                folder.write_config(run)
                begun = True
                yield folder
        except RunStopped as error:
            if begun:
                raise
            raise UserError(f"no run can be kept in {str(path)!r}: {error} Or choose another folder with --out.") from None

    @classmethod
    def open(cls, path: Path, writing: bool = False) -> "RunFolder":
        """Open a folder; raises UserError where it holds no run, or links that lead out of it.

        Args:
            path: the folder.
            writing: whether it is to be written, too, and must not hold hard links then.
        """
        if not is_folder(path):
            what = "is no folder" if path.exists() else "does not exist"
            raise UserError(f"the run folder {str(path)!r} {what}; check the path.")
        try:
            # A checkpoint holds a copy of the configuration.
            holds_run = (path / CONFIG_FILE).is_file() or (path / CHECKPOINT_FOLDER).is_dir()
        except OSError as error:
            raise UserError(f"the run folder {str(path)!r} cannot be opened: {error.strerror}; check the path.") from None
        if not holds_run:
            raise UserError(f"{str(path)!r} holds no run: it has no {CONFIG_FILE}; give the folder that `evolute train` named.")
        refuse_links(path, writing)
        return cls(path)

    @contextmanager
    def held(self) -> Iterator[None]:
        """Hold the folder's lock, and the folder itself, so that its removal is noticed."""
        with locked(self.path):
            try:
                self._descriptor = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY)
            except OSError as error:
                raise unwritable(self.path, error, 0) from None
            try:
                yield
            finally:
                os.close(self._descriptor)
                self._descriptor = None

    def check_still_there(self) -> None:
        """Raise RunStopped where the folder that is held was removed or renamed: nothing may be written in its place."""
        with contextlib.suppress(OSError):
            if self._descriptor is None or os.path.samestat(os.fstat(self._descriptor), self.path.stat()):
                return
        raise RunStopped(
            f"the run folder {str(self.path)!r} was removed or renamed while the run trained; if it is elsewhere, give it its "
            "name back."
        )

    def append_metrics(self, rows: list[dict[str, Any]]) -> None:
        """Add rows to metrics.jsonl."""
        self.check_still_there()
        append(self.path / METRICS_FILE, json_lines(rows).encode())

    def append_events(self, rows: list[dict[str, Any]]) -> None:
        """Add rows to events.jsonl."""
        self.check_still_there()
        append(self.path / EVENTS_FILE, json_lines(rows).encode())

    def carried(self, run: "Run") -> dict[str, Any]:
        """Return what every checkpoint carries of this folder, so that it can be brought back to where the checkpoint is."""
        from evolute.toml import to_toml

        try:
            records = {name: (self.path / name).read_text("utf-8", "replace") for name in (METRICS_FILE, EVENTS_FILE)}
        except OSError as error:
            raise RunStopped(f"{str(error.filename)!r} cannot be read: {error.strerror}; fix that first.") from None
        return {"config": to_toml(run), "circumstances": self.circumstances, "records": records}

    def restore_records(self, texts: dict[str, str]) -> None:
        """Put back the records that a checkpoint carries; empty files where there are none."""
        for name in (METRICS_FILE, EVENTS_FILE):
            write_whole(self.path / name, texts.get(name, "").encode())

    def write_config(self, run: "Run") -> None:
        """Replace config.toml."""
        from evolute.toml import to_toml

        write_whole(self.path / CONFIG_FILE, to_toml(run).encode())

    def write_metadata(self, metadata: dict[str, Any]) -> None:
        """Replace metadata.json."""
        self._write_json(METADATA_FILE, metadata)

    def forget_result(self) -> None:
        """Delete the result of a run that is to go on."""
        try:
            (self.path / RESULT_FILE).unlink(missing_ok=True)
        except OSError as error:
            raise unwritable(self.path / RESULT_FILE, error, 0) from None

    def write_best(self, policy: Policy, about: dict[str, Any]) -> None:
        """Keep the best policy so far, unless it is the one that is there."""
        self.check_still_there()
        if policy is self._best and all((self.path / BEST_FOLDER / name).exists() for name in (WEIGHTS_FILE, DESCRIPTION_FILE)):
            return
        self._best = policy
        policy.save(self.path / BEST_FOLDER, about)

    def write_result(self, result: dict[str, Any]) -> None:
        """Write result.json."""
        self.check_still_there()
        self._write_json(RESULT_FILE, result)

    def run(self) -> "Run":
        """Return the run that config.toml describes; raises UserError where it cannot be read."""
        from evolute import toml
        from evolute.config import Run
        from evolute.runs import cures

        try:
            return Run(**toml.read(self.path / CONFIG_FILE))
        except UserError as mistake:
            helps = cures.of_settings(self)
            raise UserError(f"{str(mistake).removesuffix('.')}; {helps}.") if helps else mistake from None

    def metrics(self, damage: list[str] | None = None) -> list[dict[str, Any]]:
        """Return the rows of metrics.jsonl; a damaged one is named in `damage` where that is given, else raises UserError."""
        return self._read_lines(METRICS_FILE, columns.fault, damage)

    def events(self, damage: list[str] | None = None) -> list[dict[str, Any]]:
        """Return the rows of events.jsonl, as `metrics` does. There may be events of unknown names."""
        return self._read_lines(EVENTS_FILE, forms.event_fault, damage)

    def metadata(self) -> dict[str, Any]:
        """Return metadata.json; raises UserError where it is damaged."""
        return self._read_json(METADATA_FILE, forms.METADATA, limits.DESCRIPTION_BYTES)

    @property
    def has_ended(self) -> bool:
        """Whether there is a result."""
        return (self.path / RESULT_FILE).is_file()

    def result(self) -> dict[str, Any] | None:
        """Return result.json, or None for a run that has not ended; raises UserError where it is damaged."""
        return self._read_json(RESULT_FILE, forms.RESULT, limits.RESULT_BYTES) if self.has_ended else None

    def best_policy(self) -> Policy:
        """Return the best policy so far; raises UserError where there is none."""
        metrics = self.path / METRICS_FILE
        if not is_folder(self.path / BEST_FOLDER) and metrics.is_file() and metrics.stat().st_size == 0:
            raise UserError(
                f"no interval of the run in {str(self.path)!r} has ended yet, so it has no policy; wait for the end of the first "
                "one, or go on with the run by `evolute resume`."
            )
        return Policy.load(self.path / BEST_FOLDER)

    def about_best(self) -> dict[str, Any]:
        """Return where the best policy so far came from; raises UserError where that is damaged."""
        return self._read_json(f"{BEST_FOLDER}/{DESCRIPTION_FILE}", forms.ABOUT_BEST, limits.DESCRIPTION_BYTES)

    def _write_json(self, name: str, value: dict[str, Any]) -> None:
        write_whole(self.path / name, (json.dumps(_finite(value), indent=2) + "\n").encode())

    def _read_json(self, name: str, form: dict[str, Any], most: int) -> dict[str, Any]:
        try:
            value = _parsed(read_at_most(self.path / name, most))
        except OSError as error:
            raise _unreadable(self.path / name, error) from None
        wrong = "it must hold one JSON object" if value is None else forms.fault(value, form)
        if value is None or wrong is not None:
            raise UserError(f"{str(self.path / name)!r} is damaged: {wrong}; {_cure(self.path / name)}.")
        return value

    def _read_lines(self, name: str, fault: Callable[[Any], str | None], damage: list[str] | None) -> list[dict[str, Any]]:
        """Return the rows of a file of JSON lines; a last line without its end, torn by what ended the run, is ignored."""
        path, rows, number = self.path / name, [], 0
        try:
            check_plain(path, limits.RECORDS_BYTES)
            with path.open("rb") as file:
                while line := file.readline(limits.RECORDS_LINE):
                    number += 1
                    wrong = None
                    if len(line) == limits.RECORDS_LINE:
                        wrong = f"it has more than {limits.RECORDS_LINE:,} bytes"
                        while damage is not None and line and not line.endswith(b"\n"):
                            line = file.readline(limits.RECORDS_LINE)
                    elif not line.endswith(b"\n"):
                        break
                    row = None if wrong else _parsed(line)
                    wrong = wrong or fault(row)
                    if wrong is None and row is not None:
                        rows.append(row)
                        continue
                    sentence = f"{str(path)!r} is damaged in line {number}: {wrong}; {_cure(path)}."
                    if damage is None:
                        raise UserError(sentence)
                    damage.append(sentence)
        except OSError as error:
            raise _unreadable(path, error) from None
        return rows


def _parsed(text: bytes) -> dict[str, Any] | None:
    """Return the JSON object that a text is, None where it is anything else."""
    try:
        value = json.loads(text.decode("utf-8"))
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def refuse_links(path: Path, hard: bool = False) -> None:
    """Raise UserError where a run would be read or written elsewhere: anything in its folder is a link or no plain file.

    Args:
        path: the run folder.
        hard: whether hard links are refused, too: they can be read, but who writes them writes another file.
    """
    folders = [path]
    try:
        while folders:
            with os.scandir(folders.pop()) as entries:
                for entry in entries:
                    if entry.is_dir(follow_symlinks=False):
                        _refuse_folder(path, Path(entry.path))
                        folders.append(Path(entry.path))
                    elif not entry.is_file(follow_symlinks=False):
                        kind = "a symbolic link" if entry.is_symlink() else "no plain file"
                        raise UserError(f"{entry.path!r} is {kind}; a run folder holds plain files alone, so move it away.")
                    elif Path(entry.path).parent == path and entry.name in FOLDERS:
                        raise UserError(f"{entry.path!r} is a file where a run keeps a folder; move it away.")
                    elif hard and entry.stat(follow_symlinks=False).st_nlink > 1:
                        raise UserError(
                            f"{entry.path!r} has another name elsewhere (a hard link), and a run writes into files of its own "
                            "alone; copy the folder (cp -r) and use the copy."
                        )
    except FileNotFoundError:
        # The run trains, and has just replaced a file or a folder.
        pass
    except OSError as error:
        raise _unreadable(path, error) from None


def _refuse_folder(run: Path, path: Path) -> None:
    """Raise UserError where a folder has the place of a file of a run."""
    own = path.parent == run and (path.name in FILES or path.match(partial_name("*")))
    below = path.parent.parent == run and path.parent.name in FOLDERS
    if own or (below and path.suffix in (".json", ".safetensors", ".partial")):
        raise UserError(f"{str(path)!r} is a folder where a run keeps a file; move it away.")


def json_lines(rows: Iterable[dict[str, Any]]) -> str:
    """Return rows as JSON, one a line; numbers that are not finite are null."""
    return "".join(json.dumps(_finite(row)) + "\n" for row in rows)


def check_outs(outs: Sequence[str | Path], count: int) -> list[Path]:
    """Return the folders of several runs; raises UserError unless there is one for each, all different and free."""
    if isinstance(outs, str | Path):
        raise UserError(f"outs is {str(outs)!r}; give a list with one folder for each of the {count} seeds.")
    paths = [Path(out) for out in outs]
    if len(paths) != count or len({path.absolute() for path in paths}) < count:
        raise UserError(f"outs names {len(set(paths))} different folders for {count} seeds; give one for each.")
    for path in paths:
        if any(path.absolute() in other.absolute().parents for other in paths):
            raise UserError(f"outs names {str(path)!r} and a folder inside it; give each seed a folder outside the others.")
        refuse_existing(path)
    return paths


def refuse_existing(path: Path) -> None:
    """Raise UserError where a folder already holds a run, or is something else than a folder."""
    try:
        # Raises where the system cannot follow it; the answers below would be no, whatever is there.
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            path.stat()
        if (path / CONFIG_FILE).exists():
            raise UserError(f"the folder {str(path)!r} already holds a run; choose another with --out.")
        if path.exists() and not path.is_dir():
            raise UserError(f"{str(path)!r} is a file; choose a folder with --out.")
        if path.is_dir() and not {file.name for file in path.iterdir()} <= BEGUN:
            raise UserError(f"the folder {str(path)!r} is not empty; choose another with --out.")
        above = next(folder for folder in (path, *path.absolute().parents) if folder.exists())
        if not above.is_dir() or not os.access(above, os.W_OK):
            raise PermissionError(errno.EACCES, f"{str(above)!r} is no folder that you may write to")
    # ValueError: a character that no path may have.
    except (OSError, ValueError) as error:
        if isinstance(error, UserError):
            raise
        raise not_writable(path, error) from None


def not_writable(path: Path, error: OSError | ValueError) -> UserError:
    """Return the mistake of asking for a folder that cannot be made."""
    return UserError(f"the folder {str(path)!r} cannot be written: {reason(error)}; choose another with --out.")


def _unreadable(path: Path, error: OSError) -> UserError:
    helps = _cure(path) if isinstance(error, FileNotFoundError) else "fix that first"
    return UserError(f"{str(path)!r} cannot be read: {error.strerror}; {helps}.")


def _cure(path: Path) -> str:
    from evolute.runs.cures import cure

    return cure(path)


def _finite(value: Any) -> Any:
    """Replace non-finite numbers by null: JSON has no NaN, and a reader in another language would stumble."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return value
