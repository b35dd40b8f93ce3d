"""Trackers of other programs: what they are told equals the metrics, also after a kill, and their failing stops nothing."""

import json
import math
import os
import re
import shutil
import signal
import struct
import subprocess
import sys
from collections import defaultdict

import pytest

from evolute import Run, train
from evolute.commands import cli
from evolute.report import trackers
from evolute.report.tracking import Tracking
from evolute.resumption import resume
from evolute.runs.folder import RunFolder
from test_cli_output import ended, start

pytest.importorskip("tensorboardX", reason="tensorboardX is not installed (pip install '.[tensorboard]')")
SIZES = ("--learning-starts", "20", "--actor-layers", "4", "--critic-layers", "4", "--batch-size", "32", "--buffer-size", "90")
WORDS = ("--episodes", "1", "--final-episodes", "1", "--interval", "30", *SIZES)
TRAIN = ("train", "probe_envs:Limit-v0", "--mix", "adam=2", "sgd=2", "--steps", "120", *WORDS)
RUN = Run(
    "InvertedPendulum-v4",
    mix={"adam": 2, "sgd": 2},
    **{"steps": 90, "interval": 30, "learning_starts": 20, "batch_size": 16, "buffer_size": 90, "episodes": 1},
    **{"final_episodes": 1, "actor_layers": (4,), "critic_layers": (4,), "truncation": 0.5},
)


# ------------------------------------------------------------------------------------------- an event file, by its format


def varint(data, at):
    value = shift = 0
    while True:
        value |= (data[at] & 127) << shift
        shift, at = shift + 7, at + 1
        if data[at - 1] < 128:
            return value, at


def fields(data):
    """Return the fields of a message of protocol buffers by number, each a list."""
    found, at = defaultdict(list), 0
    while at < len(data):
        key, at = varint(data, at)
        if key & 7 == 0:
            value, at = varint(data, at)
        else:
            size, at = {1: (8, at), 5: (4, at)}.get(key & 7) or varint(data, at)
            value, at = data[at : at + size], at + size
        found[key >> 3].append(value)
    return found


def points(folder):
    """Return what is in the event files of a folder: (name, step, number or text), in their order; TensorBoard's own format."""
    found = []
    for path in sorted(folder.glob("events.out.tfevents.*")):
        data, at = path.read_bytes(), 0
        while at < len(data):
            # Length, its checksum, the event, its checksum.
            (size,) = struct.unpack_from("<Q", data, at)
            event = fields(data[at + 12 : at + 12 + size])
            at += size + 16
            for value in (one for summary in event[5] for one in fields(summary)[1]):
                parts = fields(value)
                told = struct.unpack("<f", parts[2][0])[0] if parts[2] else fields(parts[8][0])[8][0].decode()
                found.append((parts[1][0].decode(), (event[2] or [0])[0], told))
    return found


def told(run, stream):
    """Return a stream's numbers by name and step; each must be there once."""
    numbers = [(name, step) for name, step, value in points(run / "tensorboard" / stream) if isinstance(value, float)]
    assert len(set(numbers)) == len(numbers) > 0
    return {(name, step): value for name, step, value in points(run / "tensorboard" / stream) if isinstance(value, float)}


def equals_the_metrics(run):
    """Every number of the metrics is told once, at its step, and nothing else is."""
    folder = RunFolder.open(run)
    metrics = folder.metrics()
    for slot in {row["member"] for row in metrics}:
        numbers = told(run, f"member-{slot}")
        own = [row for row in metrics if row["member"] == slot]
        assert {step for _, step in numbers} == {row["steps"] for row in own}
        for row in own:
            for name, value in (
                ("eval/mean_reward", row["fitness"]),
                ("rollout/ep_rew_mean", row["training_return"]),
                ("charts/episodic_return", row["training_return"]),
                ("losses/actor_loss", row["actor_loss"]),
                ("train/critic_loss", row["critic_loss"]),
                ("losses/qf1_loss", row["critic_loss"] and row["critic_loss"] / 2),
                ("evolute/gradient_steps", row["gradient_steps"]),
                ("hyperparameters/actor_learning_rate", row["hyperparameters"]["actor_learning_rate"]),
                ("charts/SPS", 30 / math.fsum(row["seconds"].values())),
            ):
                if value is None:
                    assert (name, row["steps"]) not in numbers
                else:
                    assert numbers[name, row["steps"]] == pytest.approx(value, rel=1e-6), name
        exploits = [
            (step, text) for name, step, text in points(run / "tensorboard" / f"member-{slot}") if name.startswith("exploits")
        ]
        events = [event for event in folder.events() if event["event"] == "exploit" and event["member"] == slot]
        assert [step for step, _ in exploits] == [event["steps"] for event in events]
        assert all(f"copied member {event['parent']}" in text for event, (_, text) in zip(events, exploits, strict=True))
    population = told(run, "population")
    for steps in {row["steps"] for row in metrics}:
        assert population["population/best", steps] == pytest.approx(
            max(row["fitness"] for row in metrics if row["steps"] == steps), rel=1e-6
        )
        count = sum(event["event"] == "exploit" and event["steps"] == steps for event in folder.events())
        assert population["population/exploits", steps] == count
    (settings,) = (text for name, _, text in points(run / "tensorboard" / "population") if name.startswith("settings"))
    assert 'env = "' in settings


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run that an observer told TensorBoard of while it trained."""
    path = tmp_path_factory.mktemp("whole") / "run"
    said = []
    tracking = Tracking(["tensorboard"], lambda seed: path, said.append)
    train(RUN, path, observer=tracking)
    tracking.close()
    assert said == []
    return path


def test_what_is_told_equals_the_metrics(whole):
    equals_the_metrics(whole)
    assert any(event["event"] == "exploit" for event in RunFolder.open(whole).events())


def test_tensorboard_itself_reads_the_same(whole):
    accumulators = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    own = accumulators.EventAccumulator(str(whole / "tensorboard" / "member-1"))
    own.Reload()
    numbers = {(name, event.step): event.value for name in own.Tags()["scalars"] for event in own.Scalars(name)}
    assert numbers == told(whole, "member-1")
    assert "exploits/text_summary" in accumulators.EventAccumulator(str(whole / "tensorboard" / "member-1")).Reload().Tags()[
        "tensors"
    ] or not [event for event in RunFolder.open(whole).events() if event.get("member") == 1]


def test_a_run_that_is_over_is_told_the_same(capsys, whole, tmp_path):
    copy = shutil.copytree(whole, tmp_path / "run")
    shutil.rmtree(copy / "tensorboard")
    for _ in range(2):
        # The second time replaces the first.
        with pytest.raises(SystemExit) as end:
            cli.main(["track", str(copy)])
        out, err = capsys.readouterr()
        assert (end.value.code, err) == (0, "")
        assert re.fullmatch(rf"[\d,]+ points; look at them with: tensorboard --logdir {copy}/tensorboard\n", out)
        for stream in ("population", *(f"member-{slot}" for slot in range(4))):
            assert points(copy / "tensorboard" / stream) == points(whole / "tensorboard" / stream)


def test_nothing_is_doubled_after_a_kill_with_seeds_and_workers(tmp_path):
    """A real kill -9 in the middle of an interval, with points told that belong to no checkpoint."""
    words = (*TRAIN, "--seeds", "0", "1", "--workers", "2", "--track", "tensorboard", "--checkpoint-every", "3", "--out", "runs")
    with start(tmp_path, *words, "--log", "json", variables={"PYTHONUNBUFFERED": "1"}) as training:
        for line in training.stdout:
            found = json.loads(line)
            if (found["record"], found.get("seed"), found.get("steps")) == ("progress", 1, 60):
                os.kill(training.pid, signal.SIGKILL)
                break
    assert training.returncode == -signal.SIGKILL
    for seed in (0, 1):
        run = tmp_path / "runs" / f"seed-{seed}"
        before = told(run, "member-0")
        # What was told is of no checkpoint, and told again.
        assert ("eval/mean_reward", 30) in before
        code, out, err = ended(
            tmp_path, "resume", f"runs/seed-{seed}", "--allow-import", "probe_envs", "--track", "tensorboard", "--workers", "2"
        )
        assert (code, err) == (0, b""), out
        equals_the_metrics(run)
        assert {step for _, step in told(run, "member-0")} == {30, 60, 90, 120}


def test_a_stopped_run_says_how_to_go_on_with_its_tracker(tmp_path):
    with start(tmp_path, *TRAIN, "--steps", "100000", "--track", "tensorboard", "--out", "run") as training:
        # --steps is given twice.
        _, err = training.communicate(timeout=60)
    assert b"--steps is given twice" in err
    words = [word if word != "120" else "1000000" for word in TRAIN]
    with start(tmp_path, *words, "--track", "tensorboard", "--out", "run", variables={"PYTHONUNBUFFERED": "1"}) as training:
        for line in training.stdout:
            if line.startswith(b"steps=60"):
                break
        training.send_signal(signal.SIGINT)
        _, err = training.communicate(timeout=60)
    said = b"evolute resume run --allow-import probe_envs --track tensorboard"
    assert err.splitlines()[-1].endswith(said)


class Broken:
    """A tracker that fails when it is told of the second interval."""

    def __init__(self):
        self.steps, self.closed = [], 0

    def begin(self, path, run):
        return trackers.Tracker(self.write, lambda: None)

    def write(self, found):
        self.steps.append(found[0].step)
        if len(self.steps) > 1:
            raise OSError("no room\nfor it")


def test_a_tracker_that_fails_stops_nothing_and_is_said_once_and_recorded(tmp_path, monkeypatch, whole):
    broken, said = Broken(), []
    kind = trackers.Kind("evolute", broken.begin, str)
    monkeypatch.setitem(trackers.TRACKERS, "broken", kind)
    tracking = Tracking(["broken", "tensorboard"], lambda seed: tmp_path / "run", said.append)
    train(RUN, tmp_path / "run", observer=tracking, note=lambda sentence: None)
    tracking.close()
    assert broken.steps == [30, 60]
    assert said == [
        "broken failed and is told no more (OSError: no room for it); make up for it later with: evolute track RUN --to broken"
    ]
    folder = RunFolder.open(tmp_path / "run")
    (event,) = (event for event in folder.events() if event["event"] == "tracking_failed")
    assert (event["tracker"], event["steps"], event["message"]) == ("broken", 60, "broken failed: OSError: no room for it")
    # Nothing else is another run, and the other tracker was told of everything.
    assert [{**row, "seconds": 0} for row in folder.metrics()] == [
        {**row, "seconds": 0} for row in RunFolder.open(whole).metrics()
    ]
    equals_the_metrics(tmp_path / "run")


def test_a_tracker_that_cannot_begin_stops_nothing(tmp_path):
    said = []
    (tmp_path / "run").mkdir()
    tracking = Tracking(["tensorboard"], lambda seed: tmp_path / "run", said.append)
    train(RUN, tmp_path / "run", observer=lambda progress: None, note=lambda sentence: None)
    # A file where the folder belongs.
    (tmp_path / "run" / "tensorboard").write_text("mine")
    resume(tmp_path / "run", steps=120, observer=tracking, note=lambda sentence: None)
    tracking.close()
    assert len(said) == 1
    assert said[0].startswith("tensorboard failed and is told no more (")
    assert (tmp_path / "run" / "tensorboard").read_text() == "mine"
    assert sum(event["event"] == "tracking_failed" for event in RunFolder.open(tmp_path / "run").events()) == 1


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (
            ("train", "InvertedPendulum-v4", "--track", "tensorbord"),
            "--track is 'tensorbord' (did you mean 'tensorboard'?); choose",
        ),
        (("train", "InvertedPendulum-v4", "--track", "tensorboard,wandb"), "separate values by blanks"),
        (("train", "InvertedPendulum-v4", "--track"), "--track is empty; choose from tensorboard, wandb."),
        (("train", "InvertedPendulum-v4", "--track", "wandb"), "pip install 'evolute[wandb]'"),
        (("resume", "run", "--track", "tensorboard"), "pip install 'evolute[tensorboard]'"),
        (("track", "nowhere", "--to", "neptune"), "--to is 'neptune'; choose from tensorboard, wandb."),
    ],
)
def test_a_mistake_or_a_missing_package_is_one_sentence(capsys, tmp_path, monkeypatch, words, said):
    monkeypatch.chdir(tmp_path)
    RunFolder.create(tmp_path / "run", RUN).__enter__()
    before = sorted(tmp_path.rglob("*"))
    for module in ("tensorboardX", "wandb"):
        monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(SystemExit) as end:
        cli.main(list(words))
    out, err = capsys.readouterr()
    assert (end.value.code, out) == (2, "")
    assert said in err
    assert err.count("\n") == 1
    assert sorted(tmp_path.rglob("*")) == before


# LevelDB's log: blocks of 32 KiB, records in pieces with a head of checksum, length and kind; a file's head has seven bytes.
READ_WANDB = """
import json, struct, sys
from wandb.proto import wandb_internal_pb2 as wire
data, at, whole = open(sys.argv[1], "rb").read(), 7, b""
while at + 7 <= len(data):
    room = 32768 - at % 32768
    if room < 7:
        at += room
        continue
    _, size, kind = struct.unpack_from("<IHB", data, at)
    whole, at = whole + data[at + 7 : at + 7 + size], at + 7 + size
    if kind in (1, 4):
        record = wire.Record.FromString(whole)
        whole = b""
        if record.WhichOneof("record_type") == "history":
            print(json.dumps({i.key or ".".join(i.nested_key): json.loads(i.value_json) for i in record.history.item}))
"""


def read_wandb(file):
    done = subprocess.run([sys.executable, "-c", READ_WANDB, str(file)], capture_output=True, text=True, check=True)
    return done.stdout


def test_weights_and_biases_gets_the_same_offline(whole, tmp_path):
    """Read back from what it keeps on disk, by its own reader."""
    pytest.importorskip("wandb", reason="wandb is not installed (pip install '.[wandb]')")
    run = shutil.copytree(whole, tmp_path / "runs" / "one")
    variables = {name: value for name, value in os.environ.items() if not name.startswith("WANDB_")} | {"HOME": str(tmp_path)}
    for _ in range(2):
        # The second time replaces the first.
        words = [sys.executable, "-m", "evolute", "track", str(run), "--to", "wandb"]
        done = subprocess.run(words, capture_output=True, text=True, env=variables, cwd=tmp_path, timeout=120, check=False)
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout.endswith(f"look at them with: wandb sync {run.parent}/wandb/offline-run-*\n")
    (file,) = run.parent.glob("wandb/offline-run-*/run-*.wandb")
    rows = [json.loads(line) for line in read_wandb(file).splitlines()]
    assert [row["_step"] for row in rows] == [30, 60, 90]
    metrics = RunFolder.open(whole).metrics()
    for row in metrics:
        (own,) = (one for one in rows if one["_step"] == row["steps"])
        assert own[f"member-{row['member']}/eval/mean_reward"] == row["fitness"]
        assert own["population/best"] == max(other["fitness"] for other in metrics if other["steps"] == row["steps"])
    # The run folder holds plain files alone.
    assert RunFolder.open(run).metrics() == metrics
