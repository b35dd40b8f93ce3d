"""The page of an experiment: what it asks, its tables and figures, and the command under each."""

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from evolute.errors import UserError
from evolute.experiments import figures, grid, tables
from evolute.experiments.evidence import Evidence
from evolute.files import make_folder, write_whole
from evolute.runs import changes

PAGE = "README.md"


def write(evidence: Evidence, command: Sequence[str], folder: Path, reduced: Mapping[str, Any]) -> list[str]:
    """Write tables (Markdown, CSV, LaTeX) and figures (PNG, SVG) of an experiment, and a page that shows them.

    Args:
        evidence: what was found.
        command: that makes it again, as words.
        folder: where it is written; what is there is replaced.
        reduced: what a scale changes, by setting: the new value and the old one.

    Returns:
        What the user should know: figures that could not be drawn.

    Raises:
        RunStopped: a file cannot be written.
    """
    make_folder(folder)
    experiment, notes = evidence.experiment, []
    shown = " ".join(map(shlex.quote, command))
    lines = [f"# {experiment.title}", "", *([experiment.question, ""] if experiment.question else [])]
    lines += [f"{evidence.ended} of {evidence.asked} runs have ended. The command of every table and figure here:", ""]
    lines += ["```", shown, "```", ""]
    if reduced:
        lines += [
            "What this scale changes, and what stands in the experiment itself:",
            "",
            "| setting | here | in full |",
            "| --- | --- | --- |",
        ]
        lines += [f"| `{name}` | {pair[0]} | {pair[1]} |" for name, pair in reduced.items()]
        lines += ["", "Whatever is found here is found at this size: it says nothing certain of the full one.", ""]
    for name in experiment.tables:
        table = tables.MAKERS[name](evidence)
        if not table.rows:
            continue
        write_whole(folder / f"{name}.csv", tables.csv(table).encode())
        write_whole(folder / f"{name}.tex", tables.latex(table).encode())
        lines += [tables.markdown(table), f"`{shown}`", ""]
    for name in experiment.figures:
        try:
            drawn = figures.draw(evidence, name, folder)
        except UserError as missing:
            notes = [str(missing)]
            break
        if drawn:
            lines += [f"## {drawn}", "", figures.CAPTIONS[name], "", f"![{drawn}]({name}.png)", "", f"`{shown}`", ""]
    write_whole(folder / PAGE, ("\n".join(lines).rstrip() + "\n").encode())
    return notes


def reductions(name: str, scale: str) -> dict[str, tuple[str, str]]:
    """Return what a scale changes of an experiment by the names of settings: the value at this scale, and the full one."""
    if scale == grid.FULL:
        return {}
    small, full = grid.load(name, scale), grid.load(name)
    here, there = ({(cell.env, cell.arm): cell.run for cell in grid.cells(one, seeds=1)} for one in (small, full))
    # By setting: which environments have which pair of values.
    pairs: dict[str, dict[tuple[str, str], dict[str, None]]] = {}
    for env, arm in (place for place in here if place in there):
        differing = changes.differences(here[env, arm], there[env, arm])
        for setting, (new, old) in differing.items():
            # A table that is empty on one side stands by its entries on the other.
            if any(other.startswith(f"{setting}.") for other in differing):
                continue
            pairs.setdefault(setting, {}).setdefault((_text(new), _text(old)), {})[env] = None
    found = {
        setting if len(values) == 1 else f"{setting} ({', '.join(envs)})": pair
        for setting, values in pairs.items()
        for pair, envs in values.items()
    }
    for setting in ("envs", "seeds", "evaluation_steps"):
        pair = getattr(small, setting), getattr(full, setting)
        if pair[0] != pair[1]:
            found[setting] = (_text(pair[0]), _text(pair[1]))
    if list(small.arms) != list(full.arms):
        found["arms"] = (_text(list(small.arms)), _text(list(full.arms)))
    return found


def _text(value: Any) -> str:
    if isinstance(value, list | tuple):
        return ", ".join(map(_text, value))
    return f"{value:,}" if type(value) is int else str(value)
