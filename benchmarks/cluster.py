"""What a cluster costs: python benchmarks/cluster.py [overhead] [members]

overhead: a population with the paper's networks on worker processes of this machine and on a Ray cluster of two nodes on the
same cores, in turn. members: hundreds of tiny members on a cluster of four nodes, and what each costs at an interval's end. All
nodes are processes of this machine, so no byte crosses a network. Results of this machine are in benchmarks/README.md.
"""

import itertools
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

import clusters
from evolute import Run, train

# A population of two of each of the paper's kinds, one interval to compile and fill the replay, and some to measure.
PAPER = {"mix": {"adam": 1, "kfac": 1}, "interval": 200, "learning_starts": 100, "final_episodes": 1, "episodes": 1}
TINY = {
    **{"actor_layers": (8,), "critic_layers": (8,), "batch_size": 16, "buffer_size": 200, "learning_starts": 20},
    **{"episodes": 1, "final_episodes": 1, "interval": 50, "steps": 250},
}


def silent(_sentence: str) -> None:
    pass


def timed(run: Run, folder: Path, workers: object) -> dict[str, float]:
    """Return the seconds of an interval after the first, and of its phases, as medians."""
    ends = []

    def observe(progress):
        if progress.rows:
            ends.append(time.perf_counter())

    train(run, folder, observe, silent, workers)
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    by_interval = {row["interval"]: row["seconds"] for row in rows if row["interval"] > 1}
    phases = {phase: statistics.median(seconds[phase] for seconds in by_interval.values()) for phase in by_interval[2]}
    return {"interval": statistics.median(b - a for a, b in itertools.pairwise(ends)), **phases}


def overhead(folder: Path) -> None:
    """Print the ratio of an interval on a cluster to one on worker processes, pair by pair."""
    from evolute.cluster import connection, population

    run = Run("HalfCheetah-v4", steps=5 * PAPER["interval"], **PAPER)
    ratios = []
    with clusters.cluster(2, 1):
        for number in range(3):
            local = timed(run, folder / f"local{number}", 2)
            with connection.connected(connection.HERE):
                remote = timed(run, folder / f"cluster{number}", population.hire(2))
            ratios.append(remote["interval"] / local["interval"])
            print(f"interval on processes {local['interval']:.2f} s, on the cluster {remote['interval']:.2f} s", flush=True)
    print(f"ratio: median {statistics.median(ratios):.3f}, of {', '.join(f'{ratio:.3f}' for ratio in sorted(ratios))}")


def members(folder: Path) -> None:
    """Print what each member costs in an interval, by phase, for populations of several sizes."""
    from evolute.cluster import connection, population

    print("members | interval, s | train and evaluate | evolve, ms a member | checkpoint, ms a member | record, ms a member")
    with clusters.cluster(4, 1):
        for count in (16, 64, 256):
            run = Run("InvertedPendulum-v4", mix={"adam": count}, **TINY)
            with connection.connected(connection.HERE):
                took = timed(run, folder / str(count), population.hire(4))
            training = took["rollout"] + took["learn"] + took["evaluate"]
            parts = [f"{1e3 * took[phase] / count:.1f}" for phase in ("evolve", "checkpoint", "record")]
            print(" | ".join([str(count), f"{took['interval']:.2f}", f"{training:.2f}", *parts]), flush=True)


def main() -> None:
    asked = sys.argv[1:] or ["overhead", "members"]
    with tempfile.TemporaryDirectory() as folder:
        for name in asked:
            {"overhead": overhead, "members": members}[name](Path(folder))


if __name__ == "__main__":
    main()
