"""Exceptions: a user's mistake, a run that cannot go on, and an environment that failed."""

import difflib
from collections.abc import Iterable

# Characters of a message that are shown: a value that a file gave may be as long as the file.
LONGEST_MESSAGE = 2_000
# Of an environment's message, which is recorded at every fault.
LONGEST_FAULT = 500


class UserError(ValueError):
    """A mistake in what the user asked for; its message is one sentence with the value, the rule and the fix.

    Whatever a file put into the message, it is printable and not too long. The command line prints the message alone and exits
    with code 2.
    """

    def __init__(self, message: str):
        super().__init__(printable(message, LONGEST_MESSAGE))


class RunStopped(RuntimeError):
    """A run cannot go on, although nothing is wrong with its settings: a full disk, an environment that keeps failing.

    The message says what happened and what to do. What was checkpointed is intact. The command line prints the message and how to
    resume, and exits with code 3.
    """


class Damaged(Exception):
    """A file of a checkpoint is not what it was when it was written, or does not belong to this run. Says so in a clause."""


class EnvironmentFault(Exception):
    """An environment raised an error, returned what no transition can be made of, or did not return in time.

    Attributes:
        call: what it failed in: "make", "reset" or "step".
        message: the environment's own words, or what is wrong with what it returned; printable and in one line.
    """

    def __init__(self, call: str, message: str):
        self.call, self.message = call, printable(" ".join(message.split()), LONGEST_FAULT)
        # Both, so that it can be pickled.
        super().__init__(call, message)

    def __str__(self) -> str:
        return f"in {self.call}: {self.message}"


def closest(name: str, choices: Iterable[str]) -> str:
    """Return " (did you mean 'x'?)" for the choice nearest to `name`, or "" when none is near."""
    by_lower_case = {choice.lower(): choice for choice in choices}
    matches = difflib.get_close_matches(name.lower(), by_lower_case, n=1, cutoff=0.6)
    return f" (did you mean {by_lower_case[matches[0]]!r}?)" if matches else ""


def printable(text: str, most: int | None = None) -> str:
    """Return text for a terminal: control characters are escaped, and the middle is left out of more than `most` characters."""
    text = "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)
    return text if most is None or len(text) <= most else f"{text[: most // 2]}…{text[1 - most // 2 :]}"
