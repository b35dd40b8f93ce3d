"""A real Ray cluster on this machine, for a while, whose nodes can be killed for real."""

import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path

# Bytes of each node's store of objects: by default it would be a third of the memory, for every node.
STORE = 100_000_000
# A node that answers nothing is given up within seconds: Ray's own limits are for busy networks.
HEALTH = {
    "RAY_health_check_initial_delay_ms": "1000",
    "RAY_health_check_period_ms": "500",
    "RAY_health_check_timeout_ms": "2000",
    "RAY_health_check_failure_threshold": "4",
    "RAY_DEDUP_LOGS": "0",
}


class Nodes:
    """The nodes of a cluster beside its head."""

    def __init__(self, cluster, cpus):
        self._cluster, self._cpus, self.there = cluster, cpus, []

    def add(self):
        self.there.append(self._cluster.add_node(num_cpus=self._cpus, object_store_memory=STORE))

    def kill_one_that_works(self):
        """Kill a node that has actors, all of its processes at once, and return how many actors it had."""
        node, pids = max(((node, actors_of(node)) for node in self.there), key=lambda pair: len(pair[1]))
        assert pids, "nobody works anywhere"
        raylet = node.all_processes["raylet"][0].process.pid
        for pid in [raylet, *children_of(raylet)]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.there.remove(node)
        return len(pids)


def children_of(pid):
    found = subprocess.run(["ps", "-o", "pid=", "--ppid", str(pid)], capture_output=True, text=True, check=False)
    return [int(word) for word in found.stdout.split()]


def actors_of(node):
    raylet = node.all_processes["raylet"][0].process.pid
    found = subprocess.run(["ps", "-o", "pid=,args=", "--ppid", str(raylet)], capture_output=True, text=True, check=False)
    return [int(line.split()[0]) for line in found.stdout.splitlines() if "ray::Actor" in line]


@contextlib.contextmanager
def cluster(count, cpus, mode="disabled"):
    """Start a head that does no work, and some nodes; end all of them in the end."""
    os.environ.update(
        HEALTH
        | {
            "RAY_AUTH_MODE": mode,
            "RAY_AUTH_TOKEN": "0123456789abcdef" * 4,
            "JAX_PLATFORMS": "cpu",
            "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",
        }
    )
    # What the nodes' processes import: this project, and the environments of the tests.
    paths = [str(Path(__file__).parent), *filter(None, [os.environ.get("PYTHONPATH")])]
    os.environ["PYTHONPATH"] = os.pathsep.join(paths)
    from ray.cluster_utils import Cluster

    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "object_store_memory": STORE, "include_dashboard": False})
    nodes = Nodes(made, cpus)
    try:
        for _ in range(count):
            nodes.add()
        os.environ["RAY_ADDRESS"] = made.address
        yield nodes
    finally:
        made.shutdown()


def left():
    """Return the processes of Ray that this user has."""
    found = subprocess.run(["ps", "-o", "args=", "-u", str(os.getuid())], capture_output=True, text=True, check=False)
    return [line for line in found.stdout.splitlines() if "raylet/raylet " in line or "gcs_server " in line or "ray::" in line]


if __name__ == "__main__":
    # Until it is told to end: python tests/clusters.py NODES CPUS [disabled|token]
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())
    with cluster(int(sys.argv[1]), int(sys.argv[2]), *sys.argv[3:]):
        print(os.environ["RAY_ADDRESS"], flush=True)
        signal.pause()
