"""Norms and dead units of networks against NumPy, and where a run shows them."""

import numpy as np
import pytest

import evolute
import oracles
from evolute import networks
from evolute.algorithms import td3
from evolute.networks import Layer
from evolute.report.live import event_line
from evolute.training import health, replay

TINY = {
    "steps": 200,
    "interval": 100,
    "learning_starts": 50,
    "actor_layers": (8, 8),
    "critic_layers": (8, 8),
    "batch_size": 32,
    "episodes": 1,
    "final_episodes": 1,
}


def filled(count: int) -> replay.ReplayBuffer:
    rng, buffer = np.random.default_rng(0), replay.ReplayBuffer(40, 3, 2)
    for _ in range(count):
        buffer.insert(rng.normal(size=3), rng.uniform(-1, 1, 2), 0.0, rng.normal(size=3), False)
    return buffer


@pytest.mark.parametrize("inserted", [1, 7, 40, 55])
def test_transitions_are_spaced_evenly_over_what_is_held(inserted):
    buffer = filled(inserted)
    held = buffer.transitions()
    np.testing.assert_array_equal(buffer.spaced(100), held)
    few = buffer.spaced(3)
    assert len(few) == min(3, len(held))
    np.testing.assert_array_equal(few[0], held[0])
    np.testing.assert_array_equal(few[-1], held[-1] if len(held) > 1 else held[0])
    assert len(filled(0).spaced(5)) == 0


def test_norms_and_dead_units_are_those_of_the_worse_critic():
    settings = td3.Settings(3, 2, (4, 5), (4, 5), None, None)
    learner, buffer = td3.init(np.random.default_rng(0), settings), filled(30)
    first, second = learner.critics
    # Three of five units of the second critic's last hidden layer can never answer, and its output weighs more.
    dead = Layer(second[1].w, np.where(np.arange(5) < 3, np.float32(-1e3), second[1].b))
    second = (second[0], dead, Layer(10 * second[2].w, second[2].b))
    found = health.examine(learner._replace(critics=(first, second)), buffer.transitions(), 3, 2)
    assert found.critic_dead == pytest.approx(3 / 5)
    assert found.critic_norms[2] == pytest.approx(np.sqrt(np.sum(second[2].w ** 2)), rel=1e-6)
    assert found.critic_norms[0] == pytest.approx(max(np.sqrt(np.sum(q[0].w ** 2)) for q in (first, second)), rel=1e-6)
    _, inputs, _ = networks.taped(learner.actor, buffer.transitions()[:, :3])
    expected = max(np.mean([not np.any(column) for column in np.asarray(x).T]) for x in inputs[1:])
    assert found.actor_dead == pytest.approx(expected)
    assert np.isnan(health.examine(learner, filled(0).transitions(), 3, 2).critic_dead)


def test_a_run_records_them_and_warns_of_a_network_that_has_mostly_died(tmp_path, monkeypatch):
    from evolute.runs.folder import RunFolder

    monkeypatch.setattr(health, "dead_share", lambda mlp, inputs, structure: 0.8 if inputs.shape[1] > 4 else 0.1)
    kinds = {"adam": 1, "kfac": 1}
    evolute.train(evolute.Run("InvertedPendulum-v4", mix=kinds, **TINY), out=tmp_path / "run")
    rows, events = RunFolder.open(tmp_path / "run").metrics(), RunFolder.open(tmp_path / "run").events()
    for row in rows:
        assert (row["actor_dead"], row["critic_dead"]) == (0.1, 0.8)
        assert len(row["actor_norms"]) == len(row["critic_norms"]) == 3
        # Adam has no constraint, and K-FAC's first steps are long.
        assert (row["critic_shortened"] > 0) == (row["kind"] == "kfac") == (row["critic_shortening"] > 0)
        assert 0 <= row["critic_shortening"] <= row["critic_shortened"] <= 1
    warned = [event for event in events if event["event"] == "dead_units"]
    assert [(event["member"], event["network"]) for event in warned] == [(0, "critics"), (1, "critics")] * 2
    assert "80% of the units in a hidden layer of the critics of member 0 (adam) are dead" in event_line(warned[0])


def test_a_network_that_is_not_finite_is_named():
    learner = td3.init(np.random.default_rng(0), td3.Settings(3, 2, (4,), (4,), None, None))
    assert health.not_finite(td3.networks_of(learner)) == []
    broken = (Layer(learner.actor[0].w, np.full(4, np.nan, np.float32)), *learner.actor[1:])
    assert health.not_finite(td3.networks_of(learner._replace(actor=broken))) == ["actor"]
    assert oracles.same(td3.without_optimizers(learner), learner)
