"""Training on a real Ray cluster of three nodes, of which one is killed: python tests/cluster_test.py

Every case ends with what one process on one machine makes of it, to the last bit. Prints a line for each; exits with 1 if one
differs or is lost.
"""

import dataclasses
import os
import sys
import tempfile
import time
from pathlib import Path

import clusters
from faults import differences

SIZES = {
    # Parcels above 100 kB stay where they were given; Ray sends smaller ones along with the answer.
    **{"actor_layers": (64, 64), "critic_layers": (64, 64), "batch_size": 16, "buffer_size": 90, "learning_starts": 20},
    **{"episodes": 1, "final_episodes": 1, "truncation": 0.5},
}


def run():
    from evolute import Run

    return Run("InvertedPendulum-v4", mix={"adam": 2, "sgd": 2}, steps=180, interval=30, seed=6, **SIZES)


def silent(_sentence):
    pass


class Killer:
    """An observer that kills a node as soon as some steps are done."""

    def __init__(self, nodes, steps):
        self.nodes, self.steps, self.lost = nodes, steps, 0

    def __call__(self, progress):
        if self.steps is not None and progress.steps >= self.steps:
            self.steps = None
            self.lost = self.nodes.kill_one_that_works()


def population(folder, nodes, every):
    """Train a population over the cluster and lose a node in its fourth interval."""
    from evolute import train
    from evolute.cluster import connection
    from evolute.cluster import population as workers
    from evolute.training import elsewhere

    notes, killer, again = [], Killer(nodes, 100), []
    give = elsewhere.Elsewhere.give_once_more
    elsewhere.Elsewhere.give_once_more = lambda *arguments: (again.append(arguments), give(*arguments))
    with connection.connected(connection.HERE):
        train(dataclasses.replace(run(), checkpoint_every=every), folder, killer, notes.append, workers.hire(4))
    elsewhere.Elsewhere.give_once_more = give
    # Several evolutions since the checkpoint, some of them between members that were lost together.
    assert bool(again) == (every > 1), f"{len(again)} parcels were given again"
    replaced = [note for note in notes if "a new one goes on from the last checkpoint" in note]
    assert killer.lost >= 1, "no node was killed"
    assert len(replaced) >= killer.lost, f"{killer.lost} workers were killed, and told was only {notes}"
    return f"{killer.lost} workers killed with their node, {len(again)} parcels given again"


def alone(folder, every):
    from evolute import train

    train(dataclasses.replace(run(), checkpoint_every=every), folder, note=silent)
    return folder


CASES = {
    "a population that is checkpointed at every interval": (population, 1),
    "a population that is checkpointed at every fifth interval": (population, 5),
}


def main():
    wrong = 0
    chosen = {name: case for name, case in CASES.items() if all(word in name for word in sys.argv[1:])}
    with tempfile.TemporaryDirectory() as temporary, clusters.cluster(3, 2) as nodes:
        # As many as the cluster begins with, for each case.
        for number, (name, (case, every)) in enumerate(chosen.items()):
            began, folder = time.perf_counter(), Path(temporary) / str(number)
            folder.mkdir()
            while len(nodes.there) < 3:
                nodes.add()
            said = case(folder / "cluster", nodes, every)
            different = differences(folder / "cluster", alone(folder / "alone", every))
            wrong += bool(different)
            outcome = f"DIFFERENT in {', '.join(different)}" if different else "identical"
            print(f"{name}: {outcome}; {said} ({time.perf_counter() - began:.0f} s)", flush=True)
    rest = clusters.left()
    if rest:
        print(f"left behind: {len(rest)} processes: {' '.join(line.split()[0] for line in rest)}")
    return bool(wrong or rest)


if __name__ == "__main__":
    code = main()
    sys.stdout.flush()
    os._exit(code)
