"""What is said of a run that lost a file, or is of another version, or has no policy yet; and that what is said to help helps."""

import json
import re
import shutil

import pytest

from evolute import Run, UserError, __version__, load_policy, resume, train
from evolute.commands import cli
from evolute.report import replaying
from evolute.runs.folder import RunFolder

RUN = Run(
    "InvertedPendulum-v4",
    mix={"adam": 2},
    steps=60,
    interval=20,
    learning_starts=10,
    actor_layers=(4,),
    critic_layers=(4,),
    batch_size=32,
    buffer_size=100,
    episodes=1,
    final_episodes=1,
)
READERS = {
    "config.toml": RunFolder.run,
    "metadata.json": RunFolder.metadata,
    "metrics.jsonl": RunFolder.metrics,
    "events.jsonl": RunFolder.events,
    "result.json": RunFolder.result,
}


class Stop(Exception):
    """Stands for whatever ends a process."""


def quiet(_):
    pass


@pytest.fixture(scope="module")
def ended(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ended") / "a run"
    train(RUN, folder, note=quiet)
    return folder


@pytest.fixture(scope="module")
def stopped(tmp_path_factory):
    folder = tmp_path_factory.mktemp("stopped") / "run"

    def stop(progress):
        if progress.rows and progress.state.interval == 2:
            raise Stop

    with pytest.raises(Stop):
        train(RUN, folder, stop, quiet)
    return folder


def contents(folder):
    found = {name: (folder / name).read_text() for name in READERS if name != "metadata.json"}
    found["metrics.jsonl"] = re.sub(r'"seconds": \{[^}]*\}', "", found["metrics.jsonl"])
    found["result.json"] = re.sub(r'"wall_seconds": [^,\n]*', "", found["result.json"])
    return found


@pytest.mark.parametrize("damage", [None, "x {\n"])
@pytest.mark.parametrize("name", READERS)
def test_a_file_that_is_lost_or_damaged_is_written_again_as_it_is_said(tmp_path, ended, stopped, name, damage):
    for whole in (stopped, ended) if name != "result.json" else (ended,) if damage else ():
        path = shutil.copytree(whole, tmp_path / whole.name)
        (path / name).unlink()
        if damage is not None:
            (path / name).write_text(damage)
        with pytest.raises(UserError) as mistake:
            READERS[name](RunFolder(path))
        first = "delete result.json, and then " if whole is ended else ""
        command = f"evolute resume '{path}'" if whole is ended else f"evolute resume {path}"
        assert str(mistake.value).endswith(f"; {first}`{command}` writes it again from the last checkpoint.")
        if first:
            (path / "result.json").unlink()
        resume(path, note=quiet)
        READERS[name](RunFolder(path))
        assert contents(path) == contents(ended)


def test_without_a_checkpoint_a_file_is_not_said_to_be_written_again(tmp_path, ended):
    path = shutil.copytree(ended, tmp_path / "run")
    shutil.rmtree(path / "checkpoints")
    (path / "metrics.jsonl").write_text("x\n")
    with pytest.raises(UserError, match=r"; restore the file from a copy, or train the run again.$"):
        RunFolder(path).metrics()


def test_a_file_that_is_no_file_is_not_said_to_be_lost(tmp_path, ended):
    path = shutil.copytree(ended, tmp_path / "run")
    (path / "metrics.jsonl").unlink()
    (path / "metrics.jsonl").mkdir()
    with pytest.raises(UserError, match=r"metrics.jsonl' cannot be read: Is a directory; fix that first.$"):
        RunFolder(path).metrics()


@pytest.mark.parametrize("resumed", [False, True])
def test_settings_of_another_version_are_told_with_the_version(tmp_path, ended, resumed):
    path = shutil.copytree(ended, tmp_path / "run")
    (path / "config.toml").write_text("zap = 1\n" + (path / "config.toml").read_text())
    metadata = json.loads((path / "metadata.json").read_text())
    metadata["versions"]["evolute"] = "8.1" if resumed else "9.9"
    metadata["resumed"] = [{"versions": {"evolute": "9.9"}}] if resumed else []
    (path / "metadata.json").write_text(json.dumps(metadata))
    said = f"; see `evolute train --help`; evolute 9.9 wrote it, and this is evolute {__version__}, so use that version.$"
    for reader in (RunFolder(path).run, lambda: replaying.replay_of(path)):
        with pytest.raises(UserError, match=f"unknown key 'zap' .*{re.escape(said[:-1])}$"):
            reader()
    # Where nobody knows, nothing is said of it.
    for text in ("{", json.dumps(metadata | {"versions": {}, "resumed": [3]})):
        (path / "metadata.json").write_text(text)
        with pytest.raises(UserError, match=r"unknown key 'zap' .* from the last checkpoint.$"):
            RunFolder(path).run()


def test_a_run_whose_first_interval_has_not_ended_has_no_policy_yet(tmp_path, capsys):
    path = tmp_path / "run"

    def stop(progress):
        raise Stop

    with pytest.raises(Stop):
        train(RUN, path, stop, quiet)
    shutil.rmtree(path / "best", ignore_errors=True)
    (path / "metrics.jsonl").write_text("")
    said = f"no interval of the run in '{path}' has ended yet, so it has no policy; wait for the end of the first one, or go on"
    for member in (None, 0):
        with pytest.raises(UserError, match=re.escape(said)):
            load_policy(path, member)
    for words in (
        ["evaluate"],
        ["evaluate", "--member", "0"],
        ["export", "--to", "numpy"],
        ["export", "--to", "numpy", "--member", "0"],
    ):
        with pytest.raises(SystemExit):
            cli.main([*words, str(path)])
        assert said in capsys.readouterr().err


def test_a_best_policy_that_is_lost_later_is_not_said_to_come(tmp_path, ended):
    path = shutil.copytree(ended, tmp_path / "run")
    shutil.rmtree(path / "best")
    with pytest.raises(UserError, match="there is no policy in"):
        load_policy(path)
