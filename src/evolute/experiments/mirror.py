"""A copy of runs and records at a URL (experiments/place.py).

Runs train in local folders. After each checkpoint what is new is copied; a process elsewhere that has less of a run begins by
fetching it. Object stores cannot rename, so a checkpoint's manifest is copied last and removed first: where there is one, all
that it names is there. What is fetched is verified like any run folder (runs/checkpoint.py): anyone may have written it.
"""

import re
from pathlib import Path
from typing import Any

from evolute import limits
from evolute.experiments.place import Place
from evolute.files import BEST_FOLDER, CHECKPOINT_FOLDER, REPLAY_FOLDER, make_folder, write_whole
from evolute.policy import DESCRIPTION_FILE, WEIGHTS_FILE
from evolute.runs import forms
from evolute.runs.checkpoint import MANIFEST_NAME
from evolute.runs.folder import CONFIG_FILE, FILES
from evolute.runs.lock import LOCK_FILE

RUNS, RECORDS, POLICIES = "runs", "records", "policies"
# Folders of a run whose files never change once they are written.
PARTS = (REPLAY_FOLDER, CHECKPOINT_FOLDER)
# Files of a run that say how far it is; config.toml last, without which there is no run: where it has come, the others have.
SMALL = (*(file for file in FILES if file not in (LOCK_FILE, CONFIG_FILE)), CONFIG_FILE)
# Names that a listing may give: of a folder or file right there, never a path that leads elsewhere.
RUN_NAME = re.compile(r"[A-Za-z0-9_+-][A-Za-z0-9_.+-]{0,199}")
RECORD_NAME = re.compile(rf"{RUN_NAME.pattern}\.json")


class Mirror:
    """The copy of a folder of runs and records."""

    def __init__(self, out: Path, url: str):
        """Reach the place; raises UserError and RunStopped as `Place` does.

        Args:
            out: the local folder.
            url: of its copy.
        """
        self._out, self._place = out, Place(url)

    def push_run(self, name: str) -> None:
        """Copy what is new of a run; what the run no longer has is removed."""
        run, where = self._out / RUNS / name, f"{RUNS}/{name}"
        with self._place.told():
            there = self._place.find(where)
            parts = [path for part in PARTS for path in sorted((run / part).glob("*.safetensors"))]
            manifests = [path for path in sorted((run / CHECKPOINT_FOLDER).glob("*.json")) if MANIFEST_NAME.fullmatch(path.name)]
            small = [run / file for file in SMALL] + sorted((run / BEST_FOLDER).glob("*.*"))
            for path in parts:
                # One that is there is whole: places show a file once all of it has come.
                if there.get(str(path.relative_to(run))) != path.stat().st_size:
                    self._put(path)
            for path in [run.with_suffix(".seconds"), *small]:
                if path.is_file():
                    self._put(path)
            for path in manifests:
                if str(path.relative_to(run)) not in there:
                    self._put(path)
            own = {str(path.relative_to(run)) for path in (*parts, *manifests)}
            gone = [name for name in there if name.startswith(tuple(f"{part}/" for part in PARTS)) and name not in own]
            for file in sorted(gone, key=lambda name: not name.endswith(".json")):
                self._place.remove(f"{where}/{file}")

    def fetch_run(self, name: str) -> None:
        """Bring a run here where its copy is further than what is here, if anything is."""
        run, where = self._out / RUNS / name, f"{RUNS}/{name}"
        with self._place.told():
            there = self._place.find(where)
            if _newest(there) <= _newest(str(path.relative_to(run)) for path in run.glob(f"{CHECKPOINT_FOLDER}/*.json")):
                return
            names = [file for file in there if _is_plain(file)]
            # The manifests last, here, too; and config.toml, without which there is no run, before them.
            for file in sorted(names, key=lambda file: (_is_manifest(file), file == CONFIG_FILE, file)):
                self._get(f"{where}/{file}", limits.MANIFEST_BYTES if file.endswith((".json", ".jsonl", ".toml")) else None)
            if self._place.exists(f"{where}.seconds"):
                self._get(f"{where}.seconds", limits.RECORDS_BYTES)

    def push_record(self, path: Path, name: str) -> None:
        """Copy what is kept of a run that has ended: its policy, and then its record."""
        with self._place.told():
            for file in (*sorted((self._out / POLICIES / name).glob("*.*")), path):
                self._put(file)

    def fetch_records(self) -> None:
        """Bring records here that others have made."""
        with self._place.told():
            for file in self._place.find(RECORDS):
                if RECORD_NAME.fullmatch(file) and not (self._out / RECORDS / file).exists():
                    self._get(f"{RECORDS}/{file}", limits.RESULT_BYTES)

    def _put(self, path: Path) -> None:
        self._place.put(path.relative_to(self._out).as_posix(), path.read_bytes())

    def _get(self, name: str, most: int | None) -> None:
        data = self._place.get(name, most)
        make_folder((self._out / name).parent)
        write_whole(self._out / name, data)


def _is_manifest(name: str) -> bool:
    folder, _, file = name.rpartition("/")
    return folder == CHECKPOINT_FOLDER and MANIFEST_NAME.fullmatch(file) is not None


def _is_plain(name: str) -> bool:
    """Return whether a name from a listing is that of a file of a run."""
    folder, _, file = name.rpartition("/")
    if not folder:
        return file in SMALL
    if folder == BEST_FOLDER:
        return file in (WEIGHTS_FILE, DESCRIPTION_FILE)
    return _is_manifest(name) or (folder in PARTS and forms.PLAIN_NAME.fullmatch(file) is not None)


def _newest(names: Any) -> int:
    """Return the number of the newest manifest among names; -1 where there is none."""
    return max((int(Path(name).stem) for name in names if _is_manifest(name)), default=-1)
