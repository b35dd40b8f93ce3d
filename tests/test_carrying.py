"""Episodes that are longer than an interval: they go on over its end, and a resumed run repeats them."""

import dataclasses
import json
import re

import gymnasium
import numpy as np
import pytest

from evolute import Run, resume, train
from evolute.environments.gym import Environment
from evolute.training.host import carries
from evolute.training.member import Episode
from faults import differences
from stepped import Stepped

SIZES = {
    "actor_layers": (8,),
    "critic_layers": (8,),
    "batch_size": 32,
    "learning_starts": 150,
    "episodes": 1,
    "final_episodes": 1,
    "truncation": 0.5,
    "normalize_observations": True,
}
# An episode of HalfCheetah-v4 has a thousand steps.
LONG = {"mix": {"adam": 1, "kfac": 1, "sac:kfac_empirical": 1}, "steps": 1_200, "interval": 300} | SIZES
RUN = Run("HalfCheetah-v4", **LONG)


def silent(_sentence):
    pass


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole") / "run"
    assert train(RUN, folder, note=silent).lineage
    return folder


def rows_of(folder, name="metrics.jsonl"):
    return [json.loads(line) for line in (folder / name).read_text().splitlines()]


def test_members_learn_from_the_end_of_an_episode(whole):
    """Whoever copied nobody ends an episode in the fourth interval, after a thousand steps."""
    children = {event["member"] for event in rows_of(whole, "events.jsonl") if event["event"] == "exploit"}
    ended = {row["member"] for row in rows_of(whole) if row["training_return"] is not None}
    assert ended == {0, 1, 2} - children != set()


def test_the_end_of_an_interval_ends_no_episode():
    stepped = Stepped(Run("HalfCheetah-v4", **(LONG | {"mix": {"adam": 1}})))
    [member] = stepped.members
    for _ in range(4):
        stepped.interval()
    held = member.replay.transitions()
    obs, following = held[:, :17], held[:, -17:]
    joined = (obs[1:] == following[:-1]).all(axis=1)
    assert np.flatnonzero(~joined).tolist() == [999]
    # A new environment for the next episode: nothing of an interval before is left but the episode.
    assert not member.stale
    assert member.life == [Episode(member.life[0].seed, 200)]


@pytest.mark.parametrize("steps", [300, 600])
def test_a_resumed_run_repeats_the_open_episodes(tmp_path, whole, steps):
    train(dataclasses.replace(RUN, steps=steps), tmp_path / "run", note=silent)
    resume(tmp_path / "run", steps=1_200, note=silent)
    assert differences(tmp_path / "run", whole) == []


def test_two_processes_give_the_same_run(tmp_path, whole):
    train(RUN, tmp_path / "run", note=silent, workers=2)
    assert differences(tmp_path / "run", whole) == []


def test_an_environment_in_a_process_of_its_own_gives_the_same_run(tmp_path):
    run = Run("HalfCheetah-v4", **(LONG | {"mix": {"adam": 1}, "steps": 900}))
    train(run, tmp_path / "plain", note=silent)
    own = dataclasses.replace(run, time_limit=20.0)
    train(dataclasses.replace(own, steps=600), tmp_path / "run", note=silent)
    resume(tmp_path / "run", steps=900, note=silent)
    assert (tmp_path / "run" / "best" / "policy.safetensors").read_bytes() == (
        tmp_path / "plain" / "best" / "policy.safetensors"
    ).read_bytes()


def test_what_the_replay_does_not_hold_is_not_carried(tmp_path):
    """With or without an interruption: what cannot be repeated later must not go on now."""
    settings = LONG | {"mix": {"adam": 1}, "steps": 900, "buffer_size": 400}
    train(Run("HalfCheetah-v4", **settings), tmp_path / "whole", note=silent)
    train(Run("HalfCheetah-v4", **(settings | {"steps": 300})), tmp_path / "run", note=silent)
    resume(tmp_path / "run", steps=900, note=silent)
    assert differences(tmp_path / "run", tmp_path / "whole") == []
    stepped = Stepped(Run("HalfCheetah-v4", **settings))
    for _ in range(3):
        stepped.interval()
    # The second interval went on with the first one's episode, the third could not.
    assert [episode.steps for episode in stepped.members[0].life] == [300]


class Counting(gymnasium.Wrapper):
    """Observes the steps of the whole process, too, so no episode is ever the same again."""

    count = 0

    def step(self, action):
        type(self).count += 1
        obs, *rest = self.env.step(action)
        return obs + type(self).count, *rest


@pytest.fixture
def counting():
    gymnasium.register("Counting-v0", entry_point=lambda: Counting(gymnasium.make("HalfCheetah-v4")))
    yield
    del gymnasium.registry["Counting-v0"]


@pytest.mark.usefixtures("counting")
def test_what_does_not_repeat_is_said_once_and_goes_on_with_a_new_episode(tmp_path):
    run = Run("Counting-v0", **(LONG | {"mix": {"adam": 2}, "steps": 900}))
    train(dataclasses.replace(run, steps=300), tmp_path / "run", note=silent)
    notes = []
    resume(tmp_path / "run", steps=900, note=notes.append)
    [said] = [note for note in notes if "did not repeat" in note]
    # One of the two became a copy of the other when the run went on, and begins a new one anyway.
    assert re.search(r"the open episode of member [01] from its seed and its actions, so a new one was begun", said)
    cautions = [event for event in rows_of(tmp_path / "run", "events.jsonl") if event["event"] == "caution"]
    assert [(event["interval"], event["message"]) for event in cautions] == [(2, said)]


def test_an_exploited_member_begins_a_new_episode():
    stepped = Stepped(RUN)
    stepped.interval()
    stepped.host.take(0, stepped.host.give(1), True, 1)
    assert [member.life == [] for member in stepped.members] == [True, False, False]
    stepped.roll_out()
    assert [member.life[-1].steps for member in stepped.members] == [300, 600, 600]


def test_by_default_episodes_go_on_only_where_one_may_be_longer_than_an_interval():
    facts, endless = Environment("HalfCheetah-v4").facts, Environment("probe_envs:Endless-v0").facts
    for settings, own, expected in [
        ({"interval": 1_000}, facts, False),
        ({"interval": 999}, facts, True),
        ({"interval": 1_000, "steps_per_interval": {"kfac": 500}}, facts, True),
        ({"interval": 1_000, "steps_per_interval": {"kfac": 500}, "shrink": "gradient"}, facts, False),
        ({"interval": 1_000}, endless, True),
        ({"interval": 10, "carry_episodes": "never"}, facts, False),
        ({"interval": 1_000, "carry_episodes": "always"}, facts, True),
    ]:
        assert carries(Run("HalfCheetah-v4", **(LONG | {"steps": 100_000} | settings)), own) == expected


class Staying(gymnasium.Wrapper):
    """Observes the number of the episode since it was made: state that a seeded reset does not clear."""

    def __init__(self, env):
        super().__init__(env)
        self.episodes = 0

    def reset(self, **options):
        self.episodes += 1
        obs, info = self.env.reset(**options)
        return obs + self.episodes, info

    def step(self, action):
        obs, *rest = self.env.step(action)
        return obs + self.episodes, *rest


@pytest.fixture
def staying():
    gymnasium.register("Staying-v0", entry_point=lambda: Staying(gymnasium.make("Hopper-v4")))
    yield
    del gymnasium.registry["Staying-v0"]


@pytest.mark.usefixtures("staying")
def test_what_an_environment_keeps_over_episodes_is_repeated_too(tmp_path):
    """Hopper falls after some twenty steps, so an interval ends many episodes of one environment."""
    run = Run("Staying-v0", **(LONG | {"mix": {"adam": 2}, "steps": 900}))
    train(run, tmp_path / "whole", note=silent)
    notes = []
    train(dataclasses.replace(run, steps=300), tmp_path / "run", note=silent)
    resume(tmp_path / "run", steps=900, note=notes.append)
    assert not [note for note in notes if "did not repeat" in note]
    assert differences(tmp_path / "run", tmp_path / "whole") == []
