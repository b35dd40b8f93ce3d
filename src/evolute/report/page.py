"""The report as one HTML page that needs nothing else: data, style and script inside, and a policy that forbids all the rest."""

import base64
import hashlib
import json
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Any

from evolute import __version__
from evolute.errors import RunStopped, UserError
from evolute.files import is_folder, read_at_most, write_whole
from evolute.report import compare, film, reading, story

STYLE = "page.css"
# In this order: each uses those before it.
SCRIPTS = ("plot.js", "curves.js", "genealogy.js", "strips.js", "tables.js", "page.js")
# What every page begins with: only what begins so is overwritten.
HEAD = '<!doctype html>\n<html lang="en" data-made-by="evolute">\n'
SELF, NOTHING = "'self'", "'none'"
# Commands to type next of a run: what each is for, and the command.
Commands = Sequence[tuple[str, str]]


def data(paths: Sequence[Path], commands: Sequence[Commands]) -> dict[str, Any]:
    """Return what a page shows, as data of JSON; raises UserError where a folder holds no run.

    Args:
        paths: run folders.
        commands: to type next, for each of them.
    """
    names = _names(paths)
    stories = [story.tell(reading.read(path), name) for path, name in zip(paths, names, strict=True)]
    room = film.ROOM
    for one, path, own in zip(stories, paths, commands, strict=True):
        one["commands"] = [list(pair) for pair in own]
        one["video"] = film.of_run(path, room)
        room -= one["video"]["size"] if one["video"] and one["video"]["source"] else 0
    return {"version": __version__, "runs": stories, "comparison": compare.compare(stories) if len(stories) > 1 else []}


def html(shown: dict[str, Any], live: bool = False) -> str:
    """Return the page.

    Args:
        shown: what `data` returns.
        live: whether the page asks its server for news.
    """
    style, script = _part(STYLE), "\n".join(_part(name) for name in SCRIPTS)
    script = f'"use strict";\n(() => {{\n{script}\n}})();\n'
    policy = "; ".join(
        (
            "default-src 'none'",
            f"script-src '{_digest(script)}'",
            f"style-src '{_digest(style)}'",
            "img-src data:",
            "media-src data:",
            f"connect-src {SELF if live else NOTHING}",
            "base-uri 'none'",
            "form-action 'none'",
        )
    )
    return (
        f'{HEAD}<head>\n<meta charset="utf-8">\n<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n<meta name="referrer" content="no-referrer">\n'
        f'<meta name="color-scheme" content="light dark">\n<link rel="icon" href="data:,">\n<title>evolute</title>\n'
        f"<style>{style}</style>\n</head>\n<body{' data-live' if live else ''}>\n"
        "<noscript>This page draws its figures with the script inside it; let it run, or see: evolute show RUN</noscript>\n"
        f'<script type="application/json" id="data">{_embedded(shown)}</script>\n<script>{script}</script>\n</body>\n</html>\n'
    )


def write(text: str, out: Path) -> None:
    """Write a page; raises UserError where another file or a folder has its name."""
    try:
        if is_folder(out):
            raise UserError(f"--out is {str(out)!r}, which is a folder; name a file, such as {str(out / 'report.html')!r}.")
        if out.exists() and not read_at_most(out, 2**30).startswith(HEAD.encode()):
            raise UserError(f"--out is {str(out)!r}, which is no report; choose another name, or move that file away.")
        if not is_folder(out.parent):
            raise UserError(f"--out is {str(out)!r}, and there is no folder {str(out.parent)!r}; make it first.")
    except OSError as error:
        raise UserError(f"--out is {str(out)!r}, which cannot be written: {error.strerror}; choose another.") from None
    try:
        write_whole(out, text.encode())
    except RunStopped as stop:
        raise UserError(f"{stop} Or choose another name with --out.") from None


def _names(paths: Sequence[Path]) -> list[str]:
    """Return what each run is called: the last parts of its path that tell it from the others."""
    parts = [path.absolute().parts[1:] or ("/",) for path in paths]
    for length in range(1, max(map(len, parts)) + 1):
        names = ["/".join(own[-length:]) for own in parts]
        if len(set(names)) == len(names):
            return names
    return [str(path) for path in paths]


def _part(name: str) -> str:
    return resources.files("evolute.report").joinpath("static", name).read_text(encoding="utf-8")


def _digest(text: str) -> str:
    """Return what a page's policy allows to run or to style: this text alone."""
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"


def _embedded(value: Any) -> str:
    """Return JSON that no browser takes for markup: the records of a run may hold `</script>`, and lone halves of characters."""
    text = json.dumps(value, separators=(",", ":"), allow_nan=False)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")
