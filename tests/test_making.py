"""Arguments, limits of episodes and wrappers: what reaches the environment, in whatever process, and what is refused."""

import dataclasses
import json
import sys
from typing import ClassVar

import gymnasium
import numpy as np
import pytest

import evolute
from evolute import UserError
from evolute.commands import cli
from evolute.environments.gym import Environment, physics_fingerprint
from evolute.environments.making import Making, modules_of
from faults import differences

SIZES = {
    "actor_layers": (8,),
    "critic_layers": (8,),
    "batch_size": 32,
    "learning_starts": 20,
    "episodes": 1,
    "final_episodes": 1,
    "steps": 120,
    "interval": 30,
}
# What the wrappers below saw.
SEEN = []


class Scaled(gymnasium.RewardWrapper):
    """Pays a hundred times as much."""

    def reward(self, reward):
        return 100.0 * float(reward)


class Shifted(gymnasium.RewardWrapper):
    """Pays one more."""

    def reward(self, reward):
        return float(reward) + 1.0


def scaled(env):
    """A wrapper as a user writes it."""
    return Scaled(env)


def shifted(env):
    """Another one."""
    return Shifted(env)


def no_environment(env):
    """Return what is none."""
    return "the environment"


def paid(making):
    environment = Environment("probe_envs:Limit-v0", making=making)
    environment.reset(0)
    reward = environment.step(np.zeros(1, np.float32)).reward
    environment.close()
    return reward


def test_wrappers_lie_around_the_environment_in_their_order():
    inner_first = Making(wrap=("test_making:scaled", "test_making:shifted"))
    assert paid(inner_first) == 101.0
    assert paid(Making(wrap=("test_making:shifted", "test_making:scaled"))) == 200.0


@pytest.mark.parametrize("time_limit", [0.0, 30.0])
def test_arguments_and_the_limit_of_episodes_reach_the_environment(time_limit):
    making = Making({"reset_noise_scale": 0.0}, 7)
    environment = Environment("Swimmer-v4", time_limit, making)
    assert environment.facts.longest_episode == 7
    assert not environment.reset(0).any()
    steps = [environment.step(np.zeros(2, np.float32)) for _ in range(7)]
    assert [step.truncated for step in steps] == [False] * 6 + [True]
    environment.close()


def test_the_fingerprint_knows_how_an_environment_is_made():
    plain = physics_fingerprint("Hopper-v4")
    assert plain == physics_fingerprint("Hopper-v4", making=Making())
    for making in (Making({"reset_noise_scale": 0.05}), Making(max_episode_steps=3), Making(wrap=("test_making:scaled",))):
        assert physics_fingerprint("Hopper-v4", making=making) != plain


def test_a_run_keeps_them_over_workers_and_a_resume(tmp_path):
    making = {"env_kwargs": {"reset_noise_scale": 0.02}, "max_episode_steps": 20, "wrap": ("test_making:scaled",)}
    run = evolute.Run("Hopper-v4", mix={"adam": 2}, **SIZES, **making)
    evolute.train(run, tmp_path / "one", note=lambda _: None)
    rows = [json.loads(line) for line in (tmp_path / "one" / "metrics.jsonl").read_text().splitlines()]
    assert max(row["episode_length"] for row in rows) <= 20
    assert min(row["fitness"] for row in rows) >= 100
    evolute.train(dataclasses.replace(run, steps=60), tmp_path / "two", note=lambda _: None, workers=2)
    evolute.resume(tmp_path / "two", steps=120, note=lambda _: None, allow_import=["test_making"])
    assert differences(tmp_path / "two", tmp_path / "one") == []


def test_the_command_line_takes_them_and_evaluates_with_them(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words = ["train", "Hopper-v4", "--env-kwargs", "reset_noise_scale=0.02", "--max-episode-steps", "5"]
    sizes = ["--actor-layers", "8", "--critic-layers", "8", "--batch-size", "16", "--learning-starts", "20", "--steps", "60"]
    more = ["--interval", "30", "--episodes", "1", "--final-episodes", "1", "--out", "run", "--wrap", "test_making:scaled"]
    assert ended(*words, *sizes, *more) == 0
    out = capsys.readouterr().out
    assert "evolute evaluate run --allow-import test_making --steps 150000" in out
    config = (tmp_path / "run" / "config.toml").read_text()
    assert "max_episode_steps = 5" in config
    assert "[env_kwargs]\nreset_noise_scale = 0.02" in config
    assert ended("evaluate", "run", "--episodes", "3", "--allow-import", "test_making") == 0
    said = capsys.readouterr().out
    assert "over 3 completed episodes (15 steps)" in said
    # A step pays about one, and a hundred times that with the wrapper.
    assert float(said.split("return ")[1].split(" ")[0].replace(",", "")) > 100
    # A file names the wrapper, so its module must be allowed.
    assert ended("evaluate", "run", "--episodes", "3") == 2
    assert "runs the code of the module 'test_making'; if you trust that module, add --allow-import" in capsys.readouterr().err


def ended(*words):
    with pytest.raises(SystemExit) as end:
        cli.main(list(words))
    return end.value.code or 0


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"env_kwargs": {"not a name": 1}}, "whose names are those of arguments"),
        ({"env_kwargs": {"max_episode_steps": 5}}, "and not id, max_episode_steps, disable_env_checker"),
        ({"env_kwargs": {"model": object()}}, "plain values"),
        ({"max_episode_steps": -1}, "max_episode_steps is -1"),
        ({"wrap": ("scaled",)}, "paths of the form MODULE:FUNCTION"),
        ({"wrap": (None,)}, "paths of the form MODULE:FUNCTION"),
        ({"wrap": ("a:b:c",)}, "paths of the form MODULE:FUNCTION"),
    ],
)
def test_a_setting_that_cannot_be_is_refused(settings, said):
    with pytest.raises(UserError) as mistake:
        evolute.Run("InvertedPendulum-v4", **SIZES, **settings)
    assert said in str(mistake.value)
    assert str(mistake.value).endswith(".")


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"env_kwargs": {"colour": "red"}}, "cannot be created"),
        ({"wrap": ("no_such_module:f",)}, "wrap names 'no_such_module:f', which cannot be imported: No module named"),
        ({"wrap": ("test_making:nobody",)}, "cannot be imported: module 'test_making' has no attribute 'nobody'"),
        ({"wrap": ("test_making:no_environment",)}, "which returned 'the environment'; it must return a gymnasium.Env"),
    ],
)
@pytest.mark.parametrize("workers", [1, 2])
def test_what_cannot_be_made_is_said_before_anything_is_written(tmp_path, settings, said, workers):
    run = evolute.Run("InvertedPendulum-v4", mix={"adam": 2}, **SIZES, **settings)
    with pytest.raises(UserError) as mistake:
        evolute.train(run, tmp_path / "run", workers=workers)
    assert said in str(mistake.value)
    assert not (tmp_path / "run").exists()


def test_modules_are_those_of_the_environment_and_of_its_wrappers():
    assert modules_of("HalfCheetah-v4") == []
    assert modules_of("a.b:E-v0", ("c:f", "a.b:g", "gymnasium.wrappers:FlattenObservation")) == ["a.b", "c"]
    assert "test_making" in sys.modules


def short_hopper(noise=0.01):
    """Return what a user's own function makes."""
    return gymnasium.make("Hopper-v4", reset_noise_scale=noise, max_episode_steps=30)


def nothing():
    return None


def test_a_function_may_make_the_environment(tmp_path):
    """It is recorded by its name, so processes and a resume find it."""
    making = {"env_kwargs": {"noise": 0.02}, "max_episode_steps": 20, "wrap": (scaled,)}
    run = evolute.Run(short_hopper, mix={"adam": 2}, **SIZES, **making)
    assert (run.env, run.wrap) == ("test_making:short_hopper()", ("test_making:scaled",))
    evolute.train(run, tmp_path / "one", note=lambda _: None)
    rows = [json.loads(line) for line in (tmp_path / "one" / "metrics.jsonl").read_text().splitlines()]
    assert max(row["episode_length"] for row in rows) <= 20
    evolute.train(dataclasses.replace(run, steps=60), tmp_path / "two", note=lambda _: None, workers=2)
    with pytest.raises(UserError, match="add --allow-import test_making"):
        evolute.resume(tmp_path / "two", steps=120)
    evolute.resume(tmp_path / "two", steps=120, note=lambda _: None, allow_import="test_making")
    assert differences(tmp_path / "two", tmp_path / "one") == []
    assert Environment(run.env, 30.0, Making({"noise": 0.02})).facts.longest_episode == 30
    plain = physics_fingerprint(run.env)
    assert physics_fingerprint(run.env, making=Making({"noise": 0.5})) != plain == physics_fingerprint(run.env, 30.0)


def test_the_command_line_takes_a_function_too(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    sizes = ["--actor-layers", "8", "--critic-layers", "8", "--batch-size", "16", "--learning-starts", "20", "--steps", "60"]
    words = ["train", "test_making:short_hopper()", *sizes, "--interval", "60", "--episodes", "1", "--final-episodes", "1"]
    assert ended(*words, "--out", "run") == 0
    assert 'env = "test_making:short_hopper()"' in (tmp_path / "run" / "config.toml").read_text()
    assert ended("evaluate", "run", "--episodes", "1", "--allow-import", "test_making") == 0
    capsys.readouterr()
    for env, said in (
        ("test_making:missing()", "env names 'test_making:missing', which cannot be imported"),
        ("test_making:nothing()", "env is 'test_making:nothing()', which returned None; it must return a gymnasium.Env."),
        ("no_such_module:make()", "cannot be imported: No module named 'no_such_module'"),
        ("short_hopper()", "cannot be imported"),
        ("test_making:short_hopper(noise=1)", "the environment"),
    ):
        assert ended("train", env, *words[2:], "--out", "other") == 2
        assert said in capsys.readouterr().err
        assert not (tmp_path / "other").exists()


def test_a_function_that_no_other_process_can_import_is_refused():
    with pytest.raises(UserError, match=r"env is <function .*<lambda>.*>, which no other process can import; define it by `def`"):
        evolute.Run(lambda: short_hopper())
    with pytest.raises(UserError, match=r"wrap is .*, which no other process can import"):
        evolute.Run("Hopper-v4", wrap=[lambda env: env])


class Numbered(gymnasium.Wrapper):
    """Keeps a record of what was made, with which number, and how often it was closed."""

    made: ClassVar[list] = []
    closed: ClassVar[list] = []

    def __init__(self, member=-1):
        super().__init__(gymnasium.make("InvertedPendulum-v4"))
        self.member = member
        Numbered.made.append(member)

    def step(self, action):
        if self.member == 1 and len(Numbered.made) == 4 and Numbered.failing:
            raise OSError("a cable was pulled")
        return super().step(action)

    def close(self):
        Numbered.closed.append(self.member)
        super().close()

    failing: ClassVar[bool] = False


@pytest.fixture
def numbered():
    Numbered.made.clear()
    Numbered.closed.clear()
    yield
    Numbered.failing = False


@pytest.mark.usefixtures("numbered")
def test_environments_that_are_kept_are_made_once_and_numbered(tmp_path):
    """Of two members, one evaluation, and the fingerprint, which has no number."""
    run = evolute.Run(Numbered, mix={"adam": 2}, keep_environments=True, **SIZES)
    evolute.train(run, tmp_path / "run", note=lambda _: None)
    assert Numbered.made == [2, 0, 1, None]
    assert sorted(Numbered.closed, key=str) == [0, 1, 2, None]
    # For an environment that a seeded reset decides, it makes no difference.
    evolute.train(dataclasses.replace(run, keep_environments=False), tmp_path / "plain", note=lambda _: None)
    assert Numbered.made[4:7] == [2, 0, 1]
    assert len(Numbered.made) > 4 + 8
    for name in ("metrics.jsonl", "best/policy.safetensors"):
        contents = [(tmp_path / folder / name).read_bytes() for folder in ("run", "plain")]
        assert strip(contents[0]) == strip(contents[1])
    evolute.train(dataclasses.replace(run, steps=60), tmp_path / "two", note=lambda _: None, workers=2)
    evolute.resume(tmp_path / "two", steps=120, note=lambda _: None, allow_import="test_making")
    assert differences(tmp_path / "two", tmp_path / "run") == []


def strip(content):
    """Return a file's content without what differs by the clock."""
    if content[:1] != b"{":
        return content
    return [{k: v for k, v in json.loads(line).items() if "seconds" not in k} for line in content.splitlines()]


@pytest.mark.usefixtures("numbered")
def test_a_kept_environment_that_fails_is_made_anew(tmp_path):
    Numbered.failing = True
    run = evolute.Run(Numbered, mix={"adam": 2}, keep_environments=True, **SIZES)
    evolute.train(run, tmp_path / "run", note=lambda _: None)
    assert Numbered.made == [2, 0, 1, None, 1]


def test_an_id_is_given_a_number_too():
    gymnasium.register("Numbered-v0", entry_point=Numbered)
    try:
        Numbered.made.clear()
        Environment("Numbered-v0", making=Making(member=7)).close()
        Environment("Numbered-v0", making=Making({"member": 3}, member=7)).close()
        assert Numbered.made == [7, 3]
    finally:
        del gymnasium.registry["Numbered-v0"]
