"""A run folder: made once, never overwritten, plain data."""

import json
import math
import tomllib
from pathlib import Path

import pytest

from evolute import records
from evolute.config import Run
from evolute.errors import UserError
from evolute.records import RunFolder, default_folder, refuse_existing

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


@pytest.mark.parametrize("fails", ["mkdir", "open"])
def test_a_folder_that_cannot_be_written_is_a_users_mistake(tmp_path, monkeypatch, fails):
    def refuse(*_args, **_kwargs):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, fails, refuse)
    with pytest.raises(UserError, match=r"cannot be written: Permission denied .*choose another folder with --out") as mistake:
        made(tmp_path / "run", RUN)
    assert str(tmp_path / "run") in str(mistake.value)


def test_a_folder_above_that_may_not_be_written_is_noticed_before_training(tmp_path, monkeypatch):
    monkeypatch.setattr(records.os, "access", lambda path, mode: path != tmp_path)
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
