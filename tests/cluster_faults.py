"""Training on a real Ray cluster of three nodes, of which one is killed: python tests/cluster_faults.py

Every case ends with what one process on one machine makes of it, to the last bit; with stragglers those members do that missed
nothing. Prints a line for each; exits with 1 if one
differs or is lost.
"""

import json
import logging
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

import clusters
from faults import differences, finish, start, wait_until

SIZES = {
    # Parcels above 100 kB stay where they were given; Ray sends smaller ones along with the answer.
    **{"actor_layers": (64, 64), "critic_layers": (64, 64), "batch_size": 16, "buffer_size": 90, "learning_starts": 20},
    **{"episodes": 1, "final_episodes": 1, "truncation": 0.5},
}


def run(**changes):
    from evolute import Run

    usual = {"env": "InvertedPendulum-v4", "mix": {"adam": 2, "sgd": 2}, "steps": 180, "interval": 30, "seed": 6}
    return Run(**(usual | SIZES | changes))


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
    ask = elsewhere.Elsewhere._again

    def counted(self, call, *rest):
        again.append(call)
        return ask(self, call, *rest)

    elsewhere.Elsewhere._again = counted
    with connection.connected(connection.HERE):
        train(run(checkpoint_every=every), folder, killer, notes.append, workers.hire(4))
    elsewhere.Elsewhere._again = ask
    # There were evolutions since the checkpoint, and the machine took parcels along.
    assert ("give" in again) == (every > 1), f"what was asked again: {again}"
    replaced = [note for note in notes if "a new one goes on from the last checkpoint" in note]
    assert killer.lost >= 1, "no node was killed"
    assert len(replaced) >= killer.lost, f"{killer.lost} workers were killed, and told was only {notes}"
    return f"{killer.lost} workers killed with their node, {again.count('give')} parcels given again"


def crowded(folder, nodes):
    """Lose a node of a cluster that has no other room, and let another one join later."""
    from evolute import train
    from evolute.cluster import connection
    from evolute.cluster import population as workers

    workers.PLACE_LIMIT = 5.0
    notes, killer = [], Killer(nodes, 40)

    def observe(progress):
        killer(progress)
        if progress.steps >= 90 and len(nodes.there) < 3:
            nodes.add()

    with connection.connected(connection.HERE):
        train(run(mix={"adam": 3, "sgd": 3}), folder, observe, notes.append, workers.hire(6))
    shared = [note for note in notes if "no cores are free" in note]
    moved = [note for note in notes if "moves to a machine that has room" in note]
    assert killer.lost == len(shared) == len(moved) == 2, notes
    return "2 workers shared cores with others, and moved to the node that joined"


def client(folder, nodes):
    """Train by way of a Ray Client, from a process that is no part of the cluster."""
    from evolute import toml

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    address = ("--address", os.environ["RAY_ADDRESS"], "--host", "127.0.0.1", "--port", str(port))
    words = [sys.executable, "-m", "ray.util.client.server", *address]
    (folder.parent / "run.toml").write_text(toml.to_toml(run()))
    with subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as server:
        try:
            wait_until(lambda: server.poll() is not None or reached(port))
            on = ("--on", f"ray://127.0.0.1:{port}", "--workers", "2", "--out", folder)
            code, out, err = finish(start(folder.parent, "train", "--config", "run.toml", *on))
            assert code == 0, f"it ended with {code}: {out} {err}"
        finally:
            server.terminate()
    return "two workers, and a driver outside of the cluster"


def reached(port):
    """Return whether somebody listens at a port of this machine."""
    with socket.socket() as tried:
        return tried.connect_ex(("127.0.0.1", port)) == 0


# JAX splits products of this size by the number of cores that it sees, and LAPACK by the number of its threads.
PAPER = {
    **{"env": "HalfCheetah-v4", "mix": {"adam": 1, "kfac": 1}, "actor_layers": (400, 300), "critic_layers": (400, 300)},
    **{"batch_size": 256, "buffer_size": 300, "learning_starts": 10, "steps": 80, "interval": 20},
}


def paper(folder, nodes):
    """Lose a node of a population with the paper's networks."""
    from evolute import train
    from evolute.cluster import connection
    from evolute.cluster import population as workers

    killer = Killer(nodes, 40)
    with connection.connected(connection.HERE):
        train(run(**PAPER), folder, killer, silent, workers.hire(2))
    assert killer.lost >= 1
    return f"{killer.lost} workers killed with their node"


LONG = {"strategy": "none", "steps": 600}


def going_on(folder, nodes):
    """Lose a node and let the others go on without its members, which join again."""
    from evolute import train
    from evolute.cluster import connection
    from evolute.cluster import population as workers

    lost, missing, notes = [], set(), []

    def observe(progress):
        if not progress.rows:
            return
        missing.update(event["member"] for event in progress.events if event["event"] == "absent")
        missing.difference_update(row["member"] for row in progress.rows)
        if progress.steps >= 90 and not lost:
            lost.append(nodes.kill_one_that_works())
        elif missing:
            # An interval takes less time than a process that starts.
            time.sleep(2)

    with connection.connected(connection.HERE):
        train(run(**LONG), folder, observe, notes.append, workers.hire(4, stragglers=True))
    assert len([note for note in notes if "the others go on, and a new one joins them" in note]) >= lost[0] >= 1, notes
    return f"{lost[0]} workers killed with their node, whose members missed {len(absences(folder))} intervals"


def absences(folder):
    """Return (interval, member) of all that was missed."""
    events = [json.loads(line) for line in (folder / "events.jsonl").read_text().splitlines()]
    return {(event["interval"], event["member"]) for event in events if event["event"] == "absent"}


def same_others(folder, other):
    """Return what differs in the rows of members that missed nothing, and who that missed something did not join again."""
    missed, found = absences(folder), [{}, {}]
    for rows, path in zip(found, (folder, other), strict=True):
        for line in (path / "metrics.jsonl").read_text().splitlines():
            row = json.loads(line)
            del row["seconds"], row["population_environment_steps"]
            rows[row["interval"], row["member"]] = row
    members = {member for _, member in missed}
    here, there = ({key: row for key, row in rows.items() if key[1] not in members} for rows in found)
    rejoined = found[0].keys() >= {(20, member) for member in members}
    return [f"row {key}" for key in there if here.get(key) != there[key]] + ["who joined again"] * (not members or not rejoined)


def alone(folder, every=1, **more):
    from evolute import train

    train(run(checkpoint_every=every, **more), folder, note=silent)
    return folder


GRID = """
title = "Two learning rates"
envs = ["InvertedPendulum-v4"]
seeds = 2
evaluation_steps = 1000
[settings]
mix = { adam = 2 }
steps = 3000
interval = 150
batch_size = 16
buffer_size = 90
learning_starts = 20
episodes = 1
final_episodes = 1
actor_layers = [8]
critic_layers = [8]
[grid]
"optimizers.adam.learning_rate" = [0.001, 0.01]
"""


def sweep(folder, nodes):
    """Train a grid by the command line, lose a node and interrupt it in the middle, and let the same command go on."""
    (folder.parent / "grid.toml").write_text(GRID)
    words = ("sweep", "grid.toml", "--on", "ray", "--out", folder, "--keep", "--jobs", "3")
    first = start(folder.parent, *words)
    begun = folder / "runs"
    wait_until(lambda: first.poll() is not None or len({path.parent for path in begun.glob("*/checkpoints/*.json")}) >= 3)
    lost = nodes.kill_one_that_works()
    checkpoints = {path.parent.parent: path for path in begun.glob("*/checkpoints/*.json")}
    # Goes on elsewhere, and is then interrupted.
    wait_until(lambda: first.poll() is not None or len(list(begun.glob("*/result.json"))) >= 2)
    first.send_signal(signal.SIGINT)
    code, out, err = finish(first)
    assert code == 130, f"it ended with {code}: {out} {err}"
    assert "was lost; a new one goes on from the last checkpoint" in out, out
    ended = {path: path.stat().st_mtime_ns for path in begun.glob("*/result.json")}
    code, out, err = finish(start(folder.parent, *words))
    assert code == 0, f"it ended with {code}: {out} {err}"
    assert "All 4 runs have ended" in out
    assert all(path.stat().st_mtime_ns == when for path, when in ended.items()), "a run that had ended was trained again"
    resumed = [path for path in checkpoints if json.loads((path / "metadata.json").read_text())["resumed"]]
    return f"{lost} runs lost their node, {len(resumed)} of 4 were resumed, {len(ended)} had ended when it was interrupted"


def stored(folder, _nodes):
    """Train a grid with a copy on an S3 server, kill it, lose its folder, and let another one go on from the copy."""
    import boto3
    from moto.server import ThreadedMotoServer

    # It would print a line for each request.
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    try:
        address = "http://{}:{}".format(*server.get_host_and_port())
        os.environ |= {
            "AWS_ENDPOINT_URL": address,
            "AWS_ACCESS_KEY_ID": "x",
            "AWS_SECRET_ACCESS_KEY": "x",
            "AWS_REGION": "us-east-1",
        }
        store = boto3.client("s3", region_name="us-east-1")
        store.create_bucket(Bucket="runs")
        (folder.parent / "grid.toml").write_text(GRID)
        words = ("sweep", "grid.toml", "--storage", "s3://runs/sweep", "--keep", "--jobs", "2", "--out")

        def manifests():
            names = [found["Key"] for found in store.list_objects_v2(Bucket="runs").get("Contents", [])]
            return {name.split("/")[2] for name in names if "/checkpoints/" in name and name.endswith(".json")}

        first = start(folder.parent, *words, folder.parent / "lost")
        wait_until(lambda: first.poll() is not None or len(manifests()) >= 2)
        first.kill()
        assert finish(first)[0] == -signal.SIGKILL
        shutil.rmtree(folder.parent / "lost")
        begun = manifests()
        code, out, err = finish(start(folder.parent, *words, folder))
        assert code == 0, f"it ended with {code}: {out} {err}"
        resumed = [name for name in begun if json.loads((folder / "runs" / name / "metadata.json").read_text())["resumed"]]
        assert len(resumed) == len(begun) >= 2, f"{resumed} of {begun} went on from the copy"
        code, out, err = finish(start(folder.parent, "list", "s3://runs/sweep", "--json"))
        states = [json.loads(line)["state"] for line in out.splitlines()]
        assert states == ["finished"] * 4, f"it lists {states}: {err}"
        return f"{len(resumed)} runs went on from an S3 server after their folder was lost"
    finally:
        server.stop()


def sweep_alone(folder):
    (folder.parent / "grid.toml").write_text(GRID)
    # One core each, as on the cluster: how many there were is part of a checkpoint.
    jobs = len(os.sched_getaffinity(0))
    code, out, err = finish(start(folder.parent, "sweep", "grid.toml", "--out", folder, "--keep", "--jobs", jobs))
    assert code == 0, f"it ended with {code}: {out} {err}"
    return folder


def records_of(folder):
    """Return the records of a sweep, less how long everything took."""
    found = {path.name: json.loads(path.read_text()) for path in (folder / "records").glob("*.json")}
    for record in found.values():
        del record["seconds"], record["curve"]["processor_seconds"]
    return found


def same_runs(folder, other):
    """Return what differs between two sweeps."""
    runs = sorted(path.name for path in (folder / "runs").iterdir() if path.is_dir())
    assert len(runs) == 4
    found = [f"{run}/{name}" for run in runs for name in differences(folder / "runs" / run, other / "runs" / run)]
    return found + (["records"] if records_of(folder) != records_of(other) else [])


def populations(every):
    return partial(population, every=every), partial(alone, every=every), differences


CASES = {
    "a population that is checkpointed at every interval": populations(1),
    "a population that is checkpointed at every fifth interval": populations(5),
    "a population by way of a Ray Client": (client, alone, differences),
    "a population with the paper's networks": (paper, partial(alone, **PAPER), differences),
    "a population on a cluster without room to spare": (crowded, partial(alone, mix={"adam": 3, "sgd": 3}), differences),
    "a population that goes on without a lost node": (going_on, partial(alone, **LONG), same_others),
    "a sweep of four runs": (sweep, sweep_alone, same_runs),
    "a sweep with a copy in an object store": (stored, sweep_alone, same_runs),
}


STRANGERS = """
from evolute.cluster import connection
connection.is_here = lambda host: False
try:
    with connection.connected("ray"):
        print("trusted")
except connection.UserError as mistake:
    print(mistake)
"""


def tokens():
    """Other machines of a cluster are trusted where it refuses who has no token, and only there."""
    for mode, trusted in (("disabled", False), ("token", True)):
        # In processes of their own: a process has one mode for good.
        words = [sys.executable, str(Path(__file__).with_name("clusters.py")), "1", "1", mode]
        with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as other:
            assert other.stdout is not None
            # A token of one's own proves nothing of the cluster.
            own = {"RAY_ADDRESS": other.stdout.readline().strip(), "RAY_AUTH_MODE": "token"}
            found = subprocess.run(
                [sys.executable, "-c", STRANGERS], env=os.environ | own, capture_output=True, text=True, check=False
            )
            other.terminate()
        said = found.stdout
        assert (said == "trusted\n") == trusted, f"with {mode} it says: {said} {found.stderr}"
        assert trusted or "it asks nobody for a token: whoever reaches it could run code here" in said, said
    print("a cluster with a token is trusted, and one without is not", flush=True)


def main():
    wrong = 0
    chosen = {name: case for name, case in CASES.items() if all(word in name for word in sys.argv[1:])}
    with tempfile.TemporaryDirectory() as temporary, clusters.cluster(3, 2) as nodes:
        # As many as the cluster begins with, for each case.
        for number, (name, (case, reference, compared)) in enumerate(chosen.items()):
            began, folder = time.perf_counter(), Path(temporary) / str(number)
            folder.mkdir()
            while len(nodes.there) < 3:
                nodes.add()
            said = case(folder / "cluster", nodes)
            different = compared(folder / "cluster", reference(folder / "alone"))
            wrong += bool(different)
            outcome = f"DIFFERENT in {', '.join(different)}" if different else "identical"
            print(f"{name}: {outcome}; {said} ({time.perf_counter() - began:.0f} s)", flush=True)
        if not sys.argv[1:] or "token" in sys.argv[1:]:
            tokens()
    rest = clusters.left()
    if rest:
        print(f"left behind: {len(rest)} processes: {' '.join(line.split()[0] for line in rest)}")
    return bool(wrong or rest)


if __name__ == "__main__":
    code = main()
    sys.stdout.flush()
    os._exit(code)
