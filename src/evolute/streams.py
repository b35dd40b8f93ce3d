"""Standard output and error as they are: of any encoding, closed, full, or with a reader that has gone away."""

import codecs
import contextlib
import os
import sys
from collections.abc import Callable, Iterator
from typing import Any

from evolute.errors import UserError

# What stands for a character that an encoding lacks: one for one, so that columns stay columns.
PLAIN = dict(zip("▁▂▃▄▅▆▇█", "12345678", strict=True)) | dict(
    zip("─━═│┃║╸╺╭╮╰╯┌┐└┘├┤┬┴┼•", "---|||--++++++++++++++*", strict=False)
)
PLAIN |= {"…": "~", "±": "+/-"}


class ReaderGone(Exception):
    """Nobody reads standard output any more, as in `evolute show RUN | head`."""


class Output:
    """Standard output, whose failing is no OSError like any other.

    Attributes:
        optional: whether what is done here is worth more than what it prints: the output ends then, and the program goes on.
    """

    def __init__(self, stream: Any):
        self._stream = stream
        self._lost = False
        self.optional = False

    def write(self, text: str) -> int:
        """Write a text, or nothing where the output was lost; raises ReaderGone and UserError where it is needed."""
        self._attempt(lambda: self._stream.write(text))
        return len(text)

    def flush(self) -> None:
        """Write what is left; raises what `write` does."""
        self._attempt(self._stream.flush)

    def _attempt(self, action: Callable[[], Any]) -> None:
        if self._lost:
            return
        try:
            action()
        except OSError as error:
            self._lost = True
            self._give_up()
            gone, reason = isinstance(error, BrokenPipeError), f"standard output cannot be written: {error.strerror or error}"
            if not self.optional:
                raise (ReaderGone() if gone else UserError(f"{reason}; send it elsewhere.")) from None
            if not gone:
                complain(f"{reason}; the run goes on without it.")

    def _give_up(self) -> None:
        """Let what is still to be written vanish, so that Python says nothing of it when it ends."""
        with contextlib.suppress(OSError, ValueError), open(os.devnull, "wb") as nowhere:
            os.dup2(nowhere.fileno(), self._stream.fileno())

    def __getattr__(self, name: str) -> Any:
        """Return what else a stream has: its encoding, whether it is a terminal."""
        return getattr(self._stream, name)


@contextlib.contextmanager
def prepared() -> Iterator[Output]:
    """Make standard output and error take any text; a closed one is replaced by one that leads nowhere."""
    codecs.register_error("evolute", _plain)
    for descriptor in (0, 1, 2):
        try:
            os.fstat(descriptor)
        except OSError:
            # Or the next file that is opened would get this number, and what is printed would end up in it; children inherit it.
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)
    for name in ("stdout", "stderr"):
        stream: Any = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115
        elif hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="evolute")
    before: Any = sys.stdout
    output = Output(before)
    sys.stdout = output
    try:
        yield output
    finally:
        sys.stdout = before


def make_output_optional() -> None:
    """Continue when standard output cannot be written: hours of training must not end because nobody reads any more."""
    if isinstance(sys.stdout, Output):
        sys.stdout.optional = True


def _plain(error: UnicodeError) -> tuple[str, int]:
    """Return what is written instead of what an encoding lacks."""
    assert isinstance(error, UnicodeEncodeError)
    return "".join(PLAIN.get(character, "?") for character in error.object[error.start : error.end]), error.end


def complain(sentence: str) -> None:
    """Print a sentence to standard error, if anybody still reads it."""
    with contextlib.suppress(OSError, ValueError):
        print(f"evolute: {sentence}", file=sys.stderr, flush=True)
