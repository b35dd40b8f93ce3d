"""Members that diverge and environments that fail: what is dropped, what is recorded, and that nobody else notices."""

import io
import json
import math

import jax
import numpy as np
import pytest
from rich.console import Console

import evolute
from evolute import engine
from evolute.algorithms.base import no_sums
from evolute.commands import cli
from evolute.environments.gym import Environment, EnvironmentFault
from evolute.errors import RunStopped, UserError
from evolute.report.live import Doing, PlainLines
from evolute.report.tables import curves_table
from evolute.runs import rows
from evolute.runs.checkpoint import FOLDER
from evolute.training import evaluate
from evolute.training.quarantine import divergence
from probe_envs import Jackpot, Planned
from stepped import Stepped

TINY = {
    "actor_layers": (16, 16),
    "critic_layers": (16, 16),
    "batch_size": 32,
    "learning_starts": 20,
    "episodes": 2,
    "final_episodes": 2,
    "interval": 40,
    "steps": 120,
}
KINDS = ("adam", "diag_ggn", "kfac", "kfac_empirical")


def begin(env="probe_envs:Planned-v0", **settings):
    return Stepped(evolute.Run(env, **(TINY | settings)))


def replaced(stepped, slot, name):
    """Give one member another environment of the same shape."""
    stepped.members[slot].environment.close()
    stepped.members[slot].environment = Environment(f"probe_envs:{name}-v0")


def same(a, b):
    return all(np.array_equal(x, y) for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True))


def held(member):
    return member.replay.transitions()


# ---------------------------------------------------------------------------------------------------- faults in training


def test_no_false_transition_enters_the_replay():
    stepped = begin(mix={"adam": 1})
    # The first reset fails, and one right after a fault; steps at an episode's start, middle and end fail.
    Planned.start(step={1, 8, 15, 30}, reset={1, 4, 5}, make={4})
    stepped.roll_out()
    member, rows = stepped.members[0], held(stepped.members[0])
    assert [(fault.call, fault.message[:12]) for fault in member.faults].count(("step", "RuntimeError")) == 4
    assert {fault.call for fault in member.faults} == {"step", "reset", "make"}
    # The clock ticked for the steps that failed.
    assert member.environment_steps == 40
    assert len(rows) == len(Planned.log) == 40 - 4
    for row, (obs, action, reward, next_obs, terminated) in zip(rows, Planned.log, strict=True):
        assert row[:2].tolist() == obs.tolist()
        assert row[2] == pytest.approx(action[0], abs=1e-6)
        assert row[3] == np.float32(reward)
        assert row[5:7].tolist() == next_obs.tolist()
        assert row[4] == terminated
    # Every returned episode is whole: three steps, each paying less than one.
    starts = [n for n, row in enumerate(rows) if row[1] == 0]
    whole = [a for a, b in zip(starts, [*starts[1:], len(rows)], strict=True) if b - a == 3]
    assert member.finished_returns == pytest.approx([rows[a : a + 3, 3].sum() for a in whole])
    stepped.close()


def test_the_same_run_with_faults_is_the_same_twice():
    def trained():
        Planned.start(step={3, 50, 51, 90}, reset={2})
        stepped = begin(mix={"adam": 1})
        rows = [stepped.interval() for _ in range(3)]
        stepped.close()
        return json.dumps(rows), held(stepped.members[0])

    first, second = trained(), trained()
    assert first[0] == second[0]
    assert np.array_equal(first[1], second[1])
    # Step 90 of the plan falls into an evaluation.
    assert len(first[1]) == 3 * 40 - 3


@pytest.mark.parametrize("placement", ["map", "vmap"])
@pytest.mark.parametrize("name", ["Raises", "RaisesInReset"])
def test_other_members_do_not_notice_a_failing_environment(placement, name):
    def trained(failing):
        stepped = begin("probe_envs:Noisy-v0", mix={"adam": 3}, placement=placement)
        if failing:
            replaced(stepped, 1, name)
        rows = [stepped.interval() for _ in range(2)]
        stepped.close()
        return stepped, [row for metrics, _ in rows for row in metrics if row["member"] != 1]

    (stepped, rows), (other, expected) = trained(True), trained(False)
    assert stepped.state.members[1].quarantined is not None
    assert rows == expected
    for slot in (0, 2):
        assert np.array_equal(held(stepped.members[slot]), held(other.members[slot]))
        assert same(stepped.learner(slot), other.learner(slot))
    # A member whose environment never worked has nothing to learn from, and its networks stay finite.
    assert len(stepped.members[1].replay) == (0 if name == "RaisesInReset" else 2 * 11 * 2)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(stepped.learner(1)))


@pytest.mark.parametrize("kind", ["kfac", "diag_ggn"])
def test_curvature_waits_for_an_environment_to_work(kind):
    stepped = begin("probe_envs:Noisy-v0", mix={kind: 1})
    replaced(stepped, 0, "RaisesInReset")
    stepped.interval()
    assert stepped.members[0].needs_burn_in
    replaced(stepped, 0, "Noisy")
    rows, _ = stepped.interval()
    assert not stepped.members[0].needs_burn_in
    assert rows[0]["quarantined"] is None
    assert math.isfinite(rows[0]["fitness"])
    stepped.close()


@pytest.mark.parametrize(("max_faults", "quarantined"), [(3, True), (4, False)])
def test_max_faults_is_the_number_that_a_member_gets_over(max_faults, quarantined):
    Planned.start(step={5, 10, 15, 20})
    stepped = begin(mix={"adam": 1}, max_faults=max_faults)
    rows, events = stepped.interval()
    stepped.close()
    faults = [event for event in events if event["event"] == "environment_fault"]
    assert [fault["environment_steps"] for fault in faults] == [5, 10, 15, 20]
    assert rows[0]["environment_faults"] == 4
    assert (rows[0]["quarantined"] is not None) == quarantined == math.isnan(rows[0]["fitness"])
    assert (stepped.state.quarantines == 1) == quarantined
    assert rows[0]["environment_steps"] == 40
    first = {"interval": 1, "steps": 40, "member": 0, "during": "training", "call": "step", "environment_steps": 5}
    assert faults[0] == {"event": "environment_fault", **first, "message": "RuntimeError: step 5 of the plan"}
    if quarantined:
        # It took no step after the last one.
        assert len(stepped.members[0].replay) == 16
        assert "failed 4 times in an interval, the last time in step: RuntimeError: step 20 of the plan" in events[-1]["reason"]


def test_a_quarantined_member_tries_again_in_the_next_interval():
    Planned.start(step={1, 2})
    stepped = begin(mix={"adam": 1}, max_faults=1)
    assert stepped.interval()[0][0]["quarantined"]
    assert stepped.interval()[0][0]["quarantined"] is None
    assert len(stepped.members[0].replay) == 40
    stepped.close()


def test_an_action_that_is_not_finite_is_not_the_environments_fault():
    stepped = begin("probe_envs:Noisy-v0", mix={"adam": 2}, max_faults=0, on_faults="stop")
    stepped.interval()
    broken(stepped, 1, "actor")
    rows, events = stepped.interval()
    assert [row["environment_faults"] for row in rows] == [0, 0]
    assert [event["event"] for event in events] == ["quarantine"]
    assert events[0]["reason"] == "its action was not finite"
    # No transition came of it.
    assert len(stepped.members[1].replay) == 40
    stepped.close()


# ------------------------------------------------------------------------------------------------------------ divergence


def broken(stepped, slot, *parts):
    """Put a NaN into one weight of some of a member's networks."""
    group = stepped.group_of(slot)
    networks = group.take(slot)

    def spoilt(tree):
        leaves, structure = jax.tree.flatten(tree)
        first = np.array(leaves[0])
        first.flat[0] = np.nan
        return jax.tree.unflatten(structure, [first, *leaves[1:]])

    changed = {part: spoilt(getattr(networks, part)) for part in parts}
    group.put(slot, networks._replace(**changed), reset_optimizers=False)


@pytest.mark.parametrize("kind", KINDS)
def test_a_member_that_diverges_is_quarantined_alone_and_replaced(kind):
    def trained(spoil):
        stepped = begin("probe_envs:Noisy-v0", mix={kind: 3}, placement="vmap")
        stepped.interval()
        if spoil:
            broken(stepped, 1, "critics")
        rows, events = stepped.interval()
        return stepped, rows, events

    (stepped, rows, events), (other, expected, _) = trained(True), trained(False)
    assert [event["member"] for event in events] == [1]
    assert [row["quarantined"] is not None for row in rows] == [False, True, False]
    assert "parameters of its critics" in rows[1]["quarantined"]
    for slot in (0, 2):
        assert rows[slot] == expected[slot]
        assert np.array_equal(held(stepped.members[slot]), held(other.members[slot]))
        assert same(stepped.learner(slot), other.learner(slot))
    exploits = stepped.evolve()
    assert [exploit.child.slot for exploit in exploits] == [1]
    assert exploits[0].parent.slot != 1
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(stepped.learner(1)))
    rows, _ = stepped.interval()
    assert rows[1]["quarantined"] is None
    stepped.close()
    other.close()


@pytest.mark.parametrize("part", ["actor", "critics", "target_actor", "target_critics"])
def test_every_network_is_looked_at(part):
    stepped = begin("probe_envs:Noisy-v0", mix={"adam": 2})
    reports = stepped.roll_out()
    broken(stepped, 1, part)
    stepped.evaluate(reports)
    assert stepped.state.members[0].quarantined is None
    assert stepped.state.members[1].quarantined == f"parameters of its {part.replace('_', ' ')} are not finite"
    assert [math.isnan(member.fitness) for member in stepped.state.members] == [False, True]
    stepped.close()


@pytest.mark.parametrize(("losses", "out"), [(0.0, False), (1.0, False), (25.0, False), (26.0, True), (50.0, True)])
def test_losses_that_are_not_finite_in_more_than_half_of_the_updates_are_divergence(losses, out):
    sums = jax.tree.map(float, no_sums())
    # Two critics' losses each, and an actor's: fifty in all.
    critic_updates = 2 * (20.0 - losses // 2.5)
    sums = sums._replace(critic_updates=critic_updates, actor_updates=50.0 - losses - critic_updates)
    found = divergence([], sums._replace(critic_contained=sums.critic_contained._replace(losses=losses)))
    assert found == (f"the losses of {losses:.0f} of its 50 updates of a network were not finite" if out else None)


@pytest.mark.parametrize("kind", ["adam", "kfac"])
def test_a_loss_that_is_not_finite_is_counted_and_enters_no_mean(kind):
    def reported(reward):
        stepped = begin("probe_envs:Noisy-v0", mix={kind: 1}, interval=20)
        member = stepped.members[0]
        stepped.interval()
        # One batch that overflows among sound ones.
        sample, calls = member.sample, []

        def spoilt(*arguments):
            drawn = sample(*arguments)
            calls.append(len(calls))
            if len(calls) == 12 and reward is not None:
                drawn.rows[:, 3] = reward
            return drawn

        member.sample = spoilt
        rows, events = stepped.interval()
        stepped.close()
        return rows[0], events

    (sound, _), (row, events) = reported(None), reported(1e25)
    assert events == []
    assert sound["contained_losses"] == 0.0
    # Two critics; an actor's loss knows no reward.
    assert row["contained_losses"] == row["contained_steps"] == 2.0
    assert row["gradient_steps"] == sound["gradient_steps"]
    # The means leave it out, instead of counting it as zero or as NaN.
    assert row["critic_loss"] == pytest.approx(sound["critic_loss"], rel=0.5)
    assert row["q_value"] == pytest.approx(sound["q_value"], rel=0.5, abs=0.05)


def test_one_enormous_reward_does_not_end_a_single_agent(tmp_path):
    Jackpot.steps = 0
    result = evolute.train(evolute.Run("probe_envs:Jackpot-v0", mix={"adam": 1}, **(TINY | {"batch_size": 8})), tmp_path / "run")
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert sum(row["contained_losses"] for row in rows) > 0
    assert result.summary["quarantines"] == 0
    assert all(math.isfinite(row["critic_loss"]) for row in rows)


# ------------------------------------------------------------------------------------------------------------ evaluation


def still(obs):
    return np.zeros(1, np.float32)


def test_an_episode_that_fails_is_played_again_on_its_own_seed():
    Planned.start()
    whole = evaluate.by_episodes(Environment("probe_envs:Planned-v0"), still, [4, 5])
    Planned.start(step={2, 5, 9}, make={3}, reset={4})
    retried = evaluate.by_episodes(Environment("probe_envs:Planned-v0"), still, [4, 5])
    assert (retried.returns, retried.lengths) == (whole.returns, whole.lengths)
    assert (whole.faults, retried.faults) == (0, 4)


def test_by_steps_drops_an_episode_that_fails():
    Planned.start(step={2, 5})
    environment = Environment("probe_envs:Planned-v0")
    result = evaluate.by_steps(environment, still, 9, seed=0)
    assert (result.lengths, result.faults) == ([3, 3, 3], 2)
    assert len(set(result.returns)) == 3


@pytest.mark.parametrize("play", [lambda e: evaluate.by_episodes(e, still, [0]), lambda e: evaluate.by_steps(e, still, 9, 0)])
def test_an_evaluation_that_keeps_failing_says_so(play):
    with pytest.raises(RunStopped, match="failed 11 times, the last time in step: ValueError: the joint"):
        play(Environment("probe_envs:Raises-v0"))


def test_faults_in_evaluation_count_and_quarantine_that_member_alone():
    stepped = begin("probe_envs:Noisy-v0", mix={"adam": 2}, max_faults=2)
    reports = stepped.roll_out()
    stepped.host.environment = Environment("probe_envs:Planned-v0")
    # Two faults of the first member, three of the second: three steps per attempt, unless one fails.
    Planned.start(step={1, 5, 11, 12, 13})
    outcomes = stepped.evaluate(reports)
    first, second = stepped.state.members
    assert [len(member.faults) for member in stepped.state.members] == [2, 3]
    assert {fault.during for member in stepped.state.members for fault in member.faults} == {"evaluation"}
    assert (first.quarantined, len(outcomes[0].evaluation.returns)) == (None, 2)
    assert "step 13 of the plan" in second.quarantined
    assert math.isnan(second.fitness)
    assert stepped.state.best.slot == 0
    stepped.close()


def test_what_an_environment_remembers_does_not_reach_the_next_members_fitness():
    stepped = begin("probe_envs:Remembers-v0", mix={"adam": 2}, carry_episodes="never")
    seen = []
    reports = stepped.roll_out()
    reset = stepped.host.environment.reset
    stepped.host.environment.reset = lambda seed: seen.append(float((obs := reset(seed))[0])) or obs
    stepped.evaluate(reports)
    assert seen[:2] == seen[2:] == [1.0, 5.0]
    # Nor does one interval's training reach the next one's.
    stepped.roll_out()
    rows = held(stepped.members[0])
    assert rows[0, 0] == rows[40, 0] == 1.0
    stepped.close()


# ------------------------------------------------------------------------------------------------------------ whole runs


def test_a_faulty_run_ends_and_its_folder_tells_all(tmp_path):
    Planned.start(step={5, 150})
    progress = []
    run = evolute.Run("probe_envs:Planned-v0", mix={"adam": 2}, **(TINY | {"steps": 80}))
    result = evolute.train(run, tmp_path / "run", progress.append)
    events = [json.loads(line) for line in (tmp_path / "run" / "events.jsonl").read_text().splitlines()]
    metrics = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    names = [event["event"] for event in events]
    # Step 5 was the fingerprint's; the other one hits a member.
    assert names.count("environment_fault") == sum(row["environment_faults"] for row in metrics) == 1
    assert all(row["quarantined"] is None for row in metrics)
    assert [event["event"] for event in result.lineage] == ["exploit"] * names.count("exploit")
    assert result.summary["exploits"] == len(result.lineage) == 1
    assert result.summary["quarantines"] == 0
    text = io.StringIO()
    show = PlainLines(Console(file=text, width=200), Doing())
    for p in progress:
        show(p)
    assert "failed in training, in step: RuntimeError: step 150 of the plan" in text.getvalue()
    assert "environment_faults=1" in text.getvalue()


@pytest.mark.parametrize("name", ["Raises", "NaNObservation", "RaisesInReset"])
def test_a_run_whose_members_are_all_in_quarantine_stops_before_a_checkpoint(name, tmp_path):
    run = evolute.Run(f"probe_envs:{name}-v0", mix={"adam": 2}, **TINY)
    progress = []
    with pytest.raises(RunStopped) as stop:
        evolute.train(run, tmp_path / "run", progress.append)
    said = str(stop.value)
    assert said.startswith("every member is in quarantine, so nobody is left to copy (member")
    assert "fix the environment or raise max_faults in " in said
    assert "learning rates" not in said
    assert "\n" not in said
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    events = [json.loads(line) for line in (tmp_path / "run" / "events.jsonl").read_text().splitlines()]
    assert [row["member"] for row in rows if row["quarantined"]] == [0, 1]
    assert [event["member"] for event in events if event["event"] == "quarantine"] == [0, 1]
    assert not list((tmp_path / "run").glob(f"{FOLDER}/*.json"))
    assert progress[-1].rows[0]["quarantined"]


def test_a_single_member_that_diverges_stops_the_run_with_advice():
    settings = TINY | {"optimizers": {"sgd": {"learning_rate": 1e30}}}
    with pytest.raises(RunStopped, match=r"member 0: .*lower the learning rates or raise the dampings"):
        evolute.train(evolute.Run("probe_envs:Noisy-v0", mix={"sgd": 1}, **settings))


def test_on_faults_stop_stops_at_once_and_records_why(tmp_path):
    run = evolute.Run("probe_envs:Raises-v0", mix={"adam": 2}, max_faults=1, on_faults="stop", **TINY)
    with pytest.raises(RunStopped) as stop:
        evolute.train(run, tmp_path / "run")
    assert "member 0 cannot go on: its environment failed 2 times" in str(stop.value)
    assert "ValueError: the joint" in str(stop.value)
    events = [json.loads(line) for line in (tmp_path / "run" / "events.jsonl").read_text().splitlines()]
    assert [(event["event"], event["member"], event["interval"]) for event in events if event["member"] == 0] == [
        ("environment_fault", 0, 1),
        ("environment_fault", 0, 1),
        ("quarantine", 0, 1),
    ]


def test_a_final_evaluation_that_fails_stops_with_the_environments_words():
    stepped = begin("probe_envs:Noisy-v0", mix={"adam": 1}, max_faults=1)
    stepped.interval()
    stepped.host.environment = Environment("probe_envs:Raises-v0")
    with pytest.raises(RunStopped, match="failed 2 times, the last time in step: ValueError: the joint"):
        engine.finish(stepped.state, stepped.crew, None, 0.0)
    stepped.close()


def test_a_time_limit_changes_no_number():
    settings = TINY | {"steps": 80, "mix": {"adam": 1}}
    one = evolute.train(evolute.Run("InvertedPendulum-v4", **settings))
    other = evolute.train(evolute.Run("InvertedPendulum-v4", **settings, time_limit=30.0))
    assert same(one.policy.weights, other.policy.weights)
    assert one.evaluation == other.evaluation


def test_a_member_whose_environment_hangs_is_quarantined():
    stepped = begin("probe_envs:Noisy-v0", mix={"adam": 2}, max_faults=0)
    stepped.members[1].environment = Environment("probe_envs:Spins-v0", time_limit=0.5)
    rows, events = stepped.interval()
    assert [row["quarantined"] is not None for row in rows] == [False, True]
    assert "did not return within 0.5 seconds" in events[0]["message"]
    stepped.close()


def test_the_command_line_says_in_one_sentence_why_an_environment_cannot_be_evaluated(tmp_path, capsys):
    evolute.train(evolute.Run("probe_envs:Noisy-v0", mix={"adam": 1}, **(TINY | {"steps": 40})), tmp_path / "run")
    path = tmp_path / "run" / "best" / "policy.json"
    path.write_text(path.read_text().replace("probe_envs:Noisy-v0", "probe_envs:Raises-v0"))
    with pytest.raises(SystemExit) as end:
        cli.main(["evaluate", str(tmp_path / "run"), "--episodes", "2", "--allow-import", "probe_envs"])
    assert end.value.code == 2
    said = capsys.readouterr().err
    assert "ValueError: the joint" in said
    assert len(said.splitlines()) == 1


def test_a_curve_shows_where_a_member_was_in_quarantine():
    rows = [{"member": 0, "kind": "adam", "fitness": fitness} for fitness in (1.0, None, 2.0)]
    text = io.StringIO()
    Console(file=text, width=100).print(curves_table(rows))
    assert "▁!█" in text.getvalue()


def test_a_stop_names_every_reason_and_every_cure():
    stepped = begin("probe_envs:Noisy-v0", mix={"adam": 3})
    for slot, reason in enumerate(("it diverged", "its environment failed", "it diverged")):
        stepped.state.members[slot].quarantined = reason
    stepped.state.members[1].faults = [None] * 11
    assert rows.nobody_left(stepped.state) == (
        "every member is in quarantine, so nobody is left to copy (members 0, 2: it diverged; member 1: its environment failed); "
        "lower the learning rates or raise the dampings, and fix the environment or raise max_faults."
    )
    stepped.close()


@pytest.mark.parametrize(
    ("option", "value", "rule"),
    [
        ("time_limit", -1.0, "a number of seconds not below 0"),
        ("time_limit", math.inf, "at most 86400"),
        ("max_faults", -1, "a number of failures not below 0"),
        ("on_faults", "ignore", "'quarantine' or 'stop'"),
    ],
)
def test_options_of_faults_are_checked(option, value, rule):
    with pytest.raises(UserError) as mistake:
        evolute.Run("HalfCheetah-v4", **{option: value})
    assert f"{option} is {value!r}; it must be" in str(mistake.value)
    assert rule in str(mistake.value)


def test_a_fault_can_be_pickled_and_is_one_line():
    import pickle

    fault = EnvironmentFault("step", "two\nlines\x1b")
    again = pickle.loads(pickle.dumps(fault))
    assert (again.call, again.message, str(again)) == ("step", "two lines\\x1b", "in step: two lines\\x1b")
