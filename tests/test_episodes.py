"""A member's replay as episodes, against what Gymnasium's own environment returned; and as a Minari data set."""

import gymnasium
import numpy as np
import pytest
import safetensors.numpy

from evolute import Run, UserError, train
from evolute.commands import cli
from evolute.environments.spaces import Facts, Shape
from evolute.errors import Damaged
from evolute.runs import checkpoint
from evolute.runs.episodes import of_member
from evolute.training.replay import ReplayBuffer

FACTS = Facts(Shape(2, 1), -np.ones(1, np.float32), np.ones(1, np.float32), 4)
# What an environment returned, by observation and action: of training, and of evaluation on other seeds.
SEEN: dict[tuple[bytes, bytes], tuple[float, bool, bool, bytes]] = {}


class Recorded(gymnasium.Wrapper):
    """Remembers every transition."""

    def reset(self, **more):
        self.obs, about = self.env.reset(**more)
        return self.obs, about

    def step(self, action):
        obs, reward, terminated, truncated, about = self.env.step(action)
        single = [np.asarray(x, np.float32).tobytes() for x in (self.obs, action, obs)]
        SEEN[(single[0], single[1])] = (float(np.float32(reward)), terminated, truncated, single[2])
        self.obs = obs
        return obs, reward, terminated, truncated, about


# ------------------------------------------------------------------------------------------------------------ by hand


def segment(folder, buffer, number):
    """Write what a buffer has not written yet, as a checkpoint does, and return how a manifest names it."""
    new, name = buffer.unsaved(), f"{number:06}-000.safetensors"
    (folder / "replay").mkdir(exist_ok=True)
    (folder / "replay" / name).write_bytes(safetensors.numpy.save(new._asdict()))
    buffer.saved = buffer.inserted
    return {"file": name, "rows": len(new.steps)}


def walk(buffer, begin, steps, terminated=False):
    """Insert steps of an episode through the observations begin, begin + 1, ..."""
    for n in range(begin, begin + steps):
        buffer.insert(np.full(2, n), np.full(1, n / 100), n, np.full(2, n + 1), terminated and n == begin + steps - 1)


def found(folder, segments, carries=False, facts=FACTS, inserted=None):
    described = {"segments": segments, "inserted": inserted or sum(one["rows"] for one in segments)}
    return [
        (int(one.observations[0, 0]), len(one.rewards), one.terminated) for one in of_member(folder, described, facts, carries)
    ]


def test_episodes_end_where_another_observation_follows_or_they_terminate(tmp_path):
    buffer = ReplayBuffer(100, 2, 1)
    walk(buffer, 10, 3)
    walk(buffer, 20, 2, terminated=True)
    # Begins with the very observation that the last one ended with.
    walk(buffer, 22, 1, terminated=True)
    walk(buffer, 30, 4)
    assert found(tmp_path, [segment(tmp_path, buffer, 1)]) == [(10, 3, False), (20, 2, True), (22, 1, True), (30, 4, False)]


def test_a_truncation_that_the_observations_hide_is_known_by_the_limit(tmp_path):
    buffer = ReplayBuffer(100, 2, 1)
    for _ in range(10):
        buffer.insert(np.zeros(2), np.zeros(1), 1.0, np.zeros(2), False)
    one = segment(tmp_path, buffer, 1)
    assert found(tmp_path, [one]) == [(0, 4, False), (0, 4, False), (0, 2, False)]
    assert found(tmp_path, [one], facts=FACTS._replace(longest_episode=None)) == [(0, 10, False)]


def test_an_episode_goes_on_in_the_next_segment_only_where_episodes_are_carried_over(tmp_path):
    buffer = ReplayBuffer(100, 2, 1)
    walk(buffer, 10, 2)
    first = segment(tmp_path, buffer, 1)
    walk(buffer, 12, 1)
    second = segment(tmp_path, buffer, 2)
    walk(buffer, 13, 1, terminated=True)
    walk(buffer, 20, 1)
    third = segment(tmp_path, buffer, 3)
    cut = [(10, 2, False), (12, 1, False), (13, 1, True), (20, 1, False)]
    assert found(tmp_path, [first, second, third]) == cut
    assert found(tmp_path, [first, second, third], carries=True) == [(10, 4, True), (20, 1, False)]
    # The beginning of the first is no more.
    assert found(tmp_path, [second, third], carries=True, inserted=5) == [(20, 1, False)]
    assert found(tmp_path, [second, third], inserted=5) == cut[1:]


def test_replay_of_another_environment_is_refused(tmp_path):
    buffer = ReplayBuffer(100, 2, 1)
    walk(buffer, 10, 2)
    one = segment(tmp_path, buffer, 1)
    with pytest.raises(Damaged, match="of other shapes"):
        found(tmp_path, [one], facts=FACTS._replace(shape=Shape(3, 1)))
    with pytest.raises(Damaged, match="of other shapes"):
        found(tmp_path, [{**one, "rows": 3}])


# ----------------------------------------------------------------------------------------------------------- real runs


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run whose episodes end in every way: they terminate, are truncated after seven steps, and are cut after an interval."""
    folder = tmp_path_factory.mktemp("trained") / "run"
    sizes = {"actor_layers": (8,), "critic_layers": (8,), "batch_size": 32, "learning_starts": 20}
    run = Run(
        **{"env": "InvertedPendulum-v4", "mix": {"adam": 2}, "max_episode_steps": 7, "wrap": ("test_episodes:Recorded",)},
        **{"steps": 100, "interval": 25, "episodes": 1, "final_episodes": 1, **sizes},
    )
    train(run, folder, note=lambda _: None)
    return folder


def test_episodes_of_a_run_are_what_the_environment_returned(trained):
    manifest = checkpoint.newest(trained)[0].manifest
    facts = Facts(Shape(4, 1), np.full(1, -3, np.float32), np.full(1, 3, np.float32), 7)
    for described in manifest["members"]:
        episodes = list(of_member(trained, described, facts, carries=False))
        assert sum(len(one.rewards) for one in episodes) == 100
        endings = []
        for one in episodes:
            for n, action in enumerate(one.actions):
                key = one.observations[n].tobytes(), (action * np.float32(3)).tobytes()
                reward, terminated, truncated, following = SEEN[key]
                assert (one.rewards[n], one.observations[n + 1].tobytes()) == (reward, following)
                assert n == len(one.actions) - 1 or not (terminated or truncated)
            assert one.terminated == terminated
            endings.append("terminated" if terminated else "truncated" if truncated else "cut")
        # An interval has 25 steps, which are no multiple of seven.
        assert {"truncated", "cut"} <= set(endings)
        assert endings.count("cut") <= 4


def test_a_data_set_has_the_endings_of_the_replay(trained, tmp_path, capsys):
    minari = pytest.importorskip("minari")
    pytest.importorskip("h5py")
    words = ["export", str(trained), "--to", "minari", "--member", "1", "--allow-import", "test_episodes"]
    with pytest.raises(SystemExit) as ended:
        cli.main([*words, "--out", str(tmp_path / "mine-v3")])
    assert (ended.value.code, capsys.readouterr().err) == (0, "")
    data = minari.MinariDataset(tmp_path / "mine-v3" / "data")
    assert (data.id, data.total_steps) == ("mine-v3", 100)
    env = gymnasium.make("InvertedPendulum-v4")
    assert (data.observation_space, data.action_space) == (env.observation_space, env.action_space)
    for episode in data.iterate_episodes():
        assert episode.terminations.sum() + episode.truncations.sum() == 1
        assert episode.terminations[-1] or episode.truncations[-1]
        for n, action in enumerate(episode.actions):
            key = episode.observations[n].astype(np.float32).tobytes(), action.tobytes()
            reward, terminated, _, following = SEEN[key]
            assert (episode.rewards[n], bool(episode.terminations[n])) == (reward, terminated)
            assert episode.observations[n + 1].astype(np.float32).tobytes() == following


def test_a_data_sets_name_is_one_that_minari_takes(trained, tmp_path, capsys):
    dataset = pytest.importorskip("evolute.export.dataset", exc_type=ImportError)
    for name in ("replay", "re play-v0", "replay-v"):
        with pytest.raises(UserError, match="a data set's name"):
            dataset.check_name(tmp_path / name)
    dataset.check_name(tmp_path / "a_b-c-v12")
