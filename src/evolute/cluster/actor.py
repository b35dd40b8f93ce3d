"""What runs on another machine: a process that is a worker of a population, or trains a cell of a sweep.

It has two threads: one works, and one tells how far it is.
"""

import os
import socket
import threading
import time
from typing import Any, NamedTuple

import jax
import numpy as np
import ray  # pyright: ignore[reportMissingImports]

from evolute.environments.gym import versions
from evolute.experiments import records
from evolute.experiments.grid import Cell
from evolute.experiments.jobs import Kept, trained
from evolute.runs.circumstances import arithmetic_fingerprint
from evolute.runs.lock import is_held
from evolute.training import serving

# The thread that answers while the other one works.
ASIDE = "aside"
# Seconds to wait for a run's lock, and between two looks at it.
LOCK_LIMIT, LOCK_PERIOD = 180.0, 1.0
# Of this process's environment, what decides numbers: each process of a run needs the same.
VARIABLES = ("JAX_", "XLA_", "MUJOCO_", "OPENBLAS_")


class Where(NamedTuple):
    """Where a process runs."""

    node: str  # Ray's name of it
    machine: str
    usable: list[int]  # cores
    versions: dict[str, str]
    arithmetic: str  # fingerprint


class Told(NamedTuple):
    """How far a process is."""

    steps: int
    said: list[str]  # since the last time, one sentence each


class Actor:
    """A process on a machine of the cluster."""

    def __init__(self) -> None:
        self._steps, self._said, self._lock = 0, [], threading.Lock()
        self._host: Any = None

    def where(self) -> Where:
        """Return where this is."""
        usable = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
        here = ray.get_runtime_context().get_node_id()
        return Where(here, socket.gethostname(), usable, versions(), arithmetic_fingerprint())

    def sees(self, seen: str | None) -> bool:
        """Return whether this sees a file that the other end has made, if it has made one."""
        return seen is None or os.path.exists(seen)

    def begin(self, settings: dict[str, Any], *about: Any) -> tuple[str, Any]:
        """Become a worker, as serving.begin says, and answer with what its environment says of itself."""
        serving.heed(settings)
        serving.hear(self.say)
        kind, answered = serving.tried(serving.begin, *about)
        if kind == "raised":
            return kind, answered
        self._host = answered
        return kind, answered.facts

    def call(self, name: str, *arguments: Any) -> tuple[str, Any]:
        """Answer a call of worker.Worker."""
        if name == "take":
            # It lies in memory that all processes here share, and JAX might compute on it in place.
            lane, parcel, *rest = arguments
            arguments = (lane, parcel._replace(learner=jax.tree.map(np.array, parcel.learner)), *rest)
        return serving.tried(serving.asked, self._host, name, arguments, self.tell)

    @ray.method(num_returns=3)
    def give(self, *arguments: Any) -> tuple[tuple[str, Any], Any, Any]:
        """Answer `give` in three parts, so that a parcel stays on this machine until another one fetches it from here."""
        kind, answered = self.call("give", *arguments)
        return ((kind, None), *answered) if kind == "done" else ((kind, answered), None, None)

    def cell(self, settings: dict[str, Any], cell: Cell, kept: Kept, cores: list[int]) -> tuple[str, Any]:
        """Train a cell of an experiment to its end."""
        serving.heed(settings)
        run = kept.out / "runs" / records.name(cell.run, cell.evaluation_steps)
        # The lock of a process on a machine that is no more: a network file system lets go of it after a while.
        until = time.monotonic() + LOCK_LIMIT
        while is_held(run) and time.monotonic() < until:
            time.sleep(LOCK_PERIOD)
        return trained(cell, kept, cores, self.tell, self.say)

    def tell(self, steps: int) -> None:
        """Note how many steps are done."""
        self._steps = steps

    def say(self, sentence: str) -> None:
        """Note what somebody should hear."""
        with self._lock:
            self._said.append(sentence)

    @ray.method(concurrency_group=ASIDE)
    def told(self) -> Told:
        """Tell how far this is; to be called beside the thread that works."""
        with self._lock:
            said, self._said = self._said, []
        return Told(self._steps, said)


def variables() -> dict[str, str]:
    """Return what an actor's environment gets of this one's."""
    own = {name: value for name, value in os.environ.items() if name.startswith(VARIABLES)}
    return {"OPENBLAS_NUM_THREADS": "1", **own}


def new(**options: Any) -> Any:
    """Return a handle of a new actor; Ray starts it when there is room.

    Args:
        options: of Ray: resources, and where it is to be.
    """
    made: Any = ray.remote(concurrency_groups={ASIDE: 1})(Actor)  # pyright: ignore[reportCallIssue]
    # No restarts: whoever asked for it restores what it had.
    return made.options(max_restarts=0, max_task_retries=0, runtime_env={"env_vars": variables()}, **options).remote()
