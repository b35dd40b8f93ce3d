"""A file from a stranger is read, or refused by a UserError: it executes nothing, leads nowhere else, and costs little.

Thousands of damaged and hostile files per reader, from seeds, so that a failure is seen again.
"""

import contextlib
import copy
import hashlib
import io
import itertools
import json
import os
import pickle
import shutil
import signal
import struct
import sys
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
import tomli_w
from hypothesis import given, settings
from hypothesis import strategies as st

from evolute import limits, toml
from evolute.commands import cli, show
from evolute.config import Run
from evolute.errors import LONGEST_MESSAGE, UserError, printable
from evolute.hyperparameters import Hyperparameters, as_array
from evolute.policy import DESCRIPTION_FILE, WEIGHTS_FILE, Policy
from evolute.report import page
from evolute.runs import checkpoint
from evolute.runs.folder import RunFolder, refuse_links
from evolute.runs.restore import restore
from evolute.state import Best
from evolute.training.replay import bucket, row_width
from stepped import Stepped

# Processor seconds that one input may take; nearly all take a thousandth of it.
PATIENCE = 10


class TooSlow(BaseException):
    """No reader may catch it."""


@contextlib.contextmanager
def patience() -> Iterator[None]:
    """Fail after PATIENCE seconds of this process's own time, however busy the machine is."""

    def stop(*_: Any) -> None:
        raise TooSlow

    handler = signal.signal(signal.SIGVTALRM, stop)
    signal.setitimer(signal.ITIMER_VIRTUAL, PATIENCE)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, handler)


def read_or_refused(read: Callable[[], Any]) -> Any:
    """Return what a reader returns, None where it refuses; anything else that it does fails the test."""
    with patience():
        try:
            return read()
        except UserError as refusal:
            message = str(refusal)
            assert message.isprintable()
            assert len(message) <= LONGEST_MESSAGE
            return None


# ----------------------------------------------------------------------------------------------------- hostile content

DEEP = 100_000
# What damages text in ways that single bytes seldom do.
FRAGMENTS = [
    b"[" * DEEP,
    b'{"a":' * DEEP,
    b"a = " + b"[" * DEEP,
    b"a." * DEEP + b"a = 1",
    b"[" + b"a." * 240 + b"a]\n",
    b"9" * 5_000,
    b"0x" + b"f" * 5_000,
    b"-9223372036854775809",
    b"1e999",
    b"NaN",
    b"inf",
    b"null",
    b"true",
    b"[]",
    b"{}",
    b'""',
    b"0",
    b"-1",
    b"1979-02-30",
    b'"\\u0000"',
    b'"\\u001b[2J"',
    b'"\\ud800"',
    b'"[/red][blink]"',
    b"\x00",
    b"\x1b]0;",
    b"\xff\xfe",
    b"\xe2\x80\xa8",
    b"\r",
    b"\n",
    b"x" * 70_000,
]


def damaged(data: bytes, rng: np.random.Generator) -> bytes:
    """Return data after one to three flips, cuts, insertions, swaps or copies of slices."""
    for _ in range(rng.integers(1, 4)):
        start, stop = sorted(rng.integers(0, len(data) + 1, 2).tolist())
        stop = min(stop, start + int(rng.choice([1, 4, 64, len(data) + 1])))
        match rng.integers(6):
            case 0 if data:
                at = int(rng.integers(len(data)))
                data = data[:at] + bytes([data[at] ^ (1 << int(rng.integers(8)))]) + data[at + 1 :]
            case 1:
                data = data[:start]
            case 2:
                data = data[:start] + data[stop:]
            case 3:
                data = data[:stop] + data[start:stop] * int(rng.integers(1, 4)) + data[stop:]
            case 4:
                data = data[:start] + FRAGMENTS[rng.integers(len(FRAGMENTS))] + data[stop:]
            case _:
                data = data[:start] + rng.bytes(int(rng.integers(1, 9))) + data[stop:]
    return data


def nested(depth: int) -> Any:
    value: Any = 0
    for _ in range(depth):
        value = [value]
    return value


VALUES: list[Any] = [
    *(None, True, False, 0, 1, -1, 3, 2**31, 2**53, 2**63, -(2**63) - 1, 10**18, 10**400),
    *(0.0, -0.5, 0.5, 1e-320, 1e9, 1e18, 1e308, -1e308, float("nan"), float("inf"), -float("inf")),
    *("", "x", "adam", "kfac", "\x1b[2J\x07", "[/red][blink]", "\ud800", "\u202e", "a\nb", "../../x", "os:system", "y" * 5_000),
    *([], {}, [[]], [{}], {"": None}, {"a": {"b": 1}}, {"learning_rate": {}}, nested(200), [10**18] * 3, [1] * 20_000),
]


def places(value: Any) -> list[tuple[Any, Any]]:
    """Return (container, key) of everything inside a JSON value."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [place for key, item in items for place in [(value, key), *places(item)]]


def altered(value: Any, rng: np.random.Generator) -> Any:
    """Return a copy of a JSON value with one or two parts replaced by hostile ones, removed, or put under a hostile name."""
    value = copy.deepcopy(value)
    for _ in range(rng.integers(1, 3)):
        found = places(value)
        if not found:
            break
        container, key = found[rng.integers(len(found))]
        other = VALUES[rng.integers(len(VALUES))]
        match rng.integers(6):
            case 0:
                del container[key]
            case 1 if isinstance(container, dict):
                container[str(other)[:300] if rng.integers(2) else str(key) + "x"] = container.pop(key)
            case _:
                container[key] = copy.deepcopy(other)
    return value


def as_json(value: Any) -> bytes:
    return json.dumps(value).encode()


def without_null(value: Any) -> Any:
    """TOML has no null, and cannot hold half a character."""
    if isinstance(value, dict):
        return {without_null(key): without_null(item) for key, item in value.items() if item is not None}
    if isinstance(value, list):
        return [without_null(item) for item in value if item is not None]
    return value.encode("utf-8", "replace").decode() if isinstance(value, str) else value


def hostile_files(data: bytes, value: Any, write: Callable[[Any], bytes], seed: int, count: int) -> Iterator[bytes]:
    """Yield damaged bytes and altered values in turn."""
    rng = np.random.default_rng(seed)
    for n in range(count):
        yield damaged(data, rng) if n % 2 else write(altered(value, rng))


# -------------------------------------------------------------------------------------------------------- configuration

# kfac: optax's optimizers are tried on a tiny network by every Run, which takes a tenth of a second.
CONFIG = toml.to_toml(
    Run(
        "Hopper-v4",
        mix={"kfac": 1, "diag_ggn": 2, "kfac/diag_ggn": 1},
        steps_per_interval={"kfac": 5_000},
        bounds={"tau": (0.001, 0.1)},
    )
)


def accepted(file: Path) -> Run | None:
    """Return the run of a file, None where it is refused. A run that is accepted is modest, and comes back from its own file."""
    run = read_or_refused(lambda: Run(**toml.read(file)))
    if run is not None:
        assert len(run.kinds) <= limits.MEMBERS
        assert max(*run.actor_layers, *run.critic_layers) <= limits.UNITS
        assert run.bounds_of("batch_size")[1] <= max(limits.BATCH, 1024)
        assert (
            max(run.optimizers[name][role].get("burn_in", 0) for name in run.optimizers for role in ("actor", "critic")) <= 1_000
        )
        assert Run(**toml.parse(toml.to_toml(run), "itself")) == run
    return run


@pytest.mark.parametrize("seed", range(3))
def test_a_hostile_configuration_is_a_run_or_refused(tmp_path, seed):
    file, outcomes = tmp_path / "run.toml", set()
    value = toml.parse(CONFIG, "the sound one")
    for content in hostile_files(CONFIG.encode(), value, lambda v: tomli_w.dumps(without_null(v)).encode(), seed, 500):
        file.write_bytes(content)
        outcomes.add(accepted(file) is not None)
    # Some do no harm: else it would be the reader that refuses whatever it gets.
    assert outcomes == {True, False}


@pytest.mark.parametrize("kind", ["adam", "muon", "galore", "adafactor"])
def test_hostile_options_of_an_optimizer_of_optax_are_taken_or_refused(kind):
    from evolute.optimizers.first_order import arguments_of

    rng, arguments = np.random.default_rng(0), ["learning_rate", "burn_in", "clip", *arguments_of(kind)]
    for value in rng.permutation(np.array(VALUES, object))[:12]:
        chosen = {str(rng.choice(arguments)): value}
        read_or_refused(lambda chosen=chosen: Run("Hopper-v4", mix={kind: 1}, optimizers={kind: chosen}))


anything = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=20), st.sampled_from(VALUES)),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=9), inner, max_size=3)),
    max_leaves=6,
)
FIELDS = sorted(toml.parse(CONFIG, "the sound one"))


@settings(max_examples=400)
@given(st.dictionaries(st.sampled_from(FIELDS), anything, min_size=1, max_size=3))
def test_whatever_a_setting_holds_makes_a_run_or_a_refusal(chosen):
    read_or_refused(lambda: Run(**({"env": "Hopper-v4", "mix": {"kfac": 1}} | chosen)))


@settings(max_examples=200)
@given(st.one_of(st.binary(max_size=200), st.text(max_size=200).map(lambda text: text.encode("utf-8", "surrogatepass"))))
def test_whatever_bytes_a_configuration_holds_it_is_read_or_refused(tmp_path_factory, content):
    file = tmp_path_factory.mktemp("toml") / "run.toml"
    file.write_bytes(content)
    read_or_refused(lambda: toml.read(file))


@pytest.mark.parametrize(
    ("chosen", "said"),
    [
        ({"mix": {"kfac": 10**12}}, "mix is kfac=1000000000000; it must be .*at most 1000 together"),
        ({"mix": {"kfac": 501, "adam": 500}}, "mix is kfac=501 adam=500; it must be .*at most 1000 together"),
        ({"actor_layers": [8_193]}, "actor_layers is 8193; it must be .*at most 16 layers of 8192 units"),
        ({"critic_layers": [1] * 17}, "critic_layers is 1 1 1.*at most 16 layers"),
        ({"critic_layers": [8_192] * 4}, "critic_layers is 8192 .*134,217,728 weights"),
        ({"batch_size": 100_001, "buffer_size": 10**6}, "batch_size is 100001; .*at most 1e5"),
        ({"bounds": {"batch_size": [1, 10**9]}}, "a bound of batch_size is 1000000000; .*at most 1e5"),
        ({"buffer_size": 10**9}, "buffer_size is 1000000000; .*at most 1e8"),
        ({"episodes": 10**6}, "episodes is 1000000; .*at most 1e5"),
        ({"final_episodes": 10**6}, "final_episodes is 1000000; .*at most 1e5"),
        ({"steps": 10**15}, "steps is 1000000000000000; .*at most 2000000000"),
        ({"steps": 10**5000}, "steps is a whole number of 16610 bits; it must fit into 64"),
        ({"discount": 10**400}, "discount is a whole number of 1329 bits"),
        ({"factors": [2.0] * 101}, "factors is 2.0 .*at most 100"),
        ({"perturb": ["tau"] * 101}, "perturb is tau .*at most 100"),
        ({"policy_delay": 2**31}, "policy_delay is 2147483648; .*at most 1e9"),
        ({"optimizers": {"kfac": {"burn_in": 1_001}}}, "burn_in is 1001; .*at most 1000"),
        ({"optimizers": {"kfac": {"inverse_every": 2**31}}}, "inverse_every is 2147483648; .*at most 1e9"),
        ({"optimizers": {"adam": {"burn_in": "x"}}, "mix": {"adam": 1}}, "optimizers.adam has no option 'burn_in'"),
        ({"optimizers": {"kfac": nested(9)}}, "optimizers nests tables or lists more than 8 deep"),
        ({"env": "E\x1b[2J-v0"}, r"env is 'E\\x1b\[2J-v0'; it must be printable text"),
        ({"env": "E" * 201}, "env has 201 characters .*at most 200"),
    ],
    ids=lambda part: part[:40] if isinstance(part, str) else next(iter(part)),
)
def test_what_asks_for_too_much_is_refused_before_anything_is_allocated(chosen, said):
    with pytest.raises(UserError, match=said) as refusal:
        Run(**({"env": "Hopper-v4", "mix": {"kfac": 1}} | chosen))
    assert str(refusal.value).endswith(".")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"a = " + b"[" * 400, "nests too deeply|not valid TOML"),
        (b"\n".join([b"a = ["] + [b"[" * 400] * 50), "nests too deeply; write it flat"),
        (b"a." * 300 + b"a = 1", "has a line of more than 500 characters; break it"),
        (b'"a\xe2\x80\xa8".' * 100 + b"a = 1", "has a line of more than 500 characters"),
        (b"seed = " + b"\n" * 200_000, "has 200,007 bytes, and at most 131,072 are read"),
        (b"seed = 1979-02-30", "is not valid TOML"),
    ],
)
def test_a_file_that_would_keep_its_parser_busy_is_refused(tmp_path, content, said):
    (tmp_path / "run.toml").write_bytes(content)
    with patience(), pytest.raises(UserError, match=said):
        toml.read(tmp_path / "run.toml")


# -------------------------------------------------------------------------------------------------------------- records

HYPERPARAMETERS = Run("Hopper-v4", mix={"kfac": 1}).initial_hyperparameters("kfac")._asdict()
assert HYPERPARAMETERS.keys() == set(Hyperparameters._fields)


def metrics_row(interval: int, member: int) -> dict[str, Any]:
    return {
        **{"interval": interval, "steps": 100 * interval, "member": member, "kind": "kfac", "fitness": 1.5 * member - interval},
        **{"environment_steps": 100 * interval, "hyperparameters": HYPERPARAMETERS, "seconds": {"learn": 1.0}},
    }


EXPLOIT = {
    **{"event": "exploit", "interval": 1, "steps": 100, "member": 0, "parent": 1, "member_kind": "kfac", "parent_kind": "adam"},
    **{"member_fitness": None, "parent_fitness": 2.5, "new_hyperparameters": HYPERPARAMETERS},
}
LEADER = {
    **{"rank": 1, "member": 1, "kind": "kfac", "fitness": 2.5, "parent": None, "environment_steps": 300},
    "hyperparameters": HYPERPARAMETERS,
}
# name: what it holds, how it is written
RECORDS: dict[str, tuple[Any, Callable[[Any], bytes]]] = {}


def as_lines(rows: Any) -> bytes:
    return b"".join(as_json(row) + b"\n" for row in rows)


RECORDS["metrics.jsonl"] = [metrics_row(i, m) for i in (1, 2, 3) for m in (0, 1)], as_lines
RECORDS["events.jsonl"] = [EXPLOIT, {"event": "from the future", "member": "?"}, EXPLOIT], as_lines
RECORDS["result.json"] = {"env": "Hopper-v4", "best": {"member": 1}, "leaderboard": [LEADER, {**LEADER, "rank": 2}]}, as_json
RECORDS["metadata.json"] = {"versions": {"jax": "1"}, "physics_fingerprint": "0f", "cores": 2}, as_json


def write_run(folder: Path, env: str = "Hopper-v4") -> Path:
    folder.mkdir()
    (folder / "config.toml").write_text(CONFIG)
    for name, (value, write) in RECORDS.items():
        (folder / name).write_bytes(write(value))
    policy(env).save(folder / "best", {"fitness": 1.0})
    return folder


def policy(env: str = "Hopper-v4") -> Policy:
    rng, sizes = np.random.default_rng(0), (3, 4, 2)
    weights = [(rng.normal(size=(i, o)), rng.normal(size=o)) for i, o in itertools.pairwise(sizes)]
    return Policy(weights, np.array([-1.0, 0.0]), np.array([3.0, 0.5]), env)


def shown(path: Path) -> str:
    """Read everything of a run that the command line shows, and return what it printed."""
    with contextlib.redirect_stdout(io.StringIO()) as out:
        show.run(show.Flags(path))
    RunFolder.open(path).metadata()
    return out.getvalue()


def test_a_sound_run_is_shown(tmp_path):
    assert "Leaderboard" in shown(write_run(tmp_path / "run"))


@pytest.mark.parametrize("ended", [True, False])
@pytest.mark.parametrize("name", RECORDS)
def test_hostile_records_are_shown_or_refused(tmp_path, name, ended):
    folder, outcomes = write_run(tmp_path / "run"), set()
    if not ended and name != "result.json":
        (folder / "result.json").unlink()
    value, write = RECORDS[name]
    for content in hostile_files(write(value), value, write, seed=ended, count=200):
        (folder / name).write_bytes(content)
        text = read_or_refused(lambda: shown(folder))
        outcomes.add(text is not None)
        assert text is None or text.replace("\n", "").isprintable()
    assert outcomes == {True, False}


@pytest.mark.parametrize("name", RECORDS)
def test_hostile_records_are_reported_with_what_is_damaged(tmp_path, name, monkeypatch):
    folder, run, outcomes = write_run(tmp_path / "run"), Run(**toml.parse(CONFIG, "here")), set()
    # It is the same in every report, and checking it takes longest.
    monkeypatch.setattr(RunFolder, "run", lambda self: run)
    sound = page.data([folder], [[]])["runs"][0]["problems"]
    value, write = RECORDS[name]
    for content in hostile_files(write(value), value, write, seed=2, count=100):
        (folder / name).write_bytes(content)
        report = read_or_refused(lambda: page.data([folder], [[]]))
        assert json.dumps(report, allow_nan=False)
        outcomes.add(report["runs"][0]["problems"] != sound)
    assert outcomes == {True, False}


@settings(max_examples=200)
@given(st.sampled_from(sorted(RECORDS)), st.lists(anything, max_size=3), anything)
def test_whatever_json_records_hold_it_is_shown_or_refused(tmp_path_factory, name, rows, value):
    folder = write_run(tmp_path_factory.mktemp("run") / "run")
    (folder / name).write_bytes(as_lines(rows) if name.endswith("l") else as_json(value))
    read_or_refused(lambda: shown(folder))


@settings(max_examples=200)
@given(st.sampled_from(sorted(metrics_row(1, 0))), anything)
def test_whatever_a_field_of_metrics_holds_it_is_shown_or_refused(tmp_path_factory, field, value):
    folder = write_run(tmp_path_factory.mktemp("run") / "run")
    (folder / "result.json").unlink()
    (folder / "metrics.jsonl").write_bytes(as_lines([{**metrics_row(1, 0), field: value}, metrics_row(1, 1)]))
    read_or_refused(lambda: shown(folder))


def test_the_largest_numbers_are_drawn(tmp_path):
    folder = write_run(tmp_path / "run")
    rows = [{**metrics_row(n, 0), "fitness": fitness} for n, fitness in enumerate([1.7e308, -1.7e308, 5e-324, 1e308])]
    (folder / "metrics.jsonl").write_bytes(as_lines(rows))
    assert "█▁▅▇" in shown(folder)


@pytest.mark.parametrize(
    ("kind", "printed"), [("[b]\x1b[2J[/x]", r"[b]\x1b[2J[/x]"), ("\u202e\ud800:x:", r"\u202e\ud800:x:"), ("[/x]", "[/x]")]
)
def test_text_from_files_reaches_the_terminal_without_control_characters_and_markup(tmp_path, kind, printed):
    folder = write_run(tmp_path / "run")
    (folder / "result.json").unlink()
    (folder / "metrics.jsonl").write_bytes(as_lines([{**metrics_row(1, 0), "kind": kind}]))
    (folder / "events.jsonl").write_bytes(as_lines([{**EXPLOIT, "member_kind": kind, "parent_kind": kind}]))
    # In the leaderboard, the curves, and twice in the lineage.
    assert shown(folder).count(printed) == 4


def test_a_refusal_is_one_line_whatever_it_quotes():
    assert printable("ok\r\n") == r"ok\r\n"
    message = str(UserError("\x1b[2J" + "long" * 10_000 + "the fix."))
    assert message.isprintable()
    assert (len(message), message[:7], message[-8:]) == (LONGEST_MESSAGE, r"\x1b[2J", "the fix.")


def test_a_torn_last_line_is_ignored_and_any_other_damage_named(tmp_path):
    folder = RunFolder(write_run(tmp_path / "run"))
    file = folder.path / "metrics.jsonl"
    whole = file.read_bytes()
    for torn in (b'{"interval": 4, "me', b'{"interval": 4, "kind": "\xe2', as_json(metrics_row(4, 0))):
        file.write_bytes(whole + torn)
        assert folder.metrics() == RECORDS["metrics.jsonl"][0]
    for damage, said in (
        (b'{"interval": 4, "me\n', "line 7: it must be a JSON object; restore the file from a copy"),
        (b"\xff\n", "line 7: it must be a JSON object"),
        (b"[" * 50_000 + b"\n", "line 7: it must be a JSON object"),
        (b" " * 70_000, "line 7: it has more than 65,536 bytes"),
        (as_lines([{**metrics_row(4, 0), "fitness": "high"}]), "line 7: 'fitness' must be a finite number or null"),
        (as_lines([{**metrics_row(4, 0), "member": 1_000}]), "line 7: 'member' must be a member's number, below 1000"),
        (as_lines([{"interval": 4}]), "line 7: 'steps' is missing"),
    ):
        file.write_bytes(whole + damage)
        with pytest.raises(UserError, match=f"metrics.jsonl' is damaged in {said}"):
            folder.metrics()


# --------------------------------------------------------------------------------------------------------------- policy


def played(folder: Path) -> Policy:
    """Load a policy and act with it."""
    loaded = Policy.load(folder)
    with np.errstate(over="ignore", invalid="ignore"):
        action = loaded(np.zeros(len(loaded.weights[0][0])))
    assert action.shape == loaded.low.shape
    assert loaded.env.isprintable()
    return loaded


@pytest.mark.parametrize("seed", range(2))
def test_a_hostile_description_of_a_policy_is_loaded_or_refused(tmp_path, seed):
    policy().save(tmp_path, {})
    file, outcomes = tmp_path / DESCRIPTION_FILE, set()
    sound = file.read_bytes()
    for content in hostile_files(sound, json.loads(sound), as_json, seed, 500):
        file.write_bytes(content)
        outcomes.add(read_or_refused(lambda: played(tmp_path)) is not None)
    assert outcomes == {True, False}


def safetensors_of(header: Any, data: bytes) -> bytes:
    text = as_json(header)
    return struct.pack("<Q", len(text)) + text + data


@pytest.mark.parametrize("seed", range(2))
def test_hostile_weights_are_loaded_or_refused(tmp_path, seed):
    policy().save(tmp_path, {})
    file, outcomes = tmp_path / WEIGHTS_FILE, set()
    sound = file.read_bytes()
    size = struct.unpack("<Q", sound[:8])[0]
    header, data = json.loads(sound[8 : 8 + size]), sound[8 + size :]
    for content in hostile_files(sound, header, lambda value: safetensors_of(value, data), seed, 500):
        file.write_bytes(content)
        outcomes.add(read_or_refused(lambda: played(tmp_path)) is not None)
    assert outcomes == {True, False}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"layers": [3, 10**9, 2]}, "its layers do not match the rule"),
        ({"layers": [3] * 1_000}, "its layers do not match the rule"),
        ({"layers": [3, True, 2]}, "its layers do not match the rule"),
        ({"layers": [3, -4, 2]}, "its layers do not match the rule"),
        ({"env": 3}, "env must be a name"),
        ({"env": "E\x1b[2J"}, "env must be a name"),
        ({"action_low": [0.0, 0.6]}, "a lower action bound is above the upper one"),
        ({"action_low": [0.0, float("nan")]}, "must be lists of finite numbers"),
        ({"action_high": [0.0, float("inf")]}, "must be lists of finite numbers"),
        ({"action_high": [True, 1.0]}, "must be lists of finite numbers"),
        ({"action_high": [10**400, 1.0]}, "is damaged"),
        ({"about": nested(900)}, "is damaged: it nests too deeply"),
    ],
    ids=lambda part: part[:40] if isinstance(part, str) else next(iter(part)),
)
def test_a_policy_that_says_what_none_would_is_refused(tmp_path, change, said):
    policy().save(tmp_path, {})
    about = json.loads((tmp_path / DESCRIPTION_FILE).read_text()) | change
    text = json.dumps(about) if "about" not in change else json.dumps(about | {"about": 0}).replace("0}", "[" * 9**6 + "}")
    (tmp_path / DESCRIPTION_FILE).write_text(text)
    with pytest.raises(UserError, match=said):
        Policy.load(tmp_path)


@pytest.mark.parametrize(
    ("array", "said"),
    [
        (np.zeros((4, 2), np.float64), "must be float32"),
        (np.zeros((4, 2), np.int32), "must be float32"),
        (np.full((4, 2), np.nan, np.float32), "a weight is not finite"),
        (np.full((4, 2), np.inf, np.float32), "a weight is not finite"),
    ],
)
def test_weights_that_are_no_weights_are_refused(tmp_path, array, said):
    policy().save(tmp_path, {})
    arrays = safetensors.numpy.load_file(tmp_path / WEIGHTS_FILE) | {"1.w": array}
    (tmp_path / WEIGHTS_FILE).write_bytes(safetensors.numpy.save(arrays))
    with pytest.raises(UserError, match=said):
        Policy.load(tmp_path)


# ---------------------------------------------------------------------------------------------------------- checkpoints

TRAINING = Run(
    "probe_envs:Limit-v0",
    mix={"kfac": 1, "sgd": 1},
    **{"steps": 60, "interval": 20, "learning_starts": 10, "batch_size": 32, "buffer_size": 64, "perturb": ()},
    actor_layers=(4,),
    critic_layers=(4,),
)


@pytest.fixture(scope="module")
def checkpointed(tmp_path_factory):
    """A folder with a checkpoint of a population that has gathered some replay, and a state to restore it into."""
    folder, stepped = tmp_path_factory.mktemp("checkpointed"), Stepped(TRAINING)
    state, host = stepped.state, stepped.host
    for member in stepped.members:
        for n in range(20):
            member.replay.insert(np.full(2, n), np.zeros(1), 1.0, np.full(2, n + 1), False)
        member.environment_steps = 20
    state.interval = 1
    actor = [(layer.w, layer.b) for layer in host.groups[0].learner(0).actor]
    state.best = Best(Policy(actor, np.array([-1.0]), np.array([1.0]), TRAINING.env), 1.0, 0, "kfac", 20)
    fingerprints = {"physics_fingerprint": "0f", "arithmetic_fingerprint": "0f"}
    circumstances = {"versions": {"jax": "1"}, "devices": ["cpu"], "cores": 2, **fingerprints}
    host.save_replay(folder, host.lanes, 1)()
    carried = {"config": toml.to_toml(TRAINING), "circumstances": circumstances, "records": {"metrics.jsonl": ""}}
    checkpoint.save(folder, state, host.save(folder, host.lanes, 1)(), carried)
    yield folder, stepped
    stepped.close()


def restored(folder: Path, stepped: Stepped) -> checkpoint.Checkpoint:
    """Restore the newest checkpoint, and do what a run does next with what it brought."""
    found, _ = checkpoint.newest(folder)
    assert found is not None
    read_or_refused(lambda: Run(**toml.parse(found.manifest["config"], "the checkpoint")))
    restore(folder, found, stepped.state, stepped.crew)
    for member, profile in zip(stepped.members, stepped.state.members, strict=True):
        member.hyperparameters = profile.hyperparameters
        assert member.sample(bucket(member.hyperparameters.batch_size), 1).rows.shape[1] == row_width(2, 1)
    with np.errstate(over="ignore"):
        as_array([member.hyperparameters for member in stepped.members])
    return found


def files_in(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def signed(body: bytes) -> bytes:
    """Who alters a checkpoint on purpose corrects its checksum, too."""
    return hashlib.sha256(body).hexdigest().encode() + b"\n" + body


@pytest.mark.parametrize("right_checksum", [True, False])
def test_a_hostile_checkpoint_is_restored_or_refused(checkpointed, tmp_path, right_checksum):
    folder, stepped = checkpointed
    shutil.copytree(folder, tmp_path / "run")
    file, outcomes = tmp_path / "run" / "checkpoints" / "000001.json", set()
    sound = file.read_bytes()
    body = sound.partition(b"\n")[2]
    before = files_in(tmp_path)
    for content in hostile_files(body, json.loads(body), as_json, right_checksum, 300):
        file.write_bytes(signed(content) if right_checksum else sound[:65] + content)
        outcomes.add(read_or_refused(lambda: restored(tmp_path / "run", stepped)) is not None)
    # Reading writes nothing.
    assert files_in(tmp_path) == before | {file: file.read_bytes()}
    assert outcomes == ({True, False} if right_checksum else {False})


@pytest.mark.parametrize("what", ["learner", "best", "segment"])
def test_hostile_arrays_of_a_checkpoint_are_restored_or_refused(checkpointed, tmp_path, what):
    folder, stepped = checkpointed
    shutil.copytree(folder, tmp_path / "run")
    manifest_file = tmp_path / "run" / "checkpoints" / "000001.json"
    manifest = json.loads(manifest_file.read_bytes().partition(b"\n")[2])
    member = manifest["members"][0]
    described = {"learner": member["learner"], "best": manifest["best"]["policy"], "segment": member["segments"][0]}[what]
    file = tmp_path / "run" / ("replay" if what == "segment" else "checkpoints") / described["file"]
    sound, outcomes = file.read_bytes(), set()
    size = struct.unpack("<Q", sound[:8])[0]
    value = json.loads(sound[8 : 8 + size])
    for content in hostile_files(sound, value, lambda v: safetensors_of(v, sound[8 + size :]), 0, 200):
        file.write_bytes(content)
        described |= {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
        manifest_file.write_bytes(signed(as_json(manifest)))
        outcomes.add(read_or_refused(lambda: restored(tmp_path / "run", stepped)) is not None)
    assert outcomes == {True, False}


@pytest.mark.parametrize(
    "name", ["../000001-000.safetensors", "/etc/passwd", "000001-000.safetensors/..", "000001-1.safetensors\n", "..", ""]
)
def test_a_checkpoint_names_no_file_elsewhere(checkpointed, tmp_path, name):
    shutil.copytree(checkpointed[0], tmp_path / "run")
    manifest_file = tmp_path / "run" / "checkpoints" / "000001.json"
    manifest = json.loads(manifest_file.read_bytes().partition(b"\n")[2])
    manifest["members"][0]["learner"]["file"] = name
    manifest_file.write_bytes(signed(as_json(manifest)))
    with pytest.raises(UserError, match=r"000001\.json is damaged: it is not of the form"):
        checkpoint.newest(tmp_path / "run")


# ---------------------------------------------------------------------------------------------------- classic attacks


def memory_of(read: Callable[[], Any]) -> int:
    """Return the most bytes that a reader held at once while it refused."""
    tracemalloc.start()
    try:
        with pytest.raises(UserError):
            read()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("name", ["config.toml", *RECORDS, f"best/{DESCRIPTION_FILE}", f"best/{WEIGHTS_FILE}"])
def test_a_huge_file_is_not_even_read(tmp_path, name):
    folder = write_run(tmp_path / "run")
    os.truncate(folder / name, 2**33)  # holes: it takes no room on the disk

    def read() -> None:
        shown(folder)
        toml.read(folder / "config.toml")
        Policy.load(folder / "best")

    assert memory_of(read) < 2**23


@pytest.mark.parametrize("shape", [[2**20, 2**20], [2**62], [0, 2**62], [2**63, 2**63]])
@pytest.mark.parametrize("declared", [None, 2**26, 2**63])
def test_what_a_header_declares_is_not_allocated(tmp_path, shape, declared):
    policy().save(tmp_path, {})
    size = 4 * int(np.prod([float(n) for n in shape])) if shape[0] else 0
    header = {"0.w": {"dtype": "F32", "shape": shape, "data_offsets": [0, min(size, 2**62)]}}
    content = safetensors_of(header, b"")
    (tmp_path / WEIGHTS_FILE).write_bytes(content if declared is None else struct.pack("<Q", declared) + content[8:])
    assert memory_of(lambda: Policy.load(tmp_path)) < 2**23


@pytest.fixture
def marker(tmp_path, monkeypatch):
    """A file that hostile code would write; a module `evil` beside the user writes it when it is imported."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    (tmp_path / "evil.py").write_text("from pathlib import Path\nPath('marker').write_text('executed')\n")
    yield tmp_path / "marker"
    sys.modules.pop("evil", None)


def refused(capsys, *words) -> str:
    with pytest.raises(SystemExit) as end:
        cli.main(list(words))
    assert end.value.code == 2
    return capsys.readouterr().err


class Evil:
    def __reduce__(self):
        return Path.write_text, (Path("marker"), "executed")


@pytest.mark.parametrize("name", ["config.toml", *RECORDS, f"best/{DESCRIPTION_FILE}", f"best/{WEIGHTS_FILE}"])
def test_a_pickle_is_not_unpickled(capsys, marker, name):
    pickle.loads(pickle.dumps(Evil()))
    assert marker.exists()  # it would
    marker.unlink()
    folder = write_run(marker.parent / "run")
    (folder / name).write_bytes(pickle.dumps(Evil()))
    read_or_refused(lambda: shown(folder))
    refused(capsys, "evaluate", "run", "--episodes", "1")
    refused(capsys, "train", "--config", "run/config.toml", "--out", "run")
    assert not marker.exists()


def test_a_module_that_a_file_names_is_not_imported_unless_allowed(capsys, marker):
    (marker.parent / "run.toml").write_text('env = "evil:Env-v0"\n')
    write_run(marker.parent / "run", env="evil:Env-v0")
    for words in (("train", "--config", "run.toml"), ("evaluate", "run")):
        for more in ((), ("--allow-import", "other"), ("--allow-import", "evil.more"), ("--allow-import", "EVIL")):
            said = refused(capsys, *words, *more)
            assert "runs the code of the module 'evil'; if you trust that module, add --allow-import evil." in said
    assert not marker.exists()
    assert str(marker.parent) not in sys.path
    assert not (marker.parent / "runs").exists()


@pytest.mark.parametrize(
    "words",
    [
        ("train", "evil:Env-v0"),
        ("train", "--config", "run.toml", "--allow-import", "evil"),
        ("evaluate", "run", "--allow-import", "evil"),
    ],
)
def test_a_module_that_the_user_names_is_imported(capsys, marker, words):
    (marker.parent / "run.toml").write_text('env = "evil:Env-v0"\n')
    write_run(marker.parent / "run", env="evil:Env-v0")
    # It registers no environment.
    assert "unknown environment 'evil:Env-v0'" in refused(capsys, *words)
    assert marker.read_text() == "executed"


def test_a_typed_environment_does_not_vouch_for_the_one_in_a_file(capsys, marker):
    (marker.parent / "run.toml").write_text('env = "evil:Env-v0"\n')
    assert "unknown environment 'Nothing-v0'" in refused(capsys, "train", "Nothing-v0", "--config", "run.toml")
    assert not marker.exists()


def link_to_best(folder, away):
    (folder / "best").rename(away)
    (folder / "best").symlink_to(away)


def link_to_metrics(folder, away):
    (folder / "metrics.jsonl").rename(away)
    (folder / "metrics.jsonl").symlink_to(away)


def dangling_link(folder, away):
    (folder / "best" / "deep").mkdir()
    (folder / "best" / "deep" / "link").symlink_to(away)


def loop(folder, away):
    (folder / "best" / "loop").symlink_to(folder)


def pipe(folder, away):
    (folder / "result.json").unlink()
    os.mkfifo(folder / "result.json")


@pytest.mark.parametrize("trick", [link_to_best, link_to_metrics, dangling_link, loop, pipe])
def test_a_folder_with_links_or_pipes_is_refused(capsys, tmp_path, trick):
    folder = write_run(tmp_path / "run")
    refuse_links(folder)
    trick(folder, tmp_path / "away")
    for words in (("show",), ("evaluate",)):
        said = refused(capsys, *words, str(folder))
        assert "a run folder holds plain files alone, so move it away" in said
    # A link to the whole folder is the user's own.
    (tmp_path / "latest").symlink_to(write_run(tmp_path / "sound"))
    assert "Leaderboard" in shown(tmp_path / "latest")


@pytest.mark.parametrize("name", [DESCRIPTION_FILE, WEIGHTS_FILE])
def test_a_pipe_in_place_of_a_file_is_not_waited_for(tmp_path, name):
    policy().save(tmp_path, {})
    (tmp_path / name).unlink()
    os.mkfifo(tmp_path / name)
    with pytest.raises(UserError, match="is no plain file"):
        Policy.load(tmp_path)
    with pytest.raises(UserError, match="is no plain file"):
        toml.read(tmp_path / name)


def test_no_memory_left_is_told_in_one_sentence(capsys, monkeypatch):
    def fail(_):
        raise MemoryError

    monkeypatch.setattr(cli, "_run", fail)
    assert refused(capsys, "show") == (
        "evolute: there is not enough memory; lower buffer_size, batch_size, the layers or the members.\n"
    )
