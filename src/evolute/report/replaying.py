"""The schedule of a run's winner: what it was in every interval, back to the start, as a run of one member. Imports no JAX."""

from pathlib import Path
from typing import Any, NamedTuple

from evolute import kinds, limits, toml
from evolute.config import Run
from evolute.errors import UserError
from evolute.presets import ALGORITHMS
from evolute.report import ancestry
from evolute.resolution import OF_ALGORITHMS
from evolute.runs.folder import RunFolder

# What says how a population evolves; a schedule needs none of it.
OF_POPULATIONS = ("truncation", "factors", "frequencies", "perturb", "bounds", "initial")


class Winner(NamedTuple):
    """Where a run's best policy came from."""

    member: int
    interval: int  # that it was found in, from 0
    fitness: float
    steps: int  # of the run's clock, at the end of that interval
    schedule: dict[str, dict[str, Any]]  # of its ancestry, as schedule.py has it
    exploits: int  # on its line


def winner(folder: RunFolder) -> Winner:
    """Return a run's winner and the schedule of its ancestry; raises UserError where the records do not hold it."""
    rows = {(row["interval"] - 1, row["member"]): row for row in folder.metrics()}
    sound = [(row["fitness"], -at, -slot) for (at, slot), row in rows.items() if row["fitness"] is not None]
    if not sound:
        raise UserError(f"no interval of the run in {str(folder.path)!r} has ended with a fitness yet; wait for one.")
    # The first of the highest fitness, as the run itself keeps it.
    fitness, at, slot = max(sound)
    exploits = [event for event in folder.events() if event["event"] == "exploit" and type(event.get("interval")) is int]
    missed = {(event["interval"], event["member"]) for event in folder.events() if event["event"] == "absent"}
    parents = ancestry.copies((event["interval"] - 1, event["member"], event["parent"]) for event in exploits)
    parts = ancestry.line(-slot, -at, parents)
    schedule: dict[str, dict[str, Any]] = {}
    for part in parts:
        for interval in range(part.first, part.last + 1):
            row = rows.get((interval, part.slot))
            if row is None and (interval + 1, part.slot) in missed:
                raise UserError(f"member {part.slot} missed interval {interval + 1}, which no schedule holds; name another run.")
            if row is None:
                raise UserError(
                    f"the metrics of member {part.slot} in interval {interval + 1} are missing in {str(folder.path)!r}, so its "
                    "schedule is not known; restore metrics.jsonl from a copy."
                )
            # A member becomes a copy at the beginning of a part, and is what it is until then.
            if interval == part.first:
                table = {name: value for name, value in row["hyperparameters"].items() if value}
                schedule[str(interval)] = {"kind": row["kind"], **table}
            elif row["hyperparameters"] != rows[interval - 1, part.slot]["hyperparameters"]:
                raise UserError(
                    f"member {part.slot} changed its hyperparameters in interval {interval + 1} without copying anybody (as with "
                    "settings that were changed before a resume), which no schedule holds."
                )
    return Winner(-slot, -at, fitness, rows[-at, -slot]["steps"], schedule, len(parts) - 1)


def replay_of(path: Path) -> tuple[Run, Winner]:
    """Return a run of one member that goes through the ancestry of a run's winner, and the winner."""
    folder = RunFolder.open(path)
    run = folder.run()
    if run.schedule:
        raise UserError(f"the run in {str(path)!r} is a replay itself; name the run that it replays.")
    found = winner(folder)
    if found.steps <= run.learning_starts:
        raise UserError(
            f"the best policy of {str(path)!r} was found after {found.steps:,} steps, before anything was learnt, so there is "
            "nothing to replay; train the run for longer."
        )
    if strange := {entry["kind"] for entry in found.schedule.values()} - set(run.mix):
        raise UserError(f"the metrics in {str(path)!r} name the kind {min(strange)!r}, which is not in the run's mix.")
    used = list(dict.fromkeys(entry["kind"] for entry in found.schedule.values()))
    algorithms = {kinds.of(kind).algorithm: kind for kind in used}
    had = {name for algorithm in algorithms for name in ALGORITHMS[algorithm]}
    common = {
        name: value
        for name, value in vars(run).items()
        if value is not None and name not in OF_POPULATIONS and (name not in OF_ALGORITHMS or name in had)
    }
    optimizers: dict[str, dict[str, Any]] = {algorithm: {} for algorithm in algorithms}
    for kind in used:
        for role, (name, table) in run.optimizers_of(kind).items():
            optimizers[kinds.of(kind).algorithm].setdefault(name, {})[role] = table
    # What the run says of each algorithm, whichever of them came first in its mix.
    own = {algorithm: {**run.settings_of(kind), "optimizers": optimizers[algorithm]} for algorithm, kind in algorithms.items()}
    common |= {
        "mix": dict.fromkeys(used, 1),
        "strategy": "replay",
        "schedule": found.schedule,
        "steps": found.steps,
        "algorithms": own,
        "optimizers": {name: table for name, table in run.optimizers.items() if any(name in has for has in optimizers.values())},
        "steps_per_interval": {kind: steps for kind, steps in run.steps_per_interval.items() if kind in used},
    }
    made = Run(**common)
    if len(toml.to_toml(made)) > limits.CONFIG_BYTES:
        raise UserError(
            f"the winner of {str(path)!r} changed {found.exploits:,} times, which is more than the {limits.CONFIG_BYTES:,} bytes "
            "of a configuration can hold; replay a shorter run."
        )
    return made, found
