"""The two exceptions that users see: their own mistake, and a run that cannot go on."""

import difflib
from collections.abc import Iterable

# Characters of a message that are shown: a value that a file gave may be as long as the file.
LONGEST_MESSAGE = 2_000


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


def closest(name: str, choices: Iterable[str]) -> str:
    """Return " (did you mean 'x'?)" for the choice nearest to `name`, or "" when none is near."""
    by_lower_case = {choice.lower(): choice for choice in choices}
    matches = difflib.get_close_matches(name.lower(), by_lower_case, n=1, cutoff=0.6)
    return f" (did you mean {by_lower_case[matches[0]]!r}?)" if matches else ""


def printable(text: str, most: int | None = None) -> str:
    """Return text for a terminal: control characters are escaped, and the middle is left out of more than `most` characters."""
    if most is not None and len(text) > most:
        text = f"{text[: most // 2]}…{text[-most // 2 :]}"
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)
