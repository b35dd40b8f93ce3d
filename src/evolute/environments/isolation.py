"""An environment in a process of its own, which is killed where a call does not return in time.

gymnasium.vector.AsyncVectorEnv is not used: an exception whose class cannot be made again from its message makes it wait for
ever, a child that ignores SIGTERM does as well, and an `info` that cannot be pickled counts as a failure. What crosses the pipe
here is what an in-process environment has already checked: arrays, numbers and messages, no objects of the environment's own.
"""

import contextlib
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any, NoReturn

from evolute import children
from evolute.children import Child
from evolute.errors import EnvironmentFault, RunStopped, UserError

# Seconds for a new process to import what it needs and make the environment, and for the environment to be made again; more
# where a step may take more.
START_LIMIT = 60.0
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
            time_limit: seconds for a call of `reset` or `step`. Making has START_LIMIT where that is more, `close` CLOSE_LIMIT.
        """
        self._make, self._limit, self._start_limit = make, time_limit, start_limit(time_limit)
        self._child: Child | None = None
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
        if self._child is None:
            self._start()
        else:
            self._ask("rebuild", self._start_limit)

    def close(self) -> None:
        """End the process."""
        self._close()
        self._kill()

    def _close(self) -> None:
        """Let the environment close; one that does not ends with its process, and nobody needs it any more."""
        if self._child is not None:
            with contextlib.suppress(EnvironmentFault):
                self._ask("close", CLOSE_LIMIT)

    def _start(self) -> None:
        try:
            self._child = Child(_serve, (self._make,), "evolute-environment", childless=True)
        except OSError as error:
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
        assert self._child is not None, "an environment is rebuilt after a call that did not return"
        name = "make" if call == "rebuild" else call
        try:
            self._child.pipe.send((call, arguments))
        except OSError:
            self._lost(name)
        return self._receive(name, limit)

    def _receive(self, call: str, limit: float) -> Any:
        """Return the answer; raises what the child raised, and EnvironmentFault where no answer comes."""
        assert self._child is not None
        try:
            if not self._child.pipe.poll(limit):
                self._kill()
                raise EnvironmentFault(call, f"it did not return within {limit:g} seconds, so its process was killed")
            failed, answer = self._child.pipe.recv()
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
        assert self._child is not None
        ended = self._child.ending()
        self._kill()
        raise EnvironmentFault(call, f"its process {ended} before it answered")

    def _kill(self) -> None:
        """End the process for certain, with what it started itself; the next call must be `rebuild`."""
        if self._child is not None:
            self._child.end()
            self._child = None


def start_limit(time_limit: float) -> float:
    """Return the seconds that an environment has to be made, by the seconds that a step has."""
    return max(time_limit, START_LIMIT)


def _serve(pipe: Connection, make: Callable[[], Any]) -> None:
    """Answer calls until the asking process ends this one, or is gone."""
    children.settle()
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
