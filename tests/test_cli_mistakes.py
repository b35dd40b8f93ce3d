"""What the command line says to a mistake: one sentence, exit code 2, nothing written."""

import dataclasses
import json
import re

import pytest

from evolute.commands import cli, flags
from evolute.commands.foreign import POINTERS
from evolute.config import Run
from evolute.optimizers import CURVATURE_KINDS
from evolute.toml import to_toml

TRAIN = ("train", "probe_envs:Limit-v0")


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    """An empty current folder."""
    monkeypatch.chdir(tmp_path)


def refused(capsys, *words) -> str:
    with pytest.raises(SystemExit) as end:
        cli.main(list(words))
    out, err = capsys.readouterr()
    assert end.value.code == 2
    assert out == ""
    assert re.fullmatch(r"evolute: [^\n]+\.\n", err), err
    return err


KINDS = "choose from " + ", ".join(CURVATURE_KINDS)
MISTAKES = [
    (("train",), ["no environment is given", "such as: evolute train HalfCheetah-v4"]),
    (("train", "HalfCheeta-v4"), ["unknown environment 'HalfCheeta-v4'", "did you mean 'HalfCheetah-v4'?"]),
    (("train", "Hopper"), ["'Hopper' has no version", "such as Hopper-v5"]),
    (("train", "CartPole-v1"), ["discrete actions", "the algorithms need continuous ones", "choose another"]),
    (("train", "probe_envs:Broken-v0"), ["cannot be created", "'the licence of the simulator has expired.'"]),
    (("train", "probe_envs:Image-v0"), ["which holds images"]),
    (("train", "no_such_module:Env-v0"), ["cannot be created", "No module named 'no_such_module'"]),
    ((*TRAIN, "--mix", "adamm=1"), ["unknown optimizer 'adamm'", "did you mean 'adam'?", KINDS]),
    ((*TRAIN, "--mix", "adam=x"), ["mix.adam is 'x'", "whole number", "adam=1"]),
    ((*TRAIN, "--mix", "adam"), ["--mix has 'adam'", "must be NAME=VALUE", "adam=1"]),
    ((*TRAIN, "--mix", "adam="), ["--mix has 'adam='", "must be NAME=VALUE"]),
    ((*TRAIN, "--mix", "=3"), ["--mix has '=3'", "must be NAME=VALUE"]),
    ((*TRAIN, "--mix", "adam=0"), ["mix is adam=0", "positive number of slots", "adam=1"]),
    ((*TRAIN, "--mix"), ["mix is empty", "adam=1"]),
    ((*TRAIN, "--mix", "adam=1", "adam=2"), ["--mix names 'adam' twice", "give it once"]),
    ((*TRAIN, "--mix", "adam=1", "--mix", "kfac=1"), ["--mix is given twice", "with all its values"]),
    ((*TRAIN, "--optimizers", "adam.learning_rate=0"), ["adam.actor.learning_rate is 0", "positive number"]),
    ((*TRAIN, "--optimizers", "adam.learning_rate=-.5"), ["learning_rate is -0.5", "positive number"]),
    ((*TRAIN, "--optimizers", "kfac.damping=0"), ["kfac.actor.damping is 0", "positive number"]),
    ((*TRAIN, "--optimizers", "kfac..damping=1"), ["'kfac..damping=1'", "must be NAME=VALUE", "kfac.damping=0.1"]),
    ((*TRAIN, "--optimizers", "kfac=1", "kfac.damping=1"), ["sets 'kfac' both as a value and as a table"]),
    (
        (*TRAIN, "--batch-size", "64", "--buffer-size", "63"),
        ["batch_size is 64", "more than the 63", "lower batch_size"],
    ),
    ((*TRAIN, "--interval", "0"), ["interval is 0", "positive number of environment steps", "10000"]),
    ((*TRAIN, "--interval", "-3"), ["interval is -3", "positive number of environment steps", "10000"]),
    ((*TRAIN, "--interval", "soon"), ["interval is 'soon'", "whole number", "10000"]),
    ((*TRAIN, "--interval", "1.5"), ["interval is 1.5", "whole number"]),
    ((*TRAIN, "--interval"), ["missing value for argument '--interval'", "evolute train --help"]),
    ((*TRAIN, "--intervall", "3"), ["unknown option '--intervall'", "did you mean '--interval'?", "--help"]),
    (("train", "--env", "Hopper-v4"), ["unknown option '--env'", "the environment is named without an option"]),
    ((*TRAIN, "--lr", "1e-3"), ["unknown option '--lr'", "--optimizers adam.learning_rate=1e-3"]),
    ((*TRAIN, "--learning_rate=1e-3"), ["unknown option '--learning-rate'", "--optimizers adam.learning_rate=1e-3"]),
    ((*TRAIN, "--gamma", "0.9"), ["unknown option '--gamma'", "use --discount 0.99"]),
    ((*TRAIN, "--total-timesteps", "9"), ["unknown option '--total-timesteps'", "use --steps 1000000"]),
    ((*TRAIN, "-f", "logs"), ["unknown option '-f'", "use --out PATH"]),
    (("show", "--run", "x"), ["unknown option '--run'", "the run folder is named without an option", "evolute show --help"]),
    ((*TRAIN, "--norm-reward"), ["unknown option '--norm-reward'", "--normalize-observations true", "--reward-scale 0.1"]),
    ((*TRAIN, "--capture-video"), ["'--capture-video'", "with: evolute video runs/NAME", "with: evolute play runs/NAME"]),
    (("evaluate", "--render", "x"), ["'--render'", "evolute video", "evolute play", "see `evolute evaluate --help`"]),
    (("evaluate", "--lr", "1", "x"), ["'--lr': to train, use --optimizers adam", "see `evolute evaluate --help`"]),
    (("evaluate", "--n-eval-episodes", "1", "x"), ["'--n-eval-episodes': use --episodes 5; see `evolute evaluate --help`"]),
    (("show", "--steps", "3", "run"), ["unknown option '--steps'", "evolute show --help"]),
    ((*TRAIN, "-x", "3"), ["unknown option '-x'"]),
    ((*TRAIN, "--mix", "adam=2,kfac=2"), ["--mix has 'adam=2,kfac=2'", "separate pairs", "by blanks"]),
    ((*TRAIN, "--actor-layers", "64,64"), ["--actor-layers has '64,64'", "by blanks, such as 400 300"]),
    ((*TRAIN, "--perturb", "tau,discount"), ["--perturb has 'tau,discount'", "by blanks"]),
    ((*TRAIN, "--seeds", "0,1"), ["--seeds has '0,1'", "by blanks, such as 0 1 2"]),
    ((*TRAIN, "--seeds", "1", "1"), ["--seeds is 1 1", "different whole numbers, such as 0 1 2"]),
    ((*TRAIN, "--seeds", "1", "4294967296"), ["seed is 4294967296", "from 0 to 4294967295"]),
    ((*TRAIN, "--seeds"), ["--seeds is empty", "one or more", "such as 0 1 2"]),
    ((*TRAIN, "adam=2"), ["unexpected word 'adam=2'", "evolute train --help"]),
    ((*TRAIN, "--steps", "10_000"), ["steps is 10000", "the 10000 of learning_starts", "raise steps"]),
    ((*TRAIN, "--actor-layers", "8", "x"), ["actor_layers is 'x'", "whole number"]),
    ((*TRAIN, "--warm-up-noise", "maybe"), ["warm_up_noise is 'maybe'", "true or false"]),
    ((*TRAIN, "--bounds", "batch_size=64"), ["bounds.batch_size is 64", "two positive whole numbers", "64, 512"]),
    ((*TRAIN, "--preset", "papers"), ["preset is 'papers' (did you mean 'paper'?)", "'paper', 'sb3' or 'cleanrl'"]),
    ((*TRAIN, "--config", "nowhere.toml"), ["'nowhere.toml' does not exist", "check the path"]),
    (("tarin",), ["unknown command 'tarin'", "did you mean 'train'?", "choose from train, resume, evaluate, "]),
    (("evaluate",), ["no run folder is given", "runs/NAME"]),
    (("show",), ["no run folder is given", "runs/NAME"]),
    (("evaluate", "nowhere"), ["'nowhere' does not exist", "check the path"]),
    (("show", "nowhere"), ["'nowhere' does not exist", "check the path"]),
    (("evaluate", "."), ["'.' holds no run", "it has no config.toml", "give the folder"]),
    (("show", "."), ["'.' holds no run", "it has no config.toml", "give the folder"]),
    (("evaluate", ".", "--steps", "5", "--episodes", "5"), ["both --steps and --episodes", "choose one"]),
    (("evaluate", ".", "--episodes", "0"), ["--episodes is 0", "at least 1", "such as 10"]),
    (("evaluate", ".", "--episodes", "few"), ["--episodes is few", "whole number", "such as 10"]),
    (("evaluate", ".", "--seed", "-1"), ["--seed is -1", "at least 0"]),
    (("demo", "--seed", "x"), ["seed is 'x'", "whole number"]),
    ((*TRAIN, "--log", "jsn"), ["--log is 'jsn' (did you mean 'json'?)", "choose from auto, json"]),
    ((*TRAIN, "--log", "json", "--quiet"), ["both --quiet and --log json are given", "choose one"]),
    (("list", "nowhere"), ["the folder 'nowhere' does not exist", "such as runs"]),
    (("list", "file:///nowhere"), ["there is nothing at 'file:///nowhere'", "check the URL", "or wait until"]),
    (("list", "s4://bucket"), ["the storage 's4://bucket' cannot be used", "give a URL such as s3://bucket/sweep"]),
    (("--print-completion",), ["--print-completion names no shell", "choose from bash, zsh, tcsh"]),
    (("--print-completion", "fish"), ["--print-completion is 'fish'", "choose from bash, zsh, tcsh"]),
    (("demo", "Hopper-v4"), ["unexpected word 'Hopper-v4'", "evolute demo --help"]),
]


@pytest.mark.parametrize(("words", "said"), MISTAKES, ids=lambda part: " ".join(part)[:50])
def test_a_mistake_is_told_in_one_sentence_and_nothing_is_written(capsys, tmp_path, words, said):
    err = refused(capsys, *words)
    for part in said:
        assert part in err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("intervall = 3", ["unknown key 'intervall' in the configuration file 'run.toml'", "did you mean 'interval'?"]),
        ('steps = "many"', ["steps is 'many'", "whole number"]),
        ("steps = true", ["steps is True", "whole number"]),
        ("mix = 3", ["mix is 3", "a table of names and values"]),
        ("env = [1]", ["env is [1]", "names a Gymnasium environment"]),
        ("env = ", ["'run.toml' is not valid TOML"]),
        ("[optimizers.kfac]\ndampin = 1", ["optimizers.kfac has no option 'dampin'", "did you mean 'damping'?"]),
    ],
)
def test_a_mistake_in_a_file_is_told_the_same_way(capsys, tmp_path, content, said):
    (tmp_path / "run.toml").write_text(content)
    words = ("train", "--config", "run.toml") if content.startswith("env") else (*TRAIN, "--config", "run.toml")
    err = refused(capsys, *words)
    for part in said:
        assert part in err
    assert [file.name for file in tmp_path.iterdir()] == ["run.toml"]


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("old", "'old' already holds a run; choose another with --out"),
        ("full", "'full' is not empty; choose another with --out"),
        ("file", "'file' is a file; choose a folder with --out"),
        ("file/run", "'file/run' cannot be written"),
    ],
)
@pytest.mark.parametrize("command", [TRAIN, ("demo",)])
def test_a_folder_in_use_is_refused_and_left_alone(capsys, tmp_path, name, said, command):
    for folder in ("old", "full"):
        (tmp_path / folder).mkdir()
    (tmp_path / "old" / "config.toml").write_text("seed = 1")
    (tmp_path / "full" / "notes").write_text("mine")
    (tmp_path / "file").write_text("mine")
    before = {file: file.is_file() and file.read_text() for file in tmp_path.rglob("*")}
    assert said in refused(capsys, *command, "--out", name)
    assert {file: file.is_file() and file.read_text() for file in tmp_path.rglob("*")} == before


def test_every_pointer_names_options_that_exist_and_no_option_is_hidden_by_one():
    options = {field.name.replace("_", "-") for name in cli.COMMANDS for field in dataclasses.fields(flags.module_of(name).Flags)}
    for name, pointer in POINTERS.items():
        assert set(re.findall(r"--([a-z-]+)", pointer)) <= options, pointer
        # Given by their place where a pointer is needed.
        assert name not in options or name in ("env", "run", "name")


@pytest.mark.parametrize("path", ["x" * 300, "a/" * 3000, "a\0b", "file/run", "loop", "loop/run"])
@pytest.mark.parametrize(
    "words",
    [("show",), ("report",), ("watch",), ("resume",), ("evaluate",), (*TRAIN, "--out"), ("demo", "--out"), ("train", "--config")],
)
def test_a_path_that_cannot_be_followed_is_told(capsys, tmp_path, path, words):
    (tmp_path / "file").write_text("mine")
    (tmp_path / "loop").symlink_to("loop")
    refused(capsys, *words, path)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["file", "loop"]


def test_a_folder_of_seeds_is_shown_whole_and_else_one_must_be_named(capsys, tmp_path):
    for seed in (2, 10):
        write_run(tmp_path / f"seed-{seed}")
        for name in ("metrics.jsonl", "events.jsonl"):
            (tmp_path / f"seed-{seed}" / name).write_text("")
    for command in ("evaluate", "resume"):
        assert "holds the runs of 2 seeds; name one, such as 'seed-2'" in refused(capsys, command, ".")
    with pytest.raises(SystemExit) as end:
        cli.main(["show", "."])
    assert end.value.code == 0
    assert capsys.readouterr().out.splitlines() == [
        *("seed-2:", "No interval has ended yet.", "seed-10:", "No interval has ended yet."),
    ]


def test_a_mistake_in_the_environment_is_told_before_an_out_folder_is_made(capsys, tmp_path):
    for env in ("Hoper-v4", "CartPole-v1", "probe_envs:Broken-v0", "probe_envs:Image-v0"):
        refused(capsys, "train", env, "--out", "deep/run")
    assert list(tmp_path.iterdir()) == []


def write_run(folder, env="probe_envs:Limit-v0"):
    """A run folder with a policy for three observations, which no probe environment but Bounds has."""
    import numpy as np

    from evolute.policy import Policy

    folder.mkdir()
    (folder / "config.toml").write_text(to_toml(Run("probe_envs:Limit-v0", mix={"kfac": 1})))
    weights = [(np.zeros((3, 1), np.float32), np.zeros(1, np.float32))]
    Policy(weights, np.array([-1.0]), np.array([1.0]), env).save(folder / "best", {})


@pytest.mark.parametrize(
    ("env", "said"),
    [
        ("probe_envs:Limit-v0", "was trained on another 'probe_envs:Limit-v0' than the one installed here"),
        ("Gone-v0", "unknown environment 'Gone-v0'"),
    ],
)
def test_a_policy_that_does_not_fit_its_environment_is_not_played(capsys, tmp_path, env, said):
    write_run(tmp_path / "run", env)
    assert said in refused(capsys, "evaluate", "run", "--allow-import", "probe_envs")


def test_a_run_without_a_policy_or_with_damaged_records_is_told(capsys, tmp_path):
    write_run(tmp_path / "run")
    (tmp_path / "run" / "best" / "policy.json").unlink()
    assert "there is no policy in 'run/best': 'policy.json' is missing" in refused(capsys, "evaluate", "run")
    assert "'run/metrics.jsonl' cannot be read" in refused(capsys, "show", "run")
    (tmp_path / "run" / "metrics.jsonl").write_text(json.dumps({"member": 0}) + "\n")
    assert "'run/metrics.jsonl' is damaged in line 1: 'interval' is missing" in refused(capsys, "show", "run")


@pytest.mark.parametrize(
    "command",
    ["train", "resume", "evaluate", "list", "show", "track", "report", "watch", "compare", "reproduce", "sweep", "demo"],
)
@pytest.mark.parametrize("flag", ["--help", "-h"])
def test_help_explains_every_option(capsys, command, flag):
    with pytest.raises(SystemExit) as end:
        cli.main([command, flag])
    out, err = capsys.readouterr()
    assert (end.value.code, err) == (0, "")
    assert f"usage: evolute {command}" in out
    fields = {field.name: field for field in dataclasses.fields(Run)}
    names = {
        "train": [
            *fields.keys() - {"env"},
            "seeds",
            "config",
            "out",
            "workers",
            "on",
            "stragglers",
            "without_token",
            "allow_import",
            "dry_run",
            "track",
            "log",
            "quiet",
        ],
        "resume": [
            *("steps", "allow_version_change", "workers", "on", "stragglers", "without_token", "track", "allow_import"),
            *("log", "quiet"),
        ],
        "list": ["json"],
        "track": ["to"],
        "evaluate": ["member", "steps", "episodes", "seed", "time_limit", "allow_import"],
        "show": [],
        "report": ["out"],
        "watch": ["port"],
        "compare": ["out"],
        "reproduce": [
            *("list", "scale", "env", "arms", "seeds", "out", "jobs", "dry_run", "tables", "keep", "allow_import", "quiet"),
        ],
        "sweep": [
            *("on", "without_token", "scale", "seeds", "out", "storage", "jobs", "cores", "gpus", "keep", "allow_import"),
            "quiet",
        ],
        "demo": ["seed", "out", "quiet"],
    }[command]
    plain = " ".join(re.sub(r"[│╭╮╰╯─|+]", " ", out).split())
    explained = {part.split()[0]: part for part in re.split(r" (?=--[a-z])", plain) if "(default: " in part}
    assert set(explained) - {"--help,"} == {"--" + name.replace("_", "-") for name in names}
    for name in names if command == "train" else ():
        if name in fields:
            told = explained["--" + name.replace("_", "-")]
            assert fields[name].metadata["help"] in told
            assert re.search(rf"\(default: [^)]*{fields[name].metadata['unit']}\)", told) or "(default: none)" in told


@pytest.mark.parametrize("words", [[], ["--help"], ["-h"], ["help"]])
def test_usage_names_the_commands(capsys, words):
    with pytest.raises(SystemExit) as end:
        cli.main(words)
    assert end.value.code == 0
    out = capsys.readouterr().out
    assert all(f"evolute {command}" in out for command in ("train", "evaluate", "show", "report", "watch", "demo"))


def test_the_version_is_the_packages(capsys):
    from evolute import __version__

    with pytest.raises(SystemExit) as end:
        cli.main(["--version"])
    assert (end.value.code, capsys.readouterr().out) == (0, f"{__version__}\n")
