"""What the command line prints, wherever it goes: any encoding, a lost output, no home, a small terminal, an early Ctrl-C."""

import io
import logging
import os
import shlex
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from evolute import train, train_seeds
from evolute.commands import compile_cache, hints
from evolute.config import Run
from evolute.environments.spaces import Facts, Shape
from evolute.errors import UserError
from evolute.evolution.base import Exploit
from evolute.policy import Policy
from evolute.report.live import Doing, LiveTable, PlainLines, SignsOfLife, listening
from evolute.report.tables import curves_table, leaderboard_table
from evolute.resumption import resume
from evolute.runs import folder as run_folder
from evolute.runs.rows import event_row
from evolute.state import Best, Profile, Progress, State

TESTS = Path(__file__).parent
SETTINGS = {
    **{"mix": {"adam": 1}, "steps": 60, "interval": 30, "learning_starts": 20, "batch_size": 32, "episodes": 1},
    **{"actor_layers": (4,), "critic_layers": (4,), "final_episodes": 1},
}
TRAIN = (
    *("train", "probe_envs:Limit-v0", "--mix", "adam=1", "--steps", "60", "--interval", "30", "--learning-starts", "20"),
    *("--actor-layers", "4", "--critic-layers", "4", "--batch-size", "32", "--episodes", "1", "--final-episodes", "1"),
)


def start(folder, *words, **more):
    variables = {
        **os.environ,
        "JAX_PLATFORMS": "cpu",
        "PYTHONPATH": os.pathsep.join([str(TESTS), os.environ.get("PYTHONPATH", "")]),
        **more.pop("variables", {}),
    }
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "cwd": folder, "env": variables} | more
    return subprocess.Popen([*pipes.pop("before", []), sys.executable, "-m", "evolute.commands.cli", *words], **pipes)


def ended(folder, *words, **more):
    """Return exit code, standard output and standard error, as bytes, of a command that has ended."""
    with start(folder, *words, **more) as process:
        out, err = process.communicate(timeout=120)
    return process.returncode, out, err


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run trained where nothing is as usual: ASCII, no home, double precision, no rank promotion, and a blank in its name."""
    folder = tmp_path_factory.mktemp("runs")
    variables = {"PYTHONIOENCODING": "ascii:strict", "JAX_ENABLE_X64": "1", "JAX_NUMPY_RANK_PROMOTION": "raise", "HOME": ""}
    return folder, ended(folder, *TRAIN, "--out", "a run", variables=variables | {"JAX_DEBUG_NANS": "1"})


def test_a_system_without_posix_is_told_before_anything_fails_there():
    program = "import os; os.name = 'nt'; import evolute.commands.cli"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("evolute: this system is not supported; use Linux or macOS")
    assert done.stderr.count("\n") == 1


def test_a_run_in_unusual_surroundings_computes_the_same_and_its_hints_can_be_pasted(trained):
    folder, (code, out, err) = trained
    assert (code, err) == (0, b"")
    lines = out.decode("ascii").splitlines()
    assert "+/-" in out.decode("ascii")
    usual = train(Run("probe_envs:Limit-v0", **SETTINGS))
    for one, other in zip(usual.policy.weights, Policy.load(folder / "a run" / "best").weights, strict=True):
        assert np.array_equal(one[0], other[0])
        assert np.array_equal(one[1], other[1])
    show, report, evaluate = (shlex.split(line.removeprefix("Next:")) for line in lines[-3:])
    assert show == ["evolute", "show", "a run"]
    assert ended(folder, *show[1:])[0] == 0
    assert ended(folder, *report[1:])[:2] == (0, b"Report: a run/report.html\n")
    assert ended(folder, *evaluate[1:-1], "300")[0] == 0


def test_every_encoding_can_be_printed_to(trained):
    folder, _ = trained
    for name in ("ascii", "latin-1", "cp1252", "cp037"):
        for words in (("show", "a run"), ("train", "--help")):
            code, out, err = ended(folder, *words, variables={"PYTHONIOENCODING": name, "COLUMNS": "5"})
            assert (code, err) == (0, b"")
            assert ("Leaderboard" if words[0] == "show" else "--interval") in out.decode(name)
    c_locale = {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}
    code, out, _ = ended(folder, "evaluate", "a run", "--episodes", "2", "--allow-import", "probe_envs", variables=c_locale)
    assert (code, b"+/-" in out) == (0, True)


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="this system has no /dev/full")
def test_a_lost_output_is_told_in_a_sentence_or_not_at_all(trained):
    folder, _ = trained
    with open("/dev/full", "wb") as full:
        code, _, err = ended(folder, "show", "a run", stdout=full)
    assert (code, err) == (2, b"evolute: standard output cannot be written: No space left on device; send it elsewhere.\n")
    with start(folder, "train", "--help") as process:
        process.stdout.close()
        assert (process.wait(60), process.stderr.read()) == (141, b"")
    closed = subprocess.run(
        ["/bin/sh", "-c", f"{shlex.quote(sys.executable)} -m evolute.commands.cli show 'a run' >&- 2>&- <&-"],
        cwd=folder,
        check=False,
    )
    assert closed.returncode == 0


def test_training_goes_on_where_nobody_reads_any_more(tmp_path):
    with start(tmp_path, *TRAIN, "--out", "run", variables={"PYTHONUNBUFFERED": "1"}) as process:
        assert process.stdout.readline().startswith(b"Training")
        process.stdout.close()
        err = process.stderr.read()
    assert (process.returncode, err) == (0, b"")
    assert run_folder.RunFolder.open(tmp_path / "run").has_ended


def test_a_limit_of_open_files_is_told(tmp_path):
    words = (*TRAIN[:2], "--mix", "adam=16", *TRAIN[4:], "--time-limit", "9", "--out", "run", "--quiet")
    few = ["bash", "-c", 'ulimit -n 40; exec "$@"', "bash"]
    code, _, err = ended(tmp_path, *words, before=few)
    assert code == 3
    assert err.startswith(b"evolute: the run has stopped: no process for an environment can be started: Too many open files")
    assert b"ulimit -n" in err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["cuda", "nonsense"])
def test_a_device_that_is_not_there_is_told(tmp_path, name):
    code, out, err = ended(tmp_path, *TRAIN, variables={"JAX_PLATFORMS": name})
    if code == 0:
        pytest.skip("this machine has one")
    assert (code, out) == (2, b"")
    assert err.startswith(f"evolute: JAX cannot use the device that JAX_PLATFORMS={name} asks for".encode())
    assert err.count(b"\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_ctrl_c_while_a_module_is_imported_that_swallows_it_ends_the_process(tmp_path):
    (tmp_path / "greedy.py").write_text(
        "import sys, time\nprint('importing', flush=True)\nwhile True:\n try: time.sleep(60)\n except BaseException: pass\n"
    )
    with start(tmp_path, "train", "greedy:Env-v0", "--quiet") as process:
        assert process.stdout.readline() == b"importing\n"
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (130, b"\nevolute: SIGINT received; interrupted.\n")


# ------------------------------------------------------------------------------------------------------- within this process


def test_compiled_programs_are_kept_where_there_is_no_home(tmp_path, monkeypatch):
    def homeless():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(compile_cache.tempfile, "gettempdir", lambda: str(tmp_path))
    monkeypatch.setattr(compile_cache.Path, "home", homeless)
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    assert compile_cache._of_the_user() is None
    folder = compile_cache._temporary()
    assert folder == tmp_path / f"evolute-{os.getuid()}" / "jax"
    assert folder.parent.stat().st_mode & 0o777 == 0o700
    # Anybody could put programs there.
    folder.parent.chmod(0o777)
    assert compile_cache._temporary() is None
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert compile_cache._of_the_user() is None


@pytest.mark.parametrize("path", ["runs/a b", "it's", "$HOME", "-run", "tab\there", "bytes\udc80", "Ünï"])
def test_commands_survive_a_shell(path):
    typed = hints.command("show", Path(path), ["my_module"])
    said = subprocess.run(["bash", "-c", f"printf '%s\\0' {typed}"], capture_output=True, check=True).stdout
    folder = f"./{path}" if path.startswith("-") else path
    assert said.split(b"\0")[:-1] == [b"evolute", b"show", os.fsencode(folder), b"--allow-import", b"my_module"]


def progress_of(members, kind="kfac_empirical/diag_ggn"):
    run = Run("Env-v0", mix={kind: members}, steps=100, interval=20, learning_starts=10)
    hyper = run.initial_hyperparameters(kind)._replace(actor_learning_rate=1.23e-4, critic_damping=4.56e-4)
    profiles = [Profile(slot, kind, hyper, environment_steps=40) for slot in range(members)]
    state = State(run, profiles, Facts(Shape(1, 1), np.zeros(1), np.ones(1), None, ()), {}, interval=2)
    counts = dict.fromkeys(("contained_statistics", "contained_inverses", "contained_steps", "environment_faults"), 0)
    rows = [{"member": slot, "fitness": float(slot), "quarantined": None, **counts} for slot in range(members)]
    return Progress(state, 50, 2.0, rows, [])


def small_screen(progress):
    """Return the lines of the live table on a terminal of 80 x 24, which they must fit."""
    screen = Console(width=80, height=24, force_terminal=True, file=io.StringIO(), color_system=None)
    table = LiveTable(screen, Doing())
    table(progress)
    plain = Console(width=80, height=24, file=io.StringIO())
    plain.print(table._screen())
    lines = plain.file.getvalue().splitlines()
    assert len(lines) < 24
    assert max(map(len, lines)) <= 80
    return lines


def test_the_live_table_fits_a_small_terminal_with_its_progress():
    progress = progress_of(32)
    lines = small_screen(progress)
    assert not any("…" in line for line in lines[1:])
    assert "… 16 more" in lines[0]
    assert "kfac_empirical/diag_ggn" in lines[5]
    assert any(line.lstrip().startswith("31 ") for line in lines)
    assert any(line.startswith("━") for line in lines)
    # Each member has taken 40 steps in two intervals, and ten of the third.
    assert any(line.startswith("50 of 100 steps; 800 per second in all; 0:02 elapsed, 0:02 left") for line in lines)


def test_sixteen_members_fit_a_terminal_with_time_left_the_best_so_far_and_the_last_exploit():
    progress = progress_of(16)
    hyper = progress.state.members[3].hyperparameters
    progress.state.best = Best(None, 12345.6, 3, "kfac_empirical/diag_ggn", 40)
    exploit = Exploit(progress.state.members[1].standing, progress.state.members[3].standing, hyper)
    progress.state.lineage = [event_row(progress.state, exploit)]
    lines = small_screen(progress)
    assert [int(line.split()[0]) for line in lines[3:19]] == list(range(16))
    assert not any("…" in line for line in lines)
    assert lines[-2].strip().endswith("0:02 elapsed, 0:02 left")
    assert lines[-1].strip() == "best so far 12,346, member 3; last exploit: 1 copied 3 at 40 steps"


def test_who_missed_the_interval_is_marked():
    progress = progress_of(4)
    progress.state.members[2].absent = True
    lines = small_screen(progress)
    assert [line.split()[2] for line in lines[3:7]] == ["0.0", "1.0", "absent", "3.0"]


def test_plain_lines_are_lined_up_and_can_be_taken_apart():
    text = io.StringIO()
    progress = progress_of(12, "adam")
    hyper = progress.state.members[0].hyperparameters
    wide = hyper._replace(batch_size=1024, actor_learning_rate=1.2e-7)
    rows = [
        {**row, "steps": 40, "kind": "adam", "hyperparameters": (wide if row["member"] == 5 else hyper)._asdict()}
        for row in progress.rows
    ]
    rows[7]["fitness"] = -98765.0
    PlainLines(Console(file=text, width=300), Doing())(replace(progress, rows=rows))
    lines = [line for line in text.getvalue().splitlines() if line.startswith("steps=")]
    assert len(lines) == 12
    for name in ("member=", "fitness=", "batch=", "learning_rate=", "damping=", "contained=", "environment_faults="):
        assert len({line.index(name) for line in lines}) == 1, name
    assert dict(pair.split("=") for pair in lines[7].split())["fitness"] == "-98,765"


def test_tables_leave_out_what_there_is_no_room_for_and_say_so():
    hyper = progress_of(1).state.members[0].hyperparameters._asdict()
    row = {"rank": 1, "member": 0, "kind": "kfac_empirical/diag_ggn", "fitness": 12345.0, "hyperparameters": hyper}
    for width, lacking in ((120, False), (60, True)):
        screen = Console(width=width, file=io.StringIO())
        screen.print(leaderboard_table([{**row, "parent": None, "environment_steps": 10**6}], width))
        screen.print(curves_table([{"member": 0, "kind": row["kind"], "fitness": float(n)} for n in range(999)], width))
        said = screen.file.getvalue()
        assert "…" not in said
        assert ("no room for:" in said) == lacking
        assert said.count("█") > 0


def test_long_silences_are_filled_with_what_is_done(monkeypatch):
    monkeypatch.setattr("evolute.report.live.PAUSES", (0.01,))
    monkeypatch.setattr("evolute.report.live.SHORT", 0.0)
    said = []
    with listening() as doing:
        logging.getLogger("evolute").info("compiling learn of %s", "kfac")
        with SignsOfLife(lambda: said.append(str(doing))):
            while not said:
                pass
        assert said[0].startswith("compiling learn of kfac (0:0")
        doing.done()
        assert "compiling" not in str(doing)


def test_folders_for_seeds_are_checked_before_any_is_made(tmp_path):
    run = Run("probe_envs:Limit-v0", **SETTINGS)
    one, two = tmp_path / "one", tmp_path / "two"
    for outs in ([], [one], [one, two, tmp_path / "three"], [one, one], [one, one / "two"], one, str(one)):
        with pytest.raises(UserError, match="outs"):
            train_seeds(run, [0, 1], outs)
    two.write_text("mine")
    with pytest.raises(UserError, match="is a file"):
        train_seeds(run, [0, 1], [one, two])
    assert [file.name for file in tmp_path.iterdir()] == ["two"]


def test_resuming_from_a_program_warns_of_nothing_usual(trained):
    # A warning would be an error here.
    assert resume(trained[0] / "a run", steps=90, allow_import="probe_envs").summary["steps_per_member"] == 90
