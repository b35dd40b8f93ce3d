"""How commands end, with real processes: by signals in every phase, whatever the environment does to its process."""

import contextlib
import io
import json
import os
import pty
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

import faults
from evolute import engine, interruption
from evolute.commands import cli
from evolute.config import Run
from evolute.environments.gym import Environment
from evolute.interruption import Interrupted, interruptible, stopping_gently
from evolute.training import evaluate

SMALL = (
    *("--interval", "20", "--learning-starts", "10", "--mix", "sgd=1", "--batch-size", "32"),
    *("--actor-layers", "16", "16", "--critic-layers", "16", "16", "--episodes", "1", "--final-episodes", "1"),
)
SHORT = (*SMALL, "--steps", "60")
ENDLESS = (*SMALL, "--steps", "100_000_000")
STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2, signal.SIGXCPU)


@contextlib.contextmanager
def started(folder, *words, **more):
    """Run the command line in a session of its own, of which nothing is left."""
    process = faults.start(folder, *words, start_new_session=True, **more)
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        for stream in (process.stdout, process.stderr):
            stream.close()


def train(folder, env, words=SHORT, **more):
    return started(folder, "train", f"probe_envs:{env}-v0", *words, "--out", "run", **more)


def wait_for_line(process, beginning):
    for line in process.stdout:
        if line.startswith(beginning):
            return
    raise AssertionError(process.stderr.read())


def ends(process, number, seconds=60):
    """Send a signal once, and return what is said of it."""
    process.send_signal(number)
    _, err = process.communicate(timeout=seconds)
    assert process.returncode == 128 + number, err
    assert f"evolute: {number.name} received" in err
    return err


def sleeping_folder(tmp_path, name):
    """Leave a run whose best policy is said to be of another environment."""
    code, _, err = faults.evolute(tmp_path, "train", "probe_envs:Limit-v0", *SHORT, "--out", "run")
    assert code == 0, err
    path = tmp_path / "run" / "best" / "policy.json"
    path.write_text(path.read_text().replace("probe_envs:Limit-v0", f"probe_envs:{name}-v0"))


# --------------------------------------------------------------------------------------------------- signals, and when


def test_a_signal_stops_an_evaluation_between_two_steps(tmp_path):
    with train(tmp_path, "Slow") as process:
        faults.wait_until(lambda: (tmp_path / "slow").exists())
        # To the end of the episode it would take a quarter of an hour.
        assert "evolute resume run" in ends(process, signal.SIGTERM)


def test_a_signal_stops_what_comes_before_training(tmp_path):
    with train(tmp_path, "Sluggish") as process:
        wait_for_line(process, "Training")
        # The fingerprint plays for minutes.
        assert "resume" not in ends(process, signal.SIGTERM)
    assert not (tmp_path / "run").exists()


def test_a_signal_stops_evaluate(tmp_path):
    sleeping_folder(tmp_path, "Slow")
    with started(tmp_path, "evaluate", "run", "--episodes", "1", "--allow-import", "probe_envs") as process:
        faults.wait_until(lambda: (tmp_path / "slow").exists())
        ends(process, signal.SIGINT)


def test_evaluate_has_a_time_limit(tmp_path, monkeypatch, capsys):
    sleeping_folder(tmp_path, "Sleeps")
    monkeypatch.setattr(evaluate, "MAX_FAULTS", 0)
    words = ["evaluate", str(tmp_path / "run"), "--episodes", "1", "--allow-import", "probe_envs"]
    with pytest.raises(SystemExit, match="2"):
        cli.main([*words, "--time-limit", "0.2"])
    assert "in step: it did not return within 0.2 seconds, so its process was killed" in capsys.readouterr().err
    with pytest.raises(SystemExit, match="2"):
        cli.main([*words, "--time-limit", "-1"])
    assert capsys.readouterr().err == (
        "evolute: --time-limit is -1; it must be a number of seconds not below 0 and at most 86400, such as 10.\n"
    )


@pytest.mark.parametrize("where", ["InMake", "InClose"])
def test_a_signal_ends_a_command_whose_environment_hangs_before_training(tmp_path, where):
    with train(tmp_path, f"Sleeps{where}") as process:
        wait_for_line(process, "sleeping")
        ends(process, signal.SIGINT, 20)


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGUSR1, signal.SIGXCPU])
def test_what_schedulers_and_terminals_send_ends_a_run_with_its_own_code(tmp_path, number):
    with train(tmp_path, "Limit", ENDLESS) as process:
        wait_for_line(process, "steps=40")
        assert "evolute resume run" in ends(process, number)


def test_an_ignored_hangup_stays_ignored(tmp_path):
    # A shell, because Python's own way to prepare a process forks, which JAX's threads do not tolerate.
    with train(tmp_path, "Limit", ENDLESS, through=("sh", "-c", 'trap "" HUP; exec "$@"', "sh")) as process:
        wait_for_line(process, "steps=40")
        process.send_signal(signal.SIGHUP)
        wait_for_line(process, "steps=")
        wait_for_line(process, "steps=")
        assert "SIGHUP" not in ends(process, signal.SIGTERM)


def test_a_terminal_that_closes_ends_a_run(tmp_path):
    terminal, theirs = pty.openpty()
    words = ("train", "probe_envs:Limit-v0", *ENDLESS, "--out", "run")
    process = subprocess.Popen(
        # The first terminal that a leader of a session opens is the one whose end is told to it.
        ["sh", "-c", ': <>"$0"; exec "$@"', os.ttyname(theirs), sys.executable, "-m", "evolute.commands.cli", *words],
        cwd=tmp_path,
        env=faults.environment(),
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
    )
    reader = threading.Thread(target=read_all, args=(terminal,), daemon=True)
    try:
        os.close(theirs)
        reader.start()
        faults.wait_until(lambda: (tmp_path / "run" / "checkpoints" / "000002.json").exists())
        os.close(terminal)
        assert process.wait(60) == 128 + signal.SIGHUP
    finally:
        process.kill()
        process.wait()


def read_all(descriptor):
    with contextlib.suppress(OSError):
        while os.read(descriptor, 1000):
            pass


@pytest.mark.parametrize("name", ["Ignores", "IgnoresNatively"])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_environment_cannot_have_signals_ignored(tmp_path, name, number):
    with train(tmp_path, name, ENDLESS) as process:
        wait_for_line(process, "steps=40")
        if name == "Ignores":
            ends(process, number)
            return
        # In native code they are ignored until evolute looks again, so one may be lost, and is sent again.
        for _ in range(100):
            process.send_signal(number)
            with contextlib.suppress(subprocess.TimeoutExpired):
                # Its own code, or the signal's where it had let go of signals already.
                assert process.wait(0.5) in (128 + number, -number)
                return
        raise AssertionError("no signal stopped it")


def test_a_check_is_for_caught_signals_alone_and_what_was_there_before_comes_back():
    before = [signal.getsignal(number) for number in STOPPING]
    interruption.check()
    with interruptible(), stopping_gently():
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        interruption.check()
        # Not one that asks to stop.
        other = signal.signal(signal.SIGALRM, lambda *_: None)
        signal.raise_signal(signal.SIGALRM)
        time.sleep(0.2)
        interruption.check()
        signal.signal(signal.SIGALRM, other)
        signal.raise_signal(signal.SIGTERM)
        environment = Environment("probe_envs:Noisy-v0") if interruption._caught.signal is None else None
        faults.wait_until(lambda: interruption._caught.signal is not None)
        for call in (interruption.check, *((environment.reset, environment.rebuild) if environment else ())):
            with pytest.raises(Interrupted, match="SIGTERM"):
                call()
    interruption.check()
    assert [signal.getsignal(number) for number in STOPPING] == before
    assert signal.signal is interruption._set_handler


def test_a_signal_is_announced_before_anything_stops_for_it(monkeypatch):
    class Slow(io.StringIO):
        def write(self, text):
            time.sleep(0.1)
            return super().write(text)

    monkeypatch.setattr(sys, "stderr", said := Slow())
    at_once, until = None, time.monotonic() + 30
    with interruptible(), stopping_gently():
        signal.raise_signal(signal.SIGTERM)
        while at_once is None and time.monotonic() < until:
            try:
                interruption.check()
            except Interrupted:
                at_once = said.getvalue()
    assert at_once == "\nevolute: SIGTERM received; stopping after this step. Once more stops at once.\n"


# ---------------------------------------------------------------------------- what environments do to their process


def alive(group):
    """Return the processes of a group but for those that have ended and that nobody has asked for."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            state, _, of = path.read_text().rpartition(")")[2].split()[:3]
            found += [path] if state != "Z" and int(of) == group else []
    return found


def rows(folder):
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{key: value for key, value in line.items() if key != "seconds"} for line in lines]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("undisturbed")
    code, _, err = faults.evolute(folder, "train", "probe_envs:Noisy-v0", *SHORT, "--out", "run")
    assert code == 0, err
    return rows(folder / "run")


@pytest.mark.parametrize("name", ["Lingers", "Forks", "Moves", "Strict"])
def test_a_run_ends_as_it_should_whatever_the_environment_does_to_its_process(tmp_path, undisturbed, name):
    with train(tmp_path, name) as process:
        out, err = process.communicate(timeout=60)
        assert (process.returncode, err) == (0, "")
        assert out.count("Best policy: member 0") == 1
        assert not alive(process.pid), "a copy of it is left"
    assert rows(tmp_path / "run") == undisturbed
    assert (tmp_path / "run" / "result.json").exists()
    if name == "Moves":
        code, out, err = faults.evolute(tmp_path, "resume", "run", "--steps", "80", "--allow-import", "probe_envs")
        assert (code, err) == (0, "")
        assert len(rows(tmp_path / "run")) == 4


def test_what_is_no_exception_costs_an_episode_and_no_exit_code(tmp_path):
    with train(tmp_path, "SometimesQuits") as process:
        _, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (0, "")
    events = (tmp_path / "run" / "events.jsonl").read_text()
    assert '"message": "SystemExit: 0"' in events


def test_a_library_call_with_a_relative_folder_keeps_to_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    tiny = {"actor_layers": (16, 16), "critic_layers": (16, 16), "batch_size": 32, "episodes": 1, "final_episodes": 1}
    run = Run("probe_envs:Moves-v0", mix={"sgd": 1}, steps=60, interval=20, learning_starts=10, **tiny)
    result = engine.train(run, "run")
    assert result.folder == tmp_path / "run"
    assert len(rows(tmp_path / "run")) == 3
    assert np.isfinite(result.evaluation.mean)
