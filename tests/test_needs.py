"""What a run is said to take, beside what it takes."""

import dataclasses
import subprocess
import sys

import jax
import numpy as np
import pytest

from evolute import Run, UserError, resume, train
from evolute.commands.watching import train_seeds
from evolute.environments.spaces import Shape
from evolute.training import needs
from evolute.training.host import Host
from evolute.training.replay import ReplayBuffer

RUN = Run(
    "InvertedPendulum-v4",
    mix={"adam": 1, "kfac": 1, "sac:adam": 1},
    actor_layers=(16,),
    critic_layers=(16,),
    batch_size=32,
    learning_starts=20,
    **{"steps": 60, "interval": 30, "episodes": 1, "final_episodes": 1},
)


def test_a_learner_takes_what_its_arrays_take():
    host = Host([RUN], range(3))
    for lane, kind in enumerate(RUN.kinds):
        held = sum(np.asarray(leaf).nbytes for leaf in jax.tree.leaves(host.group_of(lane).take(lane)))
        assert needs.learner_bytes(RUN, kind, host.facts.shape) == held
    host.close()


def test_replay_takes_what_its_arrays_take():
    shape, capacity = Shape(17, 6), 10_000
    replay = ReplayBuffer(capacity, *shape)
    held = replay._ring.nbytes + replay._end.nbytes
    assert needs.transition_bytes(shape) * capacity == pytest.approx(held, rel=1e-3)


@pytest.mark.slow
def test_a_process_takes_about_what_is_said():
    code = (
        "import evolute\nfrom evolute.environments.spaces import Shape\nfrom evolute.training import needs\n"
        "run = evolute.Run('InvertedPendulum-v4', mix={'adam': 2}, steps=300, interval=100, learning_starts=50, episodes=1)\n"
        "evolute.train(run)\n"
        "peak = next(line for line in open('/proc/self/status') if line.startswith('VmHWM'))\n"
        "print(int(peak.split()[1]) * 1024, needs.needs(run, 1, Shape(4, 1), 1).memory)"
    )
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, check=True)
    took, said = map(int, done.stdout.split())
    assert said / 3 < took < said * 1.5


def test_a_run_that_does_not_fit_into_memory_is_refused_with_what_would(monkeypatch, tmp_path):
    run = dataclasses.replace(RUN, steps=10**6, buffer_size=10**6)
    monkeypatch.setattr(needs, "memory_here", lambda: 0.7e9)
    with pytest.raises(UserError) as mistake:
        train(run, tmp_path / "run")
    said = (
        "3 members with buffer_size 1000000 would take up to 0.71 GB of memory, and this machine has 0.70 GB; set buffer_size to"
    )
    assert said in str(mistake.value)
    assert "--out" not in str(mistake.value)
    assert not (tmp_path / "run").exists()
    fits = int(str(mistake.value).partition("set buffer_size to at most ")[2].partition(", or")[0].replace(",", ""))
    need = needs.needs(dataclasses.replace(run, buffer_size=fits), 1, Shape(4, 1), 1)
    assert need.memory <= 0.7e9
    assert need.memory > 0.69e9


def test_a_run_that_does_not_fit_onto_the_disk_is_refused(monkeypatch, tmp_path):
    def stop(progress):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(RUN, tmp_path / "begun", stop, lambda _: None)
    # Without a folder nothing is written.
    train(dataclasses.replace(RUN, steps=30), note=lambda _: None)
    monkeypatch.setattr(needs.shutil, "disk_usage", lambda path: type("Usage", (), {"free": 50_000})())
    said = r"of disk, and '.*' has 50 kB left; choose smaller layers, or choose fewer members"
    for begin in (
        lambda: train(RUN, tmp_path / "run"),
        lambda: train_seeds(RUN, [0], tmp_path / "run", None),
    ):
        with pytest.raises(UserError, match=rf"{said} or another folder with --out\.$"):
            begin()
    assert not (tmp_path / "run").exists()
    # One that has begun stays where it is.
    with pytest.raises(UserError, match=rf"{said}\.$"):
        resume(tmp_path / "begun", note=lambda _: None)


def test_a_limit_of_the_system_counts(monkeypatch, tmp_path):
    (tmp_path / "limit").write_text("123456789\n")
    (tmp_path / "none").write_text("max\n")
    monkeypatch.setattr(needs, "LIMITS", (tmp_path / "none", tmp_path / "limit", tmp_path / "missing"))
    assert needs.memory_here() == 123456789
