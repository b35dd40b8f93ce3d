"""The command line, killed by itself at a chosen place: python tests/die.py PLACE COUNT WORDS...

A place is a function; at its COUNT-th call the process gets SIGKILL, or what else the place says. Nothing is cleaned up.
"""

import os
import resource
import signal
import sys
from pathlib import Path

import jax
import numpy as np

from evolute import engine, files, resumption
from evolute.commands import cli
from evolute.evolution import pbt
from evolute.runs import checkpoint
from evolute.runs import folder as run_folder
from evolute.training import evaluate, host, replay, storage


def kill(*_, **__):
    os.kill(os.getpid(), signal.SIGKILL)


def at(owner, name, count, act):
    """Let the `count`-th call of owner.name act instead."""
    real, calls = getattr(owner, name), [0]

    def counted(*arguments, **named):
        calls[0] += 1
        return act(real, *arguments, **named) if calls[0] == count else real(*arguments, **named)

    setattr(owner, name, counted)


def half_a_line(real, path, data):
    if data:
        real(path, data[: len(data) // 2])
        kill()
    return real(path, data)


def half_a_copy(real, *arguments):
    """Copy the networks of an exploit and not its replay."""
    at(replay.ReplayBuffer, "copy_from", 1, kill)
    return real(*arguments)


def no_handles(real, *arguments):
    """Leave the process without another file handle from here on."""
    taken = len(os.listdir("/proc/self/fd"))
    resource.setrlimit(resource.RLIMIT_NOFILE, (taken - 1, taken - 1))
    return real(*arguments)


def poisoned(slot):
    """Make every number that a member learns NaN."""

    def poison(real, host, *arguments):
        group = host.group_of(slot)
        learner = jax.tree.map(lambda x: np.full_like(x, np.nan) if np.issubdtype(x.dtype, np.floating) else x, group.take(slot))
        group.put(slot, learner, reset_optimizers=False)
        return real(host, *arguments)

    return poison


PLACES = {
    # a file that is written beside its place, and one that was renamed into it
    "write": (files.os, "fsync", kill),
    "rename": (Path, "replace", lambda real, *arguments: (real(*arguments), kill())),
    "half a line": (files, "append", half_a_line),
    "metrics": (run_folder, "append", half_a_line),
    # a checkpoint
    "replay": (host.Host, "save_replay", lambda real, *arguments: (real(*arguments), kill())),
    "arrays": (storage, "save_arrays", kill),
    "manifest": (checkpoint, "delete_unneeded", kill),
    "delete": (Path, "unlink", kill),
    # an evolution
    "select": (pbt, "select", kill),
    "copy": (engine, "copy_member", half_a_copy),
    "copied": (engine, "copy_member", lambda real, *arguments: (real(*arguments), kill())),
    # elsewhere
    "evaluate": (evaluate, "by_episodes", kill),
    "create": (run_folder.RunFolder, "write_config", kill),
    "best": (run_folder.RunFolder, "write_best", kill),
    "result": (run_folder.RunFolder, "write_result", kill),
    "restore": (resumption, "restore", lambda real, *arguments: (real(*arguments), kill())),
    "rewind": (run_folder.RunFolder, "forget_result", kill),
    "rewound": (resumption, "rewind", lambda real, *arguments: (real(*arguments), kill())),
    # other than a kill
    "no handles": (checkpoint, "save", no_handles),
    **{f"poison {slot}": (host.Host, "evaluate", poisoned(slot)) for slot in range(4)},
}

if __name__ == "__main__":
    owner, name, act = PLACES[sys.argv[1]]
    at(owner, name, int(sys.argv[2]), act)
    cli.main(sys.argv[3:])
