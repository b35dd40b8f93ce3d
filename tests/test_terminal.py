"""What programs and shells get of the command line: --log json, evolute list, completion."""

import json
import math
import os
import re
import shutil
import subprocess
import sys

import pytest

from evolute.commands import cli
from evolute.runs.folder import RunFolder
from recorded import population, record
from test_cli_output import TRAIN, ended


def printed(capsys, *words):
    with pytest.raises(SystemExit) as end:
        cli.main(list(words))
    out, err = capsys.readouterr()
    assert (end.value.code, err) == (0, "")
    return out


def objects(text):
    """Every line is a JSON object, and JSON has no NaN."""

    def refuse(constant):
        raise AssertionError(constant)

    return [json.loads(line, parse_constant=refuse) for line in text.splitlines()]


# -------------------------------------------------------------------------------------------------------- --log json


def test_a_program_reads_every_row_and_event_of_a_run_and_nothing_else(tmp_path):
    # Both members of Limit-v0's population learn, and one copies the other.
    words = [word if word != "adam=1" else "adam=2" for word in TRAIN]
    code, out, err = ended(tmp_path, *words, "--seeds", "0", "1", "--log", "json", "--out", "runs")
    assert (code, err) == (0, b"")
    found = objects(out.decode())
    assert {one["record"] for one in found} == {"note", "metrics", "event", "progress", "result"}
    for seed in (0, 1):
        folder = RunFolder.open(tmp_path / "runs" / f"seed-{seed}")
        own = [one for one in found if one.get("seed") == seed]
        rows = [{k: v for k, v in one.items() if k not in ("record", "seed")} for one in own if one["record"] == "metrics"]
        assert rows == folder.metrics()
        events = [{k: v for k, v in one.items() if k not in ("record", "seed")} for one in own if one["record"] == "event"]
        assert events == folder.events()
        assert any(event["event"] == "exploit" for event in events)
        (result,) = (one for one in own if one["record"] == "result")
        assert result["folder"] == f"runs/seed-{seed}"
        assert result["leaderboard"] == folder.result()["leaderboard"]
        progress = [one for one in own if one["record"] == "progress"]
        assert [(one["steps"], one["of"]) for one in progress] == [(30, 60), (60, 60)]
        assert progress[0]["left"] > 0
        assert progress[-1]["left"] == 0
        assert progress[-1]["best"] == max(row["fitness"] for row in rows)


# -------------------------------------------------------------------------------------------------------------- list


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A folder with runs in every state."""
    top = tmp_path_factory.mktemp("all") / "runs"
    top.mkdir()
    record(top / "a", population(0, 12, {"adam": 3}))
    record(top / "b" / "seed-1", population(1, 12), ended=False, upto=2)
    record(top / "c", population(2, 12, {"kfac": 2}))
    (top / "c" / "metrics.jsonl").write_text("{}\n" + (top / "c" / "metrics.jsonl").read_text())
    (top / "d").mkdir()
    (top / "d" / "config.toml").write_text("steps = ")
    (top / "e").mkdir()
    (top / "e" / "notes").write_text("no run")
    (top / "loop").symlink_to(top)
    return top


def test_runs_of_a_folder_are_listed_with_their_state(capsys, runs):
    with RunFolder.create(runs / "f", population(3, 12)):
        found = {os.path.relpath(one["folder"], runs): one for one in objects(printed(capsys, "list", str(runs), "--json"))}
    shutil.rmtree(runs / "f")
    assert {name: one["state"] for name, one in found.items()} == {
        **{"a": "finished", "b/seed-1": "stopped", "c": "damaged", "d": "damaged", "f": "running"},
    }
    one = found["a"]
    rows = RunFolder.open(runs / "a").metrics()
    assert one["best"] == max(row["fitness"] for row in rows if row["fitness"] is not None and math.isfinite(row["fitness"]))
    assert (one["env"], one["mix"], one["steps_done"], one["steps"]) == ("InvertedPendulum-v4", {"adam": 3}, 12_000, 12_000)
    assert one["return_mean"] == RunFolder.open(runs / "a").result()["best"]["return_mean"]
    assert (found["b/seed-1"]["steps_done"], found["b/seed-1"]["return_mean"]) == (2000, None)
    assert "line 1" in found["c"]["problems"][0]
    assert "config.toml" in found["d"]["problems"][0]


def test_the_list_is_a_table_for_people_and_fits_80_columns(runs):
    words = [sys.executable, "-m", "evolute", "list", str(runs)]
    variables = {**os.environ, "COLUMNS": "80", "FORCE_COLOR": "1", "TERM": "dumb"}
    done = subprocess.run(words, capture_output=True, text=True, env=variables, check=True)
    lines = [re.sub(r"\x1b\[[0-9;]*m", "", line) for line in done.stdout.splitlines()]
    assert max(map(len, lines)) <= 80
    for column in ("run", "environment", "mix", "steps", "best", "state"):
        assert any(re.search(rf"\b{column}\b", line) for line in lines[:4]), column
    assert any(line.split()[0] == "a" and line.rstrip().endswith("finished") for line in lines if line.strip())
    below = " ".join(" ".join(lines).split())
    assert f"c is damaged: '{runs}/c/metrics.jsonl' is damaged in line 1: 'interval' is missing" in below.replace(" /", "/")
    assert "d is damaged: The settings in config.toml cannot be read: the configuration file" in below
    assert "b/seed-1 is damaged" not in below


def test_a_folder_without_runs_is_told(capsys, tmp_path):
    assert printed(capsys, "list", str(tmp_path)) == f"There is no run in {tmp_path}.\n"
    assert printed(capsys, "list", str(tmp_path), "--json") == ""


# -------------------------------------------------------------------------------------------------------- completion

# What a shell does when somebody presses the tabulator.
ASKS = """
source {script}
ask() {{ COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); COMPREPLY=(); _tyro_evolute; echo "${{COMPREPLY[*]}}"; }}
ask evolute ex
ask evolute train HalfCheetah-v4 --mi
ask evolute train HalfCheetah-v4 --mix adam=2 --trunc
ask evolute report runs/one --o
complete -p evolute
"""


@pytest.mark.skipif(shutil.which("bash") is None, reason="there is no bash here")
def test_bash_completes_commands_and_options(capsys, tmp_path):
    (tmp_path / "script").write_text(printed(capsys, "--print-completion", "bash"))
    asked = ASKS.format(script=tmp_path / "script")
    done = subprocess.run(["bash", "--norc", "-c", asked], capture_output=True, text=True, check=True)
    *answers, registered = done.stdout.splitlines()
    assert answers == ["export", "--mix", "--truncation", "--out"]
    # Where nothing of evolute's fits, bash completes the path of a run folder.
    assert registered == "complete -o default -F _tyro_evolute evolute"


def test_the_other_shells_get_a_script_or_a_sentence(capsys, monkeypatch):
    zsh = printed(capsys, "--print-completion", "zsh")
    assert zsh.startswith("#compdef evolute")
    if shutil.which("zsh"):
        subprocess.run(["zsh", "-n"], input=zsh, text=True, check=True)
    monkeypatch.setitem(sys.modules, "shtab", None)
    with pytest.raises(SystemExit) as end:
        cli.main(["--print-completion", "tcsh"])
    assert end.value.code == 2
    assert capsys.readouterr().err == (
        "evolute: completion for tcsh needs the package 'shtab', which is not installed; install it with: pip install shtab.\n"
    )
