"""The tables of docs/settings.md are what the code says, and commands that it names as refused are."""

import dataclasses
import re
from pathlib import Path

import pytest

from evolute import Run, UserError
from evolute.hyperparameters import BOUNDS, SETTINGS, Hyperparameters
from evolute.optimizers import CURVATURE_KINDS, ROLES, resolve
from evolute.options import Setting, shown
from evolute.presets import ALGORITHMS, PRESETS
from evolute.resolution import OF_ALGORITHMS

PAGE = Path(__file__).parent.parent / "docs" / "settings.md"
# Environments for which a preset has values of its own, after one for which it has none.
ENVS = ("HalfCheetah-v4", "Humanoid-v4", "Swimmer-v4")


def table(*rows):
    """Return rows as a table of Markdown, the first one as its heading."""
    lines = [f"| {' | '.join(row)} |" for row in rows]
    return "\n".join([lines[0], f"|{' --- |' * len(rows[0])}", *lines[1:]])


def value(x):
    """Return a value as the command line takes it."""
    if isinstance(x, bool):
        return str(x).lower()
    if isinstance(x, tuple):
        return shown(x)
    return x if isinstance(x, str) else f"{x:.15g}"


def both(actor, critic):
    return value(actor) if actor == critic else f"{value(actor)}, {value(critic)}"


def hyperparameters():
    yield "hyperparameter", "what it is", "bounds", "perturbed by default", "who has it"
    perturbed = Run("HalfCheetah-v4").perturb
    for name in Hyperparameters._fields:
        having = [algorithm for algorithm, names in ALGORITHMS.items() if name in names]
        who = ", ".join(f"`{algorithm}`" for algorithm in having if len(having) < len(ALGORITHMS)) or "every member"
        who = "kinds with curvature" if name.endswith("_damping") else who
        low, high = BOUNDS[name]
        yield f"`{name}`", SETTINGS[name].help, f"{value(low)} to {value(high)}", "yes" if name in perturbed else "no", who


def options_of_optimizers():
    yield "option", "what it is", *(f"`{kind}`" for kind in CURVATURE_KINDS)
    kinds = {name: {f.name: Setting.of(f) for f in dataclasses.fields(kind.options)} for name, kind in CURVATURE_KINDS.items()}
    defaults = resolve(list(CURVATURE_KINDS), {}, dict.fromkeys(ROLES, 1.0))
    for name in dict.fromkeys(name for declared in kinds.values() for name in declared):
        settings = {kind: declared[name] for kind, declared in kinds.items() if name in declared}
        helps = {setting.help: [k for k, own in settings.items() if own.help == setting.help] for setting in settings.values()}
        said = [f"{', '.join(f'`{k}`' for k in whose)}: {text}" if len(helps) > 1 else text for text, whose in helps.items()]
        only = next(iter(settings.values())).only
        cells = []
        for tables in defaults.values():
            found = [tables[role][name] for role in ROLES if name in tables[role]]
            cells.append(both(found[0], found[-1]) if found else "-")
        yield f"`{name}`" + (f" ({only} alone)" if only else ""), " ".join(said), *cells


def presets():
    yield "setting", "of", *(f"`{preset}`" for preset in PRESETS)
    for name in PRESETS["paper"](ENVS[0], "td3"):
        owners = [algorithm for algorithm, names in ALGORITHMS.items() if name in names or name not in OF_ALGORITHMS]
        # By environment and algorithm: the values of all presets.
        found = {}
        for env in ENVS:
            for algorithm in owners:
                values = [PRESETS[preset](env, algorithm)[name] for preset in PRESETS]
                cells = tuple(both(*x.values()) if isinstance(x, dict) else value(x) for x in values)
                if env == ENVS[0] or found[ENVS[0], algorithm] != cells:
                    found[env, algorithm] = cells
        for env in ENVS:
            for cells in dict.fromkeys(cells for (where, _), cells in found.items() if where == env):
                whose = [algorithm for algorithm in owners if found.get((env, algorithm)) == cells]
                of = "every algorithm" if len(whose) == len(ALGORITHMS) else ", ".join(f"`{algorithm}`" for algorithm in whose)
                yield f"`{name}`", of if env == ENVS[0] else f"{of} on {env}", *cells


@pytest.mark.parametrize("rows", [hyperparameters, options_of_optimizers, presets])
def test_a_table_of_the_page_is_what_the_code_says(rows):
    made = table(*rows())
    assert made in PAGE.read_text(encoding="utf-8"), f"put this into {PAGE}:\n{made}"


def test_a_batch_outside_its_bounds_is_refused_as_the_page_says():
    [(size, low, high)] = re.findall(r"--batch-size (\d+) --bounds batch_size=(\d+),(\d+)", PAGE.read_text(encoding="utf-8"))
    settings = {"mix": {"adam": 2}, "batch_size": int(size)}
    with pytest.raises(UserError, match=r"outside its bounds 32 to 1024; change it or set bounds\.batch_size"):
        Run("HalfCheetah-v4", **settings)
    Run("HalfCheetah-v4", **settings, bounds={"batch_size": (int(low), int(high))})
