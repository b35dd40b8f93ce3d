"""Everything that a short stay on a GPU should check and measure, in one go: python benchmarks/gpu.py [--small] [--out FILE.json]

First correctness: members as one batch axis on the default device against the same members one by one on the CPU, for every kind.
Then speed: update only for 1 to 64 members and each precision, environments included, and how long five populations of eight
would take for a million steps. `--small` uses tiny networks and few steps, to try the script where there is no GPU.
"""

import argparse
import dataclasses
import json
import time
from pathlib import Path

import bench
import jax
import numpy as np
from bench import median_of_turns, say

POPULATION = {"adam": 6, "kfac": 2}
PRECISIONS = ("float32", "tensorfloat32", "bfloat16")
SMALL = {"actor_layers": (32, 32), "critic_layers": (32, 32)}


def populations(mix, count, settings):
    """Return a host of `count` populations with replay, which share groups as one batch axis per kind."""
    from evolute import Run
    from evolute.training.host import Host

    base = Run(bench.ENV, mix=mix, learning_starts=100, buffer_size=20_000, placement="vmap", **settings)
    runs = [dataclasses.replace(base, seed=seed) for seed in range(count)]
    host = Host(runs, range(count * len(base.kinds)))
    rng = np.random.default_rng(0)
    for member in host.members.values():
        bench.fill(member, rng, 5_000)
    # The burn-in of curvature, and the first compilation.
    bench.short(host, 5).roll_out(0, lambda _: None)
    return host


def end_to_end(host, steps):
    """Return a measure of the seconds of one step of all members of all populations, environments and updates included."""
    one = bench.end_to_end(host, steps)
    return lambda: one() * len(host.members)


def update_only(host, updates):
    """Return a measure of the seconds of one update of all members of all populations."""
    one = bench.update_only(host, updates)
    return lambda: one() * len(host.members)


def correctness(settings, updates):
    """Return the largest difference of a parameter by kind, after updates on the same samples, and the largest change of one."""
    from evolute import Run, algorithms
    from evolute.environments.gym import Environment
    from evolute.training import placement
    from evolute.training.replay import Sample

    environment, found = Environment(bench.ENV), {}
    for kind in bench.KINDS:
        run = Run(bench.ENV, mix={kind: 3}, **settings)
        algorithm = algorithms.build(run, kind, *environment.shape)
        programs = placement.make_programs(algorithm)
        learners = [algorithm.init(np.random.default_rng(n)) for n in range(3)]
        together = placement.Group([0, 1, 2], kind, programs, jax.devices()[0], learners)
        apart = [placement.Group([n], kind, programs, jax.devices("cpu")[0], [learners[n]]) for n in range(3)]
        for group in (together, *apart):
            group.begin_interval([run.initial_hyperparameters(kind)] * len(group.lanes))
        rng = np.random.default_rng(0)
        for _ in range(updates):
            rows = rng.standard_normal((3, bench.BATCH, 2 * bench.OBS + bench.ACT + 2), np.float32)
            rows[..., bench.OBS + bench.ACT + 1] = 0.0
            weights = np.full((3, bench.BATCH), 1 / bench.BATCH, np.float32)
            noise = rng.standard_normal((3, bench.BATCH, bench.ACT), np.float32)
            obs, exploration = rng.standard_normal((3, bench.OBS), np.float32), np.zeros((3, bench.ACT), np.float32)
            together.learn(Sample(rows, weights, noise), obs, exploration)
            for n, group in enumerate(apart):
                one = slice(n, n + 1)
                group.learn(Sample(rows[one], weights[one], noise[one]), obs[one], exploration[one])

        def largest(differences):
            return max(float(np.abs(leaf).max()) for leaf in jax.tree.leaves(differences))

        pairs = [(together.take(n), apart[n].take(n), learners[n]) for n in range(3)]
        found[kind] = {
            "apart": max(largest(jax.tree.map(np.subtract, a.critics, b.critics)) for a, b, _ in pairs),
            "moved": max(largest(jax.tree.map(np.subtract, b.critics, new.critics)) for _, b, new in pairs),
        }
        say(f"{kind}: {found[kind]}")
    environment.close()
    return found


def measure(small):
    settings = SMALL if small else {}
    updates, steps, repetitions = (3, 5, 2) if small else (50, 100, 5)
    found = {"device": jax.devices()[0].device_kind, "platform": jax.devices()[0].platform}

    say("correctness against the CPU")
    found["correctness"] = correctness(settings, 4 if small else 20)

    say("update only, by members")
    counts = (1, 4) if small else (1, 2, 4, 8, 16, 32, 64)
    hosts = {n: populations({"adam": n}, 1, settings) for n in counts}
    found["members"] = median_of_turns({str(n): update_only(s, updates) for n, s in hosts.items()}, repetitions)
    for host in hosts.values():
        host.close()

    say("five populations of eight, by precision and steps per round")
    count = 2 if small else 5
    cases = {}
    for precision in PRECISIONS:
        for per_round in (1, 4):
            name = f"{precision}, {per_round} steps per round"
            cases[name] = populations(POPULATION, count, settings | {"precision": precision, "steps_per_round": per_round})
    measures = {
        f"update only, {name}": update_only(s, updates) for name, s in cases.items() if name.endswith("1 steps per round")
    }
    measures |= {f"end to end, {name}": end_to_end(s, steps) for name, s in cases.items()}
    found["populations"] = median_of_turns(measures, repetitions)
    for host in cases.values():
        host.close()
    found["minutes_for_a_million_steps"] = {name: value * 1e6 / 60 for name, value in found["populations"].items()}
    found["environments"] = bench.environment_only(bench.ENV)()
    return found


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--small", action="store_true", help="tiny networks and few steps")
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".json"))
    arguments = parser.parse_args()
    from evolute.commands.compile_cache import remember_compiled_programs

    remember_compiled_programs()
    began = time.perf_counter()
    found = {**measure(arguments.small), "about": bench.about()}
    found["seconds"] = time.perf_counter() - began
    arguments.out.write_text(json.dumps(found, indent=2) + "\n")
    print(json.dumps({name: value for name, value in found.items() if name != "about"}, indent=2))


if __name__ == "__main__":
    main()
