"""Functions by name, MODULE:FUNCTION: as text they can be recorded, and found again in any process."""

import importlib
import sys
from typing import Any

from evolute.errors import UserError


def path_of(name: str, function: Any) -> str:
    """Return a function's path; raises UserError where no other process could find it by that.

    Args:
        name: of the setting that it is given for.
        function: anything that can be called.
    """
    module, qualified = getattr(function, "__module__", None), getattr(function, "__qualname__", "")
    found: Any = sys.modules.get(str(module))
    for part in qualified.split("."):
        found = getattr(found, part, None)
    if found is not function:
        raise UserError(
            f"{name} is {function!r}, which no other process can import; define it by `def` or `class` at the top of a module."
        )
    return f"{module}:{qualified}"


def function_at(name: str, path: str) -> Any:
    """Return the function at a path; raises UserError where there is none.

    Args:
        name: of the setting that names it.
        path: MODULE:FUNCTION.
    """
    module, _, qualified = path.partition(":")
    try:
        found: Any = importlib.import_module(module)
        for part in qualified.split("."):
            found = getattr(found, part)
    except (ImportError, AttributeError) as error:
        raise UserError(f"{name} names {path!r}, which cannot be imported: {error}; name it as MODULE:FUNCTION.") from None
    return found
