"""Processes of this program's own, each with a pipe to it, which end with this process, however that ends."""

import contextlib
import fcntl
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator
from multiprocessing import connection, resource_tracker
from multiprocessing.process import BaseProcess
from multiprocessing.util import Finalize
from typing import Any

from evolute.interruption import SIGNALS

# Seconds for a process that was lost to be gone.
GONE_LIMIT = 5.0
# Seconds between two looks at whether the process that trains is still the parent.
ORPHAN_PERIOD = 1.0
# Not forked: JAX has threads, and a copy of their locks would never be released.
CONTEXT = multiprocessing.get_context("spawn")


class Child:
    """A process that serves this one.

    Attributes:
        pipe: to it; what it does not answer any more raises EOFError or OSError.
        pid: its number among the system's processes.
    """

    def __init__(self, serve: Callable[..., None], arguments: tuple[Any, ...], name: str, childless: bool):
        """Start it; raises OSError where it cannot be started.

        Args:
            serve: is called in it with its end of the pipe and the arguments, which can be pickled. It calls `settle` first.
            arguments: what else it is called with.
            name: of the process.
            childless: whether it starts no children by multiprocessing itself.
        """
        self.pipe, theirs = CONTEXT.Pipe()
        with theirs:
            self._process = CONTEXT.Process(target=serve, args=(theirs, *arguments), daemon=childless, name=name)
            # At the interpreter's end, too, where multiprocessing asks politely and waits for ever.
            self._end = Finalize(self, _end, (self._process,), exitpriority=0)
            try:
                with _interruptions_later():
                    self._process.start()
            except BaseException:
                self.end()
                raise
        self.pid = self._process.pid

    def end(self) -> None:
        """End the process for certain, with what it started itself."""
        self.pipe.close()
        self._end()

    def ending(self) -> str:
        """Return in words how the process ended that does not answer any more."""
        self._process.join(GONE_LIMIT)
        code = self._process.exitcode
        return f"was ended by signal {-code}" if code is not None and code < 0 else f"ended with exit code {code}"


def _end(process: BaseProcess) -> None:
    """Kill a process and its group: also where the process is no more, because what it started may be."""
    if process.pid is None:
        return
    # Before it leads a group of its own there is none of that number.
    with contextlib.suppress(OSError):
        os.killpg(process.pid, signal.SIGKILL)
    process.kill()
    process.join()


def settle() -> None:
    """Settle down as a child: end with the parent, and leave signals to it."""
    # A group of its own, so that processes which it starts can be killed with it.
    os.setpgid(0, 0)
    _end_with_parent()
    # Signals are for the process that trains, which then ends this one. No SIG_IGN: what an environment starts would inherit it.
    for number in SIGNALS:
        signal.signal(number, lambda *_: None)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)


def _end_with_parent() -> None:
    """Let this process and its group be killed as soon as the process that trains is no more, however that ended."""
    parent = multiprocessing.parent_process()
    assert parent is not None, "it is served in a child process"
    # A pipe whose other end the parent holds, and the system closes.
    sentinel = parent.sentinel
    if hasattr(fcntl, "F_SETSIG"):
        # By the kernel: no thread runs here while the environment holds the interpreter's lock.
        fcntl.fcntl(sentinel, fcntl.F_SETOWN, -os.getpid())
        fcntl.fcntl(sentinel, fcntl.F_SETSIG, signal.SIGKILL)
        fcntl.fcntl(sentinel, fcntl.F_SETFL, fcntl.fcntl(sentinel, fcntl.F_GETFL) | os.O_ASYNC)

    def watch() -> None:
        # For other systems, a parent that ended before the lines above, and one whose end of the pipe another process inherited.
        while not connection.wait([sentinel], ORPHAN_PERIOD) and os.getppid() == parent.pid:
            pass
        os.killpg(os.getpid(), signal.SIGKILL)

    threading.Thread(target=watch, name="parent", daemon=True).start()


@contextlib.contextmanager
def _interruptions_later() -> Iterator[None]:
    """Hold signals back, here and in a process that is started meanwhile, which is not yet able to leave them to this one."""
    # It unblocks SIGINT when it starts, so it must have started.
    resource_tracker.ensure_running()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
