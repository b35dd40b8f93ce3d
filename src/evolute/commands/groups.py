"""Groups of options: which a setting belongs to, and how a command's help shows each group in a box of its own."""

import dataclasses
from typing import Annotated, Any

import tyro

from evolute.options import Setting

MOST_USED = "most used"


def group_of_each(record: type) -> dict[str, str]:
    """Return the group of each setting of a record, by name: the most used ones together, every other one in its section.

    A setting before the first section has none (""): its option stands beside --help.
    """
    groups, section = {}, ""
    for field in dataclasses.fields(record):
        own = Setting.of(field)
        section = own.section or section
        groups[field.name] = MOST_USED if own.common else section
    return groups


def in_group(name: str, default: Any = None) -> Any:
    """Return an option's field of a record that `boxed` takes."""
    return dataclasses.field(default=default, metadata={"group": name})


def boxed(flags: Any) -> Any:
    """Return the record that tyro is given: the options of each group in a record of their own, because tyro boxes by record."""
    groups: dict[str, list[tuple[str, Any, Any]]] = {}
    for field in dataclasses.fields(flags):
        groups.setdefault(field.metadata.get("group", ""), []).append((field.name, field.type, _fresh(field)))
    if not any(groups):
        return flags
    fields = groups.pop("", [])
    for number, (name, own) in enumerate(groups.items()):
        box = dataclasses.make_dataclass("Box", own, frozen=True)
        box.__doc__ = ""
        kind = Annotated[tyro.conf.OmitArgPrefixes[box], tyro.conf.arg(name=name)]
        fields.append((f"box_{number}", kind, dataclasses.field(default_factory=box)))
    made = dataclasses.make_dataclass(flags.__name__, fields, frozen=True)
    made.__doc__ = flags.__doc__
    return made


def unboxed(flags: Any, parsed: Any) -> Any:
    """Return the record `flags` with the options that tyro parsed into `boxed(flags)`."""
    values: dict[str, Any] = {}
    for name, value in vars(parsed).items():
        values |= vars(value) if name.startswith("box_") else {name: value}
    return flags(**values)


def _fresh(field: dataclasses.Field) -> Any:
    # A Field belongs to one class.
    return dataclasses.field(default=field.default)
