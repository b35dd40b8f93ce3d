"""What a population costs, side by side in one run: python benchmarks/bench.py [--full] [--out FILE.json]

Every figure is a median over repetitions that take turns, so that a slow minute of the machine hits all cases alike. Compilation
and a warm-up come first and are timed apart. Hyperparameters are the paper preset's on HalfCheetah-v4. Peers are measured where
they are installed (pip install '.[oracles]' 'sbx-rl'), and left out elsewhere.
"""

import argparse
import importlib.util
import itertools
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).parent
ENV, BATCH, OBS, ACT, UNITS = "HalfCheetah-v4", 256, 17, 6, (400, 300)
KINDS = ("adam", "diag_ggn", "kfac", "kfac_empirical")
CORES = sorted(os.sched_getaffinity(0))
SMALL = {"actor_layers": (64, 64), "critic_layers": (64, 64), "batch_size": 128}


def median_of_turns(cases, repetitions):
    """Time every case in turn, again and again; return the median of what each returns, by name."""
    found = {name: [] for name in cases}
    for _ in range(repetitions):
        for name, measure in cases.items():
            found[name].append(measure())
    return {name: statistics.median(values) for name, values in found.items()}


# ------------------------------------------------------------------------------------------------------- arithmetic alone


def products():
    """Return (m, k, n) and how often, of every matrix product that one TD3 update with Adam needs, on average."""
    actor, critic = (OBS, *UNITS, ACT), (OBS + ACT, *UNITS, 1)

    def forward(sizes):
        return [(BATCH, i, o) for i, o in itertools.pairwise(sizes)]

    def weights(sizes):
        return [(i, BATCH, o) for i, o in itertools.pairwise(sizes)]

    def inputs(sizes, to_the_input=False):
        pairs = list(itertools.pairwise(sizes))
        return [(BATCH, o, i) for i, o in (pairs if to_the_input else pairs[1:])]

    every = forward(actor) + 4 * forward(critic) + 2 * weights(critic) + 2 * inputs(critic)
    other = forward(actor) + forward(critic) + inputs(critic, to_the_input=True) + inputs(actor) + weights(actor)
    # The actor's share comes every other update.
    return [(shape, 2) for shape in every] + [(shape, 1) for shape in other]


def product_ceiling():
    """Return a measure of the seconds that the products of one update take, one stream of them per core."""
    import jax
    import jax.numpy as jnp
    import numpy as np

    rng = np.random.default_rng(0)
    # Two updates' worth, so that the actor's share comes once.
    shapes = [shape for shape, times in products() for _ in range(times)]
    factors = [(rng.standard_normal((m, k), np.float32), rng.standard_normal((k, n), np.float32)) for m, k, n in shapes]
    multiply = jax.jit(lambda pairs: [jnp.matmul(a, b) for a, b in pairs])
    devices = jax.local_devices()[: len(CORES)]
    placed = [jax.device_put(factors, device) for device in devices]

    def measure(times=40):
        began = time.perf_counter()
        for _ in range(times):
            results = [multiply(pairs) for pairs in placed]
        jax.block_until_ready(results)
        # Every device did two updates' products, `times` times.
        return (time.perf_counter() - began) / (2 * times * len(devices))

    measure(5)
    return measure, sum(2 * m * k * n for m, k, n in shapes) / 2


# ------------------------------------------------------------------------------------------------------------ populations


def population(kind, members, env=ENV, prefilled=5_000, **settings):
    """Return a host whose members have replay and whose optimizers have burnt in."""
    import numpy as np

    from evolute import Run
    from evolute.training.host import Host

    run = Run(env, mix={kind: members}, steps=1_000_000, learning_starts=100, buffer_size=100_000, **settings)
    host = Host([run], range(members))
    rng = np.random.default_rng(0)
    for member in host.members.values():
        fill(member, rng, prefilled)
    short(host, 5).roll_out(0, lambda _: None)
    return host


def fill(member, rng, steps, episode=1_000):
    """Give a member's replay so many random transitions, in episodes."""
    import numpy as np

    shape = member.environment.shape
    obs = rng.standard_normal((episode + 1, shape.observations), np.float32)
    action = rng.uniform(-1, 1, shape.actions).astype(np.float32)
    for step in range(steps):
        member.replay.insert(obs[step % episode], action, 1.0, obs[step % episode + 1], False)
    member.environment_steps = steps


def short(host, steps):
    """Return the host with intervals of so many steps."""
    from dataclasses import replace

    host.runs = [replace(run, interval=steps) for run in host.runs]
    return host


def update_only(host, updates=40):
    """Return a measure of the seconds of one member's update, batches drawn beforehand and groups in turn as in training."""
    import numpy as np

    from evolute.training import rollout
    from evolute.training.replay import Sample

    prepared = []
    for group in host.groups:
        members = [host.members[lane] for lane in group.lanes]
        samples = [member.sample(host.runs[0].batch_size, group.noise) for member in members]
        sample = Sample(*(np.stack(part) for part in zip(*samples, strict=True)))
        prepared.append((group, sample, rollout.observations(members), rollout.noises(members)))

    def measure():
        began = time.perf_counter()
        for _ in range(updates):
            for group, sample, obs, noise in prepared:
                group.actions()  # of its last update
                group.learn(sample, obs, noise)
        for group, *_ in prepared:
            group.actions()
        return (time.perf_counter() - began) / (updates * len(host.members))

    measure()
    return measure


def end_to_end(host, steps=200):
    """Return a measure of the seconds of one member's step: act, step the environment, remember, sample, update.

    Every measure is an interval, so it begins with new environments: a few milliseconds each.
    """

    def measure():
        began = time.perf_counter()
        short(host, steps).roll_out(0, lambda _: None)
        return (time.perf_counter() - began) / (steps * len(host.members))

    measure()
    return measure


class Crew:
    """Eight members dealt over a process per core."""

    def __init__(self, **settings):
        from evolute import Run
        from evolute.training import processes

        steps = 1_000_000
        self.run = Run(ENV, mix={"adam": 8}, steps=steps, learning_starts=100, buffer_size=100_000, interval=400, **settings)
        self.workers = processes.start([self.run], len(CORES), print, [])
        self.interval = 0
        # Compilation, and the random steps before learning starts.
        self.end_to_end()

    def end_to_end(self, workers=None):
        """Return the seconds of one member's step in an interval that some processes train, of the slowest of them."""
        from evolute.training.worker import Orders, together

        orders, workers = Orders(self.run.initial_hyperparameters("adam"), [0]), workers or self.workers
        waits = [w.train(self.interval, dict.fromkeys(w.lanes, orders), lambda _: None) for w in workers]
        seconds = together([wait() for wait in waits]).seconds
        self.interval += 1
        return (seconds["rollout"] + seconds["learn"]) / (self.run.interval * sum(len(w.lanes) for w in workers))

    def alone(self):
        """Return the same of one process on its core, while the others wait: what the model for more cores is made of."""
        return self.end_to_end(self.workers[:1])

    def close(self):
        for worker in self.workers:
            worker.close()


def environment_only(env, steps=2_000):
    """Return a measure of the seconds of one environment step with random actions."""
    import numpy as np

    from evolute.environments.gym import Environment

    environment = Environment(env)
    actions = np.random.default_rng(0).uniform(-1, 1, (steps, environment.shape.actions)).astype(np.float32)
    environment.reset(0)

    def measure():
        began = time.perf_counter()
        for action in actions:
            step = environment.step(action)
            if step.terminated or step.truncated:
                environment.reset()
        return (time.perf_counter() - began) / steps

    return measure


# --------------------------------------------------------------------------------------------------------- whole processes


def child(code, **more):
    """Run a piece of Python in a process of its own; return what its last line prints, as JSON."""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, env=os.environ | more)
    if done.returncode:
        raise RuntimeError(done.stderr[-2_000:])
    return json.loads(done.stdout.splitlines()[-1])


WHOLE_RUN = """
import json, sys, tempfile, time
began = time.perf_counter()
from pathlib import Path
import evolute
run = evolute.Run({env!r}, mix={mix!r}, steps={steps}, interval={interval}, learning_starts={learning_starts}, **{more!r})
first, spent = [], dict()
def observe(progress):
    if not first and progress.steps > run.learning_starts:
        first.append(time.perf_counter() - began)
with tempfile.TemporaryDirectory() as folder:
    result = evolute.train(run, Path(folder) / "run", observe)
    for line in (Path(folder) / "run" / "metrics.jsonl").read_text().splitlines():
        row = json.loads(line)
        if row["member"] == 0 and row["interval"] > 1:
            for phase, seconds in row["seconds"].items():
                spent[phase] = spent.get(phase, 0.0) + seconds
print(json.dumps(dict(training=first[0], whole=time.perf_counter() - began, phases=spent)))
"""


def whole_run(env=ENV, mix=None, steps=400, interval=200, learning_starts=100, more=None, **environ):
    code = WHOLE_RUN.format(
        env=env, mix=mix or {"adam": 1}, steps=steps, interval=interval, learning_starts=learning_starts, more=more or {}
    )
    return child(code, **environ)


def starts(mix, repetitions):
    """Return seconds until the first update of a whole process, with an empty and with a filled compilation cache."""
    cold, warm = [], []
    for _ in range(repetitions):
        with tempfile.TemporaryDirectory() as cache:
            settings = {"JAX_COMPILATION_CACHE_DIR": cache, "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"}
            cold.append(whole_run(mix=mix, **settings)["training"])
            warm.append(whole_run(mix=mix, **settings)["training"])
    return statistics.median(cold), statistics.median(warm)


MEMORY = """
import json, sys
import numpy as np
import evolute
from evolute.training import placement
from evolute.training.host import Host
sys.path.insert(0, {here!r})
import bench
placement.use_all_cores(8)
host = Host([evolute.Run({env!r}, mix=dict(adam=8), steps=1_000_000)], range(8))
for member in host.members.values():
    bench.fill(member, np.random.default_rng(0), 1_000_000)
host.runs = [evolute.Run({env!r}, mix=dict(adam=8), steps=2_000_000, interval=20)]
host.roll_out(0, lambda _: None)
# Not getrusage: its peak includes what the parent held when it started this process.
peak = next(line for line in open("/proc/self/status") if line.startswith("VmHWM"))
print(json.dumps(int(peak.split()[1]) * 1024))
"""

# One peer agent on some cores: seconds per environment step with one update each, after a warm-up.
PEER = """
import json, os, sys, time
os.sched_setaffinity(0, {cores!r})
import numpy as np
import gymnasium
if {peer!r} == "sb3":
    import torch
    torch.set_num_threads({threads})
    from stable_baselines3 import TD3
else:
    from sbx import TD3
from stable_baselines3.common.noise import NormalActionNoise
noise = NormalActionNoise(np.zeros(6), 0.1 * np.ones(6))
agent = TD3("MlpPolicy", gymnasium.make({env!r}), learning_rate=1e-3, batch_size={batch}, learning_starts=200, gradient_steps=1,
            train_freq=1, action_noise=noise, policy_kwargs=dict(net_arch={units}), buffer_size=100_000, device="cpu")
agent.learn(600)
seconds = []
for _ in range({repetitions}):
    began = time.perf_counter()
    agent.learn({steps}, reset_num_timesteps=False)
    seconds.append((time.perf_counter() - began) / {steps})
print(json.dumps(sorted(seconds)[len(seconds) // 2]))
"""


ONE_THREAD = {"OMP_NUM_THREADS": "1", "XLA_FLAGS": "--xla_cpu_multi_thread_eigen=false"}


def one_after_the_other(settings):
    """Return seconds per agent and step where each agent has all cores to itself, and the agents take turns."""
    return child(PEER.format(cores=set(CORES), threads=len(CORES), **settings))


def side_by_side(settings):
    """Return seconds per agent and step of pinned processes with one thread, one per core, each training one agent."""
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", PEER.format(cores={core}, threads=1, **settings)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=os.environ | ONE_THREAD,
        )
        for core in CORES
    ]
    values = []
    for process in processes:
        out, err = process.communicate(timeout=900)
        if process.returncode:
            raise RuntimeError(err[-2_000:])
        values.append(json.loads(out.splitlines()[-1]))
    return statistics.mean(values) / len(processes)


# A critic's gradient step in PyTorch, plain and with BackPACK's exact diagonal of the Gauss-Newton matrix; their ratio.
BACKPACK = """
import json, statistics, time
import torch
from backpack import backpack, extend
from backpack.extensions import DiagGGNExact
torch.set_num_threads({threads})
x, y = torch.randn(256, {inputs}), torch.randn(256, 1)

def seconds(second_order):
    net = torch.nn.Sequential(torch.nn.Linear({inputs}, 400), torch.nn.ReLU(), torch.nn.Linear(400, 300), torch.nn.ReLU(),
                              torch.nn.Linear(300, 1))
    loss_of = torch.nn.MSELoss()
    if second_order:
        net, loss_of = extend(net), extend(loss_of)
    def step():
        net.zero_grad()
        loss = loss_of(net(x), y)
        if second_order:
            with backpack(DiagGGNExact()):
                loss.backward()
        else:
            loss.backward()
        with torch.no_grad():
            for p in net.parameters():
                p -= 1e-3 * (p.grad / (p.diag_ggn_exact + 0.1) if second_order else p.grad)
    for _ in range(10):
        step()
    def measure():
        began = time.perf_counter()
        for _ in range(50):
            step()
        return (time.perf_counter() - began) / 50
    return measure

plain, second = seconds(False), seconds(True)
pairs = [(plain(), second()) for _ in range(7)]
print(json.dumps(statistics.median(b for _, b in pairs) / statistics.median(a for a, _ in pairs)))
"""

# ------------------------------------------------------------------------------------------------------------------- all


def measure(full):
    import jax

    from evolute.training import placement

    placement.use_all_cores(64)
    repetitions, found = (7 if full else 3), {}
    counts = (1, 2, 4, 8, 16, 32, 64) if full else (1, 8)
    ceiling, flop = product_ceiling()

    say("update only and end to end, 8 members")
    # The two forms of K-FAC cost the same.
    kinds = KINDS if full else KINDS[:-1]
    hosts = {kind: population(kind, 8) for kind in kinds}
    cases = {"products": ceiling}
    cases |= {f"update {kind}": update_only(host) for kind, host in hosts.items()}
    cases |= {f"whole {kind}": end_to_end(host) for kind, host in hosts.items() if kind == "adam" or (full and kind == "kfac")}
    if full:
        hosts["narrow"] = population("adam", 8, precision="bfloat16")
        cases |= {"update adam, bfloat16": update_only(hosts["narrow"]), "whole adam, bfloat16": end_to_end(hosts["narrow"])}
    found["side_by_side"] = median_of_turns(cases, repetitions)
    found["flop_per_update"] = flop
    for host in hosts.values():
        host.close()

    say("the same with networks of 64-64 and batches of 128")
    host, crew = population("adam", 8, **SMALL), Crew(**SMALL)
    cases = {"update": update_only(host, 100), "one process": end_to_end(host, 400)}
    cases |= {"workers": crew.end_to_end, "a worker alone": crew.alone}
    found["small"] = median_of_turns(cases, repetitions)
    host.close()
    crew.close()

    say("growth with the number of members")
    hosts = {count: population("adam", count) for count in counts}
    found["growth"] = median_of_turns({str(n): update_only(host, 20) for n, host in hosts.items()}, repetitions)
    for host in hosts.values():
        host.close()

    say("environments")
    tasks = ("HalfCheetah-v4", "Hopper-v4", "Walker2d-v4", "Ant-v4", "Humanoid-v4", "Swimmer-v4") if full else (ENV,)
    found["environment"] = median_of_turns({task: environment_only(task) for task in tasks}, repetitions)

    say("start-up, cold and warm")
    found["start_cold"], found["start_warm"] = starts({"adam": 6, "kfac": 2} if full else {"adam": 2}, 3 if full else 1)

    say("phases of a run with checkpoints")
    mix, steps = ({"adam": 6, "kfac": 2}, 20_000) if full else ({"adam": 2}, 1_500)
    more = {"episodes": 5} if full else {"episodes": 1}
    interval = found["interval"] = 10_000 if full else 500
    cache = jax.config.jax_compilation_cache_dir
    environ = {"JAX_COMPILATION_CACHE_DIR": cache} if cache else {}
    found["phases"] = whole_run(mix=mix, steps=steps, interval=interval, learning_starts=interval, more=more, **environ)["phases"]

    if full:
        say("memory of 8 members with full buffers")
        found["memory"] = {task: child(MEMORY.format(env=task, here=str(HERE))) for task in ("HalfCheetah-v4", "Humanoid-v4")}
    found["peers"], found["small_peers"] = {}, {}
    for peer, package in (("sb3", "stable_baselines3"), ("sbx", "sbx")):
        if importlib.util.find_spec(package) is None:
            say(f"{peer}: not installed, left out")
            continue
        say(f"{peer}: both arrangements, between two measures of ours")
        host = population("adam", 8)
        ours = end_to_end(host)
        before = ours()
        settings = {"peer": peer, "env": ENV, "steps": 1_000 if full else 300, "repetitions": 3}
        large = settings | {"units": list(UNITS), "batch": BATCH}
        theirs = {"side_by_side": side_by_side(large), "one_after_the_other": one_after_the_other(large)}
        found["peers"][peer] = {**theirs, "ours": (before + ours()) / 2}
        host.close()
        small = settings | {"units": list(SMALL["actor_layers"]), "batch": SMALL["batch_size"], "steps": 1_500}
        found["small_peers"][peer] = {"side_by_side": side_by_side(small), "one_after_the_other": one_after_the_other(small)}
    if full and importlib.util.find_spec("backpack") is not None:
        say("BackPACK")
        found["backpack"] = child(BACKPACK.format(threads=len(CORES), inputs=OBS + ACT))
    return found


def say(text):
    print(f"{time.strftime('%H:%M:%S')} {text}", file=sys.stderr, flush=True)


def about():
    from evolute.environments.gym import versions

    lines = Path("/proc/cpuinfo").read_text().splitlines()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    amx = any("amx_bf16" in line for line in lines if line.startswith("flags"))
    return {"versions": versions(), "processor": names[0] if names else platform.processor(), "cores": len(CORES), "amx": amx}


def ms(seconds):
    return f"{seconds * 1_000:.2f}"


def table(found):
    """Return the results in Markdown."""
    side, growth, phases = found["side_by_side"], found["growth"], found["phases"]
    adam, whole = side["update adam"], sum(phases.values())
    names = {"products": "matrix products alone", **{f"update {k}": f"update only, `{k}`" for k in KINDS}}
    names |= {f"whole {k}": f"end to end, `{k}`" for k in KINDS}
    names |= {"update adam, bfloat16": "update only, `adam`, bfloat16", "whole adam, bfloat16": "end to end, `adam`, bfloat16"}
    steps = [(names[case], ms(value), f"{value / adam:.2f}") for case, value in side.items()]
    small = found.get("small", {})
    rest = sum(phases[name] for name in ("evaluate", "evolve", "record", "checkpoint")) / whole
    targets = [
        ("update only, of the product ceiling: 90%", f"{side['products'] / adam:.0%}"),
        ("end to end, of update only: 85%", f"{adam / side['whole adam']:.0%}"),
        ("K-FAC step against Adam's: at most 1.8", f"{side['update kfac'] / adam:.2f}"),
        ("Diag-GGN step against Adam's: at most 1.25", f"{side['update diag_ggn'] / adam:.2f}"),
        ("evaluation, evolution, recording, checkpoints: under 8%", f"{rest:.1%}"),
        (f"checkpoints alone, every {found['interval']:,} steps: under 3% at 10,000", f"{phases['checkpoint'] / whole:.2%}"),
        ("second start until it trains: 10 s", f"{found['start_warm']:.1f} s (first start: {found['start_cold']:.1f} s)"),
    ]
    if small:
        for case, words in (("one process", "in one process"), ("workers", f"with {found['about']['cores']} workers")):
            targets.append((f"64-64, batches of 128, {words}, of update only: 70%", f"{small['update'] / small[case]:.0%}"))
        best = min(small["one process"], small["workers"])
        for peer, values in found.get("small_peers", {}).items():
            other = min(values.values())
            targets.append(
                (f"64-64, batches of 128, against {peer}, best arrangements", f"{other / best:.2f} times ({ms(other)} ms)")
            )
    if "64" in growth:
        targets.append(("cost per member, 64 against 8: within 10%", f"{growth['64'] / growth['8'] - 1:+.0%}"))
    for task, size in found.get("memory", {}).items():
        targets.append((f"memory, 8 members, full buffers, {task}", f"{size / 1e9:.1f} GB"))
    if "whole adam, bfloat16" in side:
        ratio = side["whole adam"] / side["whole adam, bfloat16"]
        targets.append(
            ("bfloat16, end to end: 1.3 times faster where the CPU has AMX", f"{ratio:.2f} (AMX: {found['about']['amx']})")
        )
    for peer, values in found["peers"].items():
        for name, words in (("side_by_side", "pinned processes with one thread"), ("one_after_the_other", "one after the other")):
            said = f"{values[name] / values['ours']:.2f} times ({ms(values[name])} ms against {ms(values['ours'])})"
            targets.append((f"end to end against {peer}, {words}", said))
    if "backpack" in found:
        targets.append(("BackPACK's diagonal: critic step against its plain step", f"{found['backpack']:.2f}"))
    gflop = found["flop_per_update"] / 1e9
    return "\n\n".join(
        [
            markdown(("per member and step, 8 members", "ms", "ratio to Adam's update"), steps),
            f"Products: {gflop:.2f} GFLOP per update, {gflop / side['products']:.0f} GFLOP/s on {found['about']['cores']} cores.",
            markdown(("target", "measured"), targets),
            markdown(("per member and step, 64-64, batches of 128", "ms"), [(case, ms(value)) for case, value in small.items()]),
            markdown(("cores, a worker on each", "ms per member and step by the model", "measured"), model(small)),
            markdown(("members", "ms per member and update, `adam`"), [(n, ms(value)) for n, value in growth.items()]),
            markdown(("environment", "µs per step, one core"), [(t, f"{v * 1e6:.0f}") for t, v in found["environment"].items()]),
            markdown(("phase", "share of the wall time"), [(name, f"{spent / whole:.1%}") for name, spent in phases.items()]),
        ]
    )


def model(small):
    """Return rows of what workers cost: a member and step takes a core as long as alone, whatever the other cores do."""
    if "a worker alone" not in small:
        return []
    measured = {len(CORES): ms(small["workers"])}
    return [(str(n), ms(small["a worker alone"] / n), measured.get(n, "-")) for n in (len(CORES), 16, 64)]


def markdown(head, rows):
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--full", action="store_true", help="all member counts, tasks and repetitions")
    parser.add_argument("--out", type=Path, default=None, help="JSON file for the results")
    parser.add_argument("--show", type=Path, default=None, help="print the table of a JSON file instead of measuring")
    arguments = parser.parse_args()
    if arguments.show:
        print(table(json.loads(arguments.show.read_text())))
        return
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    from evolute.commands.compile_cache import remember_compiled_programs

    remember_compiled_programs()
    began = time.perf_counter()
    found = {**measure(arguments.full), "about": about()}
    found["seconds"] = time.perf_counter() - began
    out = arguments.out or HERE / ("full.json" if arguments.full else "short.json")
    out.write_text(json.dumps(found, indent=2) + "\n")
    print(table(found))
    print(f"\nMeasured in {found['seconds']:.0f} s; written to {out}")


if __name__ == "__main__":
    main()
