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
_ENVS = Rule(lambda x: bool(x) and all(map(ENV.holds, x)) and len(set(x)) == len(x), "one or more different environments")
# Settings that a cell has from its place in the experiment.
_PLACED = ("env", "seed")


@options.declared
class Experiment:
    """An experiment. Every run of it has the common settings, its arm's on top, an environment and a seed."""

    title: str = setting("What it shows, as the title of its tables.", _TEXT, "'Adam with K-FAC'")
    envs: tuple[str, ...] = setting("Environments: the rows of its tables.", _ENVS, "['Hopper-v4']")
    question: str = setting("What it asks, in one sentence.", _TEXT, "'Do mixes beat Adam?'", default="")
    seeds: int = setting("Repetitions: seeds 0, 1, ... of every arm.", positive(limits.MEMBERS), "5", "seeds", default=5)
    settings: dict[str, Any] = setting("Settings of every run.", TABLE, "{ interval = 10000 }", default={})
    by_env: dict[str, Any] = setting(
        "Settings of every run on an environment, by its name; they lie on those of every run, and below the arm's.",
        TABLE,
        "{ Swimmer-v4 = { interval = 5000 } }",
        default={},
    )
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
        Rule(lambda x: all(name in TABLES for name in x), f"some of {', '.join(TABLES)}"),
        "['returns']",
        default=("returns", "compared"),
    )
    figures: tuple[str, ...] = setting(
        "Figures to draw.",
        Rule(lambda x: all(name in FIGURES for name in x), f"some of {', '.join(FIGURES)}"),
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
    _check_form(table, where)
    reduced, own = scales(), table.get("scale", {})
    if scale != FULL and scale not in reduced and scale not in own:
        raise UserError(
            f"there is no scale {scale!r}{closest(scale, [FULL, *reduced])}; choose from {', '.join([FULL, *reduced])}."
        )
    known_envs = [*table.get("envs", ()), *table.get("by_env", {})]
    if scale != FULL:
        table = merged(merged(table, reduced.get(scale, {})), own.get(scale, {}))
    # A scale may take the first few alone.
    most_envs, most_arms = (table.pop(key, limits.MEMBERS) for key in ("most_envs", "most_arms"))
    known = [field.name for field in dataclasses.fields(Experiment)]
    for key in table:
        if key not in known:
            raise UserError(f"unknown key {key!r} in {where}{closest(key, known)}; choose from {', '.join(known)}.")
    for key in ("title", "envs"):
        if key not in table:
            raise UserError(f"{where} has no {key}; give one, such as {key} = {_example(key)}.")
    values = options.completed(Experiment, table, without=["arms", "grid", "scale", "settings", "by_env"])
    for env in values["success"]:
        if env not in (*known_envs, *values["envs"]):
            raise UserError(f"{where} has success on {env!r}{closest(env, values['envs'])}, which is none of its environments.")
    if values["published"] and values["published"] not in _published():
        asked, there = values["published"], sorted(_published())
        raise UserError(f"{where} has published = {asked!r}{closest(asked, there)}; choose from {', '.join(there)}.")
    arms = _included(values["include"], scale, (*above, name), where) | dict(table.get("arms", {}))
    arms |= _product(table.get("grid", {}), where)
    first = sorted(arms, key=lambda arm: arm != values["reference"])[:most_arms]
    arms, values["envs"] = {arm: arms[arm] for arm in first}, values["envs"][:most_envs]
    laid = {key: table.get(key, {}) for key in ("grid", "settings", "by_env")}
    made = Experiment(**values, **laid, arms=arms)
    if not arms:
        raise UserError(f"{where} has no arms; give a table for each, such as [arms.'8-0'] with mix = {{ adam = 8 }}.")
    if made.reference and made.reference not in arms:
        raise UserError(f"{where} has the reference {made.reference!r}, which is no arm; choose from {', '.join(arms)}.")
    return made


def _check_form(table: Mapping[str, Any], where: str) -> None:
    """Raise UserError where an experiment's table, or one that a scale lays on it, is of another form than it must be."""
    for key in ("settings", "by_env", "arms", "grid", "success", "scale"):
        if not isinstance(table.get(key, {}), Mapping):
            raise UserError(f"{where} has {key} = {options.shown(table[key])}; write a table, such as [{key}].")
    for key in ("by_env", "arms"):
        for name, settings in table.get(key, {}).items():
            if not isinstance(settings, Mapping):
                raise UserError(f"{where} has {key}.{name} = {options.shown(settings)}; write a table, such as [{key}.'{name}'].")
    for name, settings in (
        ("settings", table.get("settings", {})),
        *table.get("by_env", {}).items(),
        *table.get("arms", {}).items(),
    ):
        for key in _PLACED:
            if key in settings:
                raise UserError(f"{where} has {key!r} in {name!r}, which every run has from envs and seeds; take it out there.")
    for key in ("most_envs", "most_arms"):
        if type(most := table.get(key, 1)) is not int or most < 1:
            raise UserError(f"{where} has {key} = {options.shown(most)}; write a whole number of at least 1.")
    for scale, changes in table.get("scale", {}).items():
        if not isinstance(changes, Mapping):
            raise UserError(
                f"{where} has scale.{scale} = {options.shown(changes)}; write a table, such as [scale.{scale}.settings]."
            )
        _check_form(changes, f"the scale {scale!r} of {where}")


def _included(names: Sequence[str], scale: str, above: Sequence[str], where: str) -> dict[str, Any]:
    """Return the arms of other experiments, each with what lies below it there; raises UserError where two have one name."""
    found: dict[str, Any] = {}
    for name in names:
        other = load(name, scale, above)
        for arm, settings in other.arms.items():
            whole = overlay.merge(other.settings, settings)
            if found.setdefault(arm, whole) != whole:
                raise UserError(
                    f"{where} includes two experiments that have an arm {arm!r} each, and these differ; write the arms of one of "
                    "them here, by other names."
                )
    return found


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
    check_there("environment", envs, experiment.envs, "the experiment")
    check_there("arm", arms, list(experiment.arms), "the experiment")
    found = []
    for seed, env, arm in itertools.product(
        range(experiment.seeds if seeds is None else seeds), dict.fromkeys(envs or experiment.envs), experiment.arms
    ):
        if arms and arm not in arms:
            continue
        try:
            run = Run(**_known({**settings_of(experiment, env, arm), "env": env, "seed": seed}))
        except UserError as mistake:
            raise UserError(f"the arm {arm!r} on {env}: {mistake}") from None
        found.append(Cell(env, arm, run, experiment.evaluation_steps, experiment.workers))
    return found


def check_there(what: str, asked: Sequence[str], there: Sequence[str], where: str) -> None:
    """Raise UserError unless all environments or arms that are asked for are there."""
    for one in asked:
        if one not in there:
            raise UserError(f"there is no {what} {one!r} in {where}{closest(one, there)}; choose from {', '.join(there)}.")


def settings_of(experiment: Experiment, env: str, arm: str) -> dict[str, Any]:
    """Return the settings of an arm's runs on an environment: those of every run, of the environment and of the arm."""
    return overlay.merge(overlay.merge(experiment.settings, experiment.by_env.get(env, {})), experiment.arms[arm])


def published(table: str) -> dict[str, dict[str, tuple[float, float]]]:
    """Return published means and standard deviations by environment and arm; empty where there are none."""
    rows = _published().get(table, {})
    found = {env: {arm: (x[0], x[1]) for arm, x in row.items() if isinstance(x, list)} for env, row in rows.items()}
    return {env: row for env, row in found.items() if row}


def published_percent(table: str) -> dict[str, dict[str, float]]:
    """Return published improvements in percent by environment, over single agents and over populations of Adam."""
    return {
        env: {over: x for over, x in row.items() if not isinstance(x, list)} for env, row in _published().get(table, {}).items()
    }


def _published() -> dict[str, Any]:
    return tomllib.loads((HERE / f"{PUBLISHED}.toml").read_text("utf-8"))


def merged(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """Return an experiment's table with a scale's on top: settings and arms are laid over theirs, everything else is replaced."""
    laid = {key: overlay.merge(below.get(key, {}), above.get(key, {})) for key in ("settings", "by_env", "arms")}
    return {**below, **above, **laid}


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
    for one, other in itertools.permutations(grid, 2):
        if other.startswith(f"{one}."):
            raise UserError(f"{where} has the grid names {one!r} and {other!r}, of which one holds the other; leave one out.")
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
    # As short as tells them apart.
    return " ".join(f"{value:g}" if isinstance(value, float) and float(f"{value:g}") == value else str(value) for value in values)


def _known(settings: Mapping[str, Any]) -> dict[str, Any]:
    known = [field.name for field in dataclasses.fields(Run)]
    for name in settings:
        if name not in known:
            raise UserError(f"unknown setting {name!r}{closest(name, known)}; see `evolute train --help`.")
    return dict(settings)


def _example(name: str) -> str:
    return next(field.metadata["example"] for field in dataclasses.fields(Experiment) if field.name == name)
