"""What an experiment is: environments times arms times seeds, read from a TOML file; each cell of it is a run."""

import dataclasses
import itertools
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from evolute import limits, options, overlay
from evolute.config import Run
from evolute.errors import UserError, closest
from evolute.files import read_at_most, reason
from evolute.options import Rule, positive, setting
from evolute.rules import ENV, TABLE

HERE = Path(__file__).parent
# Published numbers, and what each reduced scale changes in every experiment: no experiments themselves.
PUBLISHED, SCALES = "published", "scales"
TABLES = ("returns", "compared", "improvements", "success", "ancestors", "seconds")
FIGURES = ("curves", "seconds", "updates", "survival", "profiles", "grid")
# The name of the numbers as an experiment's file writes them.
FULL = "full"

_TEXT = Rule(lambda x: type(x) is str and x.isprintable(), "printable text")
_ENVS = Rule(lambda x: bool(x) and len(set(x)) == len(x) and all(map(ENV.holds, x)), "one or more different environments")


@options.declared
class Experiment:
    """An experiment. Every run of it has the common settings, its arm's on top, an environment and a seed."""

    title: str = setting("What it shows, as the title of its tables.", _TEXT, "'Adam with K-FAC'")
    envs: tuple[str, ...] = setting("Environments: the rows of its tables.", _ENVS, "['Hopper-v4']")
    question: str = setting("What it asks, in one sentence.", _TEXT, "'Do mixes beat Adam?'", default="")
    seeds: int = setting("Repetitions: seeds 0, 1, ... of every arm.", positive(limits.MEMBERS), "5", "seeds", default=5)
    settings: dict[str, Any] = setting("Settings of every run.", TABLE, "{ interval = 10000 }", default={})
    arms: dict[str, Any] = setting("Settings of each arm, by its name.", TABLE, "{ '8-0' = { mix = { adam = 8 } } }", default={})
    grid: dict[str, Any] = setting(
        "Lists of values by a setting's full name: every combination is an arm.",
        TABLE,
        "{ 'optimizers.kfac.critic.damping' = [0.1, 1.0] }",
        default={},
    )
    include: tuple[str, ...] = setting(
        "Other experiments whose arms belong to this one, too; a cell that several have is trained once.",
        Rule(lambda x: len(x) <= limits.ENTRIES and all(map(_TEXT.holds, x)), "names of experiments"),
        "['single-agents']",
        default=(),
    )
    reference: str = setting("The arm that the others are compared with.", _TEXT, "'8-0'", default="")
    evaluation_steps: int = setting(
        "Environment steps that the best member of the end plays on held-out seeds.",
        positive(limits.STEPS),
        "150000",
        "environment steps",
        default=150_000,
    )
    success: dict[str, float] = setting(
        "The return above which a run has succeeded, by environment.", TABLE, "{ Swimmer-v4 = 300.0 }", default={}
    )
    published: str = setting("The table of published numbers beside which it stands.", _TEXT, "'table4_adam_kfac'", default="")
    tables: tuple[str, ...] = setting(
        "Tables to make.",
        Rule(lambda x: set(x) <= set(TABLES), f"some of {', '.join(TABLES)}"),
        "['returns']",
        default=("returns", "compared"),
    )
    figures: tuple[str, ...] = setting(
        "Figures to draw.",
        Rule(lambda x: set(x) <= set(FIGURES), f"some of {', '.join(FIGURES)}"),
        "['curves']",
        default=("curves",),
    )
    workers: int = setting("Processes over which a run's members are dealt.", positive(limits.MEMBERS), "4", default=1)
    scale: dict[str, Any] = setting("What a reduced scale changes in this experiment, by its name.", TABLE, "{}", default={})


class Cell(NamedTuple):
    """One run of an experiment."""

    env: str
    arm: str
    run: Run
    evaluation_steps: int
    workers: int = 1


def names() -> list[str]:
    """Return the names of the experiments that come with evolute."""
    return sorted(path.stem for path in HERE.glob("*.toml") if path.stem not in (PUBLISHED, SCALES))


def load(name: str, scale: str = FULL, above: Sequence[str] = ()) -> Experiment:
    """Return an experiment at a scale.

    Args:
        name: one of `names()`, or the path of a TOML file.
        scale: what to reduce: "full" for what the file says.
        above: experiments that include this one.

    Raises:
        UserError: there is none of this name, its file is wrong, or nobody knows the scale.
    """
    where = f"the experiment {name!r}"
    if name in above:
        raise UserError(f"{where} includes itself by way of {' and '.join(above)}; take it out of include.")
    table = _table(name, where)
    reduced, own = scales(), table.get("scale", {})
    if scale != FULL and scale not in reduced and scale not in own:
        raise UserError(
            f"there is no scale {scale!r}{closest(scale, [FULL, *reduced])}; choose from {', '.join([FULL, *reduced])}."
        )
    if scale != FULL:
        table = merged(merged(table, reduced.get(scale, {})), own.get(scale, {}) if isinstance(own, Mapping) else {})
    # A scale may take the first few alone.
    most_envs, most_arms = (table.pop(key, limits.MEMBERS) for key in ("most_envs", "most_arms"))
    known = [field.name for field in dataclasses.fields(Experiment)]
    for key in table:
        if key not in known:
            raise UserError(f"unknown key {key!r} in {where}{closest(key, known)}; choose from {', '.join(known)}.")
    for key in ("title", "envs"):
        if key not in table:
            raise UserError(f"{where} has no {key}; give one, such as {key} = {_example(key)}.")
    values = options.completed(Experiment, table, without=["arms", "grid", "scale", "settings"])
    arms = dict(table.get("arms", {}))
    for other in values["include"]:
        arms = {**load(other, scale, (*above, name)).arms, **arms}
    arms |= _product(table.get("grid", {}), where)
    first = sorted(arms, key=lambda arm: arm != values["reference"])[:most_arms]
    arms, values["envs"] = {arm: arms[arm] for arm in first}, values["envs"][:most_envs]
    made = Experiment(**values, arms=arms, grid=table.get("grid", {}), settings=table.get("settings", {}))
    if not arms or not all(isinstance(settings, Mapping) for settings in arms.values()):
        raise UserError(f"{where} has no arms; give a table for each, such as [arms.'8-0'] with mix = {{ adam = 8 }}.")
    if made.reference and made.reference not in arms:
        raise UserError(f"{where} has the reference {made.reference!r}, which is no arm; choose from {', '.join(arms)}.")
    return made


def scales() -> dict[str, Any]:
    """Return what each reduced scale changes in every experiment."""
    return tomllib.loads((HERE / f"{SCALES}.toml").read_text("utf-8"))


def cells(experiment: Experiment, envs: Sequence[str] = (), arms: Sequence[str] = (), seeds: int | None = None) -> list[Cell]:
    """Return an experiment's runs: all arms and environments with the first seed, then with the second, and so on.

    Args:
        experiment: whose.
        envs: only these of its environments; empty for all.
        arms: only these of its arms; empty for all.
        seeds: how many; None for the experiment's own number.

    Raises:
        UserError: an environment or an arm is none of the experiment's, or settings are wrong.
    """
    for what, asked, there in (("environment", envs, experiment.envs), ("arm", arms, list(experiment.arms))):
        for one in asked:
            if one not in there:
                raise UserError(
                    f"there is no {what} {one!r} in the experiment{closest(one, there)}; choose from {', '.join(there)}."
                )
    found = []
    for seed, env, (arm, own) in itertools.product(
        range(experiment.seeds if seeds is None else seeds), envs or experiment.envs, experiment.arms.items()
    ):
        if arms and arm not in arms:
            continue
        try:
            settings = overlay.merge(experiment.settings, {**own, "env": env, "seed": seed})
            run = Run(**_known(settings))
        except UserError as mistake:
            raise UserError(f"the arm {arm!r} on {env}: {mistake}") from None
        found.append(Cell(env, arm, run, experiment.evaluation_steps, experiment.workers))
    return found


def published(table: str) -> dict[str, dict[str, tuple[float, float]]]:
    """Return published means and standard deviations by environment and arm; empty where there are none."""
    tables = tomllib.loads((HERE / f"{PUBLISHED}.toml").read_text("utf-8"))
    return {env: {arm: (pair[0], pair[1]) for arm, pair in row.items()} for env, row in tables.get(table, {}).items()}


def merged(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """Return an experiment's table with a scale's on top: settings are laid over settings, everything else is replaced."""
    settings = overlay.merge(below.get("settings", {}), above.get("settings", {}))
    return {**below, **above, "settings": settings}


def _table(name: str, where: str) -> dict[str, Any]:
    own = HERE / f"{name}.toml"
    path = own if name in names() else Path(name)
    if path != own and path.suffix != ".toml":
        raise UserError(
            f"there is no experiment {name!r}{closest(name, names())}; choose from {', '.join(names())}, or give a file."
        )
    try:
        return tomllib.loads(read_at_most(path, limits.CONFIG_BYTES).decode("utf-8"))
    except FileNotFoundError:
        raise UserError(f"{where} does not exist; check the path, or choose from {', '.join(names())}.") from None
    except OSError as error:
        raise UserError(f"{where} cannot be read: {reason(error)}; check the path.") from None
    except RecursionError:
        raise UserError(f"{where} nests too deeply; write it flat.") from None
    except ValueError as error:  # UnicodeDecodeError and TOMLDecodeError are such
        raise UserError(f"{where} is not valid TOML: {error}.") from None


def _product(grid: Any, where: str) -> dict[str, dict[str, Any]]:
    """Return every combination of a grid's values as an arm, named by its values."""
    if not isinstance(grid, Mapping) or not all(isinstance(values, list) and values for values in grid.values()):
        raise UserError(
            f"{where} has a grid that is no table of lists; write it as 'optimizers.kfac.critic.damping' = [0.1, 1.0]."
        )
    found = {}
    for values in itertools.product(*grid.values()) if grid else ():
        settings: dict[str, Any] = {}
        for name, value in zip(grid, values, strict=True):
            inner = settings
            *parents, last = name.split(".")
            for parent in parents:
                inner = inner.setdefault(parent, {})
            inner[last] = value
        found[combination(values)] = settings
    return found


def combination(values: Sequence[Any]) -> str:
    """Return the name of the arm that has these values of a grid."""
    return " ".join(f"{value:g}" if isinstance(value, float) else str(value) for value in values)


def _known(settings: Mapping[str, Any]) -> dict[str, Any]:
    known = [field.name for field in dataclasses.fields(Run)]
    for name in settings:
        if name not in known:
            raise UserError(f"unknown setting {name!r}{closest(name, known)}; see `evolute train --help`.")
    return dict(settings)


def _example(name: str) -> str:
    return next(field.metadata["example"] for field in dataclasses.fields(Experiment) if field.name == name)
