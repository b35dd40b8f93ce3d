"""evolute --print-completion: what a shell reads to complete commands and options. tyro writes it."""

import contextlib
import io
from typing import Annotated, Any, Union

from evolute.errors import UserError, closest

SHELLS = ("bash", "zsh", "tcsh")


def script(shell: str) -> str:
    """Return what a shell reads; raises UserError for another shell, or where tyro needs a package for it."""
    import tyro

    from evolute.commands.cli import COMMANDS
    from evolute.commands.flags import module_of
    from evolute.commands.groups import boxed

    if shell not in SHELLS:
        given = f"is {shell!r}{closest(shell, SHELLS)}" if shell else "names no shell"
        raise UserError(f"--print-completion {given}; choose from {', '.join(SHELLS)}.")
    kinds = [Annotated[boxed(module_of(name).Flags), tyro.conf.subcommand(name)] for name in COMMANDS]
    commands: Any = Union[tuple(kinds)]  # noqa: UP007
    printed = io.StringIO()
    try:
        with contextlib.redirect_stdout(printed), contextlib.suppress(SystemExit):
            tyro.cli(commands, prog="evolute", args=["--tyro-print-completion", shell])
    except ImportError:
        raise UserError(
            f"completion for {shell} needs the package 'shtab', which is not installed; install it with: pip install shtab."
        ) from None
    # Where nothing of evolute's fits, bash completes a path: a run folder.
    return printed.getvalue().replace("complete -F _tyro", "complete -o default -F _tyro")
