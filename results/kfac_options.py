"""Other options of K-FAC at 64-64, one at a time: does another rate, damping or clip learn faster than the defaults?

python results/kfac_options.py             runs what is missing in kfac_options.jsonl, one process per core (first: nice -n 19)
python results/kfac_options.py --table     prints the table of widths.md

The reduction is that of widths.py, with networks of 64-64, three tasks and up to two seeds.
"""

import itertools
import statistics
import sys
from pathlib import Path

import widths

KFAC = {
    "defaults": {},
    "damping 0.01": {"damping": 0.01},
    "damping 1": {"damping": 1.0},
    "rate 0.03": {"learning_rate": 0.03},
    "rate 0.3": {"learning_rate": 0.3},
    "clip 0.02": {"clip": 0.02},
    "clip 0.05, critics 0.02": {"actor": {"clip": 0.05}, "critic": {"clip": 0.02}},
    "clip 0.1, damping 1": {"clip": 0.1, "damping": 1.0},
    "clip 0.1, critics 0.2, damping 1": {"damping": 1.0, "actor": {"clip": 0.1}, "critic": {"clip": 0.2}},
}
widths.RESULTS = Path(__file__).with_suffix(".jsonl")
widths.TASKS = ("HalfCheetah-v4", "Walker2d-v4", "Swimmer-v4")
widths.STEPS = {(64, 64): 20_000}
widths.SEEDS = (0, 1)
widths.AGENTS = {f"kfac, {name}": ("kfac", {"kfac": options}) for name, options in KFAC.items()}
widths.AGENTS |= {"kfac_empirical": ("kfac_empirical", {}), "diag_ggn": ("diag_ggn", {})}


def cells():
    """Yield the runs, all options of one seed first."""
    for seed, agent, env in itertools.product(widths.SEEDS, widths.AGENTS, widths.TASKS):
        yield {"env": env, "layers": [64, 64], "agent": agent, "seed": seed}


widths.cells = cells


def table():
    """Print returns and the share of dead units by agent and task, each seed's."""
    rows = widths.done()
    print("| agent | " + " | ".join(f"{task}: return; dead" for task in widths.TASKS) + " |")
    print("| --- |" + " --- |" * len(widths.TASKS))
    for agent in widths.AGENTS:
        shown = []
        for task in widths.TASKS:
            runs = [row["points"] for row in rows if (row["agent"], row["env"]) == (agent, task)]
            returns = ", ".join(f"{widths.score(points):.0f}" for points in runs)
            dead = statistics.mean(points[-1]["critic_dead"] for points in runs) if runs else float("nan")
            shown.append(f"{returns}; {dead:.0%}")
        print(f"| `{agent}` | " + " | ".join(shown) + " |")


if __name__ == "__main__":
    if "--table" in sys.argv:
        table()
    else:
        widths.main()
