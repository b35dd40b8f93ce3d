"""An environment in a process of its own, which is killed where a call does not return in time.

gymnasium.vector.AsyncVectorEnv is not used: an exception whose class cannot be made again from its message makes it wait for
ever, a child that ignores SIGTERM does as well, and an `info` that cannot be pickled counts as a failure. What crosses the pipe
here is what an in-process environment has already checked: arrays, numbers and messages, no objects of the environment's own.
"""

import contextlib
import multiprocessing
import os
import signal
from collections.abc import Callable, Iterator
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection
from typing import Any, NoReturn

from evolute.errors import EnvironmentFault, RunStopped, UserError

# Seconds for a new process to import what it needs and make the environment, and for the environment to be made again.
START_LIMIT = 120.0
# Seconds for an environment to close by itself.
CLOSE_LIMIT = 5.0


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
            time_limit: seconds for a call of any other method than `rebuild` and `close`.
        """
        self._make, self._limit = make, time_limit
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
        if self._pipe is None:
            self._start()
        else:
            self._ask("rebuild", START_LIMIT)

    def close(self) -> None:
        """End the process."""
        if self._pipe is not None:
            with contextlib.suppress(EnvironmentFault):
                self._ask("close", CLOSE_LIMIT)
        self._kill()

    def _start(self) -> None:
        # Not forked: JAX has threads, and a copy of their locks would never be released.
        context = multiprocessing.get_context("spawn")
        try:
            self._pipe, theirs = context.Pipe()
            self._process = context.Process(target=_serve, args=(theirs, self._make), daemon=True, name="evolute-environment")
            with _interruptions_later():
                self._process.start()
        except OSError as error:
            self._pipe = None
            raise RunStopped(
                f"no process for an environment can be started: {error.strerror or error}; raise the limits that `ulimit -n` "
                "(open files) and `ulimit -u` (processes) show, or choose fewer members or time_limit 0."
            ) from None
        theirs.close()
        try:
            self.facts = self._receive("make", START_LIMIT)
        except BaseException:
            self._kill()
            raise

    def _ask(self, call: str, limit: float, *arguments: Any) -> Any:
        assert self._pipe is not None, "an environment is rebuilt after a call that did not return"
        try:
            self._pipe.send((call, arguments))
        except OSError:
            self._lost("make" if call == "rebuild" else call)
        return self._receive("make" if call == "rebuild" else call, limit)

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
        if self._process.is_alive():
            # Before it leads a group of its own there is none of that number.
            with contextlib.suppress(OSError):
                os.killpg(self._process.pid or -1, signal.SIGKILL)
            self._process.kill()
        self._process.join()


def _serve(pipe: Connection, make: Callable[[], Any]) -> None:
    """Answer calls until told to close or the asking process is gone."""
    # Ctrl-C is for the process that trains, which then ends this one.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # A group of its own, so that processes which the environment starts can be killed with it.
    os.setpgid(0, 0)
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
            pipe.send((False, answer(call, arguments)))
        except (EnvironmentFault, UserError) as error:
            pipe.send((True, error))
        except BrokenPipeError:
            return
        if call == "close" or made is None:
            return
        try:
            call, arguments = pipe.recv()
        except EOFError:
            return


@contextlib.contextmanager
def _interruptions_later() -> Iterator[None]:
    """Hold SIGINT back, here and in a process that is started meanwhile, which is not yet able to ignore it."""
    # It unblocks SIGINT when it starts, so it must have started.
    resource_tracker.ensure_running()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
