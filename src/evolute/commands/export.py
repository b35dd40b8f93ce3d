"""evolute export: take a policy of a run away, in the form of another library."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from evolute.commands.flags import AllowImportFlag, MemberFlag, RunArgument
from evolute.commands.policies import chosen, environment_of, making_for
from evolute.errors import UserError, closest, printable
from evolute.export.targets import EXPORTS, TARGETS, Job

# The Hub's names of licences.
LICENSE = re.compile(r"[a-z0-9][a-z0-9.+-]{0,99}")


@dataclass(frozen=True)
class Flags:
    """Write a policy of a run for another library, with the scaling of observations and of actions inside."""

    run: RunArgument = None
    to: Annotated[str | None, tyro.conf.arg(metavar=f"{{{','.join(TARGETS)}}}", help_behavior_hint="(needed)")] = None
    """What to write: a model, a zip of Stable-Baselines3, a policy in NumPy, weights, a model card, or a data set of replay."""
    member: MemberFlag = "best"
    out: Annotated[Path | None, tyro.conf.arg(metavar="PATH", help_behavior_hint=f"(default: in RUN/{EXPORTS})")] = None
    """File or folder to write; it must not be there yet."""
    license: Annotated[str, tyro.conf.arg(metavar="TEXT")] = "apache-2.0"
    """Licence of your policy that the model card names, by the Hub's names."""
    allow_import: AllowImportFlag = None


def run(flags: Flags) -> None:
    """Write it, and say what it is and how near its actions are."""
    from evolute.export import writing

    if flags.to is None or flags.to not in TARGETS:
        given = "is not given" if flags.to is None else f"is {flags.to!r}{closest(flags.to, TARGETS)}"
        raise UserError(f"--to {given}; choose from {', '.join(TARGETS)}.")
    if not LICENSE.fullmatch(flags.license):
        raise UserError(f"--license is {flags.license!r}; it must be a name of the Hugging Face Hub, such as apache-2.0 or mit.")
    target = TARGETS[flags.to]
    writing.require(f"--to {flags.to}", target.extra, target.modules)
    folder, source = chosen(flags.run, flags.member)
    environment = None
    if target.needs_environment:
        environment = environment_of(source.policy, making_for(folder, source.policy, flags.allow_import or ()))
    out = flags.out or folder.path / EXPORTS / f"{source.name}{target.suffix}"
    with writing.fresh(out) as partial:
        written = target.write(Job(source, folder, environment, flags.license), partial)
    for note in written.notes:
        print(printable(f"note: {note}."))
    which = "the best policy, of" if source.name == "best" else "the latest policy of"
    print(printable(f"{out}: {which} member {source.member} ({source.kind}); {written.said}"))
