"""Going on with a run: from its newest whole checkpoint, as if it had never stopped."""

import contextlib
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from evolute import engine, toml
from evolute.config import Run
from evolute.environments.gym import UNREPEATABLE
from evolute.environments.making import check_imports, modules_of
from evolute.errors import UserError
from evolute.hyperparameters import Hyperparameters
from evolute.runs import cautions, changes, checkpoint
from evolute.runs.checkpoint import Checkpoint
from evolute.runs.circumstances import circumstances
from evolute.runs.folder import CONFIG_FILE, RunFolder
from evolute.runs.restore import restore
from evolute.state import Observer, Result
from evolute.training import placement
from evolute.training.worker import Hire


def resume(
    path: str | Path,
    steps: int | None = None,
    observer: Observer | None = None,
    allow_version_change: bool = False,
    allow_import: str | Sequence[str] = (),
    note: Callable[[str], None] | None = None,
    workers: int | Hire = 1,
) -> Result:
    """Go on with a run that was stopped, or make a run longer.

    On a CPU everything that follows equals that of a run that was never stopped, bit by bit (docs/durability.md).

    Args:
        path: the run folder.
        steps: the run's new length in environment steps of each member; None leaves it.
        observer: is told of progress, as in `train`.
        allow_version_change: go on with other versions or another physics than those the run was trained with.
        allow_import: the modules that may be imported for the run's environment, if it needs any.
        note: is told where the run goes on, what was found damaged and what has changed, one sentence each. Without it damage and
            changes are warnings, and where the run goes on is not said.
        workers: as in `train`; it may be another number than before.

    Returns:
        The result, as of `train`.

    Raises:
        UserError: there is no run, it has ended, its checkpoints are damaged, or it was trained with other versions.
        RunStopped: as in `train`.
    """
    folder = RunFolder.open(Path(path), writing=True)
    # An environment may change the working folder.
    folder.path = folder.path.absolute()
    with contextlib.ExitStack() as stack:
        stack.enter_context(folder.held())
        notes: list[str] = []
        run, found = where_to_go_on(folder, steps, notes)
        check_imports(modules_of(run.env, run.wrap), [allow_import] if isinstance(allow_import, str) else allow_import)
        # Before JAX's first computation, which the fingerprints are.
        placement.use_all_cores(len(run.kinds))
        folder.circumstances = circumstances(run)
        others = changed(folder, found, allow_version_change)
        if not others:
            refuse_repetition(folder, run)
        if found is not None and found.manifest["steps"] == run.steps and folder.has_ended:
            raise UserError(
                f"the run in {str(folder.path)!r} has ended after {run.steps} steps; to go on, ask for more, such as "
                f"--steps {2 * run.steps}."
            )
        [state], crew = engine.start([run], workers, note or warnings.warn, [folder.path], restored=found is not None)
        stack.callback(engine.close, crew)
        settings: dict[str, list[Any]] = {}
        if found is not None:
            restore(folder.path, found, state, crew)
            kept = settings_of(found)
            settings = {name: pair for name, pair in changes.differences(kept, run).items() if name != "steps"}
            changes.adopt(state, kept)
        different = {**others, **settings}
        notes += [f"{name} was {old} and is {new}." for name, (old, new) in different.items()]
        notes += cautions.repetition(run.env, folder.circumstances)
        notes += cautions.cores(found.manifest["circumstances"] if found else {}, folder.circumstances)
        begun = f"going on after {state.steps_done:,} of {run.steps:,} steps."
        about = {"changes": different, "notes": [*notes, begun], "settings": changes.digest(run)}
        rewind(folder, run, found, about)
        if settings:
            folder.append_events([{"event": "settings_changed", "interval": state.interval, "settings": settings}])
        if found is not None:
            # What a process left that was killed before it could, or in the middle of a file.
            checkpoint.delete_unneeded(folder.path, found.interval)
        for sentence in notes:
            (note or warnings.warn)(sentence)
        if note is not None:
            note(begun)
        state.lineage = [event for event in folder.events() if event.get("event") == "exploit"]
        return engine.go_on([state], crew, [folder], observer, note or warnings.warn)[0]


def where_to_go_on(folder: RunFolder, steps: int | None, notes: list[str]) -> tuple[Run, Checkpoint | None]:
    """Return the run, with its new length, and the newest checkpoint that it passes through, None for its beginning.

    What was found damaged is added to `notes`.
    """
    found, damages = checkpoint.newest(folder.path)
    kept = settings_of(found) if found else None
    try:
        run = Run(**toml.read(folder.path / CONFIG_FILE))
    except UserError as mistake:
        if kept is None:
            raise
        notes.append(f"{mistake} The checkpoint's copy replaces it.")
        run = kept
    if kept is not None:
        refuse_changes(folder, kept, run, steps)
    if steps is not None and steps < run.steps:
        raise UserError(f"--steps is {steps}, and the run was asked for {run.steps}; it can only be made longer.")
    run = replace(run, steps=steps or run.steps)

    def passed_through(manifest: dict[str, Any]) -> bool:
        # An interval that an earlier end cut short is no part of a longer run.
        return manifest["steps"] == min(manifest["interval"] * run.interval, run.steps)

    if found is not None and not passed_through(found.manifest):
        notes.append(f"the last interval was cut short after {found.manifest['steps']:,} steps; it is trained again, in full.")
        found, damages = checkpoint.newest(folder.path, passed_through)
    notes += [f"{damage}; going on from the one before it." for damage in damages]
    return run, found


def settings_of(found: Checkpoint) -> Run:
    """Return what a checkpoint's run was trained with; raises UserError where this version cannot read it."""
    try:
        return Run(**toml.parse(found.manifest["config"], "the checkpoint"))
    except UserError as mistake:
        raise UserError(f"{mistake} The checkpoint was written by {checkpoint.written_by(found.manifest)}; use that.") from None


def refuse_changes(folder: RunFolder, kept: Run, run: Run, steps: int | None) -> None:
    """Raise UserError where config.toml is not what the run was trained with, and nothing else says that it may be so.

    Args:
        folder: of the run.
        kept: the checkpoint's settings.
        run: those of config.toml.
        steps: the length that the user asks for, which config.toml may say already.
    """
    different = changes.differences(kept, run)
    # The last resume wrote it and was killed before a checkpoint.
    if not different or changes.digest(run) == last_resume(folder).get("settings"):
        return
    if different.keys() == {"steps"} and kept.steps < run.steps == steps:
        return
    if last_stop(folder) is not None and all(map(changes.is_free, different)):
        return
    told = ", ".join(f"{name} was {old} and is {new}" for name, (old, new) in different.items())
    free = ", ".join((*changes.FREE_OPTIONS, *changes.FREE_SETTINGS))
    raise UserError(
        f"{str(folder.path / CONFIG_FILE)!r} was changed since the run was checkpointed ({told}); restore it (use --steps "
        f"to make a run longer; {free} may change only after every member was in quarantine), or train a new run with it: "
        "evolute train --config."
    )


def refuse_repetition(folder: RunFolder, run: Run) -> None:
    """Raise UserError where these settings put every member into quarantine: they would do so again."""
    stop = last_stop(folder)
    if stop is not None and stop["repeats"] and stop["settings"] == changes.digest_without_length(run):
        raise UserError(
            f"the run in {str(folder.path)!r} stopped in interval {stop['interval']} because every member was in quarantine, and "
            f"would do so again; lower the learning rates or raise the dampings in {str(folder.path / CONFIG_FILE)!r} first."
        )


def last_stop(folder: RunFolder) -> dict[str, Any] | None:
    """Return the event of a run that stopped because every member was in quarantine; None for any other run."""
    try:
        events = folder.events()
    except UserError:
        return None
    return events[-1] if events and events[-1]["event"] == "nobody_left" else None


def last_resume(folder: RunFolder) -> dict[str, Any]:
    """Return what metadata.json says of the last resume; nothing where that is lost."""
    try:
        resumed = folder.metadata().get("resumed")
    except UserError:
        return {}
    last = resumed[-1] if isinstance(resumed, list) and resumed else {}
    return last if isinstance(last, dict) else {}


def changed(folder: RunFolder, found: Checkpoint | None, allowed: bool) -> dict[str, list[Any]]:
    """Return what differs from the circumstances of the checkpoint; raises UserError unless that is allowed."""
    if found is None:
        return {}
    before, now = found.manifest["circumstances"], folder.circumstances
    pairs = {name: (before["versions"].get(name), version) for name, version in now["versions"].items()}
    for name in ("physics_fingerprint", "arithmetic_fingerprint"):
        pairs[name.replace("_", " ")] = (before[name], now[name])
    if UNREPEATABLE in pairs["physics fingerprint"]:
        # Nothing of such an environment can be compared.
        del pairs["physics fingerprint"]
    # Another number of the same devices computes the same numbers: a member does not depend on where it is placed.
    if members := found.manifest["members"]:
        pairs["hyperparameters"] = (" ".join(sorted(members[0]["hyperparameters"])), " ".join(sorted(Hyperparameters._fields)))
    pairs["device"] = (before["devices"][:1], now["devices"][:1])
    changes = {name: [old, new] for name, (old, new) in pairs.items() if old != new}
    if changes and not allowed:
        told = ", ".join(f"{name} was {old} and is {new}" for name, (old, new) in changes.items())
        if "arithmetic fingerprint" in changes:
            told += " (another processor, or a variable such as OPENBLAS_CORETYPE, makes sums round differently)"
        if "physics fingerprint" in changes:
            told += " (so does an environment that draws from a generator that reset(seed=...) does not seed)"
        raise UserError(
            f"the run in {str(folder.path)!r} was trained under other circumstances: {told}; restore those, or continue with "
            "--allow-version-change, which is recorded; the run then no longer repeats exactly."
        )
    return changes


def rewind(folder: RunFolder, run: Run, found: Checkpoint | None, about: dict[str, Any]) -> None:
    """Bring a folder's records back to where the run goes on, and record that it does."""
    try:
        metadata = folder.metadata()
    except UserError:
        # Lost or damaged: when the run began, and what was said then, is gone.
        metadata = dict(found.manifest["circumstances"] if found else folder.circumstances)
    now, interval = time.strftime("%Y-%m-%dT%H:%M:%S%z"), found.interval if found else 0
    resumed = {"time": now, "interval": interval, "steps": run.steps, **about, **folder.circumstances}
    # In this order: a kill in between leaves a run that can be resumed under its new length.
    earlier = metadata.get("resumed", [])
    earlier = earlier if isinstance(earlier, list) else []
    folder.write_metadata({**metadata, "resumed": [*earlier, resumed]})
    folder.write_config(run)
    folder.forget_result()
    folder.restore_records(found.manifest["records"] if found else {})
