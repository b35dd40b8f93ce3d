"""Stopping on request: the first signal ends a run between two steps, the second ends the process at once.

So does the first one while there is nothing to be saved.
"""

import contextlib
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

# What a person, a terminal that closes, a scheduler and a limit on processor time send. SIGQUIT keeps ending the process at once.
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2, signal.SIGXCPU)
# As it is, whatever stands in its place while signals are caught.
_set_handler = signal.signal
SHOW_CURSOR = "\x1b[?25h"
# Seconds for threads and exit handlers that an environment left behind.
EXIT_LIMIT = 5.0


class Interrupted(Exception):
    """The user or the system asked the process to stop."""

    def __init__(self, number: int):
        super().__init__(signal.Signals(number).name)
        self.exit_code = 128 + number


class _Caught:
    """The signals that are caught, where they are announced, and the first that came."""

    def __init__(self, numbers: list[signal.Signals], writer: int):
        self.numbers, self.writer = numbers, writer
        self.signal: int | None = None
        # Whether there is something to be saved.
        self.gently = False


# Of the process, as signals are; None while they are left to whoever uses the library.
_caught: _Caught | None = None


def check() -> None:
    """Raise Interrupted if a signal has come; nothing while they are not caught. It is called between two steps."""
    if _caught is not None and _caught.signal is not None:
        raise Interrupted(_caught.signal)


def catch_again() -> None:
    """Take signals back from an environment that had them ignored in native code, or by a function it had imported before."""
    if _caught is not None:
        for number in _caught.numbers:
            _set_handler(number, _nothing)
        signal.set_wakeup_fd(_caught.writer)


@contextmanager
def interruptible() -> Iterator[None]:
    """Catch signals while a command works: the first one ends the process, or is what `check` tells of (`stopping_gently`).

    A thread reads them: the main thread may be compiling or waiting for an environment for minutes, and Python calls its handlers
    there only. Nobody can take them away by `signal.signal` meanwhile. A SIGHUP that is ignored, as under nohup, stays ignored.
    """
    global _caught
    if threading.current_thread() is not threading.main_thread():
        # Which alone may catch signals.
        yield
        return
    numbers = [number for number in SIGNALS if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN]
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    caught = _Caught(numbers, writer)

    def watch() -> None:
        while number := os.read(reader, 1):
            # Other signals that somebody handles are announced, too.
            if number[0] not in numbers:
                continue
            name = signal.Signals(number[0]).name
            if caught.signal is not None or not caught.gently:
                if caught.signal is None:
                    _tell(f"\nevolute: {name} received; interrupted.\n")
                if sys.stderr.isatty():
                    # The live table hides it.
                    _tell(SHOW_CURSOR)
                os._exit(128 + number[0])
            # Through the stream, not its descriptor: a live table moves aside for it.
            with contextlib.suppress(OSError, ValueError):
                text = f"\nevolute: {name} received; stopping after this step. Once more stops at once."
                print(text, file=sys.stderr, flush=True)
            # Last: the main thread says that it has stopped as soon as it sees this.
            caught.signal = number[0]

    def leave(number: Any, handler: Any) -> Any:
        return signal.getsignal(number) if number in numbers else _set_handler(number, handler)

    watcher = threading.Thread(target=watch, name="signals", daemon=True)
    watcher.start()
    handlers = {number: _set_handler(number, _nothing) for number in numbers}
    before = signal.set_wakeup_fd(writer)
    _caught, signal.signal = caught, leave
    try:
        yield
    except OSError:
        # The terminal may be what has gone, and the hang-up on its way.
        time.sleep(0.1)
        if caught.signal is None:
            raise
        for output in (1, 2):
            # What is still to be flushed would change the exit code.
            os.dup2(os.open(os.devnull, os.O_WRONLY), output)
        raise Interrupted(caught.signal) from None
    finally:
        _caught, signal.signal = None, _set_handler
        signal.set_wakeup_fd(before)
        for number, handler in handlers.items():
            _set_handler(number, handler)
        os.close(writer)
        watcher.join()
        os.close(reader)


@contextmanager
def stopping_gently() -> Iterator[None]:
    """Let the first signal end a command between two steps: there is something to be saved."""
    if _caught is None:
        yield
        return
    _caught.gently = True
    try:
        yield
    finally:
        _caught.gently = False


def raised_by_signal(error: BaseException) -> bool:
    """Return whether an error that came out of an environment's code was raised by a signal that came meanwhile.

    While signals are caught, none was. Otherwise Ctrl-C raises KeyboardInterrupt, and a handler of whoever uses the library
    may raise what is no Exception, such as SystemExit: its own code is then among the calls that the error came through.
    """
    if isinstance(error, Exception):
        return False
    if isinstance(error, KeyboardInterrupt) and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        return True
    handlers = {getattr(signal.getsignal(number), "__code__", None) for number in signal.valid_signals()}
    return any(frame.f_code in handlers for frame, _ in traceback.walk_tb(error.__traceback__))


def end_in_time(code: int) -> None:
    """Let the process end with an exit code within EXIT_LIMIT, whatever threads and exit handlers an environment left."""

    def end() -> None:
        time.sleep(EXIT_LIMIT)
        with contextlib.suppress(OSError, ValueError):
            sys.stdout.flush()
        os._exit(code)

    threading.Thread(target=end, name="end", daemon=True).start()


def _nothing(*_: Any) -> None:
    """Handle a signal: the thread has read of it."""


def _tell(text: str) -> None:
    # The terminal may be what has gone.
    with contextlib.suppress(OSError):
        os.write(2, text.encode())
