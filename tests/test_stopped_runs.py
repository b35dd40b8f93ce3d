"""What a resume makes of a folder that somebody changed, and of a run in which nobody was left."""

import contextlib
import copy
import dataclasses
import errno
import hashlib
import json
import math
import os
import shutil

import pytest

import evolute
from evolute import Run, RunStopped, UserError, engine, resume, resumption, toml, train
from evolute.commands import cli
from evolute.runs import checkpoint
from evolute.runs.folder import RunFolder
from evolute.runs.restore import restore
from faults import differences

# One small agent: most of what follows ends before it trains.
RUN = Run(
    "probe_envs:Noisy-v0",
    mix={"sgd": 1},
    steps=60,
    interval=20,
    learning_starts=10,
    actor_layers=(4,),
    critic_layers=(4,),
    batch_size=8,
    buffer_size=64,
    episodes=1,
    final_episodes=1,
)


class Stop(Exception):
    """Stands for whatever ends a process."""


def quiet(_):
    pass


def go_on(run, **more):
    return resume(run, note=quiet, allow_import="probe_envs", **more)


def stopped(run, out, intervals):
    def observe(progress):
        if progress.rows and progress.state.interval == intervals:
            raise Stop

    with pytest.raises(Stop):
        train(run, out, observe)
    return out


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole") / "run"
    train(RUN, folder)
    return folder


@pytest.fixture(scope="module")
def half(tmp_path_factory):
    return stopped(RUN, tmp_path_factory.mktemp("half") / "run", 2)


@pytest.fixture
def run(tmp_path, half):
    return shutil.copytree(half, tmp_path / "run")


def manifest(run, interval=2):
    return json.loads((run / "checkpoints" / f"{interval:06}.json").read_bytes().partition(b"\n")[2])


def sign(run, changed, interval=2):
    body = json.dumps(changed).encode()
    signed = hashlib.sha256(body).hexdigest().encode() + b"\n" + body
    (run / "checkpoints" / f"{interval:06}.json").write_bytes(signed)


def files_of(run):
    return {path: path.read_bytes() for path in run.rglob("*") if path.is_file() and path.name != "lock"}


def refused(run, said, **more):
    """A resume is refused in one sentence and changes nothing."""
    before = files_of(run)
    with pytest.raises(UserError, match=said) as mistake:
        go_on(run, **more)
    assert "delete" not in str(mistake.value)
    assert files_of(run) == before


# ------------------------------------------------------------------------------------------------------ other versions


def test_a_checkpoint_of_another_format_names_the_version_that_wrote_it(run):
    made = manifest(run)
    made["circumstances"]["versions"]["evolute"] = "9.8.7"
    for form in ("evolute checkpoint 1", "evolute checkpoint 99"):
        sign(run, {**made, "format": form})
        refused(run, rf"was written by evolute 9\.8\.7 as '{form}', and this is evolute .*; resume it with the version")
        refused(run, "was written by evolute", allow_version_change=True)
        # Also where nothing else of its form is known.
        sign(run, {"format": form})
        refused(run, "was written by another version of evolute")


@pytest.mark.parametrize("more", [True, False])
def test_a_checkpoint_with_another_hyperparameter_is_another_versions_and_can_be_allowed(run, more):
    made = manifest(run)
    for member in made["members"]:
        if more:
            member["hyperparameters"]["entropy"] = 0.5
        else:
            del member["hyperparameters"]["target_noise"]
    sign(run, made)
    refused(run, r"trained under other circumstances: hyperparameters was .*--allow-version-change")
    result = go_on(run, allow_version_change=True)
    assert result.leaderboard[0]["hyperparameters"] == RUN.initial_hyperparameters("sgd")._asdict()
    [resumed] = RunFolder.open(run).metadata()["resumed"]
    old, new = resumed["changes"]["hyperparameters"]
    assert set(old.split()) ^ set(new.split()) == {"entropy" if more else "target_noise"}


def test_a_checkpoint_with_a_setting_of_another_version_names_that_version(run):
    made = manifest(run)
    made["circumstances"]["versions"]["evolute"] = "9.8.7"
    sign(run, {**made, "config": "entropy = 0.5\n" + made["config"]})
    refused(run, r"unknown key 'entropy' in the checkpoint.*written by evolute 9\.8\.7")


# -------------------------------------------------------------------------------------------------- values at the edge

EDGES = (0, -1, 2**31 - 1, 2**31, 2**53, 1e308, math.nan, math.inf, True, None, "text")


def numbers_in(value, path=()):
    """Yield the places of all numbers in a JSON value."""
    if isinstance(value, dict | list):
        for key, item in value.items() if isinstance(value, dict) else enumerate(value):
            yield from numbers_in(item, (*path, key))
    elif isinstance(value, int | float) and not isinstance(value, bool):
        yield path


def test_whatever_a_number_in_a_manifest_is_the_run_goes_on_or_is_refused(run, monkeypatch):
    """Every number of it is given every value; what is accepted trains an interval."""
    sound = manifest(run)
    # Nothing older to go on from, and a state for all.
    (run / "checkpoints" / "000001.json").unlink()
    [state], crew = engine.start([RUN])
    outcomes = {"refused": 0, "trained": 0}
    for path in numbers_in(sound):
        for value in EDGES:
            changed = copy.deepcopy(sound)
            inner = changed
            for key in path[:-1]:
                inner = inner[key]
            inner[path[-1]] = value
            sign(run, changed)
            try:
                found, _ = checkpoint.newest(run)
                assert found.manifest["steps"] == 40 or path == ("steps",)
                resumption.where_to_go_on(RunFolder.open(run), None, [])
                restore(run, found, state, crew)
            except UserError:
                outcomes["refused"] += 1
                continue
            # A count that is a number of steps must be the true one.
            assert path[-1] not in ("interval", "environment_steps", "updates", "bytes", "rows") or path[0] == "best"
            state.best = None if state.best is None else state.best._replace(fitness=min(state.best.fitness, 1e6))
            # Such as: nobody is left with a learning rate of 2^31.
            with contextlib.suppress(RunStopped):
                engine.go_on([state], crew, [None], None)
            outcomes["trained"] += 1
    engine.close(crew)
    assert min(outcomes.values()) > 10


PLACES = ("config.toml", "metadata.json", "metrics.jsonl", "events.jsonl", "lock", "result.json", ".metrics.jsonl.partial")


@pytest.mark.parametrize("name", [*PLACES, "checkpoints/000002.json", "replay/000001-000.safetensors", "best/policy.json"])
def test_a_folder_in_place_of_a_file_is_refused_by_every_command(run, capsys, name):
    (run / name).unlink(missing_ok=True)
    (run / name).mkdir()
    before = files_of(run)
    for command, *more in (("resume", "--allow-import", "probe_envs"), ("show",), ("evaluate", "--allow-import", "probe_envs")):
        with pytest.raises(SystemExit) as end:
            cli.main([command, str(run), *more])
        said = capsys.readouterr().err
        assert end.value.code == 2
        assert f"{str(run / name)!r} is a folder where a run keeps a file; move it away." in said
    assert files_of(run) == before


@pytest.mark.parametrize("name", ["best", "checkpoints", "replay"])
def test_a_file_in_place_of_a_folder_is_refused(run, name):
    shutil.rmtree(run / name)
    (run / name).write_text("")
    with pytest.raises(UserError, match="is a file where a run keeps a folder"):
        go_on(run)


def test_a_folder_of_the_users_own_does_no_harm(run, whole):
    (run / "plots").mkdir()
    (run / "checkpoints" / "notes").mkdir()
    go_on(run)
    shutil.rmtree(run / "checkpoints" / "notes")
    assert differences(run, whole) == []


def test_a_checkpoint_that_may_not_be_read_is_not_damaged(run, monkeypatch):
    def refuse(path, most):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))

    monkeypatch.setattr(checkpoint, "read_at_most", refuse)
    refused(run, r"000002\.json' cannot be read: Permission denied; fix that first")


# ----------------------------------------------------------------------------------------------------- changed settings


@pytest.mark.parametrize("steps", [25, 40, 59, 61, 80, 2 * 10**9])
@pytest.mark.parametrize("ended", [True, False])
def test_steps_that_were_edited_are_refused_and_nothing_is_touched(tmp_path, half, whole, steps, ended):
    run = shutil.copytree(whole if ended else half, tmp_path / "edited")
    path = run / "config.toml"
    path.write_text(path.read_text().replace("steps = 60", f"steps = {steps}"))
    refused(run, rf"was changed since the run was checkpointed \(steps was 60 and is {steps}\); restore it \(use --steps to make")


def test_a_resume_to_a_new_length_that_was_killed_goes_on_to_that_length(tmp_path, half):
    train(dataclasses.replace(RUN, steps=100), tmp_path / "whole")

    def killed(*_):
        raise Stop

    for place in ("forget_result", "restore_records"):
        run = shutil.copytree(half, tmp_path / place)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(RunFolder, place, killed)
            with pytest.raises(Stop):
                go_on(run, steps=100)
        go_on(run)
        assert differences(run, tmp_path / "whole") == []


def test_a_longer_run_whose_only_whole_interval_is_damaged_is_refused(tmp_path):
    run = tmp_path / "run"
    train(dataclasses.replace(RUN, steps=50), run)
    # The newest one, after 50 steps, is whole, but no part of a run of 100.
    (run / "checkpoints" / "000002.json").write_bytes(b"{}")
    refused(run, r"000002\.json is damaged.*there is no older one", steps=100)


def test_that_an_interval_is_trained_again_in_full_is_said(tmp_path):
    run, notes = tmp_path / "run", []
    train(dataclasses.replace(RUN, steps=50), run)
    resume(run, steps=60, note=notes.append, allow_import="probe_envs")
    assert notes == [
        "the last interval was cut short after 50 steps; it is trained again, in full.",
        "going on after 40 of 60 steps.",
    ]


# --------------------------------------------------------------------------------------------------------- nobody left


def test_after_nobody_was_left_the_named_settings_may_change_and_the_run_ends(tmp_path, half):
    hopeless = dataclasses.replace(RUN, optimizers={"sgd": {"learning_rate": 1e30}})
    run = tmp_path / "run"
    with pytest.raises(RunStopped, match=r"lower the learning rates or raise the dampings in '.*config\.toml'"):
        train(dataclasses.replace(hopeless, learning_starts=25), run)
    assert [path.name for path in checkpoint.manifests(run)] == ["000001.json"]
    # The same would happen again.
    refused(run, r"stopped in interval 2 because every member was in quarantine, and would do so again; lower")
    # Nothing else may change.
    path = run / "config.toml"
    sound = path.read_text()
    path.write_text(sound.replace("tau = 0.005", "tau = 0.006"))
    refused(run, r"tau was 0\.005 and is 0\.006.*learning_rate, damping, clip, bounds, max_faults")
    path.write_text(sound.replace("learning_rate = 1e+30", "learning_rate = 0.001"))

    def killed(*_):
        raise Stop

    again = shutil.copytree(run, tmp_path / "again")
    with pytest.MonkeyPatch.context() as patch:
        # The records, which tell of the stop, are back by then.
        patch.setattr(RunFolder, "append_events", killed)
        with pytest.raises(Stop):
            go_on(again)
    for folder in (run, again):
        result = go_on(folder)
        assert result.leaderboard[0]["hyperparameters"]["critic_learning_rate"] == 0.001
        resumed = RunFolder.open(folder).metadata()["resumed"][-1]
        assert resumed["changes"]["optimizers.sgd.critic.learning_rate"] == [1e30, 0.001]
        [event] = [event for event in RunFolder.open(folder).events() if event["event"] == "settings_changed"]
        assert event["interval"] == 1
        assert event["settings"]["optimizers.sgd.actor.learning_rate"] == [1e30, 0.001]
        assert Run(**toml.read(folder / "config.toml")) == Run(**toml.parse(manifest(folder, 3)["config"], "it"))
    assert differences(run, again) == []


def test_a_run_that_stopped_in_its_first_interval_begins_anew_with_other_settings(tmp_path):
    run = tmp_path / "run"
    with pytest.raises(RunStopped, match="nobody is left"):
        train(dataclasses.replace(RUN, optimizers={"sgd": {"learning_rate": 1e30}}), run)
    refused(run, "would do so again")
    path = run / "config.toml"
    path.write_text(path.read_text().replace("learning_rate = 1e+30", "learning_rate = 0.001"))
    train(dataclasses.replace(RUN, optimizers={"sgd": {"learning_rate": 0.001}}), tmp_path / "sound")
    go_on(run)
    assert differences(run, tmp_path / "sound") == []


def test_an_environment_that_failed_may_work_again(tmp_path, monkeypatch):
    from probe_envs import Planned

    run = tmp_path / "run"
    Planned.start(step=set(range(205, 300)))
    with pytest.raises(RunStopped, match="fix the environment or raise max_faults"):
        train(dataclasses.replace(RUN, env="probe_envs:Planned-v0", max_faults=1), run)
    Planned.start()
    assert go_on(run).summary["quarantines"] == 0


# -------------------------------------------------------------------------------------------------- while a run trains


def at_interval(number, act):
    def observe(progress):
        if progress.rows and progress.state.interval == number:
            act()

    return observe


@pytest.mark.parametrize("how", ["renamed", "removed"])
def test_a_run_whose_folder_goes_away_stops_and_makes_no_new_one(tmp_path, how, whole):
    run = tmp_path / "run"

    def act():
        shutil.rmtree(run) if how == "removed" else run.rename(tmp_path / "moved")

    with pytest.raises(RunStopped, match="was removed or renamed while the run trained"):
        train(RUN, run, at_interval(1, act))
    assert not run.exists()
    if how == "renamed":
        (tmp_path / "moved").rename(run)
        go_on(run)
        assert differences(run, whole) == []


@pytest.mark.parametrize("what", ["replay", "replay/000001-000.safetensors"])
def test_a_checkpoint_whose_replay_is_gone_is_not_written(tmp_path, what):
    run = tmp_path / "run"

    def act():
        shutil.rmtree(run / what) if (run / what).is_dir() else (run / what).unlink()

    with pytest.raises(RunStopped, match=r"000001-000\.safetensors', which this run wrote and goes on to need, cannot be found"):
        train(RUN, run, at_interval(1, act))
    assert [path.name for path in checkpoint.manifests(run)] == ["000001.json"]


def test_a_best_policy_that_is_removed_is_written_again(tmp_path, whole):
    run = tmp_path / "run"
    train(RUN, run, at_interval(2, lambda: shutil.rmtree(run / "best")))
    assert differences(run, whole) == []


def test_a_foreign_manifest_takes_no_place_from_a_checkpoint(run, whole):
    copied = run / "checkpoints" / "999999.json"
    shutil.copy(run / "checkpoints" / "000002.json", copied)
    (run / "checkpoints" / "notes.json").write_text("{}")
    go_on(run)
    assert [path.name for path in checkpoint.manifests(run)] == ["000002.json", "000003.json", "999999.json"]
    copied.unlink()
    (run / "checkpoints" / "notes.json").unlink()
    assert differences(run, whole) == []


# ---------------------------------------------------------------------------------------------------------- hard links


@pytest.mark.parametrize("name", ["lock", ".metrics.jsonl.partial", "metrics.jsonl", "best/policy.json", "replay/x.partial"])
def test_a_hard_link_is_refused_before_anything_is_opened_for_writing(tmp_path, run, name, capsys):
    victim = tmp_path / "thesis.tex"
    victim.write_bytes((run / name).read_bytes() if (run / name).exists() and name != "lock" else b"years of work")
    before = victim.read_bytes()
    (run / name).unlink(missing_ok=True)
    os.link(victim, run / name)
    refused(run, r"has another name elsewhere \(a hard link\).*copy the folder \(cp -r\) and use the copy")
    assert victim.read_bytes() == before
    # Reading does no harm.
    with pytest.raises(SystemExit) as end:
        cli.main(["show", str(run)])
    assert end.value.code == 0
    assert RunFolder.open(run).best_policy()
    # What the sentence says helps.
    shutil.copytree(run, tmp_path / "copy")
    go_on(tmp_path / "copy")
    assert victim.read_bytes() == before
    assert isinstance(evolute.Policy.load(tmp_path / "copy" / "best"), evolute.Policy)
