"""How rarely K-FAC may measure and invert its factors: learning curves against doing both at every update.

python results/cadence.py             runs what is missing in cadence.jsonl, three seeds side by side
python results/cadence.py --table     prints the tables of cadence.md

`paper` networks and batch; a warm-up of 5,000 random steps, then 15,000 updates, or 7,500 where each refreshes everything, which
costs several times as much. Cadences are compared up to where all of them got.
"""

import argparse
import json
import math
import statistics
import time
from pathlib import Path

RESULTS = Path(__file__).with_suffix(".jsonl")
TASKS = ("HalfCheetah-v4", "Hopper-v4")
SEEDS = (0, 1, 2)
# Environment steps by (updates between two measurements, updates between two inversions), the cheapest first.
STEPS = {(8, 80): 20_000, (4, 40): 20_000, (2, 20): 20_000, (1, 1): 12_500}
WARM_UP, EVERY, EPISODES = 5_000, 2_500, 10


def run_one(task, cadence):
    import evolute

    run = evolute.Run(
        task,
        mix={"kfac": 1},
        steps=STEPS[cadence],
        learning_starts=WARM_UP,
        interval=EVERY,
        episodes=EPISODES,
        final_episodes=1,
        optimizers={"kfac": dict(zip(("statistics_every", "inverse_every"), cadence, strict=True))},
    )
    points = {seed: [] for seed in SEEDS}
    began = time.process_time()

    def observe(progress):
        for row in progress.rows:
            events = row["contained_statistics"] + row["contained_inverses"] + row["contained_steps"]
            points[progress.state.run.seed].append({"steps": row["steps"], "return": row["fitness"], "contained": events})

    evolute.train_seeds(run, SEEDS, observer=observe)
    seconds = time.process_time() - began
    return {"task": task, "cadence": cadence, "cpu_seconds": seconds, "points": {str(s): p for s, p in points.items()}}


def done():
    return [json.loads(line) for line in RESULTS.read_text().splitlines()] if RESULTS.exists() else []


def figures(row):
    """Return each seed's return where the shortest run ended, and its mean over the evaluations from the warm-up to there."""
    last = min(STEPS.values())
    after = [[p["return"] for p in curve if WARM_UP < p["steps"] <= last] for curve in row["points"].values()]
    return [curve[-1] for curve in after], [statistics.mean(curve) for curve in after]


def described(values):
    return f"{statistics.mean(values):.0f} ± {statistics.stdev(values):.0f} ({', '.join(f'{v:.0f}' for v in values)})"


def apart(a, b):
    """Return the difference of the means in standard errors."""
    error = math.sqrt(statistics.variance(a) / len(a) + statistics.variance(b) / len(b))
    return f"{(statistics.mean(a) - statistics.mean(b)) / error:+.1f}"


def table():
    rows = {(row["task"], tuple(row["cadence"])): row for row in done()}
    print(
        "| task | statistics, inverses | return after 7,500 updates | mean until then | standard errors from 1, 1 | contained |"
    )
    print("| --- | --- | --- | --- | --- | --- |")
    for (task, cadence), row in rows.items():
        end, curve = figures(row)
        often = rows.get((task, (1, 1)))
        errors = ", ".join(apart(a, b) for a, b in zip((end, curve), figures(often), strict=True)) if often else "-"
        contained = sum(p["contained"] for points in row["points"].values() for p in points)
        cells = (task, ", ".join(map(str, cadence)), described(end), described(curve), errors, f"{contained:.0f}")
        print("| " + " | ".join(cells) + " |")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--table", action="store_true", help="print the table instead of running")
    if parser.parse_args().table:
        table()
        return
    there = {(row["task"], tuple(row["cadence"])) for row in done()}
    for cadence in STEPS:
        for task in TASKS:
            if (task, cadence) not in there:
                row = run_one(task, cadence)
                with RESULTS.open("a") as file:
                    file.write(json.dumps(row) + "\n")


if __name__ == "__main__":
    main()
