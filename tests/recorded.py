"""Run folders of any size, written by a run's own writers and evolved by its own strategy; fitness is drawn, not trained."""

import contextlib
from pathlib import Path
from types import SimpleNamespace

import numpy as np

from evolute import evolution
from evolute.config import Run
from evolute.evolution.base import Standing, Streams
from evolute.runs import columns, rows
from evolute.runs.folder import RunFolder
from evolute.state import PHASES

TASK = "InvertedPendulum-v4"
# How fast kinds improve here, and to what.
SPEED = {"adam": (0.05, 3000), "kfac": (0.08, 3400), "diag_ggn": (0.03, 1500), "sac:adam": (0.06, 4000), "sac:kfac": (0.07, 4300)}
ZERO = {"contained": 0.0, "critic": 0.3, "actor": 0.1}


def record(path: Path, run: Run, ended: bool = True, upto: int | None = None, trouble: bool = True) -> Path:
    """Write a run folder with as many intervals as the run has, or the first `upto`."""
    rng, strategy = np.random.default_rng(run.seed), evolution.build(run)
    memory, parents = strategy.init(), {}
    hypers = [run.initial_hyperparameters(kind) for kind in run.kinds]
    skill = [rng.uniform(0, 0.05) for _ in run.kinds]
    count = -(-run.steps // run.interval)
    with RunFolder.create(path, run) as folder:
        for interval in range(1, (upto or count) + 1):
            clock = SimpleNamespace(run=run, interval=interval, steps_done=min(interval * run.interval, run.steps))
            metrics, standings, events = [], [], []
            for slot, kind in enumerate(run.kinds):
                speed, top = SPEED.get(kind, (0.05, 2000))
                luck = np.exp(-abs(np.log(hypers[slot].critic_learning_rate / hypers[0].critic_learning_rate)) / 3)
                skill[slot] += speed * luck * (1 - skill[slot]) * rng.uniform(0.2, 1.5)
                fitness = top * skill[slot] - 300 + rng.normal() * 60
                sick = trouble and rng.random() < 0.01
                row = dict.fromkeys((column.name for column in columns.COLUMNS), 0.5)
                row |= {"interval": interval, "steps": clock.steps_done, "member": slot, "kind": kind}
                row |= {"environment_steps": clock.steps_done, "gradient_steps": clock.steps_done, "environment_faults": 0}
                row |= {"fitness": float("nan") if sick else fitness, "fitness_std": abs(rng.normal() * 50)}
                row |= {name: 0.0 for name in row if name.startswith("contained")}
                row |= {"actor_norms": [4.5, 4.6, 1.4], "critic_norms": [4.6, 4.6, 0.6], "quarantined": None}
                row |= {"hyperparameters": hypers[slot]._asdict()}
                if trouble and "kfac" in kind and rng.random() < 0.1:
                    row["contained_inverses"] = float(rng.integers(1, 9))
                if trouble and rng.random() < 0.02:
                    row["environment_faults"] = 1
                    message = "the simulation became unstable"
                    common = {"interval": interval, "steps": clock.steps_done, "member": slot}
                    events.append(
                        {"event": "environment_fault", **common, "during": "training", "call": "step", "message": message}
                    )
                if sick:
                    row["quarantined"] = "a parameter is not finite"
                    common = {"interval": interval, "steps": clock.steps_done, "member": slot, "member_kind": kind}
                    events.append({"event": "quarantine", **common, "reason": row["quarantined"]})
                standings.append(Standing(slot, kind, row["fitness"], hypers[slot]))
                metrics.append(row)
            if interval < count:
                streams = Streams(
                    np.random.default_rng([run.seed, interval]), [np.random.default_rng([s, interval]) for s in range(99)]
                )
                memory, exploits = strategy.evolve(memory, standings, streams)
                for exploit in exploits:
                    events.append(rows.event_row(clock, exploit))
                    skill[exploit.child.slot] = skill[exploit.parent.slot] * rng.uniform(0.85, 1)
                    hypers[exploit.child.slot] = exploit.hyperparameters
                    parents[exploit.child.slot] = exploit.parent.slot
            folder.append_events(events)
            seconds = dict(zip(PHASES, [3 + rng.random(), 8 + 2 * rng.random(), 1.5, 0.1, 0.05, 0.4], strict=True))
            folder.append_metrics([{**row, "seconds": seconds} for row in metrics])
        if ended:
            order = sorted(metrics, key=lambda row: -row["fitness"] if np.isfinite(row["fitness"]) else np.inf)
            keys = ("member", "kind", "fitness", "environment_steps", "gradient_steps", "hyperparameters")
            board = [
                {"rank": rank, **{key: row[key] for key in keys}, "parent": parents.get(row["member"])}
                for rank, row in enumerate(order, start=1)
            ]
            best = {"return_mean": board[0]["fitness"] + 20.0, "return_std": 40.0, "episodes": 10, "member": board[0]["member"]}
            folder.write_result({"best": best, "leaderboard": board, "wall_seconds": 1234.5})
    return path


def population(seed: int = 0, intervals: int = 100, mix: dict[str, int] | None = None, **more) -> Run:
    """Return a run of eight members and a hundred intervals."""
    mixed = mix or {"adam": 3, "kfac": 2, "sac:adam": 2, "sac:kfac": 1}
    return Run(TASK, mix=mixed, steps=intervals * 1_000, interval=1_000, seed=seed, **more)


if __name__ == "__main__":
    import sys

    with contextlib.suppress(IndexError):
        record(Path(sys.argv[1]), population(int(sys.argv[2])), upto=int(sys.argv[3]) if len(sys.argv) > 3 else None)
