"""The command line at work: flags, files, a run from start to end, and being interrupted."""

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from evolute.commands import flags
from evolute.config import Run
from evolute.runs import folder as run_folder

TESTS = Path(__file__).parent
SMALL = ("--actor-layers", "16", "16", "--critic-layers", "16", "16", "--batch-size", "32", "--final-episodes", "2")
TINY = (
    *("train", "InvertedPendulum-v4", "--steps", "600", "--interval", "200", "--learning-starts", "100"),
    *("--mix", "adam=1", "kfac=1", "--episodes", "1", *SMALL),
)


def settings_of(*words):
    return flags.settings_of(flags.parse(flags.train_flags(), "train", list(words)))


def test_flags_are_parsed_to_what_a_run_takes():
    settings = settings_of(
        *("Hopper-v4", "--mix", "kfac=2", "adam/kfac=1", "--steps", "2e6", "--seed", "0", "--actor-layers", "64", "32"),
        *("--discount", ".5", "--warm-up-noise", "true", "--copy-optimizer-state", "false", "--factors", "0.5", "2"),
        *("--optimizers", "kfac.damping=1", "kfac.actor.clip=inf", "adam.learning_rate=1e-4"),
        *("--steps-per-interval", "kfac=3_000", "--perturb", "batch_size", "tau", "--bounds", "batch_size=64,512"),
    )
    run = Run(**settings)
    assert run.kinds == ["kfac", "kfac", "adam/kfac"]
    assert (run.steps, run.seed, run.actor_layers, run.discount) == (2_000_000, 0, (64, 32), 0.5)
    assert (run.warm_up_noise, run.copy_optimizer_state) == (True, False)
    assert (run.factors, run.perturb) == ((0.5, 2.0), ("batch_size", "tau"))
    assert run.optimizers["kfac"]["critic"]["damping"] == 1.0
    assert run.optimizers["kfac"]["actor"]["clip"] == float("inf")
    assert run.optimizers["adam"]["actor"]["learning_rate"] == 1e-4
    assert (run.steps_per_interval, run.bounds_of("batch_size")) == ({"kfac": 3_000}, (64, 512))


def test_flags_lie_on_a_file_and_a_file_on_the_preset(tmp_path):
    (tmp_path / "run.toml").write_text(
        'env = "Hopper-v4"\npreset = "cleanrl"\nseed = 3\nmix = {kfac = 4}\n'
        "[optimizers.kfac.actor]\ndamping = 0.5\n[optimizers.kfac.critic]\ndamping = 0.5\nclip = 0.25\n"
    )
    words = ("--config", str(tmp_path / "run.toml"), "--seed", "5", "--mix", "kfac=1", "--optimizers", "kfac.damping=2")
    run = Run(**settings_of(*words))
    assert (run.env, run.seed, run.mix, run.learning_starts) == ("Hopper-v4", 5, {"kfac": 1}, 25_000)
    assert [run.optimizers["kfac"][role]["damping"] for role in ("actor", "critic")] == [2.0, 2.0]
    assert run.optimizers["kfac"]["critic"]["clip"] == 0.25
    assert Run(**settings_of("Ant-v4", *words)).env == "Ant-v4"


def test_options_left_out_stay_with_the_preset_of_the_environment():
    assert settings_of("Swimmer-v4") == {"env": "Swimmer-v4"}
    assert Run(**settings_of("Swimmer-v4")).discount == 0.9999


# ---------------------------------------------------------------------------------------------------- from start to end


def environment_variables(**more):
    return os.environ | {
        "JAX_PLATFORMS": "cpu",
        "PYTHONPATH": os.pathsep.join([str(TESTS), os.environ.get("PYTHONPATH", "")]),
        **more,
    }


def evolute(folder, *words):
    command = [sys.executable, "-m", "evolute.commands.cli", *words]
    return subprocess.run(
        command, cwd=folder, env=environment_variables(), capture_output=True, text=True, check=False, timeout=200
    )


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    return folder, evolute(folder, *TINY, "--out", "run")


def test_a_run_trains_and_tells_what_comes_next(trained):
    folder, done = trained
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("Training 2 members on InvertedPendulum-v4; records go to run; takes up to ")
    for part in (
        "steps=200 member=1 kind=kfac",
        "600 of 600 steps",
        "Leaderboard",
        "Best policy: member",
        "evolute show run",
    ):
        assert part in done.stdout
    assert {file.name for file in (folder / "run").iterdir()} == {
        "config.toml",
        "metadata.json",
        "metrics.jsonl",
        "events.jsonl",
        "result.json",
        "best",
        "checkpoints",
        "replay",
        "lock",
    }
    rows = run_folder.RunFolder.open(folder / "run").metrics()
    assert [(row["interval"], row["member"]) for row in rows] == [(i, m) for i in (1, 2, 3) for m in (0, 1)]


def test_a_finished_run_is_shown(trained):
    done = evolute(trained[0], "show", "run")
    assert (done.returncode, done.stderr) == (0, "")
    for part in ("Leaderboard", "Fitness over the run", "Lineage (who copied whom)", "adam", "kfac"):
        assert part in done.stdout
    assert "has not ended" not in done.stdout


def test_the_best_policy_is_evaluated(trained):
    done = evolute(trained[0], "evaluate", "run", "--episodes", "2")
    assert (done.returncode, done.stderr) == (0, "")
    assert re.fullmatch(
        r"InvertedPendulum-v4: return [\d.,]+ ± [\d.,]+ over 2 completed episodes \([\d,]+ steps\), deterministic .*\n",
        done.stdout,
    )


def test_a_run_given_back_its_own_configuration_repeats_itself_and_can_be_quiet(trained):
    folder, _ = trained
    done = evolute(folder, "train", "--config", "run/config.toml", "--out", "again", "--quiet")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert (folder / "again/config.toml").read_bytes() == (folder / "run/config.toml").read_bytes()
    for name in ("metrics.jsonl", "events.jsonl"):
        one, other = ([json.loads(line) for line in (folder / run / name).read_text().splitlines()] for run in ("run", "again"))
        for row in one + other:
            row.pop("seconds", None)
        assert one == other
    assert (folder / "again/best/policy.safetensors").read_bytes() == (folder / "run/best/policy.safetensors").read_bytes()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_between_two_steps_and_says_how_to_go_on(tmp_path, number):
    words = ("train", "probe_envs:Limit-v0", "--steps", "100_000_000", "--interval", "20", "--learning-starts", "10")
    command = [sys.executable, "-m", "evolute.commands.cli", *words, *SMALL, "--episodes", "1", "--mix", "sgd=1", "--out", "run"]
    environment = environment_variables(PYTHONUNBUFFERED="1")
    with subprocess.Popen(
        command, cwd=tmp_path, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as training:
        assert training.stdout is not None
        for line in training.stdout:
            if line.startswith("steps=40"):
                break
        training.send_signal(number)
        _, err = training.communicate(timeout=60)
    assert training.returncode == 128 + number
    assert err.splitlines() == [
        "",
        f"evolute: {number.name} received; stopping after this step. Once more stops at once.",
        "evolute: stopped. Go on from the last checkpoint with: evolute resume run --allow-import probe_envs",
    ]
    shown = evolute(tmp_path, "show", "run")
    assert shown.returncode == 0
    assert "The run has not ended." in shown.stdout


def test_a_stopped_run_is_resumed_by_what_was_said(tmp_path, trained):
    folder, _ = trained
    done = evolute(folder, "resume", "run", "--steps", "800")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("run: going on after 600 of 800 steps.\n")
    assert run_folder.RunFolder.open(folder / "run").result()["steps_per_member"] == 800
    again = evolute(folder, "resume", "run")
    assert again.returncode == 2
    assert "has ended after 800 steps" in again.stderr
