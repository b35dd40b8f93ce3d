"""Members dealt over processes: the same numbers as in one process, whatever happens to the processes."""

import dataclasses
import gc
import multiprocessing
import os
import signal
import time

import gymnasium
import numpy as np
import pytest

from evolute import Run, UserError, resume, train
from evolute.engine import train_seeds
from evolute.errors import RunStopped
from evolute.training import processes
from evolute.training.elsewhere import Elsewhere
from evolute.training.replay import ReplayBuffer
from evolute.training.worker import Orders
from faults import differences, finish, start, state_of, wait_until, workers_of

SIZES = {
    "actor_layers": (8,),
    "critic_layers": (8,),
    "batch_size": 16,
    "buffer_size": 90,
    "learning_starts": 20,
    "episodes": 1,
    "final_episodes": 1,
    "truncation": 0.5,
}
# Every evolution has an exploit from one worker to the other: members 0 and 2, 1 and 3 are dealt to the same.
RUN = Run("InvertedPendulum-v4", mix={"adam": 2, "kfac": 2}, steps=150, interval=30, **SIZES)
# Where many processes start and it does not matter what they train: K-FAC's program takes each of them seconds.
QUICK = dataclasses.replace(RUN, mix={"adam": 2, "sgd": 2})


def silent(_sentence):
    pass


def workers():
    found = [child for child in multiprocessing.active_children() if child.name == "evolute-worker"]
    # In the order in which they were started: the first one plays the final episodes.
    return sorted(found, key=lambda child: child._identity)


class Killer:
    """An observer that kills a worker at each of some steps, in the middle of an interval or at its end."""

    def __init__(self, *steps):
        self.steps, self.pids = list(steps), []

    def __call__(self, progress):
        if self.steps and progress.steps >= self.steps[0]:
            self.steps.pop(0)
            # The first that was not killed yet, in turn.
            victim = workers()[len(self.pids) % 2]
            self.pids.append(victim.pid)
            os.kill(victim.pid, signal.SIGKILL)


def trained(run, folder):
    """Train a run in one process; return its folder."""
    result = train(run, folder, note=silent)
    crossing = [event for event in result.lineage if event["member"] % 2 != event["parent"] % 2]
    assert crossing
    return folder


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return trained(RUN, tmp_path_factory.mktemp("whole") / "run")


@pytest.fixture(scope="module")
def quick_whole(tmp_path_factory):
    return trained(QUICK, tmp_path_factory.mktemp("quick_whole") / "run")


@pytest.mark.parametrize("count", [2, 3, pytest.param(9, marks=pytest.mark.slow)])
def test_any_number_of_processes_gives_the_same_run(tmp_path, whole, count):
    train(RUN, tmp_path / "run", note=silent, workers=count)
    assert differences(tmp_path / "run", whole) == []
    assert workers() == []


@pytest.mark.slow
def test_large_sums_are_divided_as_in_one_process(tmp_path):
    """JAX splits products of this size by the number of cores that it sees, and a worker runs on fewer."""
    sizes = SIZES | {"actor_layers": (400, 300), "critic_layers": (400, 300), "batch_size": 256, "buffer_size": 300}
    sizes["learning_starts"] = 10
    run = Run("HalfCheetah-v4", mix={"adam": 1, "kfac": 1}, steps=40, interval=20, **sizes)
    for count in (1, 2):
        train(run, tmp_path / str(count), note=silent, workers=count)
    assert differences(tmp_path / "2", tmp_path / "1") == []


def test_lapack_is_not_loaded_before_its_threads_are_set(tmp_path):
    """It reads OPENBLAS_NUM_THREADS when it is loaded; with more threads large factorisations round otherwise, and are slower."""
    script = tmp_path / "script.py"
    script.write_text("import sys, evolute.engine, evolute.training.serving\nprint('scipy.linalg' in sys.modules)\n")
    assert finish(start(tmp_path, script=(script,)))[:2] == (0, "False\n")


def test_members_that_share_a_batch_axis_stay_in_one_process():
    with pytest.raises(UserError, match="placement is vmap, whose numbers depend on who shares a process"):
        train(dataclasses.replace(RUN, placement="vmap"), workers=2)


@pytest.mark.slow
def test_members_of_several_algorithms_copy_each_other_over_processes(tmp_path):
    mix = {"adam": 1, "sac:adam": 1, "ddpg:kfac": 1, "sac:kfac": 1}
    run = dataclasses.replace(RUN, mix=mix, steps=180, actor_layers=(8,), critic_layers=(8,), algorithms={})
    result = train(run, tmp_path / "one", note=silent)
    crossing = [
        (event["parent_kind"], event["member_kind"]) for event in result.lineage if event["member"] % 2 != event["parent"] % 2
    ]
    assert any(parent.partition(":")[0] != child.partition(":")[0] for parent, child in crossing)
    train(run, tmp_path / "two", Killer(100), silent, workers=2)
    assert differences(tmp_path / "two", tmp_path / "one") == []


def test_seeds_side_by_side_are_dealt_together(tmp_path):
    run = dataclasses.replace(QUICK, steps=60)
    train_seeds(run, [3, 4], [tmp_path / "3", tmp_path / "4"], note=silent, workers=3)
    for seed in (3, 4):
        train(dataclasses.replace(run, seed=seed), tmp_path / f"alone{seed}", note=silent)
        assert differences(tmp_path / str(seed), tmp_path / f"alone{seed}") == []


def test_a_run_can_be_resumed_with_another_number_of_processes(tmp_path, whole):
    train(dataclasses.replace(RUN, steps=60), tmp_path / "run", note=silent, workers=2)
    resume(tmp_path / "run", steps=150, note=silent, workers=3)
    assert differences(tmp_path / "run", whole) == []


# The very first step, the end of an interval and of the run, both workers, and long after a checkpoint.
@pytest.mark.parametrize(
    ("run", "steps", "every"),
    [
        (QUICK, (1,), 1),
        pytest.param(QUICK, (30,), 1, marks=pytest.mark.slow),
        (RUN, (45,), 1),
        (QUICK, (75, 76), 1),
        (QUICK, (150,), 1),
        pytest.param(QUICK, (100,), 2, marks=pytest.mark.slow),
        pytest.param(QUICK, (60, 120), 3, marks=pytest.mark.slow),
    ],
    ids=lambda value: {id(RUN): "kfac", id(QUICK): "quick"}.get(id(value)),
)
def test_a_worker_that_is_killed_is_replaced_and_nothing_is_lost(tmp_path, request, monkeypatch, run, steps, every):
    whole = request.getfixturevalue("whole" if run is RUN else "quick_whole")
    monkeypatch.setattr(processes, "PROGRESS_PERIOD", 0.001)
    notes, killer = [], Killer(*steps)
    train(dataclasses.replace(run, checkpoint_every=every), tmp_path / "run", killer, notes.append, workers=2)
    assert len(killer.pids) == len(steps)
    assert [note for note in notes if "was ended by signal 9; a new one goes on from the last checkpoint" in note]
    found = differences(tmp_path / "run", whole)
    assert found == [] if every == 1 else {"metrics.jsonl", "events.jsonl", "result.json"}.isdisjoint(found)
    assert workers() == []


def test_what_lost_workers_had_given_each_other_is_given_again_in_its_order(tmp_path, quick_whole, monkeypatch):
    """As on machines, where a parcel goes with the one that it is on: both are lost, and each needs what the other gave."""
    monkeypatch.setattr(processes, "PROGRESS_PERIOD", 0.001)
    monkeypatch.setattr(processes.Pipe, "keeps", False)
    give, handed, killed, notes = Elsewhere.give, [], [], []

    def remembered(giver, lane):
        handed.append(give(giver, lane))
        return handed[-1]

    monkeypatch.setattr(Elsewhere, "give", remembered)

    def observe(progress):
        if progress.steps >= 90 and not killed:
            killed.extend(workers())
            for worker in killed:
                os.kill(worker.pid, signal.SIGKILL)
            for parcel in handed:
                parcel.parcel = parcel.replay = None

    train(dataclasses.replace(QUICK, checkpoint_every=5), tmp_path / "run", observe, notes.append, workers=2)
    assert len(killed) == 2
    assert len(handed) > 4
    assert len([note for note in notes if "was lost with its machine; a new one goes on" in note]) == 1
    assert {"metrics.jsonl", "events.jsonl", "result.json"}.isdisjoint(differences(tmp_path / "run", quick_whole))
    assert workers() == []


def test_what_kills_every_worker_stops_the_run_which_can_be_resumed(tmp_path, quick_whole):
    def observe(progress):
        if progress.steps > 60:
            for worker in workers():
                os.kill(worker.pid, signal.SIGKILL)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(processes, "PROGRESS_PERIOD", 0.001)
        with pytest.raises(RunStopped, match=r"the worker process with members \d, \d was ended by signal 9, 4 times since the"):
            train(QUICK, tmp_path / "run", observe, silent, workers=2)
    assert workers() == []
    resume(tmp_path / "run", note=silent, workers=2)
    assert differences(tmp_path / "run", quick_whole) == []


def test_without_a_folder_a_lost_worker_ends_the_run(monkeypatch):
    monkeypatch.setattr(processes, "PROGRESS_PERIOD", 0.001)
    with pytest.raises(RunStopped, match="the run is not checkpointed; give it a folder"):
        train(QUICK, observer=Killer(40), note=silent, workers=2)
    assert workers() == []


def test_what_is_remembered_for_a_lost_worker_holds_no_replay(tmp_path, quick_whole):
    """Replay is on disk before an evolution; copies of it in memory would add up until the next checkpoint."""

    def buffers():
        return [thing for thing in gc.get_objects() if isinstance(thing, ReplayBuffer)]

    # What other tests left in this process.
    before, seen = {id(buffer): buffer for buffer in buffers()}, []

    def observe(progress):
        seen.append(sum(id(buffer) not in before for buffer in buffers()))

    result = train(dataclasses.replace(QUICK, checkpoint_every=5), tmp_path / "run", observe, silent, workers=2)
    assert len(result.lineage) > 4
    assert max(seen) == 0


def test_a_damaged_checkpoint_brings_no_worker_back(tmp_path, quick_whole, monkeypatch):
    """A flipped bit in a weight is a sound file; only its hash tells."""
    spoilt = []

    def observe(progress):
        if progress.steps > 60 and not spoilt:
            path = sorted((tmp_path / "run" / "checkpoints").glob("000002-00?.safetensors"))[0]
            data = bytearray(path.read_bytes())
            spoilt.append((path, bytes(data)))
            data[-1] ^= 1
            path.write_bytes(data)
            os.kill(workers()[0].pid, signal.SIGKILL)

    monkeypatch.setattr(processes, "PROGRESS_PERIOD", 0.001)
    with pytest.raises(RunStopped, match=r"checkpoint is damaged: 000002-000\.safetensors does not match its checksum"):
        train(QUICK, tmp_path / "run", observe, silent, workers=2)
    assert workers() == []
    [(path, data)] = spoilt
    path.write_bytes(data)
    resume(tmp_path / "run", note=silent, workers=2)
    assert differences(tmp_path / "run", quick_whole) == []


def test_an_answer_that_is_cut_short_is_asked_for_again(tmp_path):
    run = dataclasses.replace(
        QUICK, env="probe_envs:Wide-v0", steps=2_000, interval=1_000, learning_starts=1_500, buffer_size=2_000
    )
    notes = []
    crew = processes.start([run], 2, notes.append, [tmp_path])
    try:
        first = crew[0]
        first.train(0, {lane: Orders(run.initial_hyperparameters("adam"), [0]) for lane in first.lanes}, silent)()
        told = first.give(0)
        # 8 MB, more than a pipe holds: the process waits in the middle of its answer, for nobody listens.
        first._send("give", (0, tmp_path))
        time.sleep(1.0)
        os.kill(first._line.child.pid, signal.SIGKILL)
        _, again = first._answer("give", (0, tmp_path))
        assert len(notes) == 1
        assert len(again) == 1_000
        assert np.array_equal(again.transitions(), told.replay.transitions())
    finally:
        for one in crew:
            one.close()


def test_an_error_that_nobody_foresaw_is_shown_and_not_tried_again(tmp_path):
    notes = []
    crew = processes.start([RUN], 2, notes.append, [tmp_path])
    try:
        with pytest.raises(RuntimeError, match=r"(?s)in a worker process:.*Traceback.*KeyError: 'learner'"):
            crew[0].restore(tmp_path, {0: {}})
    finally:
        for one in crew:
            one.close()
    assert notes == []


@pytest.mark.parametrize("settings", [{"workers": 2}, {"time_limit": 5.0}])
def test_an_environment_that_other_processes_cannot_know_is_refused(settings):
    """A class that a script defines has no name under which another process could import it."""
    gymnasium.register("OnlyHere-v0", entry_point=lambda: gymnasium.make("InvertedPendulum-v4"))
    try:
        run = dataclasses.replace(RUN, env="OnlyHere-v0", time_limit=settings.pop("time_limit", 0.0))
        with pytest.raises(UserError, match="is registered with a class or a function, which no other process knows"):
            train(run, note=silent, **settings)
    finally:
        del gymnasium.registry["OnlyHere-v0"]


class Stop(Exception):
    """What an observer raises."""


def test_what_an_observer_raises_ends_the_workers_in_the_middle_of_their_work(tmp_path, quick_whole, monkeypatch):
    def observe(progress):
        if progress.steps > 60:
            raise Stop

    monkeypatch.setattr(processes, "PROGRESS_PERIOD", 0.001)
    with pytest.raises(Stop):
        train(QUICK, tmp_path / "run", observe, silent, workers=2)
    assert workers() == []
    resume(tmp_path / "run", note=silent)
    assert differences(tmp_path / "run", quick_whole) == []


@pytest.mark.parametrize(
    ("env", "on_faults", "said"),
    [
        ("Missing-v0", "quarantine", "unknown environment 'Missing-v0'"),
        ("probe_envs:Raises-v0", "stop", "member 0 cannot go on: its environment failed 2 times"),
        ("probe_envs:Raises-v0", "quarantine", "every member is in quarantine, so nobody is left to copy"),
    ],
)
def test_what_goes_wrong_in_a_worker_is_said_as_in_one_process(env, on_faults, said):
    run = dataclasses.replace(QUICK, env=env, max_faults=1, on_faults=on_faults)
    for count in (1, 2):
        with pytest.raises((UserError, RunStopped)) as stop:
            train(run, note=silent, workers=count)
        assert said in str(stop.value)
    assert workers() == []


@pytest.mark.parametrize("count", [0, -1, 1.0, True])
def test_a_count_of_workers_is_a_positive_whole_number(count):
    with pytest.raises(UserError, match="it must be a whole number of at least 1"):
        train(RUN, workers=count)


def test_members_are_dealt_in_turn_and_cores_in_shares(monkeypatch):
    assert processes.dealt(7, 3) == [[0, 3, 6], [1, 4], [2, 5]]
    assert processes.dealt(2, 5) == [[0], [1]]
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {4, 5, 6, 7, 9})
    assert processes.shares(2) == [[4, 5], [6, 7, 9]]
    assert processes.shares(5) == [[4], [5], [6], [7], [9]]
    assert processes.shares(7) == [[4], [5], [6], [7], [9], [4], [5]]


def test_replay_crosses_a_pipe_as_it_is():
    pipe, other = multiprocessing.Pipe()
    rng, replay = np.random.default_rng(0), ReplayBuffer(20, 3, 2)
    obs = rng.standard_normal(3, np.float32)
    for step in range(50):
        following = rng.standard_normal(3, np.float32)
        replay.insert(obs, rng.standard_normal(2, np.float32), 0.5, following, False)
        # Every seventh step ends an episode.
        obs = rng.standard_normal(3, np.float32) if step % 7 == 6 else following
        pipe.send(replay)
        copy = other.recv()
        assert np.array_equal(copy.transitions(), replay.transitions())
        assert copy.largest()[1] == replay.largest()[1] == 0.5
        assert (copy.inserted, copy.saved, len(copy)) == (replay.inserted, replay.saved, len(replay))
    for buffer in (replay, copy):
        buffer.insert(obs, np.zeros(2, np.float32), 1.0, np.ones(3, np.float32), True)
    assert np.array_equal(copy.transitions(), replay.transitions())


# ------------------------------------------------------------------------------------------------------- the command line

WORDS = (
    *("Hopper-v4", "--mix", "adam=2", "kfac=1", "--interval", "100", "--learning-starts", "150", "--buffer-size", "350"),
    *("--actor-layers", "16", "--critic-layers", "16", "--batch-size", "32", "--episodes", "1", "--final-episodes", "1"),
)


@pytest.mark.skipif(not os.path.isdir("/proc"), reason="looks for processes in /proc")
@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGKILL, -9), (signal.SIGINT, 130), pytest.param(signal.SIGTERM, 143, marks=pytest.mark.slow)]
)
def test_no_worker_outlives_the_command_however_that_ends(tmp_path, number, code):
    process = start(tmp_path, "train", *WORDS, "--steps", "100000", "--workers", "2", "--out", "run")
    wait_until(lambda: (tmp_path / "run" / "checkpoints" / "000001.json").exists() or process.poll() is not None)
    left = workers_of(process)
    assert len(left) == 2
    process.send_signal(number)
    assert finish(process)[0] == code
    wait_until(lambda: not any(map(state_of, left)), seconds=10)
    code, _, err = finish(start(tmp_path, "resume", "run", "--steps", "100001", "--workers", "0"))
    assert (code, err) == (2, "evolute: --workers is 0; it must be a whole number, at least 1, such as 10.\n")


def test_a_signal_in_the_final_evaluation_ends_the_command(tmp_path):
    """The first worker plays, and the command waits for it."""
    process = start(tmp_path, "train", *WORDS[:-1], "10000", "--steps", "200", "--workers", "2", "--out", "run")
    wait_until(lambda: (tmp_path / "run" / "checkpoints" / "000002.json").exists() or process.poll() is not None)
    time.sleep(0.5)
    left = workers_of(process)
    process.send_signal(signal.SIGINT)
    assert finish(process)[0] == 130
    wait_until(lambda: not any(map(state_of, left)), seconds=10)
    assert not (tmp_path / "run" / "result.json").exists()


def test_a_script_without_a_guard_is_told_so(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(
        "import evolute\nrun = evolute.Run('InvertedPendulum-v4', mix={'adam': 2}, steps=200, learning_starts=50, interval=100)\n"
        "try:\n    evolute.train(run, workers=2)\nexcept evolute.UserError as mistake:\n    print(mistake)\n"
    )
    code, out, _ = finish(start(tmp_path, script=(script,)))
    assert code == 0
    assert "in a script, begin under `if __name__ == '__main__':`, or set workers to 1" in out
