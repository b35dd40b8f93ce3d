"""An environment in a process of its own, which is killed where a call does not return in time.

gymnasium.vector.AsyncVectorEnv is not used: an exception whose class cannot be made again from its message makes it wait for
ever, a child that ignores SIGTERM does as well, and an `info` that cannot be pickled counts as a failure. What crosses the pipe
here is what an in-process environment has already checked: arrays, numbers and messages, no objects of the environment's own.
"""

import contextlib
import fcntl
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator
from multiprocessing import connection, resource_tracker
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from multiprocessing.util import Finalize
from typing import Any, NoReturn

from evolute.errors import EnvironmentFault, RunStopped, UserError
from evolute.interruption import SIGNALS

# Seconds for a new process to import what it needs and make the environment, and for the environment to be made again; more
# where a step may take more.
START_LIMIT = 60.0
# Seconds for an environment to close by itself.
CLOSE_LIMIT = 5.0
# Seconds between two looks at whether the process that trains is still the parent.
ORPHAN_PERIOD = 1.0


class Isolated:
    """Passes calls on to what `make` returns in a child process.

    Attributes:
        facts: what the made environment says of itself.
    """

    def __init__(self, make: Callable[[], Any], time_limit: float):
        """Start the process; raises UserError as `make` does, EnvironmentFault where the process does not answer.

        Args:
            make: is called in the child, so it must be picklable. What it returns has the attribute `facts`, and methods that
                raise nothing but UserError and EnvironmentFault, and return what can be pickled.
            time_limit: seconds for a call of `reset` or `step`. Making has START_LIMIT where that is more, `close` CLOSE_LIMIT.
        """
        self._make, self._limit, self._start_limit = make, time_limit, start_limit(time_limit)
        self._pipe: Connection | None = None
        self._start()

    def reset(self, seed: int | None) -> Any:
        """Return what the child's `reset` returns."""
        return self._ask("reset", self._limit, seed)

    def step(self, action: Any) -> Any:
        """Return what the child's `step` returns."""
        return self._ask("step", self._limit, action)

    def rebuild(self) -> None:
        """Make the environment anew, in a new process where the old one is no more."""
        self._close()
        if self._pipe is None:
            self._start()
        else:
            self._ask("rebuild", self._start_limit)

    def close(self) -> None:
        """End the process."""
        self._close()
        self._kill()

    def _close(self) -> None:
        """Let the environment close; one that does not ends with its process, and nobody needs it any more."""
        if self._pipe is not None:
            with contextlib.suppress(EnvironmentFault):
                self._ask("close", CLOSE_LIMIT)

    def _start(self) -> None:
        # Not forked: JAX has threads, and a copy of their locks would never be released.
        context = multiprocessing.get_context("spawn")
        try:
            self._pipe, theirs = context.Pipe()
            with theirs:
                self._process = context.Process(target=_serve, args=(theirs, self._make), daemon=True, name="evolute-environment")
                # At the interpreter's end, too, where multiprocessing asks politely and waits for ever.
                self._end = Finalize(self, _end, (self._process,), exitpriority=0)
                with _interruptions_later():
                    self._process.start()
        except OSError as error:
            self._kill()
            raise RunStopped(
                f"no process for an environment can be started: {error.strerror or error}; raise the limits that `ulimit -n` "
                "(open files) and `ulimit -u` (processes) show, or choose fewer members or time_limit 0."
            ) from None
        try:
            self.facts = self._receive("make", self._start_limit)
        except BaseException:
            self._kill()
            raise

    def _ask(self, call: str, limit: float, *arguments: Any) -> Any:
        assert self._pipe is not None, "an environment is rebuilt after a call that did not return"
        name = "make" if call == "rebuild" else call
        try:
            self._pipe.send((call, arguments))
        except OSError:
            self._lost(name)
        return self._receive(name, limit)

    def _receive(self, call: str, limit: float) -> Any:
        """Return the answer; raises what the child raised, and EnvironmentFault where no answer comes."""
        assert self._pipe is not None
        try:
            if not self._pipe.poll(limit):
                self._kill()
                raise EnvironmentFault(call, f"it did not return within {limit:g} seconds, so its process was killed")
            failed, answer = self._pipe.recv()
        except (EOFError, OSError):
            self._lost(call)
        except BaseException:
            # An answer that nobody took would pass for the next call's.
            self._kill()
            raise
        if failed:
            raise answer
        return answer

    def _lost(self, call: str) -> NoReturn:
        self._process.join(CLOSE_LIMIT)
        code = self._process.exitcode
        self._kill()
        ended = f"was ended by signal {-code}" if code is not None and code < 0 else f"ended with exit code {code}"
        raise EnvironmentFault(call, f"its process {ended} before it answered")

    def _kill(self) -> None:
        """End the process for certain, with what it started itself; the next call must be `rebuild`."""
        if self._pipe is not None:
            self._pipe.close()
            self._pipe = None
            self._end()


def start_limit(time_limit: float) -> float:
    """Return the seconds that an environment has to be made, by the seconds that a step has."""
    return max(time_limit, START_LIMIT)


def _end(process: BaseProcess) -> None:
    """Kill a process and its group: also where the process is no more, because what it started may be."""
    if process.pid is None:
        return
    # Before it leads a group of its own there is none of that number.
    with contextlib.suppress(OSError):
        os.killpg(process.pid, signal.SIGKILL)
    process.kill()
    process.join()


def _serve(pipe: Connection, make: Callable[[], Any]) -> None:
    """Answer calls until the asking process ends this one, or is gone."""
    # A group of its own, so that processes which the environment starts can be killed with it.
    os.setpgid(0, 0)
    _end_with_parent()
    # Signals are for the process that trains, which then ends this one. No SIG_IGN: what the environment starts would inherit it.
    for number in SIGNALS:
        signal.signal(number, lambda *_: None)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
    made: Any = None

    def answer(call: str, arguments: tuple[Any, ...]) -> Any:
        nonlocal made
        if call == "make":
            made = make()
            return made.facts
        return getattr(made, call)(*arguments)

    call, arguments = "make", ()
    while True:
        try:
            failed, answered = False, answer(call, arguments)
        except (EnvironmentFault, UserError) as error:
            failed, answered = True, error
        try:
            pipe.send((failed, answered))
            if made is None:
                return
            call, arguments = pipe.recv()
        except (EOFError, OSError):
            return


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
