"""Members whose worker is lost miss an interval while the others go on, and join again from the last checkpoint."""

import dataclasses
import json
import os
import signal
import time

import pytest

from evolute import UserError, resume, train
from evolute.commands import cli
from evolute.engine import train_seeds
from evolute.errors import Damaged
from evolute.report import reading, replaying, story
from evolute.runs.folder import RunFolder
from evolute.training import processes
from evolute.training.host import Host
from evolute.training.line import Lost
from evolute.training.processes import Pipe, Processes
from faults import differences
from test_workers import QUICK, silent, workers

RUN = dataclasses.replace(QUICK, steps=180)
BOTH = Processes(2, stragglers=True)
# Of a row, what the others' loss changes.
SHARED = ("seconds", "population_environment_steps")


@pytest.fixture(autouse=True)
def often(monkeypatch):
    monkeypatch.setattr(processes, "PROGRESS_PERIOD", 0.001)


@pytest.fixture
def at_once(monkeypatch):
    """New workers are ready by the next interval's beginning, however long they take."""
    ready = Pipe.ready

    def waiting(self):
        while not ready(self):
            time.sleep(0.01)
        return True

    monkeypatch.setattr(Pipe, "ready", waiting)


class Loss:
    """An observer that kills some workers after an interval, which they miss the next of; and may stop the run after one."""

    def __init__(self, interval, *which, last=None):
        self.interval, self.which, self.last = interval, which, last

    def __call__(self, progress):
        # After the checkpoints of all populations.
        last = progress.state.number == progress.populations - 1
        if self.which and last and progress.state.interval >= self.interval:
            for victim in [workers()[number] for number in self.which]:
                os.kill(victim.pid, signal.SIGKILL)
            self.which = ()
        if progress.rows and progress.state.interval == self.last:
            raise KeyboardInterrupt


def rows_of(folder, but=SHARED):
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return {(row["interval"], row["member"]): {name: row[name] for name in row if name not in but} for row in rows}


def absences(folder):
    events = [json.loads(line) for line in (folder / "events.jsonl").read_text().splitlines()]
    return [(event["interval"], event["member"]) for event in events if event["event"] == "absent"]


def manifest(folder, interval):
    return json.loads((folder / "checkpoints" / f"{interval:06}.json").read_bytes().partition(b"\n")[2])


def test_the_others_are_what_they_would_have_been_and_the_lost_go_on_from_the_checkpoint(tmp_path, at_once):
    run, notes = dataclasses.replace(RUN, strategy="none", steps=120), []
    train(run, tmp_path / "whole", note=silent)
    train(run, tmp_path / "run", Loss(2, 1), notes.append, BOTH)
    whole, found = rows_of(tmp_path / "whole"), rows_of(tmp_path / "run")
    assert absences(tmp_path / "run") == [(3, 1), (3, 3)]
    assert [note for note in notes if "with members 1, 3 was ended by signal 9; the others go on, and a new one joins" in note]
    assert "the worker process with members 1, 3 has joined the others again." in notes
    assert whole.keys() - found.keys() == {(3, 1), (3, 3)}
    same = {key for key in found if found[key] == whole[key]}
    assert same == {key for key in found if key[1] in (0, 2) or key[0] < 3}
    for member in (1, 3):
        assert found[4, member]["environment_steps"] == 90
        assert found[4, member]["gradient_steps"] == whole[3, member]["gradient_steps"]
    third, fourth = (manifest(tmp_path / "run", interval)["members"][1] for interval in (3, 4))
    assert third["learner"]["file"] == "000002-001.safetensors"
    assert (third["missed"], fourth["missed"], third["environment_steps"], fourth["environment_steps"]) == (30, 30, 60, 90)
    told = story.tell(reading.read(tmp_path / "run"), "run")
    assert told["problems"] == []
    assert [words for _, name, words in told["events"] if name == "absent"] == [
        f"member {member} ({kind}) missed the interval, because its worker was lost" for member, kind in ((3, "sgd"), (1, "adam"))
    ]


def test_such_a_run_is_resumed_to_the_bit(tmp_path, at_once):
    """Also without stragglers, in one process, and in the interval that members missed."""
    result = train(RUN, tmp_path / "whole", Loss(2, 1), silent, BOTH)
    assert absences(tmp_path / "whole") == [(3, 1), (3, 3)]
    assert {event["interval"] for event in result.lineage} == {1, 2, 3, 4, 5}
    third = [event for event in result.lineage if event["interval"] == 3]
    assert {event[name] for event in third for name in ("member", "parent")} == {0, 2}
    with pytest.raises(KeyboardInterrupt):
        train(RUN, tmp_path / "run", Loss(2, 1, last=3), silent, BOTH)
    resume(tmp_path / "run", note=silent)
    assert differences(tmp_path / "run", tmp_path / "whole") == []


def test_a_loss_right_after_a_resume_leaves_a_checkpoint_that_can_be_resumed(tmp_path, at_once):
    """What a worker was restored from is of a manifest, with more in it than workers write."""
    train(RUN, tmp_path / "whole", Loss(2, 1), silent, BOTH)
    with pytest.raises(KeyboardInterrupt):
        train(RUN, tmp_path / "run", Loss(9, last=2), silent, BOTH)

    def begun(progress):
        if not killed:
            killed.append(workers()[1].pid)
            os.kill(killed[0], signal.SIGKILL)
        if progress.rows and progress.state.interval == 3:
            raise KeyboardInterrupt

    killed = []
    with pytest.raises(KeyboardInterrupt):
        resume(tmp_path / "run", observer=begun, note=silent, workers=BOTH)
    assert [member["missed"] for member in manifest(tmp_path / "run", 3)["members"]] == [0, 30, 0, 30]
    resume(tmp_path / "run", note=silent)
    assert differences(tmp_path / "run", tmp_path / "whole") == []


def test_who_missed_the_last_interval_is_no_parent_where_the_run_is_made_longer(tmp_path, at_once):
    train(dataclasses.replace(RUN, steps=90), tmp_path / "run", Loss(2, 1), silent, BOTH)
    assert absences(tmp_path / "run") == [(3, 1), (3, 3)]
    assert [member["absent"] for member in manifest(tmp_path / "run", 3)["members"]] == [False, True, False, True]
    train(RUN, tmp_path / "whole", Loss(2, 1), silent, BOTH)
    resume(tmp_path / "run", steps=RUN.steps, note=silent)
    assert differences(tmp_path / "run", tmp_path / "whole") == []


def test_members_miss_intervals_until_a_new_worker_is_ready(tmp_path, monkeypatch):
    ready, asked = Pipe.ready, []

    def late(self):
        asked.append(None)
        while len(asked) > 2 and not ready(self):
            time.sleep(0.01)
        return len(asked) > 2

    monkeypatch.setattr(Pipe, "ready", late)
    train(RUN, tmp_path / "run", Loss(2, 0), silent, BOTH)
    assert absences(tmp_path / "run") == [(n, member) for n in (3, 4, 5) for member in (0, 2)]
    assert rows_of(tmp_path / "run").keys() >= {(6, 0), (6, 2)}


def test_a_worker_that_never_comes_up_holds_up_nobody(tmp_path, monkeypatch):
    """Neither by being tried too often, nor as the one that would play the last episodes."""

    def never(self):
        raise Lost("was ended by signal 9")

    monkeypatch.setattr(Pipe, "ready", never)
    notes = []
    result = train(dataclasses.replace(RUN, steps=240), tmp_path / "run", Loss(2, 0), notes.append, BOTH)
    assert {member for _, member in absences(tmp_path / "run")} == {0, 2}
    assert len([note for note in notes if "was ended by signal 9; the others go on" in note]) == 6
    assert len(result.evaluation.returns) == 1
    assert workers() == []


def test_where_all_are_lost_somebody_is_waited_for(tmp_path, at_once):
    run = dataclasses.replace(RUN, strategy="none", steps=120)
    train(run, tmp_path / "whole", note=silent)
    train(run, tmp_path / "run", Loss(2, 0, 1), silent, BOTH)
    absent = absences(tmp_path / "run")
    assert absent == [(3, 0), (3, 2)]
    whole, found = rows_of(tmp_path / "whole"), rows_of(tmp_path / "run")
    assert all(found[key] == whole[key] for key in whole if key[1] in (1, 3))


def test_a_population_that_is_lost_whole_does_not_hold_up_the_one_beside_it(tmp_path, at_once):
    run = dataclasses.replace(RUN, mix={"adam": 1}, steps=120)
    train_seeds(run, [3, 4], [tmp_path / "3", tmp_path / "4"], Loss(2, 1), silent, BOTH)
    train(dataclasses.replace(run, seed=3), tmp_path / "alone", note=silent)
    assert differences(tmp_path / "3", tmp_path / "alone") == []
    assert absences(tmp_path / "4") == [(3, 0)]
    assert rows_of(tmp_path / "4").keys() == {(1, 0), (2, 0), (4, 0)}
    assert story.tell(reading.read(tmp_path / "4"), "4")["problems"] == []
    lines = (tmp_path / "4" / "metrics.jsonl").read_text().splitlines()
    lines[-1] = json.dumps(json.loads(lines[-1]) | {"fitness": 1e6})
    (tmp_path / "4" / "metrics.jsonl").write_text("\n".join(lines) + "\n")
    with pytest.raises(UserError, match="member 0 missed interval 3, which no schedule holds"):
        replaying.winner(RunFolder.open(tmp_path / "4"))


def test_what_was_never_checkpointed_is_waited_for(tmp_path, at_once):
    run = dataclasses.replace(RUN, steps=60)
    train(run, tmp_path / "whole", note=silent)
    train(run, tmp_path / "run", Loss(0, 1), silent, BOTH)
    assert differences(tmp_path / "run", tmp_path / "whole") == []


@pytest.mark.parametrize(
    ("hired", "changes", "folder", "said"),
    [
        (Processes(1, True), {}, True, "there is one worker, whom nobody waits for; choose at least 2 workers"),
        (BOTH, {"mix": {"adam": 1}}, True, "there is one worker, whom nobody waits for; choose at least 2 workers"),
        (BOTH, {}, False, "the run is not checkpointed; give it a folder"),
        (BOTH, {"checkpoint_every": 5}, True, "checkpoint_every is 5, and with stragglers .*; set it to 1"),
    ],
)
def test_where_nobody_can_go_on_it_is_refused(tmp_path, hired, changes, folder, said):
    with pytest.raises(UserError, match=said):
        train(dataclasses.replace(RUN, **changes), tmp_path / "run" if folder else None, note=silent, workers=hired)
    assert not (tmp_path / "run").exists()


def test_members_that_stand_at_different_steps_share_no_batch_axis(tmp_path):
    """A run that was trained by workers of a CPU may be resumed on an accelerator."""
    run = dataclasses.replace(RUN, mix={"sgd": 2}, placement="vmap")
    host = Host([run], [0, 1])
    (tmp_path / "run").mkdir()
    described = host.save(tmp_path / "run", [0, 1], 1)()
    host.restore(tmp_path / "run", described)
    described[1]["environment_steps"] += 30
    with pytest.raises(Damaged, match="members of sgd missed different intervals, and share a batch axis here"):
        host.restore(tmp_path / "run", described)
    host.close()


def test_members_with_a_schedule_cannot_miss_what_is_due():
    run = dataclasses.replace(RUN, mix={"adam": 1}, strategy="replay", schedule={"0": {"kind": "adam"}})
    with pytest.raises(UserError, match="a member with a schedule cannot miss an interval"):
        train_seeds(run, [0, 1], ["a", "b"], note=silent, workers=BOTH)


def test_the_command_line_refuses_it_with_one_worker(capsys, tmp_path):
    with pytest.raises(SystemExit) as ending:
        cli.main(["train", "InvertedPendulum-v4", "--stragglers", "--out", str(tmp_path / "run")])
    assert ending.value.code == 2
    assert "stragglers is set, and there is one worker" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
