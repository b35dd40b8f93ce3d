"""What a run takes of this machine once its replay is full, known before it begins."""

import contextlib
import math
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np

from evolute import algorithms
from evolute.config import Run
from evolute.environments.spaces import Shape
from evolute.errors import UserError

# Of a process that trains, besides replay and learners: libraries and compiled programs, as measured with a population of eight.
PROCESS_BYTES = 600_000_000
# Checkpoints that a run folder holds at most: the last two, and the one that is being written.
CHECKPOINTS = 3
LIMITS = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))


class Needs(NamedTuple):
    """What populations take when their replay is full, in bytes."""

    replay: int  # of all members
    learners: int  # of all members: networks, targets, optimizer states
    processes: int  # of the processes that train them
    environments: int = 0  # not bytes: how many are alive at once, one for each member and one for each process

    @property
    def memory(self) -> int:
        """Bytes of memory."""
        return self.replay + self.learners + self.processes

    @property
    def disk(self) -> int:
        """Bytes of the run folders."""
        return self.replay + CHECKPOINTS * self.learners


def needs(run: Run, populations: int, shape: Shape, workers: int) -> Needs:
    """Return what populations of a run take.

    Args:
        run: of each of them.
        populations: how many train side by side.
        shape: of the environment.
        workers: processes that train them.
    """
    learners = {kind: learner_bytes(run, kind, shape) for kind in run.mix}
    members = populations * len(run.kinds)
    replay = members * min(run.buffer_size, run.steps) * transition_bytes(shape)
    processes = max(1, min(workers, members))
    learned = populations * sum(learners[kind] for kind in run.kinds)
    return Needs(replay, learned, processes * PROCESS_BYTES, members + processes)


def transition_bytes(shape: Shape) -> int:
    """Return the bytes of a transition in the replay: observation, action, reward, terminated, and where its episode ended."""
    return 4 * (shape.observations + shape.actions + 2) + 8


def learner_bytes(run: Run, kind: str, shape: Shape) -> int:
    """Return the bytes of a member's networks, targets and optimizer states."""
    algorithm = algorithms.build(run, kind, *shape)
    learner = jax.eval_shape(algorithm.reset, algorithm.init(np.random.default_rng(0)))
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(learner))


def memory_here() -> float:
    """Return the bytes of memory that this process may have; infinite where nobody knows."""
    found = []
    with contextlib.suppress(ValueError, OSError):
        found.append(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    for path in LIMITS:
        with contextlib.suppress(ValueError, OSError):
            found.append(int(path.read_text()))
    return min((bytes_ for bytes_ in found if bytes_ > 0), default=math.inf)


def check(run: Run, need: Needs, folders: Sequence[Path], here: bool = True) -> None:
    """Raise UserError where populations cannot fit into this machine's memory, or their folders on its disk.

    Args:
        run: of each population.
        need: what they take together.
        folders: of the populations, which need not be there yet; empty where nothing is written.
        here: whether they train on this machine.
    """
    room = memory_here() - need.learners - need.processes
    if here and need.replay > room:
        refuse(run, need.replay, room, f"{size(need.memory)} of memory, and this machine has {size(memory_here())}")
    if folders:
        free = shutil.disk_usage(existing(folders[0])).free
        if need.disk > free:
            rest = free - CHECKPOINTS * need.learners
            # A run that goes on stays where it is.
            begun = folders[0].is_dir() and any(folders[0].iterdir())
            other = "" if begun else " or another folder with --out"
            refuse(run, need.replay, rest, f"{size(need.disk)} of disk, and {str(folders[0])!r} has {size(free)} left", other)


def refuse(run: Run, replay: int, room: float, said: str, other: str = "") -> None:
    """Raise UserError with the number that would fit, and what else may be chosen."""
    fits = int(max(0.0, room) / replay * min(run.buffer_size, run.steps))
    advice = f"set buffer_size to at most {fits:,}" if fits >= 1_000 else "choose smaller layers"
    members = f"{len(run.kinds)} member{'s' if len(run.kinds) > 1 else ''} with buffer_size {run.buffer_size}"
    raise UserError(f"{members} would take up to {said}; {advice}, or choose fewer members{other}.")


def existing(path: Path) -> Path:
    """Return the nearest folder above a path that is there."""
    return next(folder for folder in (path, *path.parents) if folder.exists())


def size(bytes_: float) -> str:
    """Return a number of bytes for people."""
    if bytes_ < 1e6:
        return f"{bytes_ / 1e3:.0f} kB"
    return f"{bytes_ / 1e9:.2f} GB" if bytes_ >= 1e8 else f"{bytes_ / 1e6:.0f} MB"
