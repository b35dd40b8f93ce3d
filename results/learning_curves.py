"""Learning curves of single agents on HalfCheetah-v4 with the paper preset, ours and Stable-Baselines3's, over three seeds.

python results/learning_curves.py [--kinds adam kfac ...]   runs what is missing in learning_curves.jsonl, one process per core
python results/learning_curves.py --table                   prints the tables of learning_curves.md
python results/learning_curves.py --plot                    draws learning_curves.png

Stable-Baselines3's curves come from results/sb3_td3.py and sb3_sac.py, which need `pip install '.[oracles]'`.
"""

import argparse
import json
import math
import multiprocessing
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

RESULTS = Path(__file__).with_suffix(".jsonl")
ENV = "HalfCheetah-v4"
SEEDS = (0, 1, 2)
EVERY, EPISODES = 12_500, 10
STEPS = {"adam": 100_000, "sb3": 100_000, "diag_ggn": 50_000, "kfac": 50_000, "kfac_empirical": 50_000}
STEPS |= {"sac:adam": 50_000, "sb3 sac": 50_000}
PEERS = {"sb3": "sb3_td3.py", "sb3 sac": "sb3_sac.py"}


def run_ours(kind, seed):
    import evolute

    settings = {"mix": {kind: 1}, "steps": STEPS[kind], "interval": EVERY, "episodes": EPISODES, "final_episodes": 1}
    run = evolute.Run(ENV, seed=seed, **settings)
    points, began, began_cpu = [], time.perf_counter(), time.process_time()

    def observe(progress):
        for row in progress.rows:
            events = row["contained_statistics"] + row["contained_inverses"] + row["contained_steps"]
            points.append(
                {
                    "steps": row["steps"],
                    "return": row["fitness"],
                    "std": row["fitness_std"],
                    "contained": events,
                    "wall_seconds": time.perf_counter() - began,
                    "cpu_seconds": time.process_time() - began_cpu,
                }
            )

    evolute.train(run, observer=observe)
    return points


def run_peer(kind, seed):
    script = Path(__file__).with_name(PEERS[kind])
    command = [sys.executable, str(script), ENV, str(seed), str(STEPS[kind]), str(EVERY), str(EPISODES)]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return [json.loads(line) for line in output.splitlines()]


def run_one(job):
    kind, seed = job
    # One core per agent: agents side by side use the machine better than threads inside one agent.
    core = free_cores.get()
    os.sched_setaffinity(0, {core})
    try:
        points = run_peer(kind, seed) if kind in PEERS else run_ours(kind, seed)
    finally:
        free_cores.put(core)
    return {"kind": kind, "seed": seed, "env": ENV, "points": points}


def share(cores):
    global free_cores
    free_cores = cores


def done():
    return [json.loads(line) for line in RESULTS.read_text().splitlines()] if RESULTS.exists() else []


def at(rows, kind, steps, field="return"):
    return [p[field] for row in rows if row["kind"] == kind for p in row["points"] if p["steps"] == steps]


def welch(a, b):
    """Return the difference of the means in standard errors."""
    error = math.sqrt(statistics.variance(a) / len(a) + statistics.variance(b) / len(b))
    return (statistics.mean(a) - statistics.mean(b)) / error


def table():
    rows = done()
    kinds = [kind for kind in STEPS if any(row["kind"] == kind for row in rows)]
    steps = sorted({p["steps"] for row in rows for p in row["points"] if p["steps"] % 25_000 == 0})
    print("| agent | " + " | ".join(f"{s:,} steps" for s in steps) + " | CPU seconds per 10,000 steps |")
    print("| --- |" + " --- |" * (len(steps) + 1))
    for kind in kinds:
        cells = []
        for s in steps:
            values = at(rows, kind, s)
            spread = f" ± {statistics.stdev(values):.0f}" if len(values) > 1 else ""
            cells.append(f"{statistics.mean(values):.0f}{spread} ({', '.join(f'{v:.0f}' for v in values)})" if values else "-")
        # From 12,500 steps on: compiling and the warm-up without updates are not what a step costs.
        costs = [
            (row["points"][-1]["cpu_seconds"] - row["points"][0]["cpu_seconds"])
            / (row["points"][-1]["steps"] - row["points"][0]["steps"])
            * 10_000
            for row in rows
            if row["kind"] == kind and "cpu_seconds" in row["points"][0]
        ]
        print(f"| {kind} | " + " | ".join(cells) + f" | {f'{statistics.median(costs):.0f}' if costs else '-'} |")
    for other in kinds:
        for s in steps:
            a, b = at(rows, "adam", s), at(rows, other, s)
            if other != "adam" and len(a) > 1 and len(b) > 1:
                print(f"\nadam minus {other} at {s:,} steps: {welch(a, b):+.1f} standard errors")


def plot():
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    rows = done()
    figure, axes = plt.subplots(figsize=(7, 4.2), layout="constrained")
    for kind in STEPS:
        runs = [row["points"] for row in rows if row["kind"] == kind]
        if not runs:
            continue
        # Some runs of SAC were longer.
        steps = [p["steps"] for p in min(runs, key=len)]
        mean = [statistics.mean(run[n]["return"] for run in runs) for n in range(len(steps))]
        (line,) = axes.plot(
            steps,
            mean,
            label={"sb3": "Stable-Baselines3 TD3 (Adam)", "sb3 sac": "Stable-Baselines3 SAC (Adam)"}.get(kind, kind),
            linewidth=2,
        )
        for run in runs:
            axes.plot([p["steps"] for p in run], [p["return"] for p in run], color=line.get_color(), alpha=0.25, linewidth=1)
    axes.set(
        xlabel="environment steps",
        ylabel="return of 10 deterministic episodes",
        title=f"{ENV}, one agent, every seed and their mean",
    )
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
    figure.savefig(RESULTS.with_suffix(".png"), dpi=130)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kinds", nargs="+", default=list(STEPS), choices=STEPS)
    parser.add_argument("--cores", type=int, nargs="+", help="cores to use, one agent each (default: all)")
    parser.add_argument("--table", action="store_true")
    parser.add_argument("--plot", action="store_true")
    arguments = parser.parse_args()
    if arguments.table:
        return table()
    if arguments.plot:
        return plot()
    finished = {(row["kind"], row["seed"]) for row in done()}
    missing = [(kind, seed) for kind in arguments.kinds for seed in SEEDS if (kind, seed) not in finished]
    context = multiprocessing.get_context("spawn")
    cores = context.Queue()
    for core in arguments.cores or range(os.cpu_count()):
        cores.put(core)
    # maxtasksperchild: a fresh process per run, so that nothing of one run is left in the next.
    jobs = len(arguments.cores or range(os.cpu_count()))
    with context.Pool(jobs, share, (cores,), maxtasksperchild=1) as pool, RESULTS.open("a") as file:
        for row in pool.imap_unordered(run_one, missing, chunksize=1):
            file.write(json.dumps(row) + "\n")
            file.flush()
            print(row["kind"], row["seed"], [round(p["return"]) for p in row["points"]], flush=True)


if __name__ == "__main__":
    main()
