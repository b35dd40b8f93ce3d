"""A run folder: data that cannot run code, in TOML, JSON and safetensors; README lists the files. Imports no JAX."""

import errno
import json
import math
import os
import time
from pathlib import Path
from typing import Any

from evolute.errors import UserError
from evolute.files import write_whole
from evolute.policy import Policy

CONFIG_FILE = "config.toml"
METADATA_FILE = "metadata.json"
METRICS_FILE = "metrics.jsonl"
EVENTS_FILE = "events.jsonl"
RESULT_FILE = "result.json"
BEST_FOLDER = "best"


def default_folder(env: str, mix: dict[str, int], seed: int) -> Path:
    """Return runs/<env>-<mix>-<seed>-<time>, without characters that a path cannot hold."""
    slots = "_".join(f"{kind}{count}" for kind, count in mix.items())
    name = f"{env}-{slots}-{seed}-{time.strftime('%Y%m%d-%H%M%S')}"
    return Path("runs") / "".join(c if c.isalnum() or c in "-_." else "+" for c in name)


class RunFolder:
    """The files of one run."""

    def __init__(self, path: Path):
        self.path = path

    @classmethod
    def create(cls, path: Path, run: Any) -> "RunFolder":
        """Make a folder for a run; raises UserError where it holds one already or cannot be written."""
        import jax

        from evolute.config import to_toml
        from evolute.environments import physics_fingerprint, versions

        refuse_existing(path)
        folder = cls(path)
        # Before anything is written: the fingerprint plays the environment, which may fail.
        metadata = {
            "started": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
            "versions": versions(),
            "devices": [f"{d.platform}:{d.device_kind}" for d in jax.local_devices()],
            "cores": os.cpu_count(),
            "physics_fingerprint": physics_fingerprint(run.env),
        }
        try:
            path.mkdir(parents=True, exist_ok=True)
            (path / CONFIG_FILE).write_text(to_toml(run), encoding="utf-8")
            folder._write_json(METADATA_FILE, metadata)
            (path / METRICS_FILE).touch()
            (path / EVENTS_FILE).touch()
        except OSError as error:
            raise _unwritable(path, error) from None
        return folder

    @classmethod
    def open(cls, path: Path) -> "RunFolder":
        """Open a folder for reading; raises UserError where it holds no run."""
        if not path.is_dir():
            raise UserError(f"the run folder {str(path)!r} does not exist; check the path.")
        if not (path / CONFIG_FILE).is_file():
            raise UserError(f"{str(path)!r} holds no run: it has no {CONFIG_FILE}; give the folder that `evolute train` named.")
        return cls(path)

    def append_metrics(self, row: dict[str, Any]) -> None:
        """Add one row to metrics.jsonl."""
        self._append(METRICS_FILE, row)

    def append_event(self, row: dict[str, Any]) -> None:
        """Add one row to events.jsonl."""
        self._append(EVENTS_FILE, row)

    def write_best(self, policy: Policy, about: dict[str, Any]) -> None:
        """Keep the best policy so far."""
        policy.save(self.path / BEST_FOLDER, about)

    def write_result(self, result: dict[str, Any]) -> None:
        """Write result.json."""
        self._write_json(RESULT_FILE, result)

    def metrics(self) -> list[dict[str, Any]]:
        """Return the rows of metrics.jsonl."""
        return self._read_lines(METRICS_FILE)

    def events(self) -> list[dict[str, Any]]:
        """Return the rows of events.jsonl."""
        return self._read_lines(EVENTS_FILE)

    def metadata(self) -> dict[str, Any]:
        """Return metadata.json."""
        return self._read_json(METADATA_FILE)

    def result(self) -> dict[str, Any] | None:
        """Return result.json, or None for a run that has not ended."""
        return self._read_json(RESULT_FILE) if (self.path / RESULT_FILE).is_file() else None

    def best_policy(self) -> Policy:
        """Return the best policy so far."""
        return Policy.load(self.path / BEST_FOLDER)

    def _append(self, name: str, row: dict[str, Any]) -> None:
        with (self.path / name).open("a", encoding="utf-8") as file:
            file.write(json.dumps(_finite(row)) + "\n")

    def _write_json(self, name: str, value: dict[str, Any]) -> None:
        write_whole(self.path / name, (json.dumps(_finite(value), indent=2) + "\n").encode())

    def _read_json(self, name: str) -> dict[str, Any]:
        try:
            value = json.loads((self.path / name).read_text(encoding="utf-8"))
        except OSError as error:
            raise _unreadable(self.path / name, error) from None
        except ValueError:
            value = None
        if not isinstance(value, dict):
            raise UserError(f"{str(self.path / name)!r} is damaged: it must hold one JSON object; train the run again.")
        return value

    def _read_lines(self, name: str) -> list[dict[str, Any]]:
        try:
            lines = (self.path / name).read_text(encoding="utf-8").splitlines()
        except OSError as error:
            raise _unreadable(self.path / name, error) from None
        except UnicodeDecodeError:
            raise UserError(f"{str(self.path / name)!r} is damaged: it is not UTF-8 text; train the run again.") from None
        rows = []
        for number, line in enumerate(lines, start=1):
            try:
                row = json.loads(line)
            except ValueError:
                row = None
            if not isinstance(row, dict):
                raise UserError(f"{str(self.path / name)!r} is damaged in line {number}: it must be a JSON object; remove it.")
            rows.append(row)
        return rows


def refuse_existing(path: Path) -> None:
    """Raise UserError where a folder already holds a run, or is something else than a folder."""
    try:
        if (path / CONFIG_FILE).exists():
            raise UserError(f"the folder {str(path)!r} already holds a run; choose another with --out, or remove it first.")
        if path.exists() and not path.is_dir():
            raise UserError(f"{str(path)!r} is a file; choose a folder with --out.")
        if path.is_dir() and any(path.iterdir()):
            raise UserError(f"the folder {str(path)!r} is not empty; choose another with --out.")
        above = next(folder for folder in (path, *path.absolute().parents) if folder.exists())
        if not above.is_dir() or not os.access(above, os.W_OK):
            raise PermissionError(errno.EACCES, f"{str(above)!r} is no folder that you may write to")
    except OSError as error:
        raise _unwritable(path, error) from None


def _unwritable(path: Path, error: OSError) -> UserError:
    return UserError(f"the folder {str(path)!r} cannot be written: {error.strerror}; choose another with --out.")


def _unreadable(path: Path, error: OSError) -> UserError:
    return UserError(f"{str(path)!r} cannot be read: {error.strerror}; the run folder is incomplete, so train again.")


def _finite(value: Any) -> Any:
    """Replace non-finite numbers by null: JSON has no NaN, and a reader in another language would stumble."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return value
