"""K-FAC at its defaults beside Adam at its best of three rates: four tasks, three widths, three seeds.

python results/widths.py             runs what is missing in widths.jsonl, one process per core (first: nice -n 19)
python results/widths.py kfac        the same for one agent alone
python results/widths.py --table     prints the tables of widths.md

The reduction: 20,000 steps instead of a million (12,000 with networks of 400-300), 1,000 of them at random instead of 10,000,
batches of 128 instead of 256, and deterministic evaluations (5 episodes) every 2,000 steps. All else is the paper preset.
"""

import argparse
import itertools
import json
import math
import multiprocessing
import os
import statistics
import time
from pathlib import Path

RESULTS = Path(__file__).with_suffix(".jsonl")
TASKS = ("HalfCheetah-v4", "Hopper-v4", "Walker2d-v4", "Swimmer-v4")
STEPS = {(64, 64): 20_000, (256, 256): 20_000, (400, 300): 12_000}
SEEDS = (0, 1, 2)
EVERY = 2_000
ADAM = {f"adam {rate:g}": ("adam", {"adam": {"learning_rate": rate}}) for rate in (3e-4, 1e-3, 3e-3)}
AGENTS = {"kfac": ("kfac", {}), **ADAM}


def cells():
    for layers, seed, agent, env in itertools.product(STEPS, SEEDS, AGENTS, TASKS):
        yield {"env": env, "layers": list(layers), "agent": agent, "seed": seed}


def run_cell(cell):
    import evolute

    kind, options = AGENTS[cell["agent"]]
    run = evolute.Run(
        cell["env"],
        mix={kind: 1},
        steps=STEPS[tuple(cell["layers"])],
        interval=EVERY,
        seed=cell["seed"],
        actor_layers=cell["layers"],
        critic_layers=cell["layers"],
        batch_size=128,
        learning_starts=1_000,
        final_episodes=1,
        optimizers=options,
    )
    points, began = [], time.process_time()
    kept = ("steps", "critic_loss", "critic_shortened", "critic_shortening", "actor_shortening", "critic_norms", "critic_dead")

    def observe(progress):
        for row in progress.rows:
            point = {"return": row["fitness"], "cpu_seconds": time.process_time() - began}
            points.append(point | {name: row[name] for name in kept})

    evolute.train(run, observer=observe)
    return {**cell, "points": points}


def run_one(cell):
    # One core per agent: agents side by side use the machine better than threads inside one agent.
    core = free_cores.get()
    os.sched_setaffinity(0, {core})
    try:
        return run_cell(cell)
    finally:
        free_cores.put(core)


def share(cores):
    global free_cores
    free_cores = cores


def done():
    return [json.loads(line) for line in RESULTS.read_text().splitlines()] if RESULTS.exists() else []


def score(points, until=math.inf):
    """Return the mean return of the second half of training, of what was reached within some processor seconds."""
    reached = [p["return"] for p in points if seconds(points, p) <= until]
    return statistics.mean(reached[len(reached) // 2 :])


def seconds(points, point):
    """Return the processor seconds from the first evaluation to this one: without compilation, which comes once."""
    return point["cpu_seconds"] - points[0]["cpu_seconds"]


def of(rows, env, layers, agent):
    # Some runs of 400-300 were longer.
    wanted, points = (env, layers, agent), STEPS[layers] // EVERY
    return [row["points"][:points] for row in rows if (row["env"], tuple(row["layers"]), row["agent"]) == wanted]


def shown(values):
    return f"{statistics.mean(values):.0f} ± {statistics.stdev(values):.0f}" if len(values) > 1 else "-"


def errors(a, b):
    """Return the difference of two means in standard errors."""
    error = math.sqrt(statistics.variance(a) / len(a) + statistics.variance(b) / len(b))
    return (statistics.mean(a) - statistics.mean(b)) / error if error else math.nan


def table():
    rows = done()
    print(
        "| task | networks | Adam at its best rate | `kfac` | in standard errors | `kfac` in Adam's processor time | CPU ratio |"
    )
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for env, layers in itertools.product(TASKS, STEPS):
        tried = {agent: runs for agent in ADAM if len(runs := of(rows, env, layers, agent)) > 1}
        kfac = of(rows, env, layers, "kfac")
        if not tried or len(kfac) < 2:
            continue
        best = max(tried, key=lambda agent: statistics.mean(map(score, tried[agent])))
        adam, ours = list(map(score, tried[best])), list(map(score, kfac))
        spent = statistics.median(seconds(run, run[-1]) for run in tried[best])
        in_time = [score(run, spent) for run in kfac]
        ratio = statistics.median(seconds(run, run[-1]) for run in kfac) / spent
        print(
            f"| {env} | {'-'.join(map(str, layers))} | {shown(adam)} ({best.split()[1]}) | {shown(ours)} | "
            f"{errors(ours, adam):+.1f} | {shown(in_time)} | {ratio:.2f} |"
        )
    print(
        "\n| task | networks | "
        + " | ".join(ADAM)
        + " | `kfac`: steps shortened, by | critics' norms, kfac | dead, kfac and Adam |"
    )
    print("| --- |" + " --- |" * (len(ADAM) + 4))
    for env, layers in itertools.product(TASKS, STEPS):
        kfac, adam = of(rows, env, layers, "kfac"), of(rows, env, layers, "adam 0.001")
        if not kfac or not adam:
            continue
        last, other = [run[-1] for run in kfac], [run[-1] for run in adam]
        shortened, by = (statistics.mean(p[name] for p in last) for name in ("critic_shortened", "critic_shortening"))
        norms = [f"{statistics.mean(column):.0f}" for column in zip(*(p["critic_norms"] for p in last), strict=True)]
        dead = [statistics.mean(p["critic_dead"] for p in group) for group in (last, other)]
        each = " | ".join(shown(list(map(score, of(rows, env, layers, agent)))) for agent in ADAM)
        print(
            f"| {env} | {'-'.join(map(str, layers))} | {each} | {shortened:.0%}, {by:.0%} | {'/'.join(norms)} | "
            f"{dead[0]:.0%}, {dead[1]:.0%} |"
        )


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("agents", nargs="*", default=list(AGENTS), help=f"which of {', '.join(AGENTS)}")
    parser.add_argument("--table", action="store_true")
    arguments = parser.parse_args()
    if arguments.table:
        return table()
    finished = {(row["env"], tuple(row["layers"]), row["agent"], row["seed"]) for row in done()}
    wanted = [c for c in cells() if c["agent"] in arguments.agents]
    missing = [c for c in wanted if (c["env"], tuple(c["layers"]), c["agent"], c["seed"]) not in finished]
    context = multiprocessing.get_context("spawn")
    own, cores = sorted(os.sched_getaffinity(0)), context.Queue()
    for core in own:
        cores.put(core)
    # maxtasksperchild: a fresh process per run, so that nothing of one run is left in the next.
    with context.Pool(len(own), share, (cores,), maxtasksperchild=1) as pool, RESULTS.open("a") as file:
        for row in pool.imap_unordered(run_one, missing, chunksize=1):
            file.write(json.dumps(row) + "\n")
            file.flush()
            print(row["env"], row["layers"], row["agent"], row["seed"], round(score(row["points"])), flush=True)


if __name__ == "__main__":
    main()
