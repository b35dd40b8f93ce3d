"""One cell of an experiment: its run is trained or resumed, its best member plays on held-out seeds, its record is written."""

import json
import shutil
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from evolute import limits
from evolute.config import Run
from evolute.engine import train
from evolute.environments.gym import Environment
from evolute.environments.making import making_of, modules_of
from evolute.errors import RunStopped, UserError
from evolute.experiments import records
from evolute.experiments.mirror import Mirror
from evolute.files import CHECKPOINT_FOLDER, REPLAY_FOLDER, append, make_folder, read_at_most, write_whole
from evolute.policy import Policy
from evolute.resumption import last_stop, resume
from evolute.runs import policies
from evolute.runs.folder import CONFIG_FILE, RunFolder
from evolute.state import Progress
from evolute.training import evaluate
from evolute.training.randomness import POPULATION, Purpose, stream


def train_cell(
    run: Run,
    evaluation_steps: int,
    out: Path,
    workers: int,
    keep: bool,
    tell: Callable[[int], None],
    note: Callable[[str], None],
    storage: str | None = None,
) -> dict[str, Any]:
    """Bring a cell to its end from wherever it is, and return its record.

    A run of which every member diverged has ended, too: it would do so again, and what a table says without it is not true.

    Args:
        run: of the cell.
        evaluation_steps: that the best member of the end plays on held-out seeds.
        out: the folder of all runs and records.
        workers: processes over which the members are dealt.
        keep: whether replay and checkpoints stay in the run folder, so that the run can be made longer.
        tell: is told how many steps of the run's clock are done.
        note: is told what a run tells of itself.
        storage: the URL of a copy of `out`, from which the run begins if it is further there; None for no copy.

    Raises:
        UserError, RunStopped: as in `train`; and where an episode may be longer than its evaluation.
    """
    require_whole_episodes(run, evaluation_steps)
    name = records.name(run, evaluation_steps)
    path, policy = out / "runs" / name, out / "policies" / name
    make_folder(path.parent)
    mirror = None if storage is None else Mirror(out, storage)
    if mirror is not None:
        mirror.fetch_run(name)
    # The processor seconds of other processes are not known here.
    clock = Clock(path.with_suffix(".seconds")) if workers == 1 else None

    def observe(progress: Progress) -> None:
        tell(progress.steps)
        if progress.rows and clock is not None:
            clock.stop(progress.state.interval)
        if progress.rows and mirror is not None:
            mirror.push_run(name)

    if not _has_ended(path):
        _train_to_its_end(run, path, policy, workers, observe, note)
    record = _record_of(run, path, policy, evaluation_steps, clock.seconds if clock else {})
    records.write(out, run, record)
    if mirror is not None:
        mirror.push_record(records.record_path(out, run, evaluation_steps), name)
    if not keep:
        for part in (CHECKPOINT_FOLDER, REPLAY_FOLDER):
            shutil.rmtree(path / part, ignore_errors=True)
    if mirror is not None:
        mirror.push_run(name)
    return record


def _train_to_its_end(
    run: Run, path: Path, policy: Path, workers: int, observe: Callable[[Progress], None], note: Callable[[str], None]
) -> None:
    """Begin or resume a run in its folder; one of which every member diverges has ended, too."""
    if (path / CONFIG_FILE).is_file() or (path / CHECKPOINT_FOLDER).is_dir():
        begin = partial(resume, path, observer=observe, allow_import=modules_of(run.env, run.wrap), note=note, workers=workers)
    else:
        # Of an earlier run with these settings.
        shutil.rmtree(policy, ignore_errors=True)
        begin = partial(train, run, path, observe, note, workers)
    try:
        begin()
    except RunStopped as stop:
        if not _has_ended(path):
            raise
        note(str(stop))


def _record_of(run: Run, path: Path, policy: Path, evaluation_steps: int, seconds: Mapping[int, float]) -> dict[str, Any]:
    """Return the record of a run that has ended; its winner plays on held-out seeds, and its policy is kept in a folder."""
    folder = RunFolder.open(path)
    record = records.of_run(folder, seconds)
    if not folder.has_ended:
        record["stopped"] = record["curve"]["steps"][-1]
    elif (winner := record["winner"]["member"]) is not None:
        record["final"] = held_out(folder, run, winner, evaluation_steps, policy)
    record["evaluation_steps"] = evaluation_steps
    return record


def require_whole_episodes(run: Run, steps: int) -> None:
    """Raise UserError where an evaluation is shorter than an episode may be: it would count short episodes alone, or none."""
    environment = Environment(run.env, run.time_limit, making_of(run))
    try:
        longest = environment.facts.longest_episode
    finally:
        environment.close()
    if longest is not None and steps < longest:
        raise UserError(
            f"evaluation_steps is {steps:,}, and an episode of {run.env} may have {longest:,} steps; only episodes that end "
            f"within them count: raise evaluation_steps to at least {longest:,}, or lower max_episode_steps."
        )


def _has_ended(path: Path) -> bool:
    """Return whether nothing is left to be trained of the run in a folder, if there is one."""
    if not (path / CONFIG_FILE).is_file():
        return False
    folder = RunFolder.open(path)
    stop = last_stop(folder)
    return folder.has_ended or (stop is not None and stop["repeats"])


def held_out(folder: RunFolder, run: Run, member: int, steps: int, kept: Path) -> dict[str, Any]:
    """Return what a member's policy of the run's end makes of episodes that no member was chosen by.

    Args:
        folder: of the run.
        run: that it is.
        member: slot.
        steps: environment steps to play; only completed episodes count (RL Baselines3 Zoo's protocol).
        kept: where the policy is kept, because the run folder may lose its checkpoints; as long as it has them, they say it.
    """
    environment = Environment(run.env, run.time_limit, making_of(run))
    if kept.is_dir() and not (folder.path / CHECKPOINT_FOLDER).is_dir():
        policy = Policy.load(kept)
    else:
        policy = policies.of_member(folder.path, member, environment.facts)
        make_folder(kept.parent)
        policy.save(kept, {"member": member, "kind": run.kinds[member]})
    seed = int(stream(run, POPULATION, 0, Purpose.HELD_OUT).integers(2**31))
    played = evaluate.by_steps(environment, policy.unit_action, steps, seed)
    return {"mean": played.mean, "std": played.std, "episodes": len(played.returns), "faults": played.faults}


class Clock:
    """Processor seconds that a run has taken at the end of each interval, kept in a file, because a run may be resumed."""

    def __init__(self, path: Path):
        self._path, self._began = path, time.process_time()
        self._before: float | None = None
        if not path.is_file():
            write_whole(path, b"")
        lines = read_at_most(path, limits.RECORDS_BYTES).decode("utf-8").splitlines()
        self.seconds: dict[int, float] = {int(number): float(spent) for number, spent in map(json.loads, lines)}

    def stop(self, interval: int) -> None:
        """Note the end of an interval."""
        if self._before is None:
            # What was spent on intervals that the run repeats is not counted twice.
            self._before = self.seconds.get(interval - 1, 0.0)
        self.seconds[interval] = self._before + time.process_time() - self._began
        append(self._path, (json.dumps([interval, self.seconds[interval]]) + "\n").encode())
