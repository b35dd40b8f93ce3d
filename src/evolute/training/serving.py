"""The side of a worker that is elsewhere: a Host that answers calls. The other side is elsewhere.py."""

import contextlib
import logging
import os
import traceback
from collections.abc import Callable, Mapping, Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NamedTuple

import jax

from evolute import children
from evolute.config import Run
from evolute.environments.gym import make_known
from evolute.environments.spaces import Shape
from evolute.errors import Damaged, RunStopped, UserError
from evolute.files import REPLAY_FOLDER
from evolute.policy import Policy
from evolute.training import placement, storage
from evolute.training.host import Host
from evolute.training.replay import ReplayBuffer
from evolute.training.worker import Tell

LOG = logging.getLogger("evolute")


class Clock(NamedTuple):
    """Steps of an interval that each worker of a crew has done, in memory that all their processes have."""

    done: Any  # [workers] of whole numbers
    number: int  # of the worker whose clock this is

    def tell(self, steps: int) -> None:
        """Let the others know how many steps this worker has done."""
        self.done[self.number] = steps

    @property
    def slowest(self) -> int:
        """Steps that every worker has done."""
        return min(self.done)


# What a worker that waits for the others has done.
ALL = 2**62


def serve(
    pipe: Connection,
    runs: Sequence[Run],
    lanes: Sequence[int],
    cores: Sequence[int],
    settings: Mapping[str, Any],
    spec: str | None,
    policy: Policy | None,
    clock: Clock,
) -> None:
    """Be a Host for the process at the other end of the pipe, until that ends this one, or is gone."""
    settle(settings)
    hear(lambda said: pipe.send(("log", said)))
    kind, answered = tried(begin, runs, lanes, cores, spec, policy)
    # Members that could not be made are asked for nothing else.
    host = answered if kind == "done" else None
    # OSError: the other end is gone.
    with contextlib.suppress(EOFError, OSError):
        pipe.send((kind, host.facts if host else answered))
        while host is not None:
            call, arguments = pipe.recv()
            answer = tried(asked, host, call, arguments, clock.tell)
            if call == "train":
                clock.tell(ALL)
            pipe.send(answer)


def begin(runs: Sequence[Run], lanes: Sequence[int], cores: Sequence[int], spec: str | None, policy: Policy | None) -> Host:
    """Return a Host in a process that is a worker from now on.

    Args:
        runs: of all populations side by side.
        lanes: of the members.
        cores: on which it runs; empty for all.
        spec: how the environment is registered where it was named, if it is not by itself.
        policy: that members start from, if any.
    """
    make_known(runs[0].env, spec)
    take_cores(len(lanes), cores)
    return Host(runs, lanes, policy)


def asked(host: Host, call: str, arguments: tuple[Any, ...], tell: Tell) -> Any:
    """Return the answer to a call; a parcel crosses in two parts, because the second one is in files that can be read again."""
    if call == "train":
        interval, orders = arguments
        return host.train(interval, orders, tell)()
    if call in ("save_replay", "save"):
        return getattr(host, call)(*arguments)()
    if call == "give":
        lane, folder = arguments
        parcel = host.give(lane)
        return parcel._replace(replay=folder and Stored.of(parcel.replay, folder)), parcel.replay
    if call == "take":
        lane, parcel, replay, *rest = arguments
        replay = parcel.replay.read(host.facts.shape) if replay is None else replay
        return host.take(lane, parcel._replace(replay=replay), *rest)
    return getattr(host, call)(*arguments)


def tried(function: Callable[..., Any], *arguments: Any) -> tuple[str, Any]:
    """Return "done" and what a function returns, or "raised" and what the other end is to raise."""
    try:
        return "done", function(*arguments)
    except (UserError, RunStopped, Damaged, MemoryError) as error:
        return "raised", error
    except Exception:
        # Whatever it is, a new process would meet it again; and it may be of a type that the other process cannot have.
        return "raised", RuntimeError(f"in a worker process:\n{traceback.format_exc()}")


class Stored(NamedTuple):
    """A replay buffer that is on disk, by its files."""

    folder: Path
    capacity: int
    inserted: int
    segments: list[dict[str, Any]]

    @classmethod
    def of(cls, replay: ReplayBuffer, folder: Path) -> "Stored":
        """Return what names a buffer all of whose transitions are in a run folder: they are, before an evolution."""
        return cls(folder, replay.capacity, replay.inserted, [segment._asdict() for segment in replay.segments])

    def read(self, shape: Shape) -> ReplayBuffer:
        """Return the buffer; raises Damaged where what is on disk is not what was written."""
        replay = ReplayBuffer(self.capacity, *shape)
        for segment in self.segments:
            storage.verify(self.folder / REPLAY_FOLDER / segment["file"], segment["bytes"], segment["sha256"])
        storage.restore_replay(self.folder, replay, {"inserted": self.inserted, "segments": self.segments}, shape)
        return replay


def settle(settings: Mapping[str, Any]) -> None:
    """Settle down as a child that computes, with JAX as the process that started it has it."""
    children.settle()
    heed(settings)


def heed(settings: Mapping[str, Any]) -> None:
    """Let JAX be as the process that started this one has it."""
    for name, value in settings.items():
        jax.config.update(name, value)


def take_cores(members: int, cores: Sequence[int]) -> None:
    """Start JAX for some members, and keep this process's threads, and those that they start, on some cores.

    In this order: JAX divides large sums by the number of cores that it sees when it starts, which must be that of one process.

    Args:
        members: that this process trains.
        cores: empty for any.
    """
    placement.use_all_cores(members, cores)
    for thread in os.listdir("/proc/self/task") if cores and os.path.isdir("/proc/self/task") else ():
        # OSError: a thread that has just ended.
        with contextlib.suppress(OSError):
            os.sched_setaffinity(int(thread), cores)


def hear(say: Callable[[str], None]) -> None:
    """Pass on what takes long to the process that shows it."""

    class Telling(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            say(record.getMessage())

    LOG.setLevel(logging.INFO)
    LOG.addHandler(Telling())
    LOG.propagate = False
