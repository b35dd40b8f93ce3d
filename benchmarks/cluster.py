"""What a cluster costs: python benchmarks/cluster.py [overhead] [members]

overhead: a population with the paper's networks on worker processes of this machine and on a Ray cluster of two nodes on the
same cores, which take turns, an interval each. members: hundreds of tiny members on a cluster of four nodes, and what each costs
at an interval's end. All nodes are processes of this machine, so no byte crosses a network. Results are in benchmarks/cluster.md.
"""

import concurrent.futures
import contextlib
import itertools
import json
import os
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

import clusters
from evolute import Run, train
from evolute.commands.compile_cache import remember_compiled_programs
from evolute.state import Progress

# A member of two of the paper's kinds, which copy each other. Intervals are a twenty-fifth of the paper's: what happens between
# them weighs more here. Factors of 1 keep the batches' size, for which programs are compiled.
PAPER = {
    **{"mix": {"adam": 1, "kfac": 1}, "interval": 400, "learning_starts": 300, "factors": (1.0,)},
    **{"final_episodes": 1, "episodes": 1},
}
INTERVALS = 13
# Seconds for which nothing trains.
IDLE = 5.0
TINY = {
    **{"actor_layers": (8,), "critic_layers": (8,), "batch_size": 16, "buffer_size": 200, "learning_starts": 20},
    **{"episodes": 1, "final_episodes": 1, "interval": 50, "steps": 250},
}


def silent(_sentence: str) -> None:
    pass


def processor_seconds() -> float:
    """Return what this process and its descendants, Ray's own among them, have spent so far."""
    spent, parents = {}, {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            fields = stat.read_text().rpartition(")")[2].split()
            pid = int(stat.parent.name)
            parents[pid], spent[pid] = int(fields[1]), int(fields[11]) + int(fields[12])

    def is_own(pid: int) -> bool:
        while pid in parents and pid != os.getpid():
            pid = parents[pid]
        return pid == os.getpid()

    return sum(spent[pid] for pid in spent if is_own(pid)) / os.sysconf("SC_CLK_TCK")


def timed(run: Run, folder: Path, workers: object) -> dict[str, float]:
    """Return the seconds of an interval after the first, and of its phases, as medians."""
    ends = []

    def observe(progress: Progress) -> None:
        if progress.rows:
            ends.append(time.perf_counter())

    train(run, folder, observe, silent, workers)
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    by_interval = {row["interval"]: row["seconds"] for row in rows if row["interval"] > 1}
    phases = {phase: statistics.median(seconds[phase] for seconds in by_interval.values()) for phase in by_interval[2]}
    took = statistics.median(b - a for a, b in itertools.pairwise(ends))
    return {"interval": took, **phases}


class Turns:
    """Lets populations that train in threads of their own take turns, an interval each, and measures what each takes."""

    def __init__(self, names: Sequence[str]):
        self.names, self.whose, self.change = names, 0, threading.Condition()
        self.took: dict[str, list[float]] = {name: [] for name in names}
        self.spent: dict[str, list[float]] = {name: [] for name in names}

    def observer(self, name: str) -> Callable[[Progress], None]:
        """Return the observer of a population: it holds the population up at an interval's end until it is its turn again."""
        began = [self.wait_for(name)]

        def observe(progress: Progress) -> None:
            if not progress.rows:
                return
            self.took[name].append(time.perf_counter() - began[0][0])
            self.spent[name].append(processor_seconds() - began[0][1])
            with self.change:
                self.whose += 1
                self.change.notify_all()
            # The first one ends last: what processes have spent that are no more cannot be seen.
            if progress.steps < progress.state.run.steps or name != self.names[-1]:
                began[0] = self.wait_for(name)

        return observe

    def wait_for(self, name: str) -> tuple[float, float]:
        """Wait for a population's turn; return the time and the processor seconds at which it begins."""
        with self.change:
            self.change.wait_for(lambda: self.names[self.whose % len(self.names)] == name)
        return time.perf_counter(), processor_seconds()


def overhead(folder: Path) -> None:
    """Print what an interval takes on worker processes and on a cluster, in turn, and the ratio of each pair."""
    from evolute.cluster import connection, population

    run = Run("HalfCheetah-v4", steps=INTERVALS * PAPER["interval"], **PAPER)
    turns = Turns(("processes", "cluster"))

    def go(name: str, workers: object) -> None:
        train(run, folder / name, turns.observer(name), silent, workers)

    with clusters.cluster(2, 1), connection.connected(connection.HERE):
        before, began = processor_seconds(), time.perf_counter()
        time.sleep(IDLE)
        idle = (processor_seconds() - before) / (time.perf_counter() - began)
        print(f"Ray's processes for a head and two nodes take {idle:.3f} of a core while nothing trains")
        with concurrent.futures.ThreadPoolExecutor() as pool:
            for one in [pool.submit(go, "processes", 2), pool.submit(go, "cluster", population.hire(2))]:
                one.result()
    print("| interval | processes, s | cluster, s | ratio | processes, s of a core | cluster, s of a core | ratio |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    ratios = []
    # The first one compiles, and fills the replay.
    for number in range(1, INTERVALS):
        pairs = [[found[name][number] for name in turns.names] for found in (turns.took, turns.spent)]
        ratios.append([there / here for here, there in pairs])
        cells = [f"{here:.2f} | {there:.2f} | {there / here:.3f}" for here, there in pairs]
        print(f"| {number + 1} | {' | '.join(cells)} |")
    for name, found in zip(("time", "processor seconds"), zip(*ratios, strict=True), strict=True):
        low, middle, high = statistics.quantiles(found, n=4)
        print(f"ratio of {name}: median {middle:.3f}, quartiles {low:.3f} and {high:.3f}")


def members(folder: Path) -> None:
    """Print what each member costs in an interval, by phase, for populations of several sizes."""
    from evolute.cluster import connection, population

    print(
        "| members | interval, s | train and evaluate, s | evolve, ms a member | checkpoint, ms a member | record, ms a member |"
    )
    print("| --- | --- | --- | --- | --- | --- |")
    with clusters.cluster(4, 1):
        for count in (16, 64, 256):
            run = Run("InvertedPendulum-v4", mix={"adam": count}, **TINY)
            with connection.connected(connection.HERE):
                took = timed(run, folder / str(count), population.hire(4))
            training = took["rollout"] + took["learn"] + took["evaluate"]
            parts = [f"{1e3 * took[phase] / count:.1f}" for phase in ("evolve", "checkpoint", "record")]
            cells = [str(count), f"{took['interval']:.2f}", f"{training:.2f}", *parts]
            print(f"| {' | '.join(cells)} |", flush=True)


def main() -> None:
    remember_compiled_programs()
    asked = sys.argv[1:] or ["overhead", "members"]
    with tempfile.TemporaryDirectory() as folder:
        for name in asked:
            {"overhead": overhead, "members": members}[name](Path(folder))


if __name__ == "__main__":
    main()
