"""A run folder: made once, never overwritten, plain data."""

import errno
import fcntl
import json
import math
import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from evolute import files
from evolute.config import Run
from evolute.errors import RunStopped, UserError
from evolute.runs import folder as run_folder
from evolute.runs.folder import RunFolder, refuse_existing
from evolute.runs.lock import locked
from evolute.runs.naming import claimed, default_folder

RUN = Run("probe_envs:Limit-v0", mix={"kfac": 1})


def made(path: Path, run: Run = RUN) -> RunFolder:
    with RunFolder.create(path, run) as folder:
        return folder


def row(member: int, **more):
    """A row that may stand in metrics.jsonl."""
    return {
        **{"interval": 1, "steps": 9, "member": member, "kind": "kfac", "fitness": member / 3, "environment_steps": 9},
        "hyperparameters": RUN.initial_hyperparameters("kfac")._asdict(),
        **more,
    }


def test_a_new_folder_holds_what_made_the_run(tmp_path):
    folder = made(tmp_path / "deep" / "run", RUN)
    assert {file.name for file in folder.path.iterdir()} == {
        "config.toml",
        "metadata.json",
        "metrics.jsonl",
        "events.jsonl",
        "lock",
    }
    settings = tomllib.loads((folder.path / "config.toml").read_text())
    assert Run(**settings) == RUN
    metadata = folder.metadata()
    assert {"started", "versions", "devices", "cores", "physics_fingerprint", "arithmetic_fingerprint"} <= set(metadata)
    assert metadata["devices"] == ["cpu:cpu"] * len(metadata["devices"])
    assert (folder.metrics(), folder.events(), folder.result()) == ([], [], None)
    assert RunFolder.open(folder.path).path == folder.path


def test_an_empty_folder_may_be_used(tmp_path):
    made(tmp_path, RUN)
    assert (tmp_path / "config.toml").is_file()


def run_there(path):
    made(path, RUN)


def other_file_there(path):
    path.mkdir()
    (path / "thesis.tex").write_text("years of work")


def file_there(path):
    path.write_text("years of work")


def file_above(path):
    path.parent.write_text("years of work")


@pytest.mark.parametrize(
    ("prepare", "said"),
    [
        (run_there, "already holds a run; choose another with --out"),
        (other_file_there, "is not empty; choose another with --out"),
        (file_there, "is a file; choose a folder with --out"),
        (file_above, "cannot be written: .*above' is no folder that you may write to; choose another with --out"),
    ],
)
def test_nothing_is_ever_overwritten(tmp_path, prepare, said):
    path = tmp_path / "above" / "run" if prepare is file_above else tmp_path / "run"
    prepare(path)
    before = {file: file.read_bytes() for file in tmp_path.rglob("*") if file.is_file()}
    for refuse in (refuse_existing, lambda path: made(path, RUN)):
        with pytest.raises(UserError, match=said) as mistake:
            refuse(path)
        assert str(path) in str(mistake.value)
    assert {file: file.read_bytes() for file in tmp_path.rglob("*") if file.is_file()} == before


@pytest.mark.parametrize("fails", [(Path, "mkdir"), (os, "open")])
def test_a_folder_that_cannot_be_written_is_a_users_mistake(tmp_path, monkeypatch, fails):
    def refuse(*_args, **_kwargs):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(*fails, refuse)
    with pytest.raises(UserError, match=r"cannot be written: Permission denied .*choose another folder with --out") as mistake:
        made(tmp_path / "run", RUN)
    assert str(tmp_path / "run") in str(mistake.value)


def test_a_folder_above_that_may_not_be_written_is_noticed_before_training(tmp_path, monkeypatch):
    monkeypatch.setattr(run_folder.os, "access", lambda path, mode: path != tmp_path)
    with pytest.raises(UserError, match="is no folder that you may write to"):
        refuse_existing(tmp_path / "deep" / "run")


def test_a_name_that_is_too_long_is_a_users_mistake(tmp_path):
    with pytest.raises(UserError, match="cannot be written: File name too long"):
        refuse_existing(tmp_path / ("a" * 300))


def test_rows_come_back_in_order_and_what_is_not_finite_is_null(tmp_path):
    folder = made(tmp_path / "run", RUN)
    rows = [row(n) for n in range(3)]
    for n in range(3):
        folder.append_metrics(rows[n : n + 1])
    folder.append_events([{"event": "other", "member": n} for n in range(3)])
    assert folder.metrics() == rows
    assert folder.events() == [{"event": "other", "member": n} for n in range(3)]
    folder.append_metrics([row(3, fitness=math.nan, b=[math.inf, 1.0], c={"d": (-math.inf,)}, e="NaN")])
    assert folder.metrics()[-1] == row(3, fitness=None, b=[None, 1.0], c={"d": [None]}, e="NaN")

    def refuse(name):
        raise AssertionError(name)

    for line in (folder.path / "metrics.jsonl").read_text().splitlines():
        json.loads(line, parse_constant=refuse)


def test_the_result_comes_back_and_replaces_an_older_one(tmp_path):
    folder = made(tmp_path / "run", RUN)
    folder.write_result({"best": 1.0, "leaderboard": []})
    folder.write_result({"best": math.nan, "env": "x", "leaderboard": []})
    assert folder.result() == {"best": None, "env": "x", "leaderboard": []}
    assert not list(folder.path.glob(".*"))


@pytest.mark.parametrize("line", ["{", "[1]", "3", '{"a": 1} {"b": 2}', ""])
def test_a_damaged_line_is_named(tmp_path, line):
    folder = made(tmp_path / "run", RUN)
    (folder.path / "metrics.jsonl").write_text(f"{json.dumps(row(0))}\n{line}\n{json.dumps(row(1))}\n")
    with pytest.raises(UserError, match=r"metrics\.jsonl' is damaged in line 2"):
        folder.metrics()


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("metadata.json", b"[]", "is damaged: it must hold one JSON object"),
        ("metadata.json", b"{", "is damaged: it must hold one JSON object"),
        ("metrics.jsonl", b"\xff\n", "is damaged in line 1: it must be a JSON object"),
        ("metrics.jsonl", None, "cannot be read: No such file"),
        ("metadata.json", None, "cannot be read: No such file"),
    ],
)
def test_a_damaged_file_is_named(tmp_path, name, content, said):
    folder = made(tmp_path / "run", RUN)
    (folder.path / name).unlink()
    if content is not None:
        (folder.path / name).write_bytes(content)
    with pytest.raises(UserError, match=f"{name}' {said}"):
        folder.metadata() if name == "metadata.json" else folder.metrics()


def test_a_folder_without_a_run_is_not_opened(tmp_path):
    with pytest.raises(UserError, match="does not exist; check the path"):
        RunFolder.open(tmp_path / "nowhere")
    with pytest.raises(UserError, match=r"holds no run: it has no config\.toml; give the folder"):
        RunFolder.open(tmp_path)
    with pytest.raises(UserError, match="is no folder; check the path"):
        RunFolder.open(Path(__file__))


def test_the_default_folder_names_the_run_and_is_one_plain_folder():
    path = default_folder("my/space:Env 1-v0", {"adam": 2, "adam/kfac": 1}, [7])
    assert path.parent == Path("runs")
    assert path.name.startswith("my+space+Env+1-v0-adam2_adam+kfac1-7-")
    assert default_folder("../../x", {"adam": 1}, [0]).parent == Path("runs")


# ---------------------------------------------------------------------------------------------------- names and folders


def test_of_two_runs_that_begin_in_the_same_second_each_gets_a_folder(tmp_path):
    # They wait for each other, so that all ask at once.
    code = (
        "import sys, pathlib; from evolute.runs.naming import claimed; print('ready', flush=True); sys.stdin.readline()\n"
        "with claimed(pathlib.Path('runs/x')) as path: print(path); (path / 'file').touch()"
    )
    command = [sys.executable, "-c", code]
    processes = [
        subprocess.Popen(command, cwd=tmp_path, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(4)
    ]
    for process in processes:
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        process.stdin.write("\n")
        process.stdin.flush()
    said = {process.communicate()[0].strip() for process in processes}
    assert said == {f"runs/x{end}" for end in ("", "-2", "-3", "-4")}
    assert all((tmp_path / path / "file").exists() for path in said)


def test_a_default_folder_that_nothing_came_into_is_removed_again(tmp_path):
    with pytest.raises(KeyError), claimed(tmp_path / "runs" / "x"):
        raise KeyError
    assert list(tmp_path.iterdir()) == []
    with claimed(tmp_path / "runs" / "x") as path:
        pass
    with pytest.raises(KeyError), claimed(tmp_path / "runs" / "y"):
        raise KeyError
    assert [folder.name for folder in (tmp_path / "runs").iterdir()] == [path.name]
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="Not a directory"), claimed(tmp_path / "file" / "x"):
        pass


# ---------------------------------------------------------------------------------------------------- file systems


def failing(real, number, fails):
    """A system call that fails for some arguments, as a file system that does not support it answers."""

    def call(*arguments):
        if fails(*arguments):
            raise OSError(number, os.strerror(number))
        return real(*arguments)

    return call


def is_folder(descriptor, *_):
    return os.path.isdir(f"/proc/self/fd/{descriptor}")


@pytest.mark.parametrize("name", ["ENOSYS", "EOPNOTSUPP", "ENOTSUP", "EINVAL", "ENOLCK", "ENOTTY"])
def test_a_file_system_without_locks_is_warned_of_once(tmp_path, monkeypatch, name):
    number = getattr(errno, name)
    monkeypatch.setattr(fcntl, "flock", failing(fcntl.flock, number, lambda *_: True))
    with pytest.warns(UserWarning, match="has no locks .* nothing keeps a second process out of this run") as said:
        folder = made(tmp_path / "run")
    assert len(said) == 1
    assert RunFolder.open(folder.path).metadata()


@pytest.mark.parametrize("name", ["EIO", "ENOSPC"])
def test_a_lock_that_fails_for_another_reason_is_an_error(tmp_path, monkeypatch, name):
    monkeypatch.setattr(fcntl, "flock", failing(fcntl.flock, getattr(errno, name), lambda *_: True))
    with pytest.raises(RunStopped, match="cannot be written"), locked(tmp_path):
        pass


NOT_SYNCED = ["EINVAL", "ENOTSUP", "EOPNOTSUPP", "ENOSYS", "ENOTTY", "EBADF", "EACCES", "EPERM", "EISDIR"]


@pytest.mark.parametrize("name", NOT_SYNCED)
@pytest.mark.parametrize("call", ["fsync", "open"])
def test_a_folder_that_the_file_system_cannot_sync_is_passed_over(tmp_path, monkeypatch, name, call):
    fails = is_folder if call == "fsync" else lambda path, *_: os.path.isdir(path)
    monkeypatch.setattr(os, call, failing(getattr(os, call), getattr(errno, name), fails))
    files.sync_folder(tmp_path)


@pytest.mark.parametrize("name", NOT_SYNCED[:5])
def test_a_file_that_the_file_system_cannot_sync_is_written_all_the_same(tmp_path, monkeypatch, name):
    monkeypatch.setattr(os, "fsync", failing(os.fsync, getattr(errno, name), lambda *_: True))
    files.write_whole(tmp_path / "file", b"data")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize("name", ["ENOSPC", "EIO", "EDQUOT"])
def test_a_disk_that_fails_or_is_full_stays_an_error(tmp_path, monkeypatch, name):
    monkeypatch.setattr(os, "fsync", failing(os.fsync, getattr(errno, name), lambda *_: True))
    (tmp_path / "file").write_bytes(b"before")
    for write in (lambda: files.write_whole(tmp_path / "file", b"data"), lambda: files.sync_folder(tmp_path)):
        with pytest.raises(RunStopped, match="cannot be written"):
            write()
    assert (tmp_path / "file").read_bytes() == b"before"
    assert len(list(tmp_path.iterdir())) == 1


# ---------------------------------------------------------------------------------------------------- while it is held


def renamed(path):
    path.rename(path.with_name("elsewhere"))


def removed(path):
    shutil.rmtree(path)


def replaced(path):
    renamed(path)
    path.mkdir()


WRITES = {
    "metrics": lambda folder: folder.append_metrics([row(0)]),
    "events": lambda folder: folder.append_events([{"event": "other"}]),
    "result": lambda folder: folder.write_result({"leaderboard": []}),
    "best": lambda folder: folder.write_best(None, {}),
}


@pytest.mark.parametrize("what", [renamed, removed, replaced])
@pytest.mark.parametrize("write", WRITES)
def test_a_folder_that_is_gone_is_noticed_at_the_next_write_and_not_made_again(tmp_path, what, write):
    path = tmp_path / "run"
    with RunFolder.create(path, RUN) as folder:
        what(path)
        with pytest.raises(RunStopped, match=r"was removed or renamed while the run trained; .* give it its name back"):
            WRITES[write](folder)
        assert not path.exists() or (what is replaced and list(path.iterdir()) == [])


def test_records_that_are_removed_while_a_run_trains_do_not_begin_anew(tmp_path):
    with RunFolder.create(tmp_path / "run", RUN) as folder:
        (tmp_path / "run" / "metrics.jsonl").unlink()
        with pytest.raises(RunStopped, match=r"metrics\.jsonl' cannot be written: No such file"):
            folder.append_metrics([row(0)])


# ---------------------------------------------------------------------------------------------------- hard links


@pytest.mark.parametrize("name", ["lock", ".metrics.jsonl.partial", "metadata.json"])
def test_a_new_run_does_not_write_into_somebody_elses_file(tmp_path, name):
    victim = tmp_path / "thesis.tex"
    victim.write_text("years of work")
    (tmp_path / "run").mkdir()
    for link in (os.link, os.symlink):
        link(victim, tmp_path / "run" / name)
        with pytest.raises(UserError, match=r"\(a hard link\)|is a symbolic link"):
            made(tmp_path / "run")
        assert victim.read_text() == "years of work"
        (tmp_path / "run" / name).unlink()


def test_a_partial_file_that_came_meanwhile_is_not_written_through(tmp_path):
    victim = tmp_path / "thesis.tex"
    victim.write_text("years of work")
    for link in (os.link, os.symlink):
        link(victim, tmp_path / ".file.partial")
        files.write_whole(tmp_path / "file", b"data")
        assert victim.read_text() == "years of work"
        assert (tmp_path / "file").read_bytes() == b"data"
