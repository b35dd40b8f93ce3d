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
# (learning rates, dampings) by kind; dampings are tried for both networks alike.
CELLS = {
    "kfac": ((0.03, 0.1, 0.3), (0.01, 0.1, 1.0)),
    "diag_ggn": ((0.01, 0.03, 0.1), (0.001, 0.01, 0.1)),
    "kfac_empirical": ((0.003, 0.01), (0.01, 0.1, 1.0)),
    "adam": ((3e-4, 1e-3, 3e-3), (None,)),
}


def cells():
    for kind, (rates, dampings) in CELLS.items():
        for env, rate, damping in itertools.product(TASKS, rates, dampings):
            yield {"kind": kind, "env": env, "options": {"learning_rate": rate} | ({"damping": damping} if damping else {})}
    for env, (statistics_every, inverse_every) in itertools.product(TASKS, ((1, 10), (5, 50))):
        yield {
            "kind": "kfac",
            "env": env,
            "options": {"statistics_every": statistics_every, "inverse_every": inverse_every},
        }
    for env, kind in itertools.product(TASKS, ("kfac", "diag_ggn")):
        yield {"kind": kind, "env": env, "options": {"clip": float("inf")}}


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


def table():
    rows = {name_of(row): row for row in done()}
    for kind, (rates, dampings) in CELLS.items():
        for env in TASKS:
            print(f"\n| {kind}, {env} | " + " | ".join(f"damping {d:g}" if d else "fitness" for d in dampings) + " |")
            print("| --- |" + " --- |" * len(dampings))
            for rate in rates:
                found = []
                for damping in dampings:
                    options = {"learning_rate": rate} | ({"damping": damping} if damping else {})
                    row = rows.get(name_of({"kind": kind, "env": env, "options": options}))
                    found.append("-" if row is None else f"{score(row):.0f}")
                print(f"| learning rate {rate:g} | " + " | ".join(found) + " |")
    print("\n| kind | task | options | fitness | contained events | seconds |\n| --- | --- | --- | --- | --- | --- |")
    for row in rows.values():
        if "learning_rate" not in row["options"]:
            options = ", ".join(f"{k}={v:g}" for k, v in row["options"].items())
            print(f"| {row['kind']} | {row['env']} | {options} | {score(row):.0f} | {row['contained']:.0f} | {row['seconds']:.0f} |")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--table", action="store_true", help="print the tables instead of running")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="processes side by side")
    arguments = parser.parse_args()
    if arguments.table:
        return table()
    finished = {name_of(row) for row in done()}
    missing = [cell for cell in cells() if name_of(cell) not in finished]
    context = multiprocessing.get_context("spawn")
    with context.Pool(arguments.jobs, pin, (context.Value("i", 0),)) as pool, RESULTS.open("a") as file:
        for row in pool.imap_unordered(run_cell, missing):
            file.write(json.dumps(row) + "\n")
            file.flush()
            print(name_of(row), round(score(row)), f"{row['seconds']:.0f} s", flush=True)


if __name__ == "__main__":
    main()
