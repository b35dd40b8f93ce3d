"""Replay of a schedule: one member goes through the ancestry of a run's winner, and is resumed like any run."""

import dataclasses
import hashlib
import json
import os
import random
import shutil
import signal

import jax
import numpy as np
import pytest

import recorded
import test_any_settings
from evolute import Run, resume, toml, train
from evolute.commands import cli
from evolute.engine import train_seeds
from evolute.errors import UserError
from evolute.report.replaying import replay_of
from evolute.runs.folder import RunFolder
from evolute.training import processes, rollout
from evolute.training.host import Host
from faults import differences
from test_workers import workers

SIZES = {
    **{"steps": 240, "interval": 30, "learning_starts": 20, "batch_size": 16, "buffer_size": 500, "episodes": 1},
    **{"final_episodes": 1, "actor_layers": (4,), "critic_layers": (4,), "truncation": 0.5},
}


def small(mix, **more):
    return Run("InvertedPendulum-v4", mix=mix, **{**SIZES, **more})


# Of this seed the winner has six exploits on its line, from each kind to another and to its own.
RUN = small({"adam": 2, "sgd": 1, "sac:adam": 1}, seed=13)


def silent(_sentence):
    pass


def rows_of(path):
    return [{name: value for name, value in row.items() if name != "seconds"} for row in RunFolder.open(path).metrics()]


@pytest.fixture(scope="module")
def population(tmp_path_factory):
    """A run with many exploits; fitness is drawn, selection and exploration are the strategy's own."""
    with pytest.MonkeyPatch.context() as patch:
        # No kind wins every time.
        patch.setattr(recorded, "SPEED", {})
        return recorded.record(tmp_path_factory.mktemp("population") / "run", RUN, trouble=False)


@pytest.fixture(scope="module")
def replayed(population, tmp_path_factory):
    run, winner = replay_of(population)
    folder = tmp_path_factory.mktemp("replayed") / "run"
    train(dataclasses.replace(run, seed=7), folder, note=silent)
    return folder, run, winner


def ancestors(path):
    """The winner's rows from the start, by copying every member's past forwards."""
    folder = RunFolder.open(path)
    metrics, events = folder.metrics(), folder.events()
    pasts, best = {slot: [] for slot in {row["member"] for row in metrics}}, None
    for interval in sorted({row["interval"] for row in metrics}):
        for row in metrics:
            if row["interval"] == interval:
                pasts[row["member"]] = [*pasts[row["member"]], row]
                if best is None or row["fitness"] > best[-1]["fitness"]:
                    best = pasts[row["member"]]
        before = dict(pasts)
        for event in events:
            if event["event"] == "exploit" and event["interval"] == interval:
                pasts[event["member"]] = before[event["parent"]]
    return best


def test_a_replay_follows_the_rows_of_the_winners_ancestors_across_kinds(population, replayed):
    folder, run, winner = replayed
    line = ancestors(population)
    assert {row["kind"] for row in line} == set(RUN.mix)
    rows = rows_of(folder)
    assert [(row["kind"], row["hyperparameters"], row["steps"]) for row in rows] == [
        (row["kind"], row["hyperparameters"], row["steps"]) for row in line
    ]
    assert {row["member"] for row in rows} == {0}
    assert (winner.fitness, winner.steps, run.steps) == (line[-1]["fitness"], line[-1]["steps"], line[-1]["steps"])
    changes = [event for event in RunFolder.open(folder).events() if event["event"] == "schedule"]
    assert len(changes) == winner.exploits > 1
    for event in changes:
        before, after = rows[event["interval"] - 1], rows[event["interval"]]
        assert (event["old_kind"], event["member_kind"]) == (before["kind"], after["kind"])
        assert event["optimizer_state"] == ("copied" if before["kind"] == after["kind"] else "new")
    # The one member learns on: its updates are counted through, whatever its kind.
    assert [row["gradient_steps"] for row in rows] == [30 * n - 20 for n in range(1, len(rows) + 1)]


def test_what_changes_kind_is_what_a_member_of_that_kind_would_copy():
    """Against a population in which the same parcel is taken by a slot of the other kind."""
    both = small({"adam": 1, "sgd": 1})
    one = small({"adam": 1, "sgd": 1}, strategy="replay", schedule={"0": {"kind": "adam"}, "1": {"kind": "sgd"}})
    pair, single = Host([both], [0, 1]), Host([one], [0])
    parcel = pair.give(0)
    pair.take(1, parcel, True, 1)
    single.become(0, "sgd")
    single.take(0, parcel, True, 1)
    expected, found = pair.give(1), single.give(0)
    assert (found.kind, found.needs_burn_in) == ("sgd", expected.needs_burn_in)
    assert jax.tree.structure(found.learner) == jax.tree.structure(expected.learner)
    assert all(map(np.array_equal, jax.tree.leaves(found.learner), jax.tree.leaves(expected.learner)))
    pair.close()
    single.close()


@pytest.mark.parametrize("mix", [{"adam": 2}, {"sgd": 1}])
def test_a_winner_that_was_never_replaced_is_trained_like_any_agent(tmp_path, mix):
    (kind,) = mix
    train(small(mix, steps=90, strategy="none"), tmp_path / "population", note=silent)
    run, winner = replay_of(tmp_path / "population")
    assert (list(run.schedule), winner.exploits) == (["0"], 0)
    train(dataclasses.replace(run, seed=5), tmp_path / "replay", note=silent)
    train(small({kind: 1}, steps=run.steps, seed=5), tmp_path / "agent", note=silent)
    assert rows_of(tmp_path / "replay") == rows_of(tmp_path / "agent")
    one, other = (tmp_path / name / "best" / "policy.safetensors" for name in ("replay", "agent"))
    assert one.read_bytes() == other.read_bytes()


class Stop(Exception):
    pass


@pytest.mark.parametrize("after", [1, 3, 4, 5])
def test_a_stopped_replay_goes_on_bit_by_bit(tmp_path, replayed, after, monkeypatch):
    whole, run, _ = replayed
    monkeypatch.setattr(rollout, "PROGRESS_PERIOD", 0.0)
    if after * 30 >= run.steps:
        pytest.skip("it has ended by then")

    def stop(progress):
        # In the middle of an interval, whatever its kind.
        if progress.steps > after * 30:
            raise Stop

    with pytest.raises(Stop):
        train(dataclasses.replace(run, seed=7), tmp_path / "run", observer=stop, note=silent)
    resume(tmp_path / "run", note=silent)
    assert differences(tmp_path / "run", whole) == []


@pytest.mark.slow
# Those of which a population has several kinds.
@pytest.mark.parametrize("number", [0, 6, 7, 10, 11])
def test_the_winner_of_any_population_is_replayed_and_resumed(tmp_path, number, monkeypatch):
    """With every setting drawn by itself; the population's fitness is drawn, too."""
    rng = random.Random(number)
    population = test_any_settings.drawn(rng)
    monkeypatch.setattr(recorded, "SPEED", {})
    recorded.record(tmp_path / "population", population, trouble=False)
    run, _ = replay_of(tmp_path / "population")
    run = dataclasses.replace(run, seed=7)
    train(run, tmp_path / "whole", note=silent)
    line = ancestors(tmp_path / "population")
    assert [(row["kind"], row["hyperparameters"]) for row in rows_of(tmp_path / "whole")] == [
        (row["kind"], row["hyperparameters"]) for row in line
    ]
    last = rng.randint(1, len(line))

    def stop(progress):
        if progress.rows and progress.state.interval == last:
            raise Stop

    with pytest.raises(Stop):
        train(run, tmp_path / "resumed", observer=stop, note=silent)
    resume(tmp_path / "resumed", note=silent)
    assert differences(tmp_path / "resumed", tmp_path / "whole") == []


def test_replays_of_two_seeds_in_two_processes_of_which_one_is_killed_are_the_same(tmp_path, replayed, monkeypatch):
    whole, run, _ = replayed
    killed = []
    monkeypatch.setattr(processes, "PROGRESS_PERIOD", 0.001)

    def kill(progress):
        # After a change of kind, before a checkpoint.
        if progress.steps > 4 * 30 and not killed:
            killed.append(workers()[0].pid)
            os.kill(killed[0], signal.SIGKILL)

    train_seeds(
        dataclasses.replace(run, checkpoint_every=100), [7, 8], [tmp_path / "7", tmp_path / "8"], kill, note=silent, workers=2
    )
    assert len(killed) == 1
    assert rows_of(tmp_path / "7") == rows_of(whole)
    assert rows_of(tmp_path / "8") != rows_of(whole)


def test_the_command_puts_replays_beside_the_population(capsys, population, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as end:
        cli.main(["replay", str(population), "--seeds", "7", "8", "--out", "replays"])
    out, err = capsys.readouterr()
    assert (end.value.code, err) == (0, "")
    assert f"The winner of {population}: the best policy is member " in out
    assert "The schedule with and without the population" in out
    assert "; its line of ancestors has 6 copies." in out
    assert "replay, seed 7" in out
    assert "replay, seed 8" in out
    assert "(standard error over 2 seeds)" in out
    assert "follows its schedule: " in out
    assert RunFolder.open(tmp_path / "replays" / "seed-7").run().strategy == "replay"


@pytest.mark.parametrize("kind", ["kfac", "nonsense", None, 3])
def test_a_checkpoint_of_another_kind_than_the_schedule_says_is_refused(tmp_path, replayed, kind):
    copy = shutil.copytree(replayed[0], tmp_path / "run")
    for path in (copy / "checkpoints").glob("*.json"):
        manifest = json.loads(path.read_bytes().partition(b"\n")[2])
        assert manifest["members"][0].pop("kind") in replayed[1].mix
        manifest["members"][0] |= {} if kind is None else {"kind": kind}
        body = json.dumps(manifest).encode()
        path.write_bytes(hashlib.sha256(body).hexdigest().encode() + b"\n" + body)
    with pytest.raises(UserError, match=f"is of the kind {kind!r}, where the schedule says '"):
        resume(copy, steps=replayed[1].steps + 30, note=silent)


REFUSED = [
    ({"strategy": "replay"}, "strategy is 'replay' and schedule is empty"),
    ({"schedule": {"0": {"kind": "adam"}}}, "strategy is 'pbt' and schedule is given"),
    ({"strategy": "replay", "schedule": {"1": {"kind": "adam"}}}, "has no entry for interval 0"),
    ({"strategy": "replay", "schedule": {"0": {"kind": "adam"}, "00": {}}}, "or one twice"),
    ({"strategy": "replay", "schedule": {"first": {"kind": "adam"}}}, "an entry 'first'; it must be the number"),
    ({"strategy": "replay", "schedule": {"0": {"kind": "kfac"}}}, "'kfac', which is not in the mix"),
    ({"strategy": "replay", "schedule": {"0": {"kind": ["adam"]}}}, "['adam'], which is not in the mix"),
    ({"strategy": "replay", "schedule": {"0": "adam"}}, "schedule.0 is 'adam'; it must be a table"),
    ({"strategy": "replay", "schedule": {"0": {"kind": "adam", "taw": 1}}}, "no setting 'taw' (did you mean 'tau'?)"),
    ({"strategy": "replay", "schedule": {"0": {"kind": "adam", "tau": 2}}}, "schedule.0.tau is 2.0; it must be above 0"),
    ({"strategy": "replay", "schedule": {"0": {"kind": "adam", "batch_size": 501}}}, "must fit into the buffer of 500"),
    ({"strategy": "replay", "schedule": {"0": {"kind": "adam"}}, "mix": {"adam": 2}}, "trains one member"),
    (
        {"strategy": "replay", "schedule": {"0": {"kind": "adam"}}, "steps_per_interval": {"adam": 2}},
        "the schedule takes 16 steps, not more than the 20 of learning_starts",
    ),
    ({"strategy": "replay", "schedule": {"0": {"kind": "adam"}}, "mix": {"adam": 1, "sgd": 1}}, "trains one member"),
]


@pytest.mark.parametrize(("given", "said"), REFUSED, ids=[said for _, said in REFUSED])
def test_what_is_no_schedule_is_one_sentence(given, said):
    with pytest.raises(UserError) as mistake:
        Run("InvertedPendulum-v4", **{**SIZES, "mix": {"adam": 1}, **given})
    assert said in str(mistake.value)


def test_a_schedule_may_leave_out_what_stays():
    run = Run(
        "InvertedPendulum-v4",
        mix={"adam": 1, "kfac": 1},
        strategy="replay",
        schedule={
            "0": {"kind": "adam"},
            "3": {"actor_learning_rate": 0.5},
            "7": {"kind": "kfac", "batch_size": 64},
        },
    )
    assert [run.schedule[at]["actor_learning_rate"] for at in ("0", "3")] == [0.001, 0.5]
    assert run.schedule["3"]["critic_learning_rate"] == 0.001
    assert run.schedule["7"]["actor_learning_rate"] == run.initial_hyperparameters("kfac").actor_learning_rate
    assert run.schedule["7"]["batch_size"] == 64
    assert Run(**vars(run)) == run
    assert run.kinds == ["adam"]
    assert Run(**toml.parse(toml.to_toml(run), "itself")) == run
    # What other runs are called by their settings stays.
    assert "schedule" not in toml.to_toml(RUN)


def test_records_that_do_not_hold_a_schedule_are_told(tmp_path, population, replayed):
    copy = shutil.copytree(population, tmp_path / "run")
    lines = (copy / "metrics.jsonl").read_text().splitlines()
    (copy / "metrics.jsonl").write_text("")
    with pytest.raises(UserError, match=r"no interval of the run in .* has ended"):
        replay_of(copy)
    winner = max((json.loads(line) for line in lines), key=lambda row: row["fitness"])
    kept = [line for line in lines if json.loads(line)["interval"] != winner["interval"] - 1]
    (copy / "metrics.jsonl").write_text("\n".join([*kept, ""]))
    with pytest.raises(UserError, match=r"are missing in .*restore metrics\.jsonl from a copy"):
        replay_of(copy)
    first = [json.loads(line) for line in lines if json.loads(line)["interval"] == 1]
    (copy / "metrics.jsonl").write_text("".join(json.dumps(row | {"steps": 20}) + "\n" for row in first))
    with pytest.raises(UserError, match="was found after 20 steps, before anything was learnt"):
        replay_of(copy)
    with pytest.raises(UserError, match="is a replay itself; name the run that it replays"):
        replay_of(replayed[0])
