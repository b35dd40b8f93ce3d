"""The trackers of other programs that can be told of a run. What they need is imported where it is used."""

import hashlib
import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from evolute.files import make_folder
from evolute.toml import to_toml

if TYPE_CHECKING:
    from evolute.config import Run

TENSORBOARD = "tensorboard"
EVENT_FILES = "events.out.tfevents.*"


class Point(NamedTuple):
    """A number or a text at a step."""

    stream: str  # a member's, or the population's
    name: str
    step: int  # of the run's clock
    value: float | str
    at: float  # seconds since 1970


class Tracker(NamedTuple):
    """A tracker that is told of one run from its beginning."""

    write: Callable[[Sequence[Point]], None]  # is given the points of an interval
    close: Callable[[], None]


class Kind(NamedTuple):
    """How a tracker is begun, what must be installed for it, and how to look at what it wrote."""

    module: str
    begin: Callable[[Path, "Run"], Tracker]  # of a run folder; what a process before has told is forgotten
    look: Callable[[Path], str]


def begin_tensorboard(path: Path, run: "Run") -> Tracker:
    """Return a tracker that writes event files into a run folder, in a folder for each stream.

    They are written in this thread, so that what fails is known here.
    """
    from tensorboardX import summary
    from tensorboardX.event_file_writer import EventsWriter
    from tensorboardX.proto import event_pb2

    top = path / TENSORBOARD
    for old in top.glob(f"*/{EVENT_FILES}"):
        old.unlink()
    messages: Any = event_pb2
    files: dict[str, Any] = {}

    def file_of(stream: str) -> Any:
        if stream not in files:
            make_folder(top / stream)
            files[stream] = EventsWriter(str(top / stream / "events"))
            # A TensorBoard that has read the old files forgets what was in them.
            files[stream].write_event(messages.Event(step=0, session_log=messages.SessionLog(status=messages.SessionLog.START)))
        return files[stream]

    def write(points: Sequence[Point]) -> None:
        for point in points:
            made = summary.text if isinstance(point.value, str) else summary.scalar
            event = messages.Event(wall_time=point.at, step=point.step, summary=made(point.name, point.value))
            file_of(point.stream).write_event(event)
        for file in files.values():
            file.flush()

    def close() -> None:
        for file in files.values():
            file.close()

    settings = "\n".join(f"    {line}" for line in to_toml(run).splitlines())
    write([Point("population", "settings", 0, settings, 0.0)])
    return Tracker(write, close)


def begin_wandb(path: Path, run: "Run") -> Tracker:
    """Return a tracker that writes into the folder wandb beside a run folder, offline unless the user is logged in.

    Not into the run folder: Weights & Biases makes links, and a run folder holds plain files alone.
    """
    os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
    import wandb  # pyright: ignore[reportMissingImports]

    name = hashlib.sha256(str(path.absolute()).encode()).hexdigest()[:12]
    for old in path.absolute().parent.glob(f"wandb/offline-run-*-{name}"):
        shutil.rmtree(old)
    # It asks nobody and connects to nothing.
    mode: Any = None if "WANDB_MODE" in os.environ else "online" if wandb.login(prompt=False, verify=False) else "offline"
    own = wandb.init(
        project="evolute",
        dir=str(path.absolute().parent),
        id=name,
        name=path.name,
        resume="allow" if mode == "online" else None,
        mode=mode,
        # Another one for each seed that trains beside it.
        reinit="create_new",
        config={"settings": to_toml(run), "env": run.env, "mix": run.mix, "seed": run.seed, "strategy": run.strategy},
        settings=wandb.Settings(console="off", silent=True, disable_git=True, disable_code=True, x_disable_stats=True),
    )

    def write(points: Sequence[Point]) -> None:
        steps: dict[int, dict[str, Any]] = {}
        for point in points:
            key = point.name if point.stream == point.name.split("/")[0] else f"{point.stream}/{point.name}"
            values = steps.setdefault(point.step, {})
            values[key] = f"{values[key]}\n{point.value}" if isinstance(values.get(key), str) else point.value
        for step in sorted(steps):
            own.log(steps[step], step=step)

    return Tracker(write, own.finish)


TRACKERS = {
    TENSORBOARD: Kind("tensorboardX", begin_tensorboard, lambda path: f"tensorboard --logdir {path / TENSORBOARD}"),
    "wandb": Kind("wandb", begin_wandb, lambda path: f"wandb sync {path.parent / 'wandb'}/offline-run-*"),
}
