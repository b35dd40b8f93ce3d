"""What runs will take of this machine's time, from a short measurement of each kind of member that they have."""

import dataclasses
import math
import time
from collections.abc import Callable, Mapping, Sequence
from multiprocessing.connection import Connection
from typing import Any, NamedTuple

from evolute import children
from evolute.config import Run
from evolute.engine import train
from evolute.environments.gym import Environment
from evolute.environments.making import making_of
from evolute.errors import RunStopped, UserError
from evolute.experiments.grid import Cell
from evolute.hyperparameters import Hyperparameters
from evolute.state import Progress
from evolute.training import evaluate, placement
from evolute.training.processes import shares, told_of_jax
from evolute.training.serving import settle, take_cores

# Updates between two measurements: K-FAC refreshes its inverses five times in them. As many come before, while programs compile.
UPDATES = 400
# Steps of an evaluation that is measured, and of its episodes.
STEPS, EPISODE = 1_000, 20
# Settings besides an algorithm's own that decide what a member's step costs.
NAMES = ("env", "env_kwargs", "wrap", "buffer_size", "n_step", "precision", "normalize_observations", "preset")


class Cost(NamedTuple):
    """Seconds of a core."""

    step: float  # of a member that learns: acting, its environment, one update
    played: float  # of a step of an evaluation


def brief(run: Run, kind: str) -> Run:
    """Return a short run whose members, one as a rule, cost in a step what one of a kind costs in a run.

    Members of one batch share the cost of a call, so there are as many of them as in the run.
    """
    settings: dict[str, Any] = {name: getattr(run, name) for name in NAMES} | run.settings_of(kind)
    tables: dict[str, dict[str, Any]] = {}
    for role, (name, table) in run.optimizers_of(kind).items():
        tables.setdefault(name, {})[role] = table
    starts = max(run.settings_of(kind)["batch_size"], 100)
    settings |= {"learning_starts": starts, "interval": starts + UPDATES, "steps": 2 * (starts + UPDATES)}
    settings |= {"max_episode_steps": EPISODE, "episodes": 1, "final_episodes": 1}
    together = run.mix[kind] if run.placement == "vmap" else 1
    return Run(**settings, mix={kind: together}, placement=run.placement, optimizers=tables)


def price(short: Run) -> str:
    """Return what is the same for runs from `brief` whose members cost the same in a step.

    Hyperparameters except for the batch size are data of a compiled program, so they are left out: a grid over dampings is
    measured once.
    """
    whole = dataclasses.asdict(short)
    for name in {*Hyperparameters._fields} - {"batch_size"}:
        whole.pop(name, None)
    for table in (table for roles in whole["optimizers"].values() for table in roles.values()):
        for name in ("learning_rate", "damping"):
            table.pop(name, None)
    return repr(whole)


def measure(run: Run) -> Cost:
    """Train members of one kind for a moment, and play with the best."""
    ends: list[tuple[int, float]] = []

    def observe(progress: Progress) -> None:
        if progress.rows:
            ends.append((progress.steps, time.process_time()))

    policy = train(run, observer=observe, note=lambda sentence: None).policy
    (first, before), (last, after) = ends
    environment = Environment(run.env, run.time_limit, making_of(run))
    began = time.process_time()
    evaluate.by_steps(environment, policy.unit_action, STEPS, 0)
    return Cost((after - before) / (last - first) / len(run.kinds), (time.process_time() - began) / STEPS)


def measure_each(cells: Sequence[Cell], tell: Callable[[str], None]) -> dict[str, Cost]:
    """Return what each kind of member of some cells costs, by its `price`; each is measured in its own process."""
    runs = {price(one): one for cell in cells for kind in cell.run.mix for one in [brief(cell.run, kind)]}
    settings = told_of_jax()
    found = {}
    for number, (name, run) in enumerate(runs.items(), 1):
        tell(f"measuring {next(iter(run.mix))} on {run.env} ({number} of {len(runs)})")
        child = children.Child(serve, (run, shares(placement.usable_cores())[0], settings), "evolute-cost", childless=False)
        try:
            kind, value = child.pipe.recv()
        except (EOFError, OSError):
            kind, value = "failed", f"its process {child.ending()}."
        finally:
            child.end()
        if kind == "failed":
            raise RunStopped(f"{next(iter(run.mix))} on {run.env} cannot be measured: {value}")
        found[name] = value
    return found


def serve(pipe: Connection, run: Run, cores: Sequence[int], settings: Mapping[str, Any]) -> None:
    """Measure for the process at the other end of the pipe."""
    settle(settings)
    take_cores(len(run.kinds), cores)
    try:
        pipe.send(("done", measure(run)))
    except (UserError, RunStopped) as error:
        pipe.send(("failed", str(error)))


def plan(cells: Sequence[Cell], tell: Callable[[str], None]) -> list[float]:
    """Return what each cell will take of a core in seconds, from a measurement now.

    Args:
        cells: of runs that need not be there yet.
        tell: is told what is measured.

    Raises:
        RunStopped: a kind of member cannot be trained.
    """
    costs, longest = measure_each(cells, tell), {}
    for cell in cells:
        if cell.env not in longest:
            environment = Environment(cell.env, cell.run.time_limit, making_of(cell.run))
            longest[cell.env] = environment.facts.longest_episode or evaluate.LONGEST_EPISODE
            environment.close()
    return [seconds(cell, costs, longest[cell.env]) for cell in cells]


def seconds(cell: Cell, costs: Mapping[str, Cost], longest_episode: int) -> float:
    """Return what a cell takes of a core: training, an evaluation of every member at each interval's end, and those at its end.

    Args:
        cell: whose run it is.
        costs: from `measure_each`.
        longest_episode: steps that an episode may have; shorter ones cost less.
    """
    run, total = cell.run, 0.0
    longest = run.max_episode_steps or longest_episode
    played = math.ceil(run.steps / run.interval) * run.episodes * longest
    for kind, count in run.mix.items():
        cost = costs[price(brief(run, kind))]
        share = run.steps_per_interval.get(kind, run.interval) / run.interval
        total += count * (share * run.steps * cost.step + played * cost.played)
    last = costs[price(brief(run, run.kinds[0]))].played
    return total + (run.final_episodes * longest + cell.evaluation_steps) * last
