"""Stopping on request: the first signal ends a run between two steps, the second ends the process at once."""

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

SIGNALS = (signal.SIGINT, signal.SIGTERM)
SHOW_CURSOR = "\x1b[?25h"


class Interrupted(Exception):
    """The user or the system asked the process to stop."""

    def __init__(self, number: int):
        super().__init__(signal.Signals(number).name)
        self.exit_code = 128 + number


class Interruption:
    """An observer of progress that stops the run once a signal has come."""

    def __init__(self) -> None:
        self.signal: int | None = None

    def __call__(self, _: Any = None) -> None:
        """Raise Interrupted if a signal has come."""
        if self.signal is not None:
            raise Interrupted(self.signal)


@contextmanager
def interruptible() -> Iterator[Interruption]:
    """Catch SIGINT and SIGTERM while a run trains.

    A thread reads the signals: the main thread may be compiling or waiting for an environment for minutes, and Python calls its
    handlers there only.
    """
    interruption = Interruption()
    reader, writer = os.pipe()
    os.set_blocking(writer, False)

    def watch() -> None:
        while number := os.read(reader, 1):
            if interruption.signal is not None:
                if sys.stderr.isatty():
                    # The live table hides it.
                    os.write(2, SHOW_CURSOR.encode())
                os._exit(128 + number[0])
            interruption.signal = number[0]
            name = signal.Signals(number[0]).name
            # Through the stream, not its descriptor: a live table moves aside for it.
            with contextlib.suppress(OSError, ValueError):
                print(
                    f"\nevolute: {name} received; stopping after this step. Once more stops at once.", file=sys.stderr, flush=True
                )

    watcher = threading.Thread(target=watch, name="signals", daemon=True)
    watcher.start()
    handlers = {number: signal.signal(number, lambda *_: None) for number in SIGNALS}
    before = signal.set_wakeup_fd(writer)
    try:
        yield interruption
    finally:
        signal.set_wakeup_fd(before)
        for number, handler in handlers.items():
            signal.signal(number, handler)
        os.close(writer)
        watcher.join()
        os.close(reader)


@contextmanager
def stopping_at_once() -> Iterator[None]:
    """End the process at once on SIGINT, with 130, while there is nothing to be saved: also in imports, which may swallow it."""
    # Not where the process was told to ignore it, nor in another thread than the main one, which alone may say so.
    if signal.getsignal(signal.SIGINT) is not signal.default_int_handler or not _in_main_thread():
        yield
        return

    def end(number: int, _: Any) -> None:
        with contextlib.suppress(OSError, ValueError, RuntimeError):
            sys.stdout.flush()
        with contextlib.suppress(OSError, ValueError, RuntimeError):
            print("\nevolute: interrupted.", file=sys.stderr, flush=True)
        os._exit(128 + number)

    signal.signal(signal.SIGINT, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def _in_main_thread() -> bool:
    return threading.current_thread() is threading.main_thread()
