"""The grid behind the second-order defaults: one small agent per cell, on two tasks.

python results/optimizer_grid.py             runs what is missing in optimizer_grid.jsonl, one process per core
python results/optimizer_grid.py --table     prints the tables of optimizer_grid.md
"""

import argparse
import itertools
import json
import multiprocessing
import os
import statistics
import time
from pathlib import Path
from typing import NamedTuple

RESULTS = Path(__file__).with_suffix(".jsonl")
TASKS = ("HalfCheetah-v4", "Hopper-v4")
KINDS = ("adam", "kfac", "kfac_empirical", "diag_ggn")
INF = float("inf")


class Round(NamedTuple):
    """One round of the grid: its length, its seeds and, by kind, the options tried."""

    steps: int
    interval: int
    seeds: tuple[int, ...]
    tried: dict


def both(rates, dampings, **more):
    return [{"learning_rate": rate, "damping": damping, **more} for rate in rates for damping in dampings]


def clipped(actor, critic, **more):
    return {**more, "actor": {"clip": actor}, "critic": {"clip": critic}}


# What an option does not name is the default of the code that ran it: in the first round of `kfac` a clip of 0.01 and 0.02,
# statistics every 2 updates, inverses every 20. The second round names everything.
ROUNDS = {
    "first": Round(
        15_000,
        2_500,
        (0,),
        {
            "adam": [{"learning_rate": 1e-3}],
            "kfac": [
                *both((0.03, 0.1, 0.3), (0.01, 0.1, 1.0)),
                # The critics want less damping than the actor, whose tanh has little curvature left where it saturates.
                {"learning_rate": 0.1, "critic": {"damping": 0.01}, "actor": {"damping": 0.1}},
                {"learning_rate": 0.1, "critic": {"damping": 0.01}, "actor": {"damping": 1.0}},
                {"learning_rate": 0.1, "critic": {"damping": 0.01}, "actor": {"damping": 1.0, "learning_rate": 0.03}},
                {"learning_rate": 0.1, "critic": {"damping": 0.1}, "actor": {"damping": 1.0}},
            ],
            "diag_ggn": [
                # With a norm constraint as K-FAC's, on one task only: the diagonal says too little of a step's length.
                *both((0.01, 0.03, 0.1), (0.001, 0.01, 0.1), **clipped(0.01, 0.02)),
                *both((0.0001,), (0.01, 0.1, 1.0), clip=INF),
                *both((0.001, 0.01), (0.01, 0.1), clip=INF),
                *both((0.01, 0.05), (1.0,), clip=INF),
            ],
            "kfac_empirical": [*both((0.01,), (0.01, 0.1, 1.0)), *both((0.001,), (0.01,))],
        },
    ),
    "second": Round(
        40_000,
        5_000,
        (0, 1),
        {
            "adam": [{"learning_rate": 1e-3}],
            "kfac": [
                clipped(0.01, 0.02, learning_rate=0.1, damping=0.1, statistics_every=2, inverse_every=20),
                clipped(0.01, 0.02, learning_rate=0.3, damping=0.1, statistics_every=2, inverse_every=20),
                clipped(0.01, 0.02, learning_rate=0.3, damping=0.1, statistics_every=1, inverse_every=10),
                clipped(0.03, 0.06, learning_rate=0.3, damping=0.1, statistics_every=2, inverse_every=20),
                clipped(0.03, 0.06, learning_rate=0.3, damping=0.1, statistics_every=1, inverse_every=10),
                clipped(0.01, 0.02, learning_rate=0.3, damping=1.0, statistics_every=2, inverse_every=20),
                clipped(0.01, 0.02, learning_rate=0.1, damping=0.1, statistics_every=1, inverse_every=10),
            ],
            "kfac_empirical": [
                clipped(0.01, 0.02, learning_rate=0.01, damping=0.1, statistics_every=2, inverse_every=20),
                clipped(0.01, 0.02, learning_rate=0.03, damping=0.1, statistics_every=2, inverse_every=20),
                clipped(0.03, 0.06, learning_rate=0.03, damping=0.1, statistics_every=2, inverse_every=20),
                clipped(INF, INF, learning_rate=0.01, damping=0.1, statistics_every=2, inverse_every=20),
            ],
            "diag_ggn": [
                *both((0.001, 0.003), (0.1,), clip=INF),
                *both((0.003, 0.01), (1.0,), clip=INF),
                *both((0.001,), (0.01,), clip=INF, average=0.95),
                *both((0.003,), (0.1,), clip=INF, average=0.95),
            ],
        },
    ),
}


def cells():
    for name, round_ in ROUNDS.items():
        for seed in round_.seeds:
            deepest = max(len(tried) for tried in round_.tried.values())
            # Kinds take turns, so that an unfinished round says something of each.
            for n, kind in itertools.product(range(deepest), round_.tried):
                for env in TASKS if n < len(round_.tried[kind]) else ():
                    options = round_.tried[kind][n]
                    if name == "first" and kind == "diag_ggn" and "critic" in options and env != TASKS[0]:
                        continue
                    yield {"round": name, "kind": kind, "env": env, "seed": seed, "options": options}


def run_cell(cell):
    import evolute

    run = evolute.Run(
        cell["env"],
        mix={cell["kind"]: 1},
        steps=ROUNDS[cell["round"]].steps,
        interval=ROUNDS[cell["round"]].interval,
        seed=cell["seed"],
        learning_starts=2_000,
        actor_layers=(128, 128),
        critic_layers=(128, 128),
        optimizers={cell["kind"]: cell["options"]},
        episodes=5,
        final_episodes=1,
    )
    rows, began = [], time.process_time()
    evolute.train(run, observer=lambda progress: rows.extend(progress.rows))
    return {
        **cell,
        "fitness": [row["fitness"] for row in rows],
        "contained": sum(row["contained_statistics"] + row["contained_inverses"] + row["contained_steps"] for row in rows),
        "seconds": time.process_time() - began,
    }


def pin(next_core):
    with next_core.get_lock():
        core = next_core.value % os.cpu_count()
        next_core.value += 1
    # One core per process: agents side by side use the machine better than threads inside one agent.
    os.sched_setaffinity(0, {core})


def done():
    return [json.loads(line) for line in RESULTS.read_text().splitlines()] if RESULTS.exists() else []


def name_of(cell):
    return json.dumps([cell["round"], cell["kind"], cell["env"], cell["seed"], cell["options"]])


def score(row):
    """Mean fitness of the second half of training: steadier than the last evaluation alone."""
    return statistics.mean(row["fitness"][len(row["fitness"]) // 2 :])


def shown(options, prefix=""):
    parts = []
    for name, value in options.items():
        parts += shown(value, f"{name} ") if isinstance(value, dict) else [f"{prefix}{name.replace('_', ' ')} {value:g}"]
    return parts


def table():
    rows = {name_of(row): row for row in done()}
    for round_name, round_ in ROUNDS.items():
        for kind, tried in round_.tried.items():
            print(f"\n| {round_name} round, {kind} | " + " | ".join(TASKS) + " | contained events | CPU seconds |")
            print("| --- |" + " --- |" * (len(TASKS) + 2))
            for options in tried:
                cell = {"round": round_name, "kind": kind, "options": options}
                names = [[name_of({**cell, "env": env, "seed": seed}) for seed in round_.seeds] for env in TASKS]
                found = [[rows[name] for name in of_task if name in rows] for of_task in names]
                scores = [", ".join(f"{score(row):.0f}" for row in of_task) or "-" for of_task in found]
                ran = [row for of_task in found for row in of_task]
                if ran:
                    events, seconds = sum(row["contained"] for row in ran), statistics.mean(row["seconds"] for row in ran)
                    print(f"| {', '.join(shown(options))} | " + " | ".join(scores) + f" | {events:.0f} | {seconds:.0f} |")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--table", action="store_true", help="print the tables instead of running")
    parser.add_argument("--kinds", nargs="+", default=KINDS, choices=KINDS)
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="processes side by side")
    arguments = parser.parse_args()
    if arguments.table:
        return table()
    finished = {name_of(row) for row in done()}
    missing = [cell for cell in cells() if name_of(cell) not in finished and cell["kind"] in arguments.kinds]
    context = multiprocessing.get_context("spawn")
    with context.Pool(arguments.jobs, pin, (context.Value("i", 0),)) as pool, RESULTS.open("a") as file:
        for row in pool.imap_unordered(run_cell, missing):
            file.write(json.dumps(row) + "\n")
            file.flush()
            print(name_of(row), f"{score(row):.0f}, {row['seconds']:.0f} s", flush=True)


if __name__ == "__main__":
    main()
