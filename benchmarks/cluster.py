"""What a cluster costs: python benchmarks/cluster.py [overhead] [members]

overhead: a population with the paper's networks on worker processes of this machine and on a Ray cluster of two nodes on the
same cores, in turn. members: hundreds of tiny members on a cluster of four nodes, and what each costs at an interval's end. All
nodes are processes of this machine, so no byte crosses a network. Results of this machine are in benchmarks/README.md.
"""

import contextlib
import itertools
import json
import os
import re
import statistics
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

import clusters
from evolute import Run, train
from evolute.commands.compile_cache import remember_compiled_programs

# A population of two of each of the paper's kinds, one interval to compile and fill the replay, and some to measure.
PAPER = {"mix": {"adam": 1, "kfac": 1}, "interval": 100, "learning_starts": 60, "final_episodes": 1, "episodes": 1}
TINY = {
    **{"actor_layers": (8,), "critic_layers": (8,), "batch_size": 16, "buffer_size": 200, "learning_starts": 20},
    **{"episodes": 1, "final_episodes": 1, "interval": 50, "steps": 250},
}


def silent(_sentence: str) -> None:
    pass


def processor_seconds(where: str) -> float:
    """Return what this process and its descendants, or those of them that Ray did not start, have spent so far."""
    spent, parents, rays = {}, {}, set()
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            fields = stat.read_text().rpartition(")")[2].split()
            pid = int(stat.parent.name)
            parents[pid], spent[pid] = int(fields[1]), int(fields[11]) + int(fields[12])
            if re.search(rb"ray::|/ray/", (stat.parent / "cmdline").read_bytes()):
                rays.add(pid)

    def line(pid):
        found = []
        while pid in parents and pid != os.getpid():
            found.append(pid)
            pid = parents[pid]
        return [*found, pid]

    own = [pid for pid in spent if line(pid)[-1] == os.getpid()]
    counted = [pid for pid in own if where == "cluster" or not rays & set(line(pid)[:-1])]
    return sum(spent[pid] for pid in counted) / os.sysconf("SC_CLK_TCK")


def timed(run: Run, folder: Path, workers: object, where: str = "cluster") -> dict[str, float]:
    """Return the seconds of an interval after the first, of its phases, as medians, and processor seconds, as a mean."""
    ends, spent = [], []

    def observe(progress):
        if progress.rows:
            ends.append(time.perf_counter())
            spent.append(processor_seconds(where))

    train(run, folder, observe, silent, workers)
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    by_interval = {row["interval"]: row["seconds"] for row in rows if row["interval"] > 1}
    phases = {phase: statistics.median(seconds[phase] for seconds in by_interval.values()) for phase in by_interval[2]}
    took = statistics.median(b - a for a, b in itertools.pairwise(ends))
    return {"interval": took, "processor": (spent[-1] - spent[0]) / (len(spent) - 1), **phases}


def overhead(folder: Path) -> None:
    """Print the ratio of an interval on a cluster to one on worker processes, pair by pair.

    On a machine that others use, processor seconds say more than seconds. They are of this program's processes, and on the
    cluster of Ray's own, too.
    """
    from evolute.cluster import connection, population

    run = Run("HalfCheetah-v4", steps=4 * PAPER["interval"], **PAPER)
    ratios = {"interval": [], "processor": []}
    with clusters.cluster(2, 1):
        # Programs are compiled once, and kept for the others.
        timed(run, folder / "first", 2, "local")
        for number in range(3):
            local = timed(run, folder / f"local{number}", 2, "local")
            with connection.connected(connection.HERE):
                remote = timed(run, folder / f"cluster{number}", population.hire(2))
            for name, found in ratios.items():
                found.append(remote[name] / local[name])
            print(
                f"an interval on processes {local['interval']:.2f} s ({local['processor']:.2f} of a core), "
                f"on the cluster {remote['interval']:.2f} s ({remote['processor']:.2f} of a core)",
                flush=True,
            )
    for name, found in ratios.items():
        print(f"{name}: ratio {statistics.median(found):.3f}, of {', '.join(f'{ratio:.3f}' for ratio in found)}")


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
    remember_compiled_programs()
    asked = sys.argv[1:] or ["overhead", "members"]
    with tempfile.TemporaryDirectory() as folder:
        for name in asked:
            {"overhead": overhead, "members": members}[name](Path(folder))


if __name__ == "__main__":
    main()
