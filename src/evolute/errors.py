"""The one exception that a user's mistake raises."""

import difflib
from collections.abc import Iterable


class UserError(ValueError):
    """A mistake in what the user asked for; its message is one sentence with the value, the rule and the fix.

    The command line prints the message alone and exits with code 2.
    """


def closest(name: str, choices: Iterable[str]) -> str:
    """Return " (did you mean 'x'?)" for the choice nearest to `name`, or "" when none is near."""
    by_lower_case = {choice.lower(): choice for choice in choices}
    matches = difflib.get_close_matches(name.lower(), by_lower_case, n=1, cutoff=0.6)
    return f" (did you mean {by_lower_case[matches[0]]!r}?)" if matches else ""
