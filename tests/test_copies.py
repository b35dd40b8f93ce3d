"""evolute list URL: what is said of the runs of a sweep's copy, of strangers' ones, too, and of a place that cannot be used."""

import json
import os
import re
import signal
import subprocess
import sys
import tempfile

import fsspec
import pytest
from fsspec.implementations.local import LocalFileSystem

from evolute import limits
from evolute.commands import cli
from evolute.experiments import copies
from evolute.experiments.mirror import Mirror
from evolute.experiments.place import Place
from evolute.report import listing
from recorded import population, record

ENDED, OPEN = "aaaa-30", "bbbb-30"


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    """A folder with a run that has ended and one that has not, and what only training needs."""
    out = tmp_path_factory.mktemp("sweep")
    record(out / "runs" / ENDED, population(0, 12, {"adam": 3}))
    run = record(out / "runs" / OPEN, population(1, 12), ended=False, upto=2)
    for file in ("checkpoints/000002.json", "checkpoints/000002-000.safetensors", "replay/000002-000.safetensors", "best/x.json"):
        (run / file).parent.mkdir(exist_ok=True)
        (run / file).write_text("x")
    return out


@pytest.fixture
def copy(out, tmp_path):
    """The folder of its copy."""
    for name in (ENDED, OPEN):
        Mirror(out, f"file://{tmp_path}/copy").push_run(name)
    return tmp_path / "copy"


@pytest.fixture(autouse=True)
def temporary(tmp_path, monkeypatch):
    """The place of temporary folders, which is empty when all is said."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    yield folder
    assert list(folder.iterdir()) == []


@pytest.fixture
def fetched(monkeypatch):
    """The names of all files that are read at a folder that is a place."""
    names, read = [], LocalFileSystem.cat_file

    def noted(self, path, *args, **more):
        names.append("/".join(path.split("/")[-2:]))
        return read(self, path, *args, **more)

    monkeypatch.setattr(LocalFileSystem, "cat_file", noted)
    return names


def said(capsys, code, *words):
    with pytest.raises(SystemExit) as end:
        cli.main(["list", *words])
    out, err = capsys.readouterr()
    assert end.value.code == code
    assert (err == "") == (code == 0), err
    return out or err


def state(folder):
    return {path: (path.stat().st_mtime_ns, path.stat().st_size) for path in sorted(folder.rglob("*"))}


@pytest.mark.parametrize("end", ["", "/"])
@pytest.mark.parametrize("kind", ["file", "memory"])
def test_a_copy_is_listed_as_its_folder_is(capsys, tmp_path, out, copy, kind, end):
    url = f"file://{copy}" if kind == "file" else "memory://some/sweep"
    if kind == "memory":
        fsspec.filesystem("memory").put(str(copy), "/some/sweep", recursive=True)
    before = state(copy)
    found = [json.loads(line) for line in said(capsys, 0, url + end, "--json").splitlines()]
    # Nobody knows of a copy whether somebody trains it.
    here = [{**one, "folder": f"{url}/runs/{name}"} for one, name in zip(listing.outlines(out), (ENDED, OPEN), strict=True)]
    assert [one["state"] for one in here] == ["finished", "stopped"]
    assert found == [here[0], {**here[1], "state": "unfinished"}]
    assert here[1]["steps_done"] == 2000
    table = said(capsys, 0, url + end)
    assert re.search(rf"^ runs/{ENDED} +InvertedPendulum-v4 .* 12,000 .* finished *$", table, re.MULTILINE)
    assert re.search(rf"^ runs/{OPEN} +InvertedPendulum-v4 .* 2,000/12,000 .* unfinished *$", table, re.MULTILINE)
    assert f"Runs in {url}" in table
    assert state(copy) == before


def test_only_small_files_are_fetched(copy, fetched):
    copies.outlines(f"file://{copy}")
    small = ["config.toml", "events.jsonl", "metadata.json", "metrics.jsonl", "result.json"]
    assert sorted(fetched) == [f"{ENDED}/{file}" for file in small] + [f"{OPEN}/{file}" for file in small[:-1]]


def test_names_of_strangers_lead_nowhere(monkeypatch, tmp_path, copy):
    evil = ["..", ".", ".hidden", "a b", "a\\b", "\x1b[31m", "x" * 201, "ä", "", "/", "/etc", "a/b", "../../up"]
    names = [f"{name}/{file}" for name in evil for file in ("config.toml", "metrics.jsonl")]
    names += [f"{OPEN}/{file}" for file in ("lock", "evil.py", "../config.toml", "sub/config.toml", "checkpoints/000002.json")]
    names += ["config.toml", "no-config/metrics.jsonl", f"{OPEN}/config.toml"]
    asked = []
    monkeypatch.setattr(Place, "find", lambda self, where: dict.fromkeys(names, 1))
    read = Place.get
    monkeypatch.setattr(Place, "get", lambda self, name, most: asked.append(name) or read(self, name, most))
    (one,) = copies.outlines(f"file://{copy}")
    assert one["folder"] == f"file://{copy}/runs/{OPEN}"
    assert asked == [f"runs/{OPEN}/config.toml"]


def test_a_damaged_run_is_told_by_its_url_and_the_others_are_listed(copy, temporary):
    metrics = copy / "runs" / ENDED / "metrics.jsonl"
    metrics.write_text("{}\n" + metrics.read_text())
    damaged, other = copies.outlines(f"file://{copy}")
    assert (damaged["state"], other["state"]) == ("damaged", "unfinished")
    (problem,) = damaged["problems"]
    assert problem.startswith(f"'file://{copy}/runs/{ENDED}/metrics.jsonl' is damaged in line 1")
    assert damaged["steps_done"] == 12_000


def test_a_file_that_is_too_large_is_not_fetched(copy, fetched):
    # It has no blocks: one that was read would take a gigabyte of memory.
    os.truncate(copy / "runs" / ENDED / "metrics.jsonl", limits.RECORDS_BYTES + 1)
    damaged, other = copies.outlines(f"file://{copy}")
    assert (damaged["state"], other["state"]) == ("damaged", "unfinished")
    (problem,) = damaged["problems"]
    assert f"'runs/{ENDED}/metrics.jsonl' at 'file://{copy}' has more than {limits.RECORDS_BYTES:,} bytes" in problem
    assert f"{ENDED}/metrics.jsonl" not in fetched


def test_a_place_without_runs_is_told(capsys, tmp_path):
    (tmp_path / "empty").mkdir()
    url = f"file://{tmp_path}/empty"
    assert said(capsys, 0, url) == f"There is no run in {url}.\n"
    assert said(capsys, 0, url, "--json") == ""


def fails(self, *args, **more):
    raise PermissionError("Forbidden.\nRequest 1234")


@pytest.mark.parametrize(
    ("url", "broken", "words"),
    [
        ("nonsense://x", None, "the storage 'nonsense://x' cannot be used: Protocol not known: nonsense; give a URL such as s3:"),
        ("file:///dev/null/x", None, "the storage 'file:///dev/null/x' cannot be used: "),
        ("file://{}/no", None, "there is nothing at 'file://{}/no'; check the URL, which is the one of --storage"),
        ("file://{}", "find", "the storage 'file://{}' cannot be used: Forbidden; fix that first."),
        # Whoever may not look is not told that there is nothing.
        ("file://{}", "info", "the storage 'file://{}' cannot be used: Forbidden; fix that first."),
        ("file://{}", "__init__", "the storage 'file://{}' cannot be used: Forbidden; fix that first."),
    ],
)
def test_a_place_that_cannot_be_used_is_told_in_a_sentence(capsys, monkeypatch, tmp_path, url, broken, words):
    if broken is not None:
        monkeypatch.setattr(LocalFileSystem, broken, fails)
        LocalFileSystem.clear_instance_cache()
    told = said(capsys, 2, url.format(tmp_path))
    assert told.startswith(f"evolute: {words.format(tmp_path)}")
    assert told.endswith(".\n")
    assert told.count("\n") == 1


def test_a_place_that_fails_later_is_told_too(capsys, monkeypatch, copy):
    monkeypatch.setattr(LocalFileSystem, "cat_file", fails)
    url = f"file://{copy}"
    assert said(capsys, 2, url) == f"evolute: the storage {url!r} cannot be used: Forbidden; fix that first.\n"


@pytest.mark.parametrize(("package", "url"), [("fsspec", "memory://x"), ("gcsfs", "gs://bucket/sweep")])
def test_a_package_that_is_not_here_is_named(capsys, monkeypatch, package, url):
    monkeypatch.setitem(sys.modules, package, None)
    told = said(capsys, 2, url)
    assert told.startswith(f"evolute: the storage {url!r} needs a package that is not here (")
    assert package in told
    assert "pip install 'evolute[storage]'" in told


def test_a_machine_without_a_temporary_folder_is_told(capsys, monkeypatch, copy):
    monkeypatch.setattr(tempfile, "tempdir", "/dev/null/x")
    assert said(capsys, 2, f"file://{copy}").startswith("evolute: no temporary folder can be used: ")


INTERRUPTED = """
import os, signal, sys, time
from evolute.commands import cli
from evolute.report import listing
said = listing.outline
def outline(path):
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(1)
    return said(path)
listing.outline = outline
cli.main(["list", sys.argv[1]])
"""


def test_what_was_fetched_is_removed_after_a_signal(copy, temporary):
    words = [sys.executable, "-c", INTERRUPTED, f"file://{copy}"]
    done = subprocess.run(words, capture_output=True, text=True, env={**os.environ, "TMPDIR": str(temporary)}, check=False)
    assert (done.returncode, done.stdout) == (128 + signal.SIGINT, "")
    assert "Traceback" not in done.stderr
