"""What a run tells of an environment that trains, and yet not as its user may think."""

import json
import os
import re
import signal
import subprocess
import sys
import warnings

import gymnasium
import numpy as np
import pytest

from evolute import Run, resume, train
from evolute.commands import cli
from evolute.environments import gym
from evolute.environments.gym import UNREPEATABLE, Environment, physics_fingerprint
from evolute.errors import RunStopped, UserError
from evolute.runs import cautions
from evolute.training.replay import ReplayBuffer

TINY = {
    "actor_layers": (8,),
    "critic_layers": (8,),
    "batch_size": 32,
    "learning_starts": 10,
    "episodes": 3,
    "final_episodes": 1,
    "interval": 20,
    "steps": 40,
}
NEVER = {"carry_episodes": "never"}
WORDS = ["--actor-layers", "8", "--critic-layers", "8", "--batch-size", "32", "--learning-starts", "10", "--episodes", "1"]
WORDS += ["--final-episodes", "1", "--interval", "20", "--steps", "40"]


@pytest.fixture(autouse=True)
def registered():
    gymnasium.register("Long-v0", entry_point="probe_envs:Endless", max_episode_steps=50)
    gymnasium.register("Twice-v0", entry_point=lambda: gymnasium.make("Long-v0", max_episode_steps=30), max_episode_steps=40)
    gymnasium.register("Fits-v0", entry_point="probe_envs:Noisy", max_episode_steps=20)
    gymnasium.register("Huge-v0", entry_point="probe_envs:Noisy", max_episode_steps=10_001)
    gymnasium.register("Unseeded-v7", entry_point="probe_envs:Unseeded", max_episode_steps=20)
    yield
    for name in ("Long-v0", "Twice-v0", "Fits-v0", "Huge-v0", "Unseeded-v7"):
        del gymnasium.registry[name]


def told(env, out=None, **settings):
    """Return what a run tells, and its events."""
    notes, events = [], []
    train(Run(env, **(TINY | settings)), out, lambda progress: events.extend(progress.events), notes.append)
    return notes, events


def test_an_environment_that_fits_is_told_nothing_of():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        train(Run("Fits-v0", **TINY))
    for env in ("InvertedPendulum-v4", "Humanoid-v4", "Ant-v5"):
        assert cautions.at_start(Run(env), Environment(env).facts) == []


@pytest.mark.parametrize(
    ("env", "settings", "said"),
    [
        ("Long-v0", {}, "has up to 50 steps, and the run has 40: .*; raise --steps to at least 50."),
        ("Long-v0", {"steps": 100} | NEVER, "an interval has 20, .*; set it to 'auto', or raise the interval to at least 50."),
        ("Long-v0", {"interval": 100}, "the run has 40: .*; raise --steps to at least 50."),
        ("Twice-v0", NEVER, "has up to 30 steps, .*; set it to 'auto', or raise the interval to at least 30."),
        (
            "Long-v0",
            {"interval": 60, "steps": 61, "mix": {"adam": 1, "sgd": 1}, "steps_per_interval": {"sgd": 30}} | NEVER,
            "an interval has 30, .*; set it to 'auto'",
        ),
        (
            "probe_envs:Noisy-v0",
            {},
            "has no known longest episode, .* after 10,000 steps: it costs up to 30,000 steps for each member and interval; "
            "register the environment with max_episode_steps, or wrap it with gymnasium.wrappers.TimeLimit",
        ),
        ("Huge-v0", {"interval": 20_000, "steps": 20_000}, "has episodes of up to 10,001 steps, .* after 10,000 steps"),
    ],
)
def test_what_does_not_fit_is_told_once_before_training(env, settings, said):
    run = Run(env, **(TINY | settings))
    [sentence] = cautions.at_start(run, Environment(env).facts)
    assert re.search(said, sentence), sentence
    assert repr(env) in sentence
    assert sentence.endswith(".")
    assert "\n" not in sentence


def test_fewer_gradient_steps_are_no_shorter_interval():
    settings = {
        "interval": 60,
        "steps": 61,
        "mix": {"adam": 1, "sgd": 1},
        "steps_per_interval": {"sgd": 30},
        "shrink": "gradient",
    }
    assert cautions.at_start(Run("Long-v0", **(TINY | settings)), Environment("Long-v0").facts) == []


def test_what_an_environment_says_of_itself_comes_out_of_its_process():
    environment = Environment("Long-v0", time_limit=20.0)
    assert environment.facts.longest_episode == 50
    environment.close()


def test_the_library_warns_and_the_folder_keeps_it(tmp_path):
    with pytest.warns(UserWarning, match="an episode of 'Long-v0' has up to 50 steps") as warned:
        train(Run("Long-v0", **TINY), tmp_path / "run")
    assert len(warned) == 1
    assert json.loads((tmp_path / "run" / "metadata.json").read_text())["notes"] == [str(warned[0].message)]


def test_an_interval_without_an_ended_episode_is_told_once_and_recorded(tmp_path):
    notes, events = told("probe_envs:Endless-v0", tmp_path / "run", episodes=1, **NEVER)
    assert len(notes) == 2
    assert "no episode of 'probe_envs:Endless-v0' ended within the first interval, of 20 steps" in notes[1]
    assert events == [{"event": "caution", "interval": 1, "steps": 20, "message": notes[1]}]
    assert [json.loads(line) for line in (tmp_path / "run" / "events.jsonl").read_text().splitlines()] == events
    # Episodes that end, and a limit that is known and was told of before, are no news.
    assert told("probe_envs:Noisy-v0")[1] == []
    assert told("Long-v0")[1] == []


def test_the_command_line_prints_what_the_library_warns_of(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for word, times in ((None, 1), ("--quiet", 0)):
        cli_main(
            "train",
            "probe_envs:Endless-v0",
            "--carry-episodes",
            "never",
            "--out",
            f"run{times}",
            *WORDS,
            *([word] if word else []),
        )
        out = capsys.readouterr().out
        assert out.count("note: the environment 'probe_envs:Endless-v0' has no known longest episode") == times
        assert out.count("no episode of 'probe_envs:Endless-v0' ended") == times


def cli_main(*words):
    with pytest.raises(SystemExit) as ended:
        cli.main(words)
    return ended.value.code


def test_evaluate_says_what_helps_where_no_episode_ends(tmp_path, capsys):
    for env, said in (
        ("probe_envs:Endless-v0", ", nor need one ever: the environment has no max_episode_steps; give --episodes"),
        ("Long-v0", "; raise it to at least 50, the longest episode, or give --episodes"),
    ):
        train(Run(env, **(TINY | {"episodes": 1})), tmp_path / env)
        words = ("evaluate", str(tmp_path / env), "--allow-import", "probe_envs")
        assert cli_main(*words, "--steps", "30") == 2
        assert f"--steps is 30, and no episode ended within them{said}" in capsys.readouterr().err
        # What it says works.
        assert cli_main(*words, "--episodes", "1") == 0
        cut = "1 of them did not end and were cut"
        assert (cut in capsys.readouterr().out) == (env != "Long-v0")


@pytest.mark.parametrize("name", ["Unseeded", "Shared"])
def test_an_environment_that_does_not_repeat_itself_is_noticed(name):
    assert physics_fingerprint(f"probe_envs:{name}-v0") == UNREPEATABLE
    assert physics_fingerprint("probe_envs:Noisy-v0") != UNREPEATABLE


def test_an_environment_that_does_not_repeat_itself_in_a_process_of_its_own_is_noticed():
    assert physics_fingerprint("probe_envs:Unseeded-v0", time_limit=20.0) == UNREPEATABLE


def test_the_second_rollout_of_a_slow_environment_is_cut(monkeypatch):
    # Without any time for it nothing can be noticed after the first step.
    monkeypatch.setattr(gym, "REPEAT_SECONDS", -1.0)
    calls = []
    real = Environment.step
    monkeypatch.setattr(Environment, "step", lambda self, action: calls.append(1) or real(self, action))
    whole = physics_fingerprint("probe_envs:Noisy-v0")
    assert len(calls) == gym.FINGERPRINT_STEPS
    monkeypatch.undo()
    assert physics_fingerprint("probe_envs:Noisy-v0") == whole


class Stop(Exception):
    """Stands for whatever ends a process."""


def stop_after_one(progress):
    if progress.rows:
        raise Stop


def test_a_run_in_an_environment_that_does_not_repeat_itself_can_be_resumed(tmp_path):
    notes = []
    with pytest.raises(Stop):
        train(Run("Unseeded-v7", **TINY), tmp_path / "run", stop_after_one, notes.append)
    assert len(notes) == 1
    assert "the environment 'Unseeded-v7' does not repeat itself" in notes[0]
    metadata = json.loads((tmp_path / "run" / "metadata.json").read_text())
    assert (metadata["physics_fingerprint"], metadata["notes"]) == (UNREPEATABLE, notes)
    again = []
    resume(tmp_path / "run", note=again.append)
    assert again == [*notes, "going on after 20 of 40 steps."]


def test_a_run_whose_fingerprint_was_taken_for_repeatable_can_be_resumed(tmp_path, monkeypatch):
    for before, now in (("0123456789abcdef", UNREPEATABLE), (UNREPEATABLE, "0123456789abcdef")):
        monkeypatch.setattr(gym, "physics_fingerprint", lambda *_, print=before: print)
        with pytest.raises(Stop):
            train(Run("Fits-v0", **TINY), tmp_path / before, stop_after_one, lambda _: None)
        monkeypatch.setattr(gym, "physics_fingerprint", lambda *_, print=now: print)
        resume(tmp_path / before, note=lambda _: None)
    monkeypatch.setattr(gym, "physics_fingerprint", lambda *_: "0123456789abcdef")
    with pytest.raises(Stop):
        train(Run("Fits-v0", **TINY), tmp_path / "other", stop_after_one)
    monkeypatch.setattr(gym, "physics_fingerprint", lambda *_: "fedcba9876543210")
    with pytest.raises(UserError, match=r"physics fingerprint was 0123.* \(so does an environment that draws from a generator"):
        resume(tmp_path / "other", note=lambda _: None)


def test_a_killed_run_in_an_environment_that_does_not_repeat_itself_goes_on(tmp_path):
    script = (
        "import os, signal, sys, probe_envs\nfrom evolute import Run, train\n"
        f"run = Run('probe_envs:Unseeded-v0', **{TINY})\n"
        "train(run, sys.argv[1], lambda p: p.rows and os.kill(os.getpid(), signal.SIGKILL))\n"
    )
    here = os.path.dirname(__file__)
    path = os.pathsep.join(filter(None, [here, os.environ.get("PYTHONPATH")]))
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path / "run")],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert "UserWarning: the environment 'probe_envs:Unseeded-v0' does not repeat itself" in done.stderr
    notes = []
    resume(tmp_path / "run", allow_import="probe_envs", note=notes.append)
    assert "does not repeat itself" in notes[0]
    assert notes[1] == "going on after 20 of 40 steps."


@pytest.mark.parametrize(
    ("sizes", "said"),
    [
        ({"observation": -1e30}, r"has observations up to 1e\+30, whose products overflow .* scale them"),
        ({"reward": -1e25}, r"has rewards up to 9e\+24, whose products overflow .* scale them"),
    ],
)
def test_numbers_of_no_good_size_are_the_reason_and_not_the_learning_rates(sizes, said):
    gymnasium.register("Scale-v0", entry_point="probe_envs:Scale", kwargs=sizes, max_episode_steps=20)
    try:
        with pytest.raises(RunStopped, match=said) as stop:
            train(Run("Scale-v0", **TINY))
        assert "learning rates" not in str(stop.value)
    finally:
        del gymnasium.registry["Scale-v0"]


def test_a_buffer_tells_its_largest_numbers():
    buffer = ReplayBuffer(3, 2, 1)
    assert buffer.largest() == (0.0, 0.0)
    for number in (9.0, 1.0, -3.0):
        buffer.insert(np.array([0.0, number]), np.full(1, 50.0), -2 * number, np.array([0.5, -number]), False)
        assert buffer.largest() == (9.0, 18.0)
    for _ in range(4):
        buffer.insert(np.zeros(2), np.full(1, 50.0), 0.25, np.full(2, -0.5), False)
    assert buffer.largest() == (0.5, 0.25)


UNPERTURBED = {"perturb": ("batch_size", "tau", "critic_damping"), "bounds": {"discount": (0.9, 0.99), "actor_damping": (0.1, 1)}}
CONTROL = {"strategy": "none", "perturb": ("tau",), "bounds": {"tau": (0.001, 0.1)}, "copy_optimizer_state": False}
ADDED = "leave it out, or add one, such as kfac=1."


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (
            {"strategy": "mfpbt", "frequencies": (1, 2), "truncation": 0.3},
            ["truncation is 0.3, which the strategy 'mfpbt' does not use: it has no effect; leave it out."],
        ),
        ({"strategy": "mfpbt", "frequencies": (1, 2)}, []),
        ({"frequencies": (1, 2), "truncation": 0.3}, ["frequencies is 1 2, which the strategy 'pbt' does not use"]),
        (
            {"optimizers": {"kfac": {"damping": 0.2}}},
            ["optimizers.kfac is given, and no kind of the mix has it: it has no effect"],
        ),
        ({"mix": {"adam/kfac": 1}, "optimizers": {"kfac": {"critic": {"damping": 0.1}}, "adam": {"learning_rate": 0.001}}}, []),
        ({"shrink": "gradient"}, ["shrink is 'gradient', and no kind has fewer steps per interval: it has no effect; leave it"]),
        ({"shrink": "gradient", "steps_per_interval": {"adam": 20}}, ["shrink is 'gradient', and no kind has fewer steps"]),
        ({"shrink": "gradient", "steps_per_interval": {"adam": 15}}, []),
        (
            UNPERTURBED,
            [
                f"perturb names critic_damping, and no kind of the mix has it: it has no effect; {ADDED}",
                "bounds names discount, which is not perturbed: it has no effect; leave it out, or name it in perturb, too.",
                "bounds names actor_damping, which is not perturbed: it has no effect",
            ],
        ),
        (
            {"bounds": {"actor_damping": (0.1, 1), "batch_size": (16, 32)}},
            [f"bounds names actor_damping, and no kind of the mix has it: it has no effect; {ADDED}"],
        ),
        ({"mix": {"adam": 2, "sac:kfac": 2}, "perturb": ("critic_damping",), "bounds": {"critic_damping": (0.1, 1)}}, []),
        ({"perturb": ()}, []),
        (
            CONTROL,
            [
                "perturb is tau, which the strategy 'none' does not use: it has no effect; leave it out.",
                "bounds is tau=0.001,0.1, which the strategy 'none' does not use",
                "copy_optimizer_state is False, which the strategy 'none' does not use",
            ],
        ),
        # The bound is the run's own.
        ({"strategy": "none", "buffer_size": 40}, []),
        (
            {"mix": {"adam": 1}, "strategy": "pb2", "factors": (0.5, 2)},
            ["strategy is 'pb2', which one member alone does not use", "factors is 0.5 2.0, which one member alone does not use"],
        ),
    ],
)
def test_settings_without_effect_are_named(settings, said):
    found = cautions.at_start(Run("Fits-v0", **{"mix": {"adam": 8}} | TINY | settings), Environment("Fits-v0").facts)
    assert [sentence.startswith(part) for sentence, part in zip(found, said, strict=True)] == [True] * len(said), found


@pytest.mark.parametrize(
    ("settings", "least"),
    [
        ({"interval": 40}, 40),
        ({"learning_starts": 20}, 40),
        ({"learning_starts": 19}, None),
        ({"learning_starts": 19, "steps": 21}, None),
        ({"mix": {"adam": 1, "sgd": 1}, "steps_per_interval": {"sgd": 5}, "steps": 60}, 60),
        ({"mix": {"adam": 1, "sgd": 1}, "steps_per_interval": {"sgd": 5}, "steps": 61}, None),
        ({"mix": {"adam": 1, "sgd": 1}, "steps_per_interval": {"sgd": 5}, "shrink": "gradient"}, None),
    ],
)
def test_a_population_that_never_evolves_is_told_so_and_no_other(settings, least):
    # By chance there is always somebody who copies, where anybody evolves.
    run = Run("Fits-v0", **{"mix": {"adam": 2}, "strategy": "blind"} | TINY | settings)
    notes, events = [], []
    train(run, None, lambda progress: events.extend(progress.events), notes.append)
    assert [event["event"] for event in events] == ([] if least else ["exploit"])
    assert len(notes) == bool(least)
    if least:
        first = f"with interval {run.interval} and learning_starts {run.learning_starts} is after {least} steps at the earliest"
        assert f"{first}, and the run has {run.steps}; raise --steps above {least}, or lower --interval." in notes[0]


def test_who_would_not_evolve_anyway_is_not_told_that():
    facts = Environment("Fits-v0").facts
    for settings in ({"mix": {"adam": 1}}, {"mix": {"adam": 2}, "strategy": "none"}):
        assert cautions.at_start(Run("Fits-v0", **TINY | {"interval": 40} | settings), facts) == []


@pytest.mark.parametrize(
    ("env", "version", "said"),
    [
        ("Hopper-v4", "3.3.5", False),
        ("Hopper-v4", "3.3.6", True),
        ("Hopper-v4", "4.0.0", True),
        ("Hopper-v5", "4.0.0", False),
        ("Pendulum-v1", "4.0.0", False),
        ("probe_envs:Noisy-v0", "4.0.0", False),
        ("Hopper-v4", "not installed", False),
    ],
)
def test_an_engine_of_other_physics_than_published_is_said(env, version, said):
    found = cautions.newer_engine(env, {"mujoco": version})
    assert len(found) == said
    assert all(f"MuJoCo {version} is installed" in sentence and "'mujoco<3.3.6'" in sentence for sentence in found)
