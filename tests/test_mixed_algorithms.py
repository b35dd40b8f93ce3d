"""A population of three algorithms from start to end: rollout, exploits between them, records, best policy, placement, seeds."""

import json

import jax
import numpy as np
import pytest

import evolute
import oracles
from evolute import kinds
from evolute.commands.cli import main
from evolute.evolution.base import Exploit
from evolute.policy import Policy
from evolute.runs import forms
from evolute.training import rollout
from evolute.training.randomness import Purpose, generator
from faults import differences
from stepped import Stepped

TINY = {"actor_layers": (12, 8), "critic_layers": (10, 8), "episodes": 1, "final_episodes": 2, "batch_size": 24}
MIX = {"adam": 1, "ddpg:adam": 1, "sac:adam": 1, "sac:diag_ggn": 1}
TINY |= {"interval": 140, "learning_starts": 60, "buffer_size": 300, "truncation": 0.5, "seed": 2}
RUN = evolute.Run("Pendulum-v1", mix=MIX, steps=420, **TINY)


def quiet(_):
    pass


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("mixed") / "run"
    evolute.train(RUN, path, note=quiet)
    return path


def rows(folder, name):
    return [json.loads(line) for line in (folder / name).read_text().splitlines()]


def test_every_algorithm_learns_and_is_recorded(folder):
    metrics = rows(folder, "metrics.jsonl")
    assert {row["kind"] for row in metrics} == set(MIX)
    for row in metrics:
        assert row["fitness"] is not None
        assert row["quarantined"] is None
        assert row["contained_steps"] == row["contained_losses"] == 0
        algorithm = kinds.of(row["kind"]).algorithm
        assert (row["hyperparameters"]["temperature_learning_rate"] > 0) == (algorithm == "sac")
        assert (row["hyperparameters"]["exploration_noise"] > 0) == (algorithm != "sac")
        assert (row["hyperparameters"]["target_noise"] > 0) == (algorithm == "td3")
    assert all(row["gradient_steps"] == 360 for row in metrics[-4:])


def test_exploits_say_whether_networks_are_copied_or_only_what_is_alike(folder):
    exploits = [event for event in rows(folder, "events.jsonl") if event["event"] == "exploit"]
    between = [event for event in exploits if "networks" in event]
    assert between
    for event in exploits:
        assert forms.event_fault(event) is None
        pair = [kinds.of(event[name]).algorithm for name in ("member_kind", "parent_kind")]
        assert ("networks" in event) == (pair[0] != pair[1])
        if event in between:
            assert (event["networks"], event["optimizer_state"]) == ("alike", "new")
            changed = {k: v for k, v in event["new_hyperparameters"].items() if v != event["old_hyperparameters"][k]}
            assert "temperature_learning_rate" not in changed


def test_the_best_policy_and_the_tables_are_what_they_always_are(folder, capsys):
    best = json.loads((folder / "best" / "policy.json").read_text())
    assert best["layers"] == [3, 12, 8, 1]
    assert -2 <= Policy.load(folder / "best")(np.zeros(3, np.float32))[0] <= 2
    with pytest.raises(SystemExit) as end:
        main(["show", str(folder)])
    assert not end.value.code
    shown = capsys.readouterr().out
    for kind in MIX:
        assert kind in shown


def test_members_side_by_side_in_one_program_equal_those_apart(tmp_path):
    """Not to the last bit: products with a batch axis round otherwise. The first interval is compared, before that grows."""
    found = {}
    for placement in ("vmap", "map"):
        run = evolute.Run("Pendulum-v1", mix={"sac:adam": 2, "ddpg:adam": 2}, steps=140, placement=placement, **TINY)
        evolute.train(run, tmp_path / placement, note=quiet)
        found[placement] = rows(tmp_path / placement, "metrics.jsonl")
    for name in ("critic_loss", "actor_loss", "q_value"):
        one, other = ([row[name] for row in of_run] for of_run in found.values())
        np.testing.assert_allclose(one, other, rtol=2e-2, atol=2e-2)


@pytest.mark.slow
def test_populations_side_by_side_are_each_what_they_are_alone(folder, tmp_path):
    evolute.train_seeds(RUN, [5, RUN.seed], [tmp_path / "5", tmp_path / "2"], note=quiet)
    assert differences(tmp_path / "2", folder) == []


# ------------------------------------------------------------------------------------------------------ a single exploit


@pytest.fixture(scope="module")
def stepped():
    """A population after an interval, with a member of each algorithm."""
    stepped = Stepped(RUN)
    stepped.roll_out()
    stepped.state.interval = 1
    yield stepped
    stepped.close()


@pytest.mark.parametrize("child", range(4))
@pytest.mark.parametrize("parent", range(4))
def test_an_exploit_of_every_kind_of_pair(stepped, child, parent):
    own, other = stepped.members[child], stepped.members[parent]
    if child == parent:
        return
    before = [stepped.learner(child), stepped.learner(parent)]
    profiles = stepped.state.members
    stepped.copy(Exploit(profiles[child].standing, profiles[parent].standing, own.hyperparameters))
    after, parents = stepped.learner(child), stepped.learner(parent)
    assert oracles.same(parents, before[1])
    assert profiles[child].parent == parent
    assert own.needs_burn_in
    assert np.array_equal(own.replay.transitions(), other.replay.transitions())
    algorithm = stepped.group_of(child)._programs.algorithm
    bare = algorithm.strip(after)
    assert oracles.same(after, jax.tree.map(np.asarray, algorithm.reset(bare)))  # optimizer states are new
    assert oracles.same(bare.critics[0], parents.critics[0])
    assert [layer.w.shape for layer in after.actor] == [layer.w.shape for layer in before[0].actor]
    # What is not alike is drawn from a stream of its own.
    fresh = algorithm.init(generator(RUN.seed, child, 1, Purpose.GRAFT))
    if kinds.of(own.kind).algorithm == "sac" != kinds.of(other.kind).algorithm:
        assert oracles.same(after.actor[-1], fresh.actor[-1])
        assert float(after.log_temperature) == 0
    if (own.kind, other.kind) == ("adam", "ddpg:adam"):
        assert oracles.same(after.critics[1], fresh.critics[1])
    # And it goes on.
    own.begin_interval(lambda purpose: generator(0, child, 9, purpose))
    stepped.group_of(child).begin_interval([own.hyperparameters])
    rollout.learn(stepped.group_of(child), [own])
    assert all(np.isfinite(x).all() for x in oracles.leaves(stepped.learner(child)))
