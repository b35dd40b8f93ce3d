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

RESULTS = Path(__file__).with_suffix(".jsonl")
TASKS = ("HalfCheetah-v4", "Hopper-v4")
STEPS, INTERVAL = 15_000, 2_500


def both(rates, dampings, **more):
    return [{"learning_rate": rate, "damping": damping, **more} for rate in rates for damping in dampings]


# Options by kind. What is not named here is the default of the code that ran it.
CELLS = {
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
        # With a norm constraint as K-FAC's, on one task only: the diagonal says too little of a step's length to bound it.
        *both((0.01, 0.03, 0.1), (0.001, 0.01, 0.1), actor={"clip": 0.01}, critic={"clip": 0.02}),
        *both((0.0001,), (0.01, 0.1, 1.0), clip=float("inf")),
        *both((0.001, 0.01), (0.01, 0.1), clip=float("inf")),
        *both((0.01, 0.05), (1.0,), clip=float("inf")),
    ],
    "kfac_empirical": [*both((0.01,), (0.01, 0.1, 1.0)), *both((0.001,), (0.01,))],
}


def cells():
    for kind, tried in CELLS.items():
        for options, env in itertools.product(tried, TASKS):
            if kind == "diag_ggn" and "critic" in options and env != TASKS[0]:
                continue
            yield {"kind": kind, "env": env, "options": options}


def run_cell(cell):
    import evolute

    run = evolute.Run(
        cell["env"],
        mix={cell["kind"]: 1},
        steps=STEPS,
        interval=INTERVAL,
        learning_starts=2_000,
        actor_layers=(128, 128),
        critic_layers=(128, 128),
        optimizers={cell["kind"]: cell["options"]},
        episodes=5,
        final_episodes=1,
    )
    rows, began = [], time.perf_counter()
    evolute.train(run, observer=lambda progress: rows.extend(progress.rows))
    return {
        **cell,
        "fitness": [row["fitness"] for row in rows],
        "contained": sum(row["contained_statistics"] + row["contained_inverses"] + row["contained_steps"] for row in rows),
        "seconds": time.perf_counter() - began,
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
    return json.dumps([cell["kind"], cell["env"], cell["options"]])


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
    for kind in CELLS:
        tried = {json.dumps(row["options"]): row["options"] for row in rows.values() if row["kind"] == kind}
        print(f"\n| {kind} | " + " | ".join(TASKS) + " | contained events | seconds |\n| --- |" + " --- |" * (len(TASKS) + 2))
        for options in tried.values():
            found = [rows.get(name_of({"kind": kind, "env": env, "options": options})) for env in TASKS]
            scores = ["-" if row is None else f"{score(row):.0f}" for row in found]
            events = sum(row["contained"] for row in found if row)
            seconds = statistics.mean(row["seconds"] for row in found if row)
            print(f"| {', '.join(shown(options))} | " + " | ".join(scores) + f" | {events:.0f} | {seconds:.0f} |")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--table", action="store_true", help="print the tables instead of running")
    parser.add_argument("--kinds", nargs="+", default=list(CELLS), choices=CELLS)
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
