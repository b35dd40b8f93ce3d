"""Settings: each is declared once, with type, default, help, unit, rule and example; one function completes and checks a record.

A record is a frozen dataclass whose fields are all made by `setting`: a run, or the options of an optimizer.
"""

import dataclasses
import math
import typing
from collections.abc import Callable, Collection, Mapping
from typing import Any, NamedTuple, TypeVar

import numpy as np

from evolute import limits
from evolute.errors import UserError, closest

T = TypeVar("T")


class Rule(NamedTuple):
    """What must hold for a value of the right type, and the same in words, which follow "it must be"."""

    holds: Callable[[Any], bool]
    # "{of}" stands for the setting's unit, such as " of seconds".
    words: str
    # Where only some texts are allowed.
    choices: tuple[str, ...] = ()


class Setting(NamedTuple):
    """All that a setting declares besides its type and its default, which are its field's."""

    help: str
    rule: Rule
    # As the command line takes it.
    example: str
    unit: str = ""
    # The one network, "actor" or "critic", for which an optimizer's option means something; "" for both.
    only: str = ""
    # Help shows settings in groups: the name of the group that begins with this one, "" where it goes on.
    section: str = ""
    # Whether it is one of the few that help shows first, whatever its section.
    common: bool = False

    @classmethod
    def of(cls, field: dataclasses.Field) -> "Setting":
        """Return what a record's field declares."""
        return cls(**field.metadata)


def setting(
    help: str,
    rule: Rule,
    example: str,
    unit: str = "",
    only: str = "",
    section: str = "",
    common: bool = False,
    default: Any = dataclasses.MISSING,
) -> Any:  # what a dataclass takes for a field of any type
    """Declare a field of a record; one without a default must be given."""
    metadata = Setting(help, rule, example, unit, only, section, common)._asdict()
    if isinstance(default, dict):
        return dataclasses.field(default_factory=lambda: dict(default), metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


@typing.dataclass_transform(frozen_default=True, field_specifiers=(setting,))
def declared(cls: type[T]) -> type[T]:
    """Make a class a record; raises TypeError where a field is not declared by `setting`."""
    made = dataclasses.dataclass(frozen=True)(cls)
    for field in dataclasses.fields(made):  # type: ignore[arg-type]
        if set(field.metadata) != set(Setting._fields):
            raise TypeError(f"{cls.__name__}.{field.name} has no rule; declare it by evolute.options.setting(...).")
    return made


# -------------------------------------------------------------------------------------------------------------- rules


def positive(most: float = math.inf) -> Rule:
    """Above zero and finite, and at most `most`."""
    if most == math.inf:
        return Rule(lambda x: 0 < x < math.inf, "a finite positive number{of}")
    return Rule(lambda x: 0 < x <= most, f"a positive number{{of}}, at most {short(most)}")


def not_negative(most: float = math.inf) -> Rule:
    """Zero or above and finite, and at most `most`."""
    if most == math.inf:
        return Rule(lambda x: 0 <= x < math.inf, "a finite number{of} not below 0")
    return Rule(lambda x: 0 <= x <= most, f"a number{{of}} not below 0 and at most {short(most)}")


def choice(*names: str) -> Rule:
    """One of some texts."""
    quoted = [repr(name) for name in names]
    return Rule(lambda x: type(x) is str and x in names, f"{', '.join(quoted[:-1])} or {quoted[-1]}", names)


FINITE = Rule(math.isfinite, "a finite number")
SWITCH = Rule(lambda x: type(x) is bool, "true or false")
FRACTION = Rule(lambda x: 0 <= x <= 1, "between 0 and 1")
# The rest of something that decays in every step.
DECAY = Rule(lambda x: 0 <= x < 1, "at least 0 and below 1")
LIMIT = Rule(lambda x: x > 0, "a positive number, or inf for no limit")


def short(number: float) -> str:
    """Return a limit as a sentence shows it: 1e15."""
    digits = str(int(number))
    return f"1e{len(digits) - 1}" if len(digits) > 5 and digits.strip("0") == "1" else digits


# ------------------------------------------------------------------------------------------------- completing, checking


def completed(record: type, given: Mapping[str, Any], under: str = "", without: Collection[str] = ()) -> dict[str, Any]:
    """Return all settings of a record by name: what is given, of the right type, and the defaults of what is not.

    Args:
        record: whose fields are declared by `setting`.
        given: settings by name; names that are no field are passed over.
        under: what an error puts before a setting's name, such as "optimizers.kfac.actor.".
        without: names of settings to leave out.

    Raises:
        UserError: a value is missing, of another type, or breaks its rule.
    """
    hints, values = typing.get_type_hints(record), {}
    for field in dataclasses.fields(record):
        if field.name in without:
            continue
        default = field.default if field.default_factory is dataclasses.MISSING else field.default_factory()
        value = given.get(field.name, default)
        values[field.name] = checked(under + field.name, value, hints[field.name], Setting.of(field))
    return values


def checked(name: str, value: Any, hint: Any, setting: Setting) -> Any:
    """Return a value of type `hint` that keeps its rule; raises UserError, which calls it `name`, where there is none."""
    value = _typed(name, plain(name, value), hint, setting)
    if not setting.rule.holds(value):
        words = setting.rule.words.format(of=f" of {setting.unit}" if setting.unit else "")
        near = closest(str(value), setting.rule.choices)
        raise UserError(f"{name} is {shown(value)}{near}; it must be {words}, such as {setting.example}.")
    return value


def _typed(name: str, value: Any, hint: Any, setting: Setting) -> Any:
    """Return the value as the type, or raise UserError. TOML has lists for tuples, and 1 where 1.0 is meant."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is tuple and isinstance(value, list | tuple):
        return tuple(_typed(name, item, arguments[0], setting) for item in value)
    if origin is dict and isinstance(value, dict):
        return {key: _typed(f"{name}.{key}", item, arguments[1], setting) for key, item in value.items()}
    if hint is float and type(value) is int:
        return float(value)
    if hint is int and isinstance(value, float) and value.is_integer():
        return int(value)
    # The rule of a text says what is allowed, whatever was given.
    if hint in (Any, str) or type(value) is hint:
        return value
    wanted = {int: "a whole number", float: "a number", bool: "true or false"}.get(
        hint, "a list" if origin is tuple else "a table of names and values"
    )
    raise UserError(f"{name} is {shown(value)}; it must be {wanted}, such as {setting.example}.")


def plain(name: str, value: Any, depth: int = limits.DEPTH) -> Any:
    """Return a value without NumPy's types, and numbers and texts of classes of their own as Python's, as deep as it goes.

    Raises:
        UserError: it nests too deeply, or a number or a text is too long.
    """
    if isinstance(value, np.ndarray) and value.dtype.kind in "biufU":
        value = value.tolist()
    if isinstance(value, Mapping | list | tuple):
        if depth == 0:
            raise UserError(f"{name.partition('.')[0]} nests tables or lists more than {limits.DEPTH} deep; write it flat.")
        if isinstance(value, Mapping):
            return {str(plain(name, key, 0)): plain(f"{name}.{key}", item, depth - 1) for key, item in value.items()}
        items = [plain(f"{name}.{n}", item, depth - 1) for n, item in enumerate(value)]
        return tuple(items) if isinstance(value, tuple) else items
    if isinstance(value, bool | np.bool_):
        return bool(value)
    if isinstance(value, float | np.floating):
        return float(value)
    if isinstance(value, int | np.integer):
        value = int(value)
        if not -(2**63) <= value < 2**63:
            raise UserError(
                f"{name} is a whole number of {value.bit_length()} bits; it must fit into 64, so write a smaller one."
            )
    if isinstance(value, str):
        value = str.__str__(value)
        if len(value) > limits.NAME:
            raise UserError(f"{name} has {len(value)} characters ({value!r}); it must have at most {limits.NAME}, so shorten it.")
    return value


def shown(value: Any) -> str:
    """Return a value as a sentence names it: settings of several parts in the command line's spelling."""
    if isinstance(value, tuple | dict) and not value:
        return "empty"
    if isinstance(value, tuple):
        return " ".join(map(str, value))
    if isinstance(value, dict) and not any(isinstance(item, dict) for item in value.values()):
        parts = {key: item if isinstance(item, list | tuple) else (item,) for key, item in value.items()}
        return " ".join(f"{key}={','.join(map(str, items))}" for key, items in parts.items())
    return repr(value)
