"""Members that start from a policy: what they take of it, what is new, and what does not fit."""

import dataclasses

import numpy as np
import pytest

from evolute import Run, UserError, resume, train
from evolute.commands import cli
from evolute.policy import Policy
from evolute.training.host import Host
from evolute.training.starting import policy_of
from faults import differences

SIZES = {
    "actor_layers": (8, 6),
    "critic_layers": (8,),
    "batch_size": 32,
    "learning_starts": 20,
    "episodes": 1,
    "final_episodes": 1,
    "steps": 60,
    "interval": 30,
    "truncation": 0.5,
}
MIX = {"adam": 1, "kfac": 1, "sac:kfac": 1, "ddpg:adam": 1}


def silent(_sentence):
    pass


def run_of(first, **settings):
    return Run("InvertedPendulum-v4", **(SIZES | {"mix": MIX, "init_from": str(first)} | settings))


@pytest.fixture(scope="module", params=[False, True], ids=["raw", "scaled"])
def first(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("first") / "run"
    run = Run("InvertedPendulum-v4", mix={"sac:adam": 1}, normalize_observations=request.param, **SIZES)
    train(run, folder, note=silent)
    return folder


def test_every_member_acts_as_the_policy_at_first(first):
    policy = Policy.load(first / "best")
    run = run_of(first, normalize_observations=policy.scaling is not None)
    host = Host([run], range(4), policy_of(run))
    obs = np.random.default_rng(0).standard_normal((5, 4)).astype(np.float32)
    for lane, member in host.members.items():
        group = host.group_of(lane)
        learner = group.learner(lane)
        weights = [(np.asarray(layer.w), np.asarray(layer.b)) for layer in group.policy_of(learner)]
        own = Policy(weights, policy.low, policy.high, policy.env, member.normaliser and member.normaliser.scaling)
        np.testing.assert_allclose(own.unit_action(obs), policy.unit_action(obs), atol=2e-6)
        if hasattr(learner, "target_actor"):
            assert all(np.array_equal(a.w, b.w) for a, b in zip(learner.actor, learner.target_actor, strict=True))
    host.close()


def test_only_the_standard_deviation_and_the_critics_are_new(first):
    run = run_of(first, normalize_observations=Policy.load(first / "best").scaling is not None, mix={"sac:adam": 1})
    ours, plain = Host([run], [0], policy_of(run)), Host([run], [0])
    begun, new = (host.groups[0].learner(0) for host in (ours, plain))
    assert np.array_equal(begun.actor[-1].w[:, 1:], new.actor[-1].w[:, 1:])
    assert not np.array_equal(begun.actor[-1].w[:, :1], new.actor[-1].w[:, :1])
    assert np.array_equal(begun.critics[0][0].w, new.critics[0][0].w)
    for host in (ours, plain):
        host.close()


def test_a_resumed_run_and_two_processes_are_the_same(tmp_path, first):
    run = run_of(first, normalize_observations=Policy.load(first / "best").scaling is not None, steps=120)
    train(run, tmp_path / "whole", note=silent)
    train(dataclasses.replace(run, steps=60), tmp_path / "run", note=silent, workers=2)
    # A checkpoint holds all: the policy may be gone by now.
    moved = first.with_name("moved")
    first.rename(moved)
    try:
        resume(tmp_path / "run", steps=120, note=silent)
    finally:
        moved.rename(first)
    assert differences(tmp_path / "run", tmp_path / "whole") == []


def test_what_does_not_fit_is_refused_with_both_shapes(tmp_path, first, capsys):
    normalize = Policy.load(first / "best").scaling is not None
    with pytest.raises(
        UserError, match="has an actor of 4-8-6-1, and members of the kind adam have 4-8-7-1; choose actor_layers"
    ):
        train(run_of(first, normalize_observations=normalize, actor_layers=(8, 7)), note=silent)
    run = dataclasses.replace(run_of(first, normalize_observations=normalize), env="Hopper-v4")
    with pytest.raises(UserError, match=r"init_from has an actor of 4-8-6-1, and members of the kind adam have 11-8-6-3"):
        train(run, tmp_path / "run", note=silent, workers=2)
    assert not (tmp_path / "run").exists()
    does = "scales" if normalize else "does not scale"
    with pytest.raises(
        UserError, match=f"whose policy {does} observations, and normalize_observations is {str(not normalize).lower()}"
    ):
        train(run_of(first, normalize_observations=not normalize), note=silent)
    with pytest.raises(UserError, match="there is no policy in"):
        train(run_of(tmp_path / "nowhere"), note=silent)
    with pytest.raises(SystemExit):
        cli.main(["train", "InvertedPendulum-v4", "--init-from", str(tmp_path), "--out", str(tmp_path / "run")])
    assert "there is no policy in" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_a_folder_of_a_policy_is_as_good_as_a_run(first):
    run = run_of(first, normalize_observations=Policy.load(first / "best").scaling is not None)
    one, other = policy_of(run), policy_of(dataclasses.replace(run, init_from=str(first / "best")))
    assert all(np.array_equal(a, b) for x, y in zip(one.pairs, other.pairs, strict=True) for a, b in zip(x, y, strict=True))
    assert policy_of(dataclasses.replace(run, init_from="none")) is None
