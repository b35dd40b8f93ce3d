"""A sweep's copy at a URL: a run goes on from it elsewhere, bit by bit, and a copy that was cut short is not taken.

`make cluster-test` does the same with an S3 server.
"""

import dataclasses
import json
import shutil
from pathlib import Path

import pytest

from evolute import Run, UserError, resume, train
from evolute.errors import RunStopped
from evolute.experiments import copies, records
from evolute.experiments.cell import train_cell
from evolute.experiments.mirror import Mirror
from faults import differences

SIZES = {
    **{"actor_layers": (8,), "critic_layers": (8,), "batch_size": 16, "buffer_size": 90, "learning_starts": 20},
    **{"episodes": 1, "final_episodes": 1, "truncation": 0.5},
}
RUN = Run("InvertedPendulum-v4", mix={"adam": 2, "sgd": 2}, steps=150, interval=30, **SIZES)
# No fewer steps than an episode may have.
EVALUATION = 1000
NAME = records.name(RUN, EVALUATION)


def silent(_):
    pass


class Stop(Exception):
    """What ends a process in the middle."""


def stopped(out, url, steps=100):
    """Train a cell until it is stopped; its folder is lost with its machine."""

    def tell(done):
        if done >= steps:
            raise Stop

    with pytest.raises(Stop):
        train_cell(RUN, EVALUATION, out, 1, True, tell, silent, url)
    shutil.rmtree(out)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    out = tmp_path_factory.mktemp("whole")
    train_cell(RUN, EVALUATION, out, 1, True, silent, silent)
    return out


def same(out, whole):
    assert differences(out / "runs" / NAME, whole / "runs" / NAME) == []
    one, other = (next(iter(records.read_all(folder).values())) for folder in (out, whole))
    assert one["final"] == other["final"]
    assert one["curve"]["best"] == other["curve"]["best"]


def listed(url):
    return [(one["state"], one["steps_done"]) for one in copies.outlines(url)]


@pytest.mark.parametrize("form", ["{}", "file://{}"])
def test_a_run_goes_on_elsewhere_from_its_copy(tmp_path, whole, form):
    url = form.format(tmp_path / "copy")
    stopped(tmp_path / "a", url)
    assert sorted(path.name for path in (tmp_path / "copy" / "runs" / NAME / "checkpoints").glob("*.json")) == [
        "000002.json",
        "000003.json",
    ]
    assert listed(url) == [("unfinished", 90)]
    notes = []
    train_cell(RUN, EVALUATION, tmp_path / "b", 1, True, silent, notes.append, url)
    assert "going on after 90 of 150 steps." in notes
    same(tmp_path / "b", whole)
    assert listed(url) == [("finished", 150)]
    # The copy is the run, too, and its record is there.
    shutil.rmtree(tmp_path / "b")
    mirror = Mirror(tmp_path / "c", url)
    mirror.fetch_run(NAME)
    mirror.fetch_records()
    same(tmp_path / "c", whole)


def test_a_checkpoint_that_was_copied_in_part_is_not_taken(tmp_path, whole):
    """The manifest comes last, so a part that is missing was removed by somebody, or spoilt: the one before is taken."""
    url = str(tmp_path / "copy")
    stopped(tmp_path / "a", url)
    part = tmp_path / "copy" / "runs" / NAME / "checkpoints" / "000003-001.safetensors"
    data = bytearray(part.read_bytes())
    data[-1] ^= 1
    part.write_bytes(data)
    notes = []
    train_cell(RUN, EVALUATION, tmp_path / "b", 1, True, silent, notes.append, url)
    assert "going on after 60 of 150 steps." in notes
    same(tmp_path / "b", whole)


def test_files_are_copied_before_the_manifest_that_names_them_and_removed_after_it(tmp_path, monkeypatch):
    """At every moment a reader finds whole checkpoints only."""
    url, seen = str(tmp_path / "copy"), []
    mirror = Mirror(tmp_path / "out", url)
    files = type(mirror._place._files)
    put, remove = files.pipe_file, files.rm_file
    copied = tmp_path / "copy" / "runs" / NAME

    def look():
        for path in copied.glob("checkpoints/*.json"):
            manifest = json.loads(path.read_bytes().partition(b"\n")[2])
            named = [("checkpoints", member["learner"]["file"]) for member in manifest["members"]]
            named += [("replay", segment["file"]) for member in manifest["members"] for segment in member["segments"]]
            seen.append(all((copied / folder / file).is_file() for folder, file in named))
        # What there is a run by comes after what is said of it.
        if (copied / "config.toml").exists():
            seen.append({"metadata.json", "metrics.jsonl", "events.jsonl"} <= {path.name for path in copied.iterdir()})

    monkeypatch.setattr(files, "pipe_file", lambda self, *args, **more: (put(self, *args, **more), look()))
    monkeypatch.setattr(files, "rm_file", lambda self, path: (remove(self, path), look()))
    train_cell(RUN, EVALUATION, tmp_path / "out", 1, False, silent, silent, url)
    assert len(seen) > 50
    assert all(seen)
    # A run that has ended keeps no checkpoints, there neither.
    assert list(copied.glob("checkpoints/*")) + list(copied.glob("replay/*")) == []


def test_what_is_here_stays_where_it_is_further_than_the_copy(tmp_path):
    url = str(tmp_path / "copy")
    run = tmp_path / "out" / "runs" / NAME
    train(dataclasses.replace(RUN, steps=60), run, note=silent)
    Mirror(tmp_path / "out", url).push_run(NAME)
    resume(run, steps=120, note=silent)
    before = (run / "metrics.jsonl").read_bytes()
    Mirror(tmp_path / "out", url).fetch_run(NAME)
    assert (run / "metrics.jsonl").read_bytes() == before


def test_a_copy_leads_to_no_place_outside_of_the_run(tmp_path):
    copied = tmp_path / "copy" / "runs" / NAME
    for name in ("lock", "secret.py", "best/evil.pkl", "checkpoints/x.safetensors", "replay/../../up.json", "other/000001.json"):
        path = copied / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("x")
    (copied / "checkpoints" / "000001.json").write_text("x")
    Mirror(tmp_path / "out", str(tmp_path / "copy")).fetch_run(NAME)
    assert [path.name for path in sorted((tmp_path / "out").rglob("*")) if path.is_file()] == ["000001.json"]


@pytest.mark.parametrize(
    ("url", "error", "said"),
    [
        ("nonsense://x", UserError, "the storage 'nonsense://x' cannot be used"),
        ("/dev/null/x", RunStopped, "the storage '/dev/null/x' cannot be used"),
        ("nonsense://me:se@cr:et@x/y", UserError, r"^the storage 'nonsense://me:\*\*\*@x/y' cannot be used: [^@]*$"),
    ],
)
def test_a_place_that_cannot_be_used_is_told_in_a_sentence(tmp_path, url, error, said):
    with pytest.raises(error, match=said):
        train_cell(RUN, EVALUATION, tmp_path / "out", 1, True, silent, silent, url)
    assert Path("/dev/null").exists()
