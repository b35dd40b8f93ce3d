"""Populations side by side: each is what it would be alone."""

import dataclasses

import pytest

from evolute import Run, UserError, resume, train, train_seeds
from evolute.errors import RunStopped
from faults import differences

RUN = Run(
    "InvertedPendulum-v4",
    mix={"adam": 2, "kfac": 1},
    steps=150,
    interval=50,
    learning_starts=30,
    actor_layers=(16,),
    critic_layers=(16,),
    batch_size=16,
    perturb=("actor_learning_rate", "critic_damping"),
    episodes=1,
    final_episodes=1,
)


@pytest.fixture(scope="module")
def beside(tmp_path_factory):
    folder = tmp_path_factory.mktemp("beside")
    told = []
    results = train_seeds(RUN, [3, 4], [folder / "3", folder / "4"], told.append)
    return folder, results, told


@pytest.mark.parametrize("seed", [3, 4])
def test_each_population_is_what_it_is_alone(tmp_path, beside, seed):
    folder, results, _ = beside
    alone = train(dataclasses.replace(RUN, seed=seed), tmp_path / "alone")
    assert differences(folder / str(seed), tmp_path / "alone") == []
    [there] = [result for result in results if result.summary["seed"] == seed]
    assert there.leaderboard == alone.leaderboard
    assert there.lineage == alone.lineage


def test_populations_differ_and_do_not_copy_each_other(beside):
    _, (first, second), _ = beside
    assert first.leaderboard != second.leaderboard
    assert {event["parent"] for result in (first, second) for event in result.lineage} <= {0, 1, 2}


def test_the_observer_hears_of_each(beside):
    _, _, told = beside
    ends = [(progress.state.run.seed, progress.steps) for progress in told if progress.rows]
    assert ends == [(seed, steps) for steps in (50, 100, 150) for seed in (3, 4)]
    assert {progress.populations for progress in told} == {2}


@pytest.mark.parametrize("seeds", [[], [1, 1]])
def test_seeds_are_named_once(seeds):
    with pytest.raises(UserError, match="name each once, and at least one"):
        train_seeds(RUN, seeds)


def test_one_of_them_can_be_extended_alone(tmp_path, beside):
    train_seeds(RUN, [3, 5], [tmp_path / "3", tmp_path / "5"])
    resume(tmp_path / "3", steps=250, note=lambda _: None)
    train(dataclasses.replace(RUN, seed=3, steps=250), tmp_path / "alone")
    assert differences(tmp_path / "3", tmp_path / "alone") == []


def test_where_nobody_is_left_in_one_the_others_can_be_resumed(tmp_path):
    from evolute.training import host

    real = host.played

    def failing(environment, policy, seeds, member):
        # The second population is sick after its second interval.
        if member.lane >= 3 and member.environment_steps == 100:
            member.quarantine("it is sick")
        return real(environment, policy, seeds, member)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(host, "played", failing)
        with pytest.raises(RunStopped, match="it is sick"):
            train_seeds(RUN, [3, 4], [tmp_path / "3", tmp_path / "4"])
    assert (tmp_path / "3" / "checkpoints" / "000002.json").exists()
    assert not (tmp_path / "4" / "checkpoints" / "000002.json").exists()
    resume(tmp_path / "3", note=lambda _: None)
    train(dataclasses.replace(RUN, seed=3), tmp_path / "alone")
    assert differences(tmp_path / "3", tmp_path / "alone") == []
