"""Exploits between algorithms: what is alike is copied, and everything else is new."""

import itertools

import jax
import numpy as np
import pytest

import oracles
from evolute import Run, algorithms, presets
from evolute.algorithms.graft import graft
from evolute.networks import Layer

OBS, ACT = 5, 3
PAIRS = list(itertools.permutations(presets.ALGORITHMS, 2))
# (child, parent): what of the child's critics, by number, and of its actor is the parent's; target actors where there is one.
EXPECTED = {
    ("td3", "ddpg"): ([True, False], "whole", "the parent's"),
    ("ddpg", "td3"): ([True], "whole", "the parent's"),
    ("td3", "sac"): ([True, True], "hidden", "the actor"),
    ("sac", "td3"): ([True, True], "hidden", None),
    ("ddpg", "sac"): ([True], "hidden", "the actor"),
    ("sac", "ddpg"): ([True, False], "hidden", None),
}


def new_and_trained(child: str, parent: str, widths: dict | None = None):
    """A new learner of the child's algorithm, and one of the parent's whose parts all differ."""
    own = {"actor_layers": (8, 6), "critic_layers": (7, 5)}
    run = Run("Hopper-v4", mix={f"{child}:adam": 1, f"{parent}:adam": 1}, algorithms={parent: widths or {}}, **own)
    made = [algorithms.build(run, kind, OBS, ACT) for kind in run.mix]
    new, other = (algorithm.init(np.random.default_rng(seed)) for seed, algorithm in enumerate(made))
    rng = np.random.default_rng(7)
    other = jax.tree.map(lambda x: (x + rng.normal(size=x.shape)).astype(np.float32), other)
    return new, other, made[0]


def test_every_pair_is_here():
    assert set(PAIRS) == EXPECTED.keys()


@pytest.mark.parametrize(("child", "parent"), PAIRS)
def test_what_is_alike_is_copied_and_the_rest_is_new(child, parent):
    new, other, algorithm = new_and_trained(child, parent)
    critics, actor, target = EXPECTED[child, parent]
    got = graft(new, other)
    assert isinstance(got, type(new))
    for name in ("critics", "target_critics"):
        assert len(getattr(got, name)) == len(critics)
        for n, copied in enumerate(critics):
            assert oracles.same(getattr(got, name)[n], getattr(other if copied else new, name)[n])
    assert oracles.same(got.actor[:-1], other.actor[:-1])
    assert oracles.same(got.actor[-1], (other if actor == "whole" else new).actor[-1])
    if target is None:
        assert not hasattr(got, "target_actor")
    else:
        assert oracles.same(got.target_actor, got.actor if target == "the actor" else other.target_actor)
    if child == "sac":
        assert oracles.same(got.log_temperature, new.log_temperature)
    described = [(x.shape, x.dtype) for x in oracles.leaves(got)]
    assert described == [(x.shape, x.dtype) for x in oracles.leaves(new)]
    algorithm.reset(got)


@pytest.mark.parametrize(("child", "parent"), PAIRS)
def test_a_network_of_other_widths_starts_anew_and_the_others_do_not(child, parent):
    new, other, _ = new_and_trained(child, parent, {"actor_layers": (8, 4)})
    got = graft(new, other)
    assert oracles.same(got.actor, new.actor)
    assert oracles.same(got.critics[0], other.critics[0])
    if hasattr(got, "target_actor"):
        assert oracles.same(got.target_actor, new.actor)
    for layers in ((7, 4), (7, 5, 5)):
        new, other, _ = new_and_trained(child, parent, {"critic_layers": layers})
        got = graft(new, other)
        assert oracles.same((got.critics, got.target_critics), (new.critics, new.target_critics))
        assert oracles.same(got.actor[:-1], other.actor[:-1])


def test_the_hidden_layers_of_an_actor_of_another_depth_are_not_copied():
    new, other, _ = new_and_trained("sac", "td3", {"actor_layers": (8,)})
    assert oracles.same(graft(new, other).actor, new.actor)
    # Nor where the parent's last hidden layer is as wide as the child's head.
    layer = Layer(np.zeros((8, 6), np.float32), np.zeros(6, np.float32))
    assert oracles.same(graft(new, other._replace(actor=(other.actor[0], layer))).actor, new.actor)
