"""The command line's options: what each command takes, and words turned into settings."""

import contextlib
import dataclasses
import importlib
import io
import itertools
import os
import re
import shutil
import tomllib
import typing
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import tyro

from evolute import limits
from evolute.commands.foreign import POINTERS
from evolute.commands.groups import MOST_USED, boxed, group_of_each, in_group, unboxed
from evolute.errors import UserError, closest
from evolute.options import shown

# Characters of a line that help needs.
NARROWEST = 40
# Where records go, as the help shows it.
OUT = "runs/<env>-<mix>-<seed>-<time>"
# The group of options that are no settings of a run.
FILES = "file and output"

SeedFlag = Annotated[str, tyro.conf.arg(metavar="INT")]
# A module's code runs when it is imported.
ALLOW_IMPORT = "Modules that may be imported for what a file names, such as my_package for my_package:MyEnv-v0 or a wrapper."
AllowImportFlag = Annotated[
    tuple[str, ...] | None, tyro.conf.arg(metavar="MODULE ...", help=ALLOW_IMPORT, help_behavior_hint="(default: none)")
]
WORKERS = "Processes over which members are dealt, each on its share of the cores; the numbers stay the same."
WORKERS_DEFAULT = "1, this one; on a cluster one per core"
WorkersFlag = Annotated[
    str | None, tyro.conf.arg(metavar="INT", help=WORKERS, help_behavior_hint=f"(default: {WORKERS_DEFAULT})")
]
ON = "Where to train: local, or ray for the Ray cluster of this machine, or the address of one's Ray Client (docs/scale.md)."
OnFlag = Annotated[
    str | None, tyro.conf.arg(metavar="{local,ray,ray://HOST:PORT}", help=ON, help_behavior_hint="(default: local)")
]
WITHOUT_TOKEN = "Train on a Ray cluster of other machines although it asks nobody for a token: whoever reaches it can run code."
WithoutTokenFlag = tyro.conf.FlagCreatePairsOff[
    Annotated[bool, tyro.conf.arg(help=WITHOUT_TOKEN, help_behavior_hint="(default: refuse)")]
]
STRAGGLERS = (
    "When a worker is lost, go on without its members until it is replaced; the run then does not repeat. "
    "Needs two workers or more."
)
StragglersFlag = tyro.conf.FlagCreatePairsOff[
    Annotated[bool, tyro.conf.arg(help=STRAGGLERS, help_behavior_hint="(default: wait, which changes no number)")]
]
MEMBER = "Whose policy: best, the best policy of all, or a member's number, whose latest policy is taken."
MemberFlag = Annotated[str, tyro.conf.arg(metavar="{best,INT}", help=MEMBER)]
DRY_RUN = "Print memory, disk and time that it will take, from a short measurement, and train nothing."
DryRunFlag = tyro.conf.FlagCreatePairsOff[Annotated[bool, tyro.conf.arg(help=DRY_RUN, help_behavior_hint="(default: train)")]]
TRACK = "Trackers that are told of the run while it trains: tensorboard, in RUN/tensorboard, or wandb, offline unless logged in."
TrackFlag = Annotated[
    tuple[str, ...] | None, tyro.conf.arg(metavar="{tensorboard,wandb} ...", help=TRACK, help_behavior_hint="(default: none)")
]
LOGS = ("auto", "json")
LOG = "What is printed: auto, a live table on a terminal and lines elsewhere; or json, one object a line, and nothing else."
LogFlag = Annotated[str, tyro.conf.arg(metavar=f"{{{','.join(LOGS)}}}", help=LOG)]
QuietFlag = tyro.conf.FlagCreatePairsOff[
    Annotated[bool, tyro.conf.arg(help="Print nothing.", help_behavior_hint="(default: print progress)")]
]


def train_flags() -> Any:
    """Return a record of the train command's options: those of a Run, each left out unless given, and its own.

    Left-out ones stay None, so that a preset, a file and flags can lie on top of each other.
    """
    from evolute.config import Run
    from evolute.hyperparameters import BOUNDS

    hints, groups = typing.get_type_hints(Run), group_of_each(Run)
    defaults = Run("HalfCheetah-v4")
    fields = []
    for field in dataclasses.fields(Run):
        kind, metavar = _flag_type(hints[field.name])
        if choices := field.metadata["rule"].choices:
            metavar = f"{{{','.join(choices)}}}"
        own = getattr(defaults, field.name)
        if field.name == "bounds":
            # They hold although none are given.
            own = {name: f"{low:g},{high:g}" for name, (low, high) in BOUNDS.items()}
        default = _shown_default(own, field.metadata["unit"])
        hint = "(needed, unless --config names it)" if field.name == "env" else f"(default: {default})"
        argument = tyro.conf.arg(help=field.metadata["help"], help_behavior_hint=hint, metavar=metavar)
        annotated: Any = Annotated[kind | None, argument]
        if field.name == "env":
            annotated = tyro.conf.Positional[Annotated[annotated, tyro.conf.arg(metavar="ENV")]]
        fields.append((field.name, annotated, in_group(groups[field.name])))
    own = {
        "seeds": (
            tuple[str, ...],
            "INT ...",
            "Seeds of independent populations to train side by side; replaces seed.",
            "none",
            MOST_USED,
        ),
        "out": (Path, "PATH", "Folder for the run's records; must not hold a run yet.", OUT, MOST_USED),
        "config": (Path, "PATH", "TOML file with any of these settings; flags override it.", "none", FILES),
        "workers": (str, "INT", WORKERS, WORKERS_DEFAULT, "execution"),
        "on": (str, "{local,ray,ray://HOST:PORT}", ON, "local", "execution"),
        "track": (tuple[str, ...], "{tensorboard,wandb} ...", TRACK, "none", FILES),
        "allow_import": (tuple[str, ...], "MODULE ...", ALLOW_IMPORT, "none", FILES),
    }
    for name, (kind, metavar, text, default, group) in own.items():
        argument = tyro.conf.arg(help=text, help_behavior_hint=f"(default: {default})", metavar=metavar)
        fields.append((name, Annotated[kind | None, argument], in_group(group)))
    fields.append(("stragglers", StragglersFlag, in_group("execution", default=False)))
    fields.append(("without_token", WithoutTokenFlag, in_group("execution", default=False)))
    fields.append(("dry_run", DryRunFlag, in_group(FILES, default=False)))
    fields.append(("log", LogFlag, in_group(FILES, default="auto")))
    fields.append(("quiet", QuietFlag, in_group(FILES, default=False)))
    made = dataclasses.make_dataclass("TrainFlags", fields, frozen=True)
    made.__doc__ = "Train a population. Defaults are those of the paper preset for HalfCheetah-v4."
    return made


def _flag_type(hint: Any) -> tuple[Any, str]:
    """Return how an option is parsed and what its help shows for a value.

    All are parsed as text and understood by `value_of`, so that a file and a flag with a wrong value get the same answer.
    """
    names = {bool: "{true,false}", int: "INT", float: "FLOAT", str: "TEXT"}
    if typing.get_origin(hint) is dict:
        return tuple[str, ...], "NAME=VALUE ..."
    if typing.get_origin(hint) is tuple:
        return tuple[str, ...], f"{names[typing.get_args(hint)[0]]} ..."
    return str, names[hint]


def _shown_default(value: Any, unit: str) -> str:
    if value is None:
        return "by preset"  # TD3 has no such setting.
    if isinstance(value, dict) and any(isinstance(item, dict) for item in value.values()):
        return "by kind"  # The optimizers' options: a page of help cannot list them.
    if value in ({}, ()):
        return "none"
    text = str(value).lower() if isinstance(value, bool) else value if isinstance(value, str) else shown(value)
    return f"{text} {unit}".rstrip()


def settings_of(flags: Any) -> dict[str, Any]:
    """Return the settings of the configuration file with the flags on top."""
    from evolute import config, overlay, toml

    hints = typing.get_type_hints(config.Run)
    given: dict[str, Any] = {}
    for field in dataclasses.fields(config.Run):
        value = getattr(flags, field.name)
        if value is None:
            continue
        hint = hints[field.name]
        if typing.get_origin(hint) is dict:
            value = _pairs(field.name, value, field.metadata["example"])
        elif typing.get_origin(hint) is tuple:
            separate(_flag(field.name), value, field.metadata["example"])
            value = value if typing.get_args(hint)[0] is str else tuple(map(value_of, value))
        elif hint is not str:
            value = value_of(value)
        given[field.name] = value
    return overlay.merge(toml.read(flags.config) if flags.config else {}, given)


def _pairs(name: str, words: Sequence[str], example: str) -> dict[str, Any]:
    """Parse NAME=VALUE words; dots in a name make tables, commas in a value make a list."""
    table: dict[str, Any] = {}
    flag = _flag(name)
    for word in words:
        key, equals, text = word.partition("=")
        if not equals or not key or not text or not all(key.split(".")):
            raise UserError(f"{flag} has {word!r}; it must be NAME=VALUE, such as {example}.")
        if "=" in text:
            raise UserError(f"{flag} has {word!r}; separate pairs of NAME=VALUE by blanks, such as {example}.")
        inner = table
        *parents, last = key.split(".")
        for parent in parents:
            inner = inner.setdefault(parent, {})
            if not isinstance(inner, dict):
                raise UserError(f"{flag} sets {parent!r} both as a value and as a table; give it once.")
        if last in inner:
            raise UserError(f"{flag} names {key!r} twice; give it once, such as {example}.")
        inner[last] = [value_of(part) for part in text.split(",")] if "," in text else value_of(text)
    return table


def separate(flag: str, words: Sequence[str], example: str) -> None:
    """Check that no commas stand between the values of a list; raises UserError where one does."""
    for word in words:
        if "," in word:
            raise UserError(f"{flag} has {word!r}; separate values by blanks, such as {example}.")


def _flag(name: str) -> str:
    """Return an option as the command line spells it, without the value that may follow an equals sign."""
    return "--" + name.partition("=")[0].replace("_", "-").lstrip("-")


def value_of(text: str) -> Any:
    """Return a TOML scalar or a number in Python's looser spelling (.5), or the text itself where it is none."""
    for parse in (lambda text: tomllib.loads(f"value = {text}")["value"], int, float):
        try:
            return parse(text)
        except ValueError:  # TOMLDecodeError is one
            continue
    return text


RunArgument = tyro.conf.Positional[
    Annotated[Path | None, tyro.conf.arg(metavar="RUN", help="Run folder.", help_behavior_hint="(needed)")]
]


def folder_of(given: Path | None) -> Path:
    """Return the run folder that was named; raises UserError where none was."""
    if given is None:
        raise UserError("no run folder is given; name the one that `evolute train` named, such as runs/NAME.")
    return given


def whole_number(flag: str, text: str, least: int) -> int:
    """Return an option's whole number, also where it is written 1e6; raises UserError where it is none or too small."""
    value = value_of(text)
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if type(value) is not int or value < least:
        raise UserError(f"{flag} is {text}; it must be a whole number, at least {least}, such as {max(least, 10)}.")
    return value


def member_of(text: str) -> int | None:
    """Return the number of the member whose policy is meant, None for the best of all; raises UserError where it is neither."""
    if text == "best":
        return None
    number = value_of(text)
    if type(number) is not int or number < 0:
        raise UserError(f"--member is {text}{closest(text, ['best'])}; it must be best, or the number of a member, such as 0.")
    return number


def seconds(flag: str, text: str) -> float:
    """Return an option's number of seconds, 0 for no limit; raises UserError where it is none."""
    value = value_of(text)
    if type(value) not in (int, float) or not 0 <= value <= limits.TIME_LIMIT:
        raise UserError(
            f"{flag} is {text}; it must be a number of seconds not below 0 and at most {limits.TIME_LIMIT}, such as 10."
        )
    return float(value)


# ------------------------------------------------------------------------------------------------------------ parsing


def module_of(command: str) -> Any:
    """Return the module of a command."""
    return importlib.import_module(f"evolute.commands.{command}")


def parse(flags: Any, command: str, words: list[str]) -> Any:
    """Return a command's parsed flags; what tyro would print in a box becomes one sentence, like any other mistake."""
    said, see = io.StringIO(), f"see `evolute {command} --help`."
    _check_names(flags, command, words)
    if shutil.get_terminal_size().columns < NARROWEST:
        # tyro looks for the line breaks of its help for ever.
        os.environ["COLUMNS"] = str(NARROWEST)
    try:
        with contextlib.redirect_stderr(said):
            parsed, unknown = tyro.cli(boxed(flags), args=words, prog=f"evolute {command}", return_unknown_args=True)
    except SystemExit as end:
        if not end.code:
            raise  # --help
        # The box's first block of text, between its title and the first rule below.
        _, *rows = re.sub(r"\x1b\[[0-9;]*m", "", said.getvalue()).splitlines() or [""]
        blocks = itertools.groupby((row.strip("│ ") for row in rows), key=lambda row: bool(row.strip("─-╰╯")))
        text, _, _ = next((" ".join(block) for some, block in blocks if some), "").partition(". ")
        text = text[:1].lower() + text[1:].rstrip(".") or "the options cannot be understood"
        raise UserError(f"{text}; {see}") from None
    if unknown:
        raise UserError(f"unexpected word {unknown[0]!r}; {see}")
    return unboxed(flags, parsed)


def _is_positional(field: dataclasses.Field) -> bool:
    """Return whether a value is given by its place, without an option's name."""
    return tyro.conf.Positional in getattr(field.type, "__metadata__", ())


def _check_names(flags: Any, command: str, words: list[str]) -> None:
    """Check that every option exists and is given once; raises UserError otherwise.

    Before tyro parses: it takes the value of an unknown option for a positional argument.
    """
    known = [_flag(field.name) for field in dataclasses.fields(flags) if not _is_positional(field)]
    named = [_flag(word) if word.startswith("--") else word for word in words if re.match(r"--.|-[A-Za-z]+$", word)]
    for name in named:
        if name in known:
            if named.count(name) > 1:
                raise UserError(f"{name} is given twice; give it once, with all its values.")
        elif (pointer := POINTERS.get(name.lstrip("-"))) is not None:
            # Most pointers name options that only training has.
            other = set(re.findall(r"--[a-z-]+", pointer)) - set(known)
            raise UserError(f"unknown option {name!r}: {'to train, ' if other else ''}{pointer}; see `evolute {command} --help`.")
        elif name not in ("--help", "-h"):
            raise UserError(f"unknown option {name!r}{closest(name, known)}; see `evolute {command} --help`.")
