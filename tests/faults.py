"""Real faults against real runs: python tests/faults.py [--killed-runs N] [--seed N]

Starts runs, kills and damages them, resumes them, and compares what is left with a run that nothing happened to. Prints a line
per fault and a total; exits with 1 if a run was lost or differs.
"""

import argparse
import contextlib
import ctypes
import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

TESTS = Path(__file__).parent
# One hidden layer: every process traces its programs anew, and K-FAC's is as long as there are layers.
SMALL = (
    *("--actor-layers", "16", "--critic-layers", "16", "--batch-size", "32"),
    *("--episodes", "1", "--final-episodes", "2"),
)
MIXED = (
    *("Hopper-v4", "--steps", "900", "--interval", "100", "--learning-starts", "150", "--buffer-size", "350"),
    *("--mix", "adam=1", "kfac=1", "sac:kfac_empirical=1"),
    # Batch sizes stay as they are: every new one costs a compilation, here in each of a hundred processes.
    *("--perturb", "actor_learning_rate", "critic_damping"),
    *("--normalize-observations", "true", "--reward-scale", "0.5", "--n-step", "2", "--layer-norm", "true"),
    *SMALL,
)


class Lost(Exception):
    """A run did not survive."""


# ---------------------------------------------------------------------------------------------------------- processes


def environment():
    path = os.pathsep.join([str(TESTS), *filter(None, [os.environ.get("PYTHONPATH")])])
    return os.environ | {"JAX_PLATFORMS": "cpu", "PYTHONPATH": path, "PYTHONUNBUFFERED": "1"}


def start(folder, *words, script=("-m", "evolute.commands.cli"), through=(), **more):
    """Start the command line; `through` are words before the command, such as a shell's that prepares something."""
    command = [*through, sys.executable, *script, *map(str, words)]
    return subprocess.Popen(
        command, cwd=folder, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **more
    )


def finish(process, seconds=300):
    out, err = process.communicate(timeout=seconds)
    return process.returncode, out, err


def evolute(folder, *words, **more):
    return finish(start(folder, *words, **more))


def die(folder, place, count, *words):
    """Run the command line to a place where something happens to it."""
    return evolute(folder, place, count, *words, script=(TESTS / "die.py",))


def resume(folder, run, *words):
    """Go on to the end, or to the first beginning that there can be; raises Lost where neither is possible."""
    code, out, err = evolute(folder, "resume", run, *words)
    if code:
        raise Lost(f"resume exits with {code}: {err.strip()[-300:]}")
    return out + err


def go_on_or_begin(folder, run, words):
    """Do what a user does after a fault: resume the run, or start it again where none had begun."""
    if (folder / run / "config.toml").exists():
        return resume(folder, run)
    code, out, err = evolute(folder, "train", *words, "--out", run)
    if code:
        raise Lost(f"train exits with {code}: {err.strip()[-300:]}")
    return out + err


# --------------------------------------------------------------------------------------------------------- comparison


def contents(run):
    """Return everything that a run left, but for what tells the time or that it was resumed."""
    lines = (run / "metrics.jsonl").read_text().splitlines()
    result = json.loads((run / "result.json").read_text())
    found = {
        "metrics.jsonl": [{k: v for k, v in json.loads(line).items() if k != "seconds"} for line in lines],
        "events.jsonl": (run / "events.jsonl").read_text(),
        "config.toml": (run / "config.toml").read_text(),
        "result.json": {k: v for k, v in result.items() if k != "wall_seconds"},
    }
    for path in sorted(run.glob("*/*")):
        if path.suffix == ".json" and path.parent.name == "checkpoints":
            manifest = json.loads(path.read_bytes().partition(b"\n")[2])
            found[path.name] = {k: v for k, v in manifest.items() if k not in ("seconds", "records")}
        else:
            found[path.name] = hashlib.sha256(path.read_bytes()).hexdigest()
    return found


def differences(run, reference):
    a, b = contents(run), contents(reference)
    return [name for name in sorted({*a, *b}) if a.get(name) != b.get(name)]


# -------------------------------------------------------------------------------------------------------------- faults


class Report:
    """Counts and prints what came of each fault."""

    def __init__(self, reference):
        self.reference = reference
        self.survived, self.lost, self.different, self.faults = 0, 0, 0, 0

    def survive(self, what, run, act, faults=1, identical=True):
        """Let something happen to a run; count whether it came to its end, and whether that is the undisturbed one."""
        began = time.perf_counter()
        self.faults += faults
        try:
            said = act()
            changed = differences(run, self.reference) if identical else []
        except (Lost, AssertionError, OSError, ValueError, subprocess.TimeoutExpired) as error:
            self.lost += 1
            outcome = f"LOST: {error}"
        else:
            self.survived += 1
            self.different += bool(changed)
            outcome = f"DIFFERENT in {', '.join(changed)}" if changed else "identical" if identical else "survived"
            if said:
                outcome += f"; {said}"
        print(f"{what:<58} {outcome} ({time.perf_counter() - began:.0f} s)", flush=True)

    def total(self):
        print(f"{self.faults} faults: {self.survived} runs survived, {self.lost} lost, {self.different} different")
        return bool(self.lost or self.different)


def kill_at_random(folder, run, rng, report):
    """Start a run and kill it again and again, each time at another moment, until it ends all the same."""
    kills = 0
    while not (folder / run / "result.json").exists():
        begun = (folder / run / "config.toml").exists()
        process = start(folder, *(("resume", run) if begun else ("train", *MIXED, "--out", run)))
        if begun:
            wait_until(lambda p=process: p.poll() is not None or holds(p, folder / run))
        # From the moment that it holds the lock: loading, compiling, training, checkpoints. Later and later, so that it gets
        # somewhere on a machine that is busy with other things, too.
        time.sleep(rng.uniform(0.0, 5.0 + kills / 2))
        process.kill()
        kills += finish(process)[0] == -signal.SIGKILL
        assert kills < 100, "it does not get anywhere"
    report.faults += kills
    return f"{kills} kills"


def holds(process, run):
    """Return whether a process holds a run's lock."""
    lock = run / "lock"
    return lock.exists() and f'"process": {process.pid},' in lock.read_text()


def state_of(pid):
    """Return a process's state and its parent's number; None where it is no more."""
    with contextlib.suppress(OSError):
        state, parent = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[:2]
        return None if state == "Z" else (state, int(parent))


def workers_of(process):
    """Return the numbers of the worker processes that a command has."""
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError):
            if (state_of(pid) or ("", 0))[1] == process.pid and "spawn_main" in Path(f"/proc/{pid}/cmdline").read_text():
                found.append(int(pid))
    return sorted(found)


def workers_killed(folder, run, count):
    """Kill a worker process, again and again, each time after another checkpoint: the command goes on by itself."""
    process = start(folder, "train", *MIXED, "--out", run, "--workers", "2")
    for number in range(count):
        wait_until(lambda n=number: process.poll() is not None or (folder / run / f"checkpoints/{2 * n + 1:06}.json").exists())
        found = workers_of(process)
        if not found:
            raise Lost("it has no worker processes")
        os.kill(found[number % len(found)], signal.SIGKILL)
    code, out, err = finish(process)
    if code:
        raise Lost(f"train exits with {code}: {err.strip()[-300:]}")
    told = (out + err).count("a new one goes on from the last checkpoint")
    assert told == count, f"{told} losses are told of"


def workers_orphaned(folder, run):
    """Kill the command that has workers: none stays behind, and the run goes on in one process."""
    process = start(folder, "train", *MIXED, "--out", run, "--workers", "2")
    wait_until(lambda: process.poll() is not None or (folder / run / "checkpoints/000002.json").exists())
    found = workers_of(process)
    process.kill()
    finish(process)
    wait_until(lambda: not any(map(state_of, found)))
    return resume(folder, run) and ""


def go_on_or_end(folder, run):
    if not (folder / run / "result.json").exists():
        go_on_or_begin(folder, run, MIXED)


def wait_until(true, seconds=120):
    began = time.perf_counter()
    while not true():
        if time.perf_counter() - began > seconds:
            raise Lost(f"nothing happened for {seconds} s")
        time.sleep(0.01)


def killed_at(folder, place, count, run):
    """Kill a run at a place of the program, in its first process or while it is resumed."""
    if place in ("restore", "rewind", "rewound"):
        die(folder, "replay", 4, "train", *MIXED, "--out", run)
        words = ("resume", run)
    else:
        words = ("train", *MIXED, "--out", run)
    code, _, err = die(folder, place, count, *words)
    assert code == -signal.SIGKILL, f"it was not killed: exit code {code}, {err[-200:]}"
    go_on_or_begin(folder, run, MIXED)


def stopped(folder, run, intervals=5):
    """Leave a run that was killed after some intervals."""
    code, _, err = die(folder, "manifest", intervals, "train", *MIXED, "--out", run)
    assert code == -signal.SIGKILL, err


def damaged(folder, run, template, file, how):
    """Damage one file of a stopped run, and resume it; what was damaged must be said."""
    shutil.copytree(template, folder / run)
    newest = max((folder / run / "checkpoints").glob("*.json"))
    # A member that was replaced after it saved its replay leaves a file that no checkpoint needs.
    manifest = json.loads(newest.read_text().partition("\n")[2])
    needed = {segment["file"] for member in manifest["members"] for segment in member["segments"]}
    path = max(path for path in (folder / run).glob(file) if path.parent.name != "replay" or path.name in needed)
    data = bytearray(path.read_bytes())
    if how == "missing":
        path.unlink()
    elif how == "truncated":
        path.write_bytes(data[: len(data) // 2])
    else:
        data[len(data) // 3] ^= 0x10
        path.write_bytes(data)
    said = resume(folder, run)
    assert "damaged" in said, f"the damage was not named: {said[:300]}"
    assert path.name in said, f"the damaged file was not named: {said[:300]}"


def signalled(folder, run, number):
    """Stop a run by a signal; it must say how to go on, and exit with its own code."""
    process = start(folder, "train", *MIXED, "--out", run)
    wait_until(lambda: any((folder / run / "checkpoints").glob("000002.json")))
    process.send_signal(number)
    code, _, err = finish(process, 60)
    assert code == 128 + number, f"exit code {code}: {err}"
    assert f"evolute resume {run}" in err, err
    go_on_or_end(folder, run)


def signalled_twice(folder, run):
    """A second signal ends the process at once, whatever it does."""
    words = (
        "train",
        "probe_envs:Sleeps-v0",
        "--steps",
        "600",
        "--interval",
        "100",
        "--learning-starts",
        "50",
        "--mix",
        "sgd=1",
        *SMALL,
    )
    process = start(folder, *words, "--out", run)
    try:
        assert process.stdout is not None
        assert process.stdout.readline().startswith("Training")
        time.sleep(3)
        process.send_signal(signal.SIGINT)
        time.sleep(0.5)
        assert process.poll() is None, "the first signal ended a process that hangs in a step"
        began = time.perf_counter()
        process.send_signal(signal.SIGINT)
        code, _, _ = finish(process, 20)
    finally:
        # It hangs for ever by itself.
        process.kill()
    assert code == 128 + signal.SIGINT, f"exit code {code}"
    return f"{time.perf_counter() - began:.1f} s after the second signal"


def second_process(folder, run):
    """A second process on a run is refused and told who holds it; the first goes on."""
    first = start(folder, "train", *MIXED, "--out", run)
    wait_until(lambda: any((folder / run / "checkpoints").glob("000001.json")))
    code, _, err = evolute(folder, "resume", run)
    assert code == 2, f"exit code {code}: {err}"
    assert f"process {first.pid} " in err, f"the first process, {first.pid}, is not named: {err}"
    finish(first)
    assert first.returncode == 0, f"the first process exited with {first.returncode}"


@contextlib.contextmanager
def small_file_system(folder, size):
    """A file system of its own, or None where none may be mounted."""
    folder.mkdir()
    made = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)], capture_output=True, check=False)
    try:
        yield made.returncode == 0
    finally:
        if made.returncode == 0:
            subprocess.run(["umount", "-l", str(folder)], check=False)


def no_room(folder, run):
    """Fill a disk under a run; it stops with a reason; with room again it goes on."""
    disk = folder / f"disk-{run}"
    # Large enough for a run to begin: one that would not fit is refused.
    with small_file_system(disk, "8m") as mounted:
        if mounted:
            process = start(disk, "train", *MIXED, "--out", run)
            wait_until(lambda: process.poll() is not None or any((disk / run / "checkpoints").glob("000002.json")))
            fill(disk / "other")
            code, _, err = finish(process)
        else:
            # A limit on a file's size is what a quota is to a process: it ends the write with an error.
            code, _, err = evolute(disk, "train", *MIXED, "--out", run, preexec_fn=limit_file_size)
        assert code == 3, f"exit code {code}: {err}"
        assert "cannot be written" in err, err
        assert "evolute resume" in err, err
        shutil.copytree(disk / run, folder / run)
    resume(folder, run)
    return err.strip().splitlines()[-1][:100]


def fill(path):
    """Write a file until there is no room left."""
    with contextlib.suppress(OSError), path.open("wb", buffering=0) as file:
        while file.write(b"x" * 4_096):
            pass


def limit_file_size():
    import resource

    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, 60_000))


def read_only(folder, run):
    """Take the right to write from a run while it trains; given back, the run goes on."""
    place = folder / f"place-{run}"
    place.mkdir()
    process = start(place, "train", *MIXED, "--out", run, preexec_fn=heed_permissions)
    wait_until(lambda: process.poll() is not None or any((place / run / "checkpoints").glob("000003.json")))
    folders = [place / run, place / run / "checkpoints", place / run / "replay"]
    for path in folders:
        path.chmod(0o555)
    code, _, err = finish(process)
    assert code == 3, f"exit code {code}: {err}"
    assert "Permission denied" in err, err
    for path in folders:
        path.chmod(0o777)
    shutil.copytree(place / run, folder / run)
    resume(folder, run)


def heed_permissions():
    """Let the permissions of files hold this process back even where root runs it."""
    drop_from_bounding_set, override, read_search = 24, 1, 2
    if os.geteuid() == 0:
        for capability in (override, read_search):
            ctypes.CDLL(None).prctl(drop_from_bounding_set, capability, 0, 0, 0)


def no_handles(folder, run):
    """Take every file handle from a run in the middle of a checkpoint."""
    code, _, err = die(folder, "no handles", 3, "train", *MIXED, "--out", run)
    assert code == 3, f"exit code {code}: {err}"
    assert "Too many open files" in err, err
    resume(folder, run)


def poisoned(folder, run, kind):
    """Make all that one member learns NaN at an interval's end; it alone is quarantined, then replaced."""
    words = (
        "Swimmer-v4",
        "--steps",
        "600",
        "--interval",
        "100",
        "--learning-starts",
        "150",
        "--mix",
        "sgd=2",
        f"{kind}=1",
        *SMALL,
    )
    code, _, err = die(folder, "poison 2", 4, "train", *words, "--out", run)
    assert code == 0, f"exit code {code}: {err}"
    rows = [json.loads(line) for line in (folder / run / "metrics.jsonl").read_text().splitlines()]
    hurt = [row for row in rows if row["interval"] == 4]
    assert [row["quarantined"] is not None for row in hurt] == [False, False, True], hurt
    assert [row["fitness"] is None for row in rows if row["interval"] == 5] == [False, False, False], "it was not replaced"
    kept = {(row["interval"], row["member"]): row["fitness"] for row in rows if row["interval"] <= 4 and row["member"] != 2}
    code, _, err = evolute(folder, "train", *words, "--out", f"{run}-sound")
    sound = [json.loads(line) for line in (folder / f"{run}-sound" / "metrics.jsonl").read_text().splitlines()]
    assert all(kept.get((row["interval"], row["member"]), row["fitness"]) == row["fitness"] for row in sound), "others changed"


def faulty(folder, run, env, *words):
    """Train in an environment that fails; the faults are recorded and the run comes to its end."""
    steps = ("--steps", "600", "--interval", "100", "--learning-starts", "150")
    code, _, err = evolute(folder, "train", f"probe_envs:{env}", *steps, "--mix", "sgd=1", "adam=1", *SMALL, *words, "--out", run)
    assert code == 0, f"exit code {code}: {err}"
    events = [json.loads(line) for line in (folder / run / "events.jsonl").read_text().splitlines()]
    faults = [event for event in events if event["event"] == "environment_fault"]
    assert faults, "no fault was recorded"
    return f"{len(faults)} recorded, such as {faults[0]['message']!r}"


# ----------------------------------------------------------------------------------------------------------------- all

PLACES = (
    *(("write", n) for n in (1, 4, 20, 33, 51, 64)),
    *(("rename", n) for n in (3, 7, 26, 45, 58)),
    *(("metrics", n) for n in (2, 5, 8, 11)),
    *(("replay", n) for n in (1, 4)),
    *(("arrays", n) for n in (1, 12)),
    *(("manifest", n) for n in (1, 5, 9)),
    *(("delete", n) for n in (1, 8)),
    *(("select", n) for n in (1, 3)),
    *(("copy", n) for n in (1, 2)),
    *(("copied", n) for n in (1, 3)),
    *(("evaluate", n) for n in (6, 28)),
    *(("create", 1), ("best", 4), ("result", 1), ("restore", 1), ("rewind", 1), ("rewound", 1)),
)
DAMAGES = [
    (file, how)
    for file in ("checkpoints/*.json", "checkpoints/*-002.safetensors", "checkpoints/*-best.safetensors", "replay/*.safetensors")
    for how in ("flipped", "truncated", "missing")
    if (file, how) != ("checkpoints/*.json", "missing")
]
ENVIRONMENTS = (
    ("SometimesRaises-v0",),
    ("SometimesRaisesInReset-v0",),
    ("SometimesNaNObservation-v0",),
    ("SometimesNaNReward-v0",),
    ("SometimesWrongShape-v0",),
    ("SometimesSleeps-v0", "--time-limit", "1"),
    ("SometimesCrashes-v0", "--time-limit", "5"),
)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--killed-runs", type=int, default=14, help="runs that are killed at random moments until they end")
    parser.add_argument("--seed", type=int, default=0, help="of the random moments")
    parser.add_argument("--only", default="", help="only faults whose line contains this")
    arguments = parser.parse_args()
    rng = random.Random(arguments.seed)
    with tempfile.TemporaryDirectory(prefix="faults-") as name:
        folder = Path(name)
        evolute(folder, "train", *MIXED, "--out", "reference")
        report = Report(folder / "reference")
        numbers = iter(range(10**6))

        def fault(what, act, *given, faults=1, identical=True):
            if arguments.only in what:
                run = f"run{next(numbers)}"
                report.survive(what, folder / run, lambda: act(folder, run, *given), faults, identical)

        for place, count in PLACES:
            fault(f"kill -9 at {place!r}, call {count}", lambda f, r, p=place, c=count: killed_at(f, p, c, r))
        for _ in range(arguments.killed_runs):
            fault("kill -9 at random moments until it ends", kill_at_random, rng, report, faults=0)
        stopped(folder, "template")
        for file, how in DAMAGES:
            fault(f"{how}: {file}", lambda f, r, a=file, h=how: damaged(f, r, f / "template", a, h))
        for number in (signal.SIGINT, signal.SIGTERM):
            fault(f"{number.name}, then resume", signalled, number)
        for count in (1, 2, 3):
            fault(f"kill -9 of worker processes, {count} times", lambda f, r, n=count: workers_killed(f, r, n), faults=count)
        fault("kill -9 of a command with workers", workers_orphaned)
        fault("a second process on the run", second_process)
        fault("disk full", no_room)
        fault("run folder made read-only", read_only)
        fault("no file handle left", no_handles)
        fault("SIGINT twice while the environment hangs", lambda f, r: signalled_twice(f, r), identical=False)
        for kind in ("adam", "diag_ggn", "kfac", "kfac_empirical"):
            fault(f"NaN in everything that {kind} learns", lambda f, r, k=kind: poisoned(f, r, k), identical=False)
        for env in ENVIRONMENTS:
            fault(f"environment {env[0]}", faulty, *env, identical=False)
        return report.total()


if __name__ == "__main__":
    sys.exit(main())
