"""The loop on real MuJoCo tasks and on toy ones with known answers."""

import math

import jax
import numpy as np
import pytest

import evolute
from evolute.algorithms.base import no_sums
from evolute.evolution.pbt import Exploit, Standing
from evolute.hyperparameters import Hyperparameters
from evolute.training.quarantine import divergence
from stepped import Stepped

TINY = {
    "actor_layers": (16, 16),
    "critic_layers": (16, 16),
    "batch_size": 32,
    "learning_starts": 50,
    "episodes": 1,
    "final_episodes": 1,
}
KINDS = ("adam", "diag_ggn", "kfac", "kfac_empirical")


def train(env="InvertedPendulum-v4", **settings):
    progress = []
    result = evolute.train(evolute.Run(env, **(TINY | settings)), observer=progress.append)
    # Seconds are the only part of a row that the seed does not decide.
    rows = [{name: value for name, value in row.items() if name != "seconds"} for p in progress for row in p.rows]
    return result, rows


def leaves_equal(a, b):
    return all(np.array_equal(x, y) for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True))


def test_the_same_seed_gives_the_same_run_and_another_seed_another_one():
    settings = {"mix": {"adam": 1, "kfac": 1}, "steps": 300, "interval": 100}
    first, rows = train(**settings)
    second, again = train(**settings)
    other, _ = train(**settings, seed=1)
    assert rows == again
    assert first.lineage == second.lineage
    assert leaves_equal(first.policy.weights, second.policy.weights)
    assert not leaves_equal(first.policy.weights, other.policy.weights)


def test_rounds_of_several_steps_do_as_many_updates_with_an_older_policy():
    settings = {"mix": {"adam": 1, "kfac": 1}, "steps": 300, "interval": 150}
    _, one = train(**settings)
    _, several = train(**settings, steps_per_round=5)
    assert [row["gradient_steps"] for row in several] == [row["gradient_steps"] for row in one]
    assert [row["environment_steps"] for row in several] == [row["environment_steps"] for row in one]
    assert [row["critic_loss"] for row in several] != [row["critic_loss"] for row in one]


def test_steps_updates_and_intervals_add_up():
    result, rows = train(mix={"adam": 2}, steps=250, interval=100)
    assert [row["steps"] for row in rows if row["member"] == 0] == [100, 200, 250]
    last = rows[-1]
    assert last["environment_steps"] == 250
    assert last["population_environment_steps"] == 500
    # One update per step once there are more steps than learning_starts.
    assert last["gradient_steps"] == 250 - 50
    assert result.summary["population_gradient_steps"] == 2 * 200


@pytest.mark.parametrize(("shrink", "environment_steps", "updates"), [("both", 60, 60 - 50), ("gradient", 200, 45)])
def test_fewer_steps_per_interval(shrink, environment_steps, updates):
    # 30 of 100: with 'both', 60 environment steps of which those after the 50th update; with 'gradient' every environment
    # step is taken and 30 of each 100 update, the first interval's only after the 50th step.
    _, rows = train(mix={"adam": 1, "sgd": 1}, steps=200, interval=100, steps_per_interval={"sgd": 30}, shrink=shrink)
    adam, sgd = rows[-2], rows[-1]
    assert (adam["environment_steps"], adam["gradient_steps"]) == (200, 150)
    assert (sgd["environment_steps"], sgd["gradient_steps"]) == (environment_steps, updates)


def test_nobody_is_replaced_before_every_member_has_learnt():
    _, rows = train(mix={"adam": 3}, steps=400, interval=100, learning_starts=250)
    result, _ = train(mix={"adam": 3}, steps=400, interval=100, learning_starts=250)
    assert len(rows) == 12
    assert {event["steps"] for event in result.lineage} == {300}


def test_a_single_agent_never_evolves():
    result, rows = train(mix={"adam": 1}, steps=200, interval=50)
    assert result.lineage == []
    assert len(rows) == 4
    assert len(result.leaderboard) == 1


def test_warm_up_acts_uniformly_and_learning_begins_after_it():
    run = evolute.Run("HalfCheetah-v4", **(TINY | {"steps": 400, "interval": 400, "learning_starts": 300}))
    stepped = Stepped(run)
    stepped.roll_out()
    member, shape = stepped.members[0], stepped.host.facts.shape
    actions = member.replay.transitions()[:, shape.observations : shape.observations + shape.actions]
    assert member.gradient_steps == 100
    # Uniform on [-1, 1] has variance 1/3; a policy of small random weights acts near zero with noise 0.1.
    assert np.allclose(actions[:300].var(), 1 / 3, atol=0.03)
    assert actions[301:].std(axis=0).mean() < 0.5
    stepped.close()


def test_the_sb3_preset_adds_noise_to_the_warm_up():
    def warm_up(preset):
        run = evolute.Run("HalfCheetah-v4", preset=preset, **(TINY | {"steps": 400, "interval": 100, "learning_starts": 300}))
        stepped = Stepped(run)
        stepped.roll_out()
        stepped.close()
        return stepped.members[0].replay.transitions()[:, 17:23]

    # Clipped noise leaves actions exactly at a bound; a uniform draw never does.
    assert (np.abs(warm_up("sb3")) == 1.0).any()
    assert not (np.abs(warm_up("paper")) == 1.0).any()


def test_no_transition_joins_two_episodes():
    run = evolute.Run("probe_envs:Limit-v0", **(TINY | {"steps": 240, "interval": 40, "mix": {"adam": 1, "sgd": 1}}))
    stepped = Stepped(run)
    for _ in range(6):
        stepped.roll_out()
        stepped.state.interval += 1
    for member in stepped.members:
        shape = member.environment.shape
        rows = member.replay.transitions()
        obs, next_obs = rows[:, : shape.observations], rows[:, -shape.observations :]
        # The observation is (episode, step of the episode): a step stays in its episode and moves on by one.
        assert np.array_equal(obs[:, 0], next_obs[:, 0])
        assert np.array_equal(obs[:, 1] + 1, next_obs[:, 1])
        # The limit truncates: nothing is ever marked as terminated.
        assert not rows[:, -shape.observations - 1].any()
    stepped.close()


def populated(**settings):
    """A population of four that has learnt a little, and has had no evolution yet."""
    run = evolute.Run("InvertedPendulum-v4", **(TINY | {"mix": {"adam": 2, "kfac": 2}, "steps": 400, "interval": 100} | settings))
    stepped = Stepped(run)
    stepped.roll_out()
    return stepped


def exploit_of(stepped, child, parent, **changed):
    def standing(slot, fitness):
        member = stepped.state.members[slot]
        return Standing(slot, member.kind, fitness, member.hyperparameters)

    start = stepped.state.members[child].hyperparameters
    return Exploit(standing(child, 0.0), standing(parent, 1.0), start._replace(**changed))


@pytest.mark.parametrize("placement", ["map", "vmap"])
@pytest.mark.parametrize(("child", "parent"), [(0, 1), (2, 3), (0, 3), (2, 1)])
def test_exploit_copies_networks_and_replay_and_treats_the_optimizer_by_kind(child, parent, placement):
    stepped = populated(placement=placement)
    other = ({0, 1, 2, 3} - {child, parent}).pop()
    untouched = stepped.learner(other)
    stepped.copy(exploit_of(stepped, child, parent, batch_size=40))
    copy, original = stepped.learner(child), stepped.learner(parent)
    for part in ("actor", "critics", "target_actor", "target_critics"):
        assert leaves_equal(getattr(copy, part), getattr(original, part))
    a, b = stepped.members[child], stepped.members[parent]
    assert np.array_equal(a.replay.transitions(), b.replay.transitions())
    assert len(a.replay) == len(b.replay) == 100
    assert not np.shares_memory(a.replay._ring, b.replay._ring)
    assert stepped.state.members[child].hyperparameters.batch_size == 40
    assert stepped.state.members[child].parent == parent
    states = ("actor_state", "critic_states")
    if a.kind == b.kind:
        assert all(leaves_equal(getattr(copy, s), getattr(original, s)) for s in states)
        assert not a.needs_burn_in
    else:
        # A new state knows nothing: all of an Adam's moments are zero, all of a K-FAC's factors, too.
        moments = (
            [copy.actor_state[0].mu, copy.actor_state[0].nu]
            if a.kind == "adam"
            else [copy.actor_state.A, copy.actor_state.velocity]
        )
        assert all(not leaf.any() for leaf in jax.tree.leaves(moments))
        assert a.needs_burn_in
    assert leaves_equal(stepped.learner(other), untouched)
    stepped.close()


def test_a_child_does_not_repeat_its_parent():
    stepped = populated()
    stepped.copy(exploit_of(stepped, 0, 1))
    stepped.state.interval += 1
    stepped.roll_out()
    child, parent = stepped.members[0].replay, stepped.members[1].replay
    assert len(child) == len(parent) == 200
    assert not np.array_equal(child.transitions()[100:], parent.transitions()[100:])
    stepped.close()


def test_a_state_copied_before_its_first_update_is_still_burnt_in():
    stepped = populated(learning_starts=150)
    assert all(member.needs_burn_in for member in stepped.members)
    stepped.copy(exploit_of(stepped, 2, 3))
    assert stepped.members[2].needs_burn_in
    stepped.close()


def test_copying_the_optimizer_state_can_be_switched_off():
    stepped = populated(copy_optimizer_state=False)
    stepped.copy(exploit_of(stepped, 0, 1))
    copy = stepped.learner(0)
    assert all(not leaf.any() for leaf in jax.tree.leaves(copy.actor_state[0].mu))
    stepped.close()


def test_a_broken_member_is_never_a_parent_and_is_replaced():
    stepped = populated()
    group = stepped.group_of(1)
    learner = group.take(1)
    broken = learner._replace(actor=jax.tree.map(lambda x: np.full_like(x, np.nan), learner.actor))
    group.put(1, broken, reset_optimizers=False)
    sums = [jax.tree.map(float, no_sums())] * 4
    outcomes = stepped.evaluate(sums)
    assert math.isnan(outcomes[1].evaluation.mean)
    stepped.state.interval += 1
    exploits = stepped.evolve()
    assert 1 in {e.child.slot for e in exploits}
    assert 1 not in {e.parent.slot for e in exploits}
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(group.take(1).actor))
    stepped.close()


def test_a_member_none_of_whose_updates_was_finite_counts_as_broken():
    sums = no_sums()._replace(updates=10.0, critic_updates=20.0, actor_updates=5.0)
    assert divergence([], sums) is None
    sums = sums._replace(actor_contained=sums.actor_contained._replace(steps=5.0))
    critics = sums.critic_contained
    assert divergence([], sums._replace(critic_contained=critics._replace(steps=19.0))) is None
    assert divergence([], sums._replace(critic_contained=critics._replace(steps=20.0))) == "no update of it was finite"


def test_members_draw_streams_of_their_own():
    stepped = populated(mix={"adam": 2})
    first, second = stepped.members
    assert not np.array_equal(first.replay.transitions()[:50], second.replay.transitions()[:50])
    assert not np.array_equal(first.noise(), second.noise())
    assert not np.array_equal(first.sample(32, 1).noise, second.sample(32, 1).noise)
    stepped.close()


def test_the_best_policy_ever_seen_is_kept():
    result, rows = train(mix={"adam": 2, "sgd": 1}, steps=600, interval=100)
    assert result.summary["best"]["fitness"] == max(row["fitness"] for row in rows)


def test_events_name_who_copied_whom_with_which_hyperparameters():
    result, rows = train(mix={"adam": 2, "kfac": 2}, steps=400, interval=100)
    assert len(result.lineage) == 3
    for event in result.lineage:
        before = {row["member"]: row for row in rows if row["steps"] == event["steps"]}
        after = {row["member"]: row for row in rows if row["steps"] == event["steps"] + 100}
        assert event["member_fitness"] == before[event["member"]]["fitness"]
        assert event["parent_fitness"] == before[event["parent"]]["fitness"] >= event["member_fitness"]
        assert event["old_hyperparameters"] == before[event["member"]]["hyperparameters"]
        assert event["new_hyperparameters"] == after[event["member"]]["hyperparameters"]
        assert set(event["new_hyperparameters"]) == set(Hyperparameters._fields)


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_learns_the_best_action_of_a_bandit(kind):
    # Reward 1 - (a - 0.5)²: the critic must learn it and the actor climb to a = 0.5.
    settings = {"mix": {kind: 1}, "steps": 1_500, "interval": 1_500, "learning_starts": 100, "exploration_noise": 0.3}
    # The diagonal's default rate is for long runs, and too small for these 1,400 updates.
    options = {"diag_ggn": {"learning_rate": 0.01}} if kind == "diag_ggn" else {}
    result, _ = train("probe_envs:Bandit-v0", optimizers=options, **settings)
    action = result.policy(np.zeros(len(result.policy.weights[0][0]), np.float32))
    assert action == pytest.approx(0.5, abs=0.15)


@pytest.mark.parametrize("env", [pytest.param("HalfCheetah-v4", marks=pytest.mark.slow), "Hopper-v4"])
@pytest.mark.parametrize("kind", ["kfac", pytest.param("kfac_empirical", marks=pytest.mark.slow)])
def test_nothing_fails_at_small_damping(kind, env):
    dampings = (1e-6, 1e-4, 1e-2, 1.0, 100.0)
    run = evolute.Run(env, **(TINY | {"mix": {kind: 5}, "steps": 1_100, "interval": 1_100, "learning_starts": 100}))
    stepped = Stepped(run)
    for member, damping in zip(stepped.state.members, dampings, strict=True):
        member.hyperparameters = member.hyperparameters._replace(actor_damping=damping, critic_damping=damping)
    reports = stepped.roll_out()
    for member, report in zip(stepped.members, reports, strict=True):
        assert member.gradient_steps == report.updates == 1_000
        learner = stepped.learner(member.slot)
        assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(learner))
        # Containment is for accidents, not how it trains.
        assert report.contained.statistics + report.contained.inverses + report.contained.steps <= 10
        assert math.isfinite(report.critic_loss)
    stepped.close()
