"""What is asked of a cluster before anything is trained on it. `make cluster-test` trains on a real one."""

import os
import signal
import sys
import types
from pathlib import Path

import pytest

from evolute import UserError
from evolute.cluster import connection
from evolute.cluster.cores import Cores, cores_each
from evolute.commands import cli
from faults import MIXED, differences, evolute, finish, start, wait_until

ROOT = Path(__file__).parent.parent
GRID = 'title = "One"\nenvs = ["InvertedPendulum-v4"]\n[arms.adam]\nmix = { adam = 1 }\n'


def refused(capsys, *words):
    with pytest.raises(SystemExit) as end:
        cli.main(list(words))
    out, err = capsys.readouterr()
    assert (end.value.code, out) == (2, "")
    assert err.startswith("evolute: ")
    assert err.count("\n") == 1
    return err


@pytest.fixture
def grid(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "grid.toml").write_text(GRID)
    return tmp_path


@pytest.mark.parametrize("on", ["cloud", "ray:", "ray://head", "ray://:10001", "ray://head:port", "http://head:10001", ""])
def test_a_place_to_train_at_is_here_or_a_cluster(capsys, grid, on):
    for words in (("train", "InvertedPendulum-v4"), ("sweep", "grid.toml")):
        assert f"--on is {on!r}; it must be local, ray " in refused(capsys, *words, f"--on={on}")
    assert list(grid.iterdir()) == [grid / "grid.toml"]


def test_without_ray_one_sentence_says_what_to_install(capsys, grid, monkeypatch):
    # What an import finds where a package is not installed.
    monkeypatch.setitem(sys.modules, "ray", None)
    for words in (("train", "InvertedPendulum-v4"), ("sweep", "grid.toml")):
        assert "needs ray; install it with: pip install 'evolute[ray]'" in refused(capsys, *words, "--on", "ray")
    assert list(grid.iterdir()) == [grid / "grid.toml"]


def test_nothing_that_trains_here_imports_ray(grid):
    script = grid / "script.py"
    script.write_text(
        "import sys\nfrom evolute.commands import cli\n"
        "try:\n    cli.main(['sweep', 'grid.toml', '--on', 'local', '--seeds', '0'])\nexcept SystemExit:\n    pass\n"
        "import evolute.engine, evolute.experiments.local\nprint('ray' in sys.modules)\n"
    )
    code, out, _ = finish(start(grid, script=(script,)))
    assert (code, out) == (0, "False\n")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((), "no grid is given; name a TOML file"),
        (("grid.toml", "--cores", "2"), "--cores is for a cluster; leave it out, or train on one with --on ray"),
        (("grid.toml", "--gpus", "1"), "--gpus is for a cluster"),
        (("grid.toml", "--without-token"), "--without-token is for a cluster"),
        (("grid.toml", "--on", "ray", "--gpus", "-1"), "--gpus is -1; it must be a number of GPUs or a part of one"),
        (("grid.toml", "--on", "ray", "--cores", "0"), "--cores is 0; it must be a whole number, at least 1"),
        (("grid.toml", "--jobs", "none"), "--jobs is none; it must be a whole number"),
        (("missing.toml",), "the experiment 'missing.toml' does not exist"),
    ],
)
def test_a_sweep_that_is_asked_for_wrongly_is_told_so(capsys, grid, words, said):
    assert said in refused(capsys, "sweep", *words)
    assert list(grid.iterdir()) == [grid / "grid.toml"]


class Ray(types.ModuleType):
    """A cluster that says which machines it has, and is nowhere: whoever asks it for its health gets no answer."""

    def __init__(self, *hosts):
        super().__init__("ray")
        self.hosts, self.connected = hosts, []
        self.exceptions = types.SimpleNamespace(RayError=RuntimeError)

    def init(self, address, **_):
        if not self.hosts:
            raise ConnectionError("Could not find any running Ray instance.")
        self.connected.append(address)

    def nodes(self):
        return [{"Alive": True, "NodeManagerAddress": host} for host in self.hosts]

    def get_runtime_context(self):
        return types.SimpleNamespace(gcs_address="127.0.0.1:1")

    def shutdown(self):
        self.connected.append("shutdown")


# 192.0.2.0/24 is for documentation: no machine has such an address.
@pytest.mark.parametrize("on", ["ray", "ray://192.0.2.99:10001"])
def test_other_machines_need_a_token_or_a_word(monkeypatch, on):
    ray = Ray("127.0.0.1", "192.0.2.99")
    monkeypatch.setitem(sys.modules, "ray", ray)
    monkeypatch.delenv("RAY_AUTH_MODE", raising=False)
    # What a cluster without tokens answers to somebody without one.
    monkeypatch.setattr(connection, "asks_for_a_token", lambda _: False)
    with (
        pytest.raises(UserError, match=r"has the machine '192\.0\.2\.99', and it asks nobody for a token"),
        connection.connected(on),
    ):
        pass
    assert ray.connected in ([], ["auto", "shutdown"])
    with connection.connected(on, without_token=True):
        pass
    assert ray.connected[-1] == "shutdown"


def test_a_cluster_of_this_machine_alone_needs_none(monkeypatch):
    ray = Ray("127.0.0.1", "localhost")
    monkeypatch.setitem(sys.modules, "ray", ray)
    monkeypatch.delenv("RAY_AUTH_MODE", raising=False)
    with connection.connected("ray"):
        assert ray.connected == ["auto"]
    assert ray.connected == ["auto", "shutdown"]


def test_where_no_cluster_is_the_sentence_says_how_to_start_one(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", Ray())
    with (
        pytest.raises(UserError, match=r"no Ray cluster is reached at 'ray' .*start one with `ray start --head`"),
        connection.connected("ray"),
    ):
        pass


@pytest.mark.parametrize(
    ("host", "here"), [("127.0.0.1", True), ("::1", True), ("192.0.2.99", False), ("no-such-host.invalid", False)]
)
def test_this_machine_is_told_from_others(host, here):
    assert connection.is_here(host) == here


@pytest.mark.parametrize(
    ("nodes", "workers", "each"),
    [((2, 2, 2), 3, 2), ((2, 2, 2), 4, 1), ((8, 2), 2, 4), ((8, 8), 2, 8), ((1, 1), 3, 0), ((), 1, 0), ((16, 4), 5, 4)],
)
def test_workers_have_the_most_cores_that_all_can_have(nodes, workers, each):
    assert cores_each(nodes, workers) == each


def test_cores_go_to_who_has_none():
    cores = Cores()
    assert cores.take("a", [0, 1, 2, 3], 2) == [0, 1]
    assert cores.take("a", [0, 1, 2, 3], 1) == [2]
    assert cores.take("b", [0, 1], 1) == [0]
    cores.give_back("a", [0, 1])
    assert cores.take("a", [0, 1, 2, 3], 3) == [0, 1, 3]
    # More than there are: shared.
    assert cores.take("b", [0, 1], 5) == [0, 1]
    assert cores.take("c", [], 2) == []


# ------------------------------------------------------------------------------------------------------- without a cluster


def script_of(document):
    """Return the script of a document that begins with a shell's line."""
    text = (ROOT / "docs" / document).read_text()
    [script] = [block for block in text.split("```") if block.partition("\n")[2].startswith("#!/bin/bash")]
    return script.partition("\n")[2]


@pytest.mark.parametrize("number", [signal.SIGUSR1, pytest.param(signal.SIGTERM, marks=pytest.mark.slow)])
def test_the_script_for_slurm_goes_on_after_its_signal(tmp_path, number):
    """Slurm sends a signal before the time is over and starts the script again; here the test does."""
    script = script_of("scale.md")
    assert len(script.splitlines()) <= 12
    words = " ".join(map(str, MIXED))
    script = script.replace("HalfCheetah-v4 --mix adam=6 kfac=2", words).replace(
        "evolute ", f"{sys.executable} -m evolute.commands.cli "
    )
    (tmp_path / "job.sh").write_text(script)
    (tmp_path / "scontrol").write_text('#!/bin/sh\necho "$@" >> requeued\n')
    (tmp_path / "scontrol").chmod(0o755)
    more = {"through": ("env", f"PATH={tmp_path}:{os.environ['PATH']}", "SLURM_JOB_ID=7"), "start_new_session": True}

    def job():
        return start(tmp_path, script=(), **(more | {"through": (*more["through"], "bash", "job.sh")}))

    first = job()
    wait_until(lambda: first.poll() is not None or (tmp_path / "runs" / "7" / "checkpoints" / "000002.json").exists())
    # As `--signal=B:` does: to the script alone.
    first.send_signal(number)
    code, out, err = finish(first)
    assert "received; stopping after this step" in err, (code, out, err)
    assert (tmp_path / "requeued").read_text() == "requeue 7\n"
    assert not (tmp_path / "runs" / "7" / "result.json").exists()
    code, out, err = finish(job())
    assert code == 0, (out, err)
    assert (tmp_path / "requeued").read_text() == "requeue 7\n"
    code, _, err = evolute(tmp_path, "train", *MIXED, "--out", "whole")
    assert code == 0, err
    assert differences(tmp_path / "runs" / "7", tmp_path / "whole") == []
