"""The side of a worker process: a Host that answers calls through a pipe. The other side is processes.py."""

import contextlib
import logging
import os
import traceback
from collections.abc import Mapping, Sequence
from multiprocessing.connection import Connection
from typing import Any, NamedTuple

import jax

from evolute import children
from evolute.config import Run
from evolute.environments.gym import make_known
from evolute.errors import Damaged, RunStopped, UserError
from evolute.policy import Policy
from evolute.training import placement
from evolute.training.host import Host

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
    LOG.setLevel(logging.INFO)
    LOG.addHandler(_Telling(pipe))
    LOG.propagate = False
    host: Host | None = None

    def answer(call: str, arguments: tuple[Any, ...]) -> Any:
        nonlocal host
        if host is None:
            make_known(runs[0].env, spec)
            placement.use_all_cores(len(lanes))
            pin(cores)
            host = Host(runs, lanes, policy)
            return host.facts
        if call == "train":
            interval, orders = arguments
            trained = host.train(interval, orders, clock.tell)()
            clock.tell(ALL)
            return trained
        return getattr(host, call)(*arguments)

    call, arguments = "", ()
    while True:
        try:
            kind, answered = "done", answer(call, arguments)
        except (UserError, RunStopped, Damaged, MemoryError) as error:
            kind, answered = "raised", error
        except Exception:
            # Whatever it is, a new process would meet it again; and it may be of a type that the other process cannot have.
            kind, answered = "raised", RuntimeError(f"in a worker process:\n{traceback.format_exc()}")
        try:
            pipe.send((kind, answered))
            if host is None:
                # Its members could not be made, which nobody asks for again.
                return
            call, arguments = pipe.recv()
        except (EOFError, OSError):
            return


def settle(settings: Mapping[str, Any]) -> None:
    """Settle down as a child that computes, with JAX as the process that started it has it."""
    children.settle()
    for name, value in settings.items():
        jax.config.update(name, value)


def pin(cores: Sequence[int]) -> None:
    """Keep this process's threads, and those that they start, on some cores; on any where none is named.

    Only once JAX has started: it divides large sums by the number of cores that it sees then, which must be that of one process.
    """
    for thread in os.listdir("/proc/self/task") if cores and os.path.isdir("/proc/self/task") else ():
        # OSError: a thread that has just ended.
        with contextlib.suppress(OSError):
            os.sched_setaffinity(int(thread), cores)


class _Telling(logging.Handler):
    """Passes on what takes long."""

    def __init__(self, pipe: Connection):
        super().__init__()
        self._pipe = pipe

    def emit(self, record: logging.LogRecord) -> None:
        """Send a message to the process that shows it."""
        self._pipe.send(("log", record.getMessage()))
