"""The report's data against truths that are derived by hand or in another way, and its page as text."""

import base64
import dataclasses
import hashlib
import itertools
import json
import math
import re
import shutil

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from evolute.commands import cli, demo
from evolute.config import Run
from evolute.errors import UserError
from evolute.hyperparameters import Hyperparameters
from evolute.report import ancestry, compare, events, page, reading, story
from evolute.report.ancestry import Part
from evolute.runs.folder import RunFolder
from recorded import population, record

# ---------------------------------------------------------------------------------------------------------- ancestry


def test_a_line_goes_back_over_the_copies():
    # After interval 2 member 0 became a copy of 1, after interval 4 member 2 one of 0, and after interval 1 member 1 one of 2.
    parents = ancestry.copies([(2, 0, 1), (4, 2, 0), (1, 1, 2)])
    assert ancestry.line(2, 6, parents) == [Part(2, 0, 1), Part(1, 2, 2), Part(0, 3, 4), Part(2, 5, 6)]
    # At the end of interval 4 member 2 had not copied yet.
    assert ancestry.line(2, 4, parents) == [Part(2, 0, 4)]
    assert ancestry.line(0, 0, parents) == [Part(0, 0, 0)]


@given(st.data())
def test_lines_are_what_copying_histories_leaves(data):
    members, times = data.draw(st.integers(2, 6)), data.draw(st.integers(1, 12))
    histories: list[list[int]] = [[] for _ in range(members)]
    exploits = []
    for at in range(times):
        for slot in range(members):
            histories[slot] = [*histories[slot], slot]
        order = data.draw(st.permutations(range(members)))
        count = data.draw(st.integers(0, members // 2))
        before = list(histories)
        # No member is both child and parent.
        for child, parent in zip(order[:count], order[-count:] if count else [], strict=True):
            if at < times - 1:
                exploits.append((at, child, parent))
                histories[child] = before[parent]
    parents = ancestry.copies(exploits)
    for slot in range(members):
        assert ancestry.slots_of(ancestry.line(slot, times - 1, parents)) == histories[slot]


def test_shares_count_lines_by_kind():
    lines = [[Part(0, 0, 1), Part(1, 2, 2)], [Part(2, 0, 2)], [Part(0, 0, 2)]]
    assert ancestry.shares(lines, {0: 0, 1: 1, 2: 1}, 2, 3) == [[2, 1], [2, 1], [1, 2]]


# ------------------------------------------------------------------------------------------------------------ a run

START = Hyperparameters(256, 1e-3, 1e-3, 0.0, 0.0, 0.99, 0.005, 0.2, 0.5, 0.1)
RUN = Run("InvertedPendulum-v4", mix={"adam": 2, "kfac": 1}, steps=3_000, interval=1_000, learning_starts=500, seed=7)


def row(interval, member, fitness, **more):
    kind = RUN.kinds[member]
    base = {
        "interval": interval,
        "steps": 1_000 * interval,
        "member": member,
        "kind": kind,
        "fitness": fitness,
        "fitness_std": 1.0,
    }
    base |= {"environment_steps": 1_000 * interval, "environment_faults": 0, "quarantined": None}
    base |= {f"contained_{name}": 0.0 for name in ("statistics", "inverses", "steps", "losses")}
    return base | {"hyperparameters": START._asdict(), "seconds": {"rollout": 1.5, "learn": 2.5}} | more


def exploit(interval, member, parent, optimizer_state="new", **new):
    kinds, old = RUN.kinds, START._asdict()
    return {
        **{"event": "exploit", "interval": interval, "steps": 1_000 * interval, "member": member, "parent": parent},
        **{"member_kind": kinds[member], "parent_kind": kinds[parent], "member_fitness": 1.0, "parent_fitness": 20.0},
        **{"optimizer_state": optimizer_state, "old_hyperparameters": old, "new_hyperparameters": {**old, **new}},
    }


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """Three members, three intervals: 1 copies 2 after the first, 0 copies 1 after the second, and 0 is best at the end."""
    changed = START._replace(batch_size=307)._asdict()
    with RunFolder.create(tmp_path_factory.mktemp("runs") / "small", RUN) as folder:
        folder.append_metrics([row(1, 0, 5.0), row(1, 1, 1.0), row(1, 2, 20.0)])
        folder.append_metrics([row(2, 0, 1.0, contained_inverses=3.0), row(2, 1, 20.0, hyperparameters=changed), row(2, 2, None)])
        folder.append_metrics([row(3, 0, 30.0), row(3, 1, 30.0), row(3, 2, 4.0, environment_faults=2)])
        quarantine = {
            "event": "quarantine",
            "interval": 2,
            "steps": 2_000,
            "member": 2,
            "member_kind": "kfac",
            "reason": "a loss",
        }
        folder.append_events([exploit(1, 1, 2, batch_size=307), quarantine, exploit(2, 0, 1, "copied")])
    return folder.path


@pytest.fixture
def copy(small, tmp_path):
    return shutil.copytree(small, tmp_path / "run")


def told(path):
    return story.tell(reading.read(path), "run")


def test_a_story_has_curves_best_and_ancestry(small):
    run = told(small)
    assert (run["times"], run["done"], run["steps"], run["seed"]) == ([1_000, 2_000, 3_000], 3_000, 3_000, 7)
    assert [kind["name"] for kind in run["kinds"]] == ["adam", "kfac"]
    assert [member["fitness"] for member in run["members"]] == [[5, 1, 30], [1, 20, 30], [20, None, 4]]
    # The first of the highest: a later equal one does not replace the best policy.
    assert run["best"] == {"member": 0, "at": 2, "fitness": 30, "kind": "adam"}
    best, *others = run["lines"]
    assert best["parts"] == [[2, 0, 0], [1, 1, 1], [0, 2, 2]]
    assert [line["parts"] for line in others] == [best["parts"], [[2, 0, 0], [1, 1, 2]], [[2, 0, 2]]]
    # All three descend from the kfac member; two of them are adam later.
    assert run["shares"] == [[0, 3], [2, 1], [2, 1]]


def test_a_story_has_exploits_paths_troubles_and_phases(small):
    run = told(small)
    first, second = run["exploits"]
    assert (first["at"], first["member"], first["parent"], first["reset"], first["changes"]) == (
        0,
        1,
        2,
        True,
        [["batch_size", 256, 307]],
    )
    assert (second["at"], second["reset"], second["changes"]) == (1, False, [])
    assert [(path["name"], path["values"]) for path in run["paths"]] == [
        ("batch_size", [[256, 256, 256], [256, 307, 256], [256] * 3])
    ]
    assert [(one["at"], one["member"], one["what"], one["count"]) for one in run["troubles"]] == [
        (1, 0, "contained", 3),
        (2, 2, "fault", 2),
    ]
    assert {phase["name"]: phase["seconds"] for phase in run["phases"]}["learn"] == [2.5, 2.5, 2.5]
    assert run["events"] == [[2_000, "quarantine", "member 2 (kfac) is in quarantine: a loss"]]
    assert ["interval", "1000"] in run["settings"]


@pytest.mark.parametrize("ended", [True, False])
def test_a_state_is_what_the_folder_and_its_lock_say(copy, ended):
    assert told(copy)["state"] == "stopped"
    folder = RunFolder.open(copy)
    if ended:
        folder.write_result({"leaderboard": [], "best": {"return_mean": 31.0, "return_std": 1.0, "episodes": 10}})
        assert (told(copy)["state"], told(copy)["final"]["return_mean"]) == ("ended", 31)
    else:
        with folder.held():
            assert told(copy)["state"] == "running"
        assert told(copy)["problems"] == []


def test_a_damaged_run_is_shown_with_what_is_missing(copy):
    lines = (copy / "metrics.jsonl").read_text().splitlines(keepends=True)
    lines[3], lines[5] = "no JSON\n", "x" * 70_000 + "\n"
    (copy / "metrics.jsonl").write_text("".join(lines))
    (copy / "events.jsonl").write_text("torn")
    (copy / "config.toml").write_text("mix = 3")
    (copy / "metadata.json").unlink()
    (copy / "checkpoints").mkdir()
    run = told(copy)
    assert [member["fitness"] for member in run["members"]] == [[5, None, 30], [1, 20, 30], [20, None, 4]]
    said = " ".join(run["problems"])
    for expected in (
        "damaged in line 4",
        "damaged in line 6",
        "metadata.json",
        "settings in config.toml cannot be read: env is None",
        "2 of 9 rows",
    ):
        assert expected in said
    json.dumps(run, allow_nan=False)


def test_a_run_without_an_interval_is_shown(tmp_path):
    with RunFolder.create(tmp_path / "run", RUN) as folder:
        assert told(folder.path)["times"] == []


def test_words_for_events_of_any_form():
    assert events.in_words({"event": "quarantine"}) == "quarantine"
    assert events.in_words({"event": "caution", "message": "a\x1b[2Jb"}) == "a\\x1b[2Jb"
    assert events.in_words({"event": "later", "message": 3}) == "3"


# --------------------------------------------------------------------------------------------------------- comparison


def one(number, seed, mix, fitness, final=None):
    return {
        **{"name": f"run-{number}", "env": "E", "seed": seed, "times": [10, 20], "best": {"fitness": max(fitness)}},
        **{"settings": [["env", "E"], ["seed", str(seed)], ["mix.adam", str(mix)]], "final": {"return_mean": final}},
        "members": [{"fitness": fitness}, {"fitness": [0.0, None]}],
    }


def test_groups_are_compared_by_seed():
    stories = [
        one(0, 0, 4, [1, 2], 10.0),
        one(1, 1, 4, [3, 4], 20.0),
        one(2, 1, 8, [5, 6], 26.0),
        one(3, 0, 8, [7, 8], 12.0),
        one(4, 9, 8, [1, 1]),
    ]
    (env,) = compare.compare(stories)
    first, second = env["groups"]
    assert (first["label"], second["label"]) == ("adam=4", "adam=8")
    assert (first["runs"], second["runs"]) == ([0, 1], [2, 3, 4])
    assert (first["times"], first["mean"], first["low"], first["high"]) == ([10, 20], [2, 3], [1, 2], [3, 4])
    # A run that has not ended counts with its fitness so far.
    assert second["results"][9] == (1, False)
    (pair,) = env["pairs"]
    # 12 - 10 and 26 - 20; their mean 4, their standard deviation sqrt(8), divided by sqrt(2).
    assert (pair["differences"], pair["mean"], pair["ahead"]) == ({0: 2.0, 1: 6.0}, 4.0, 2)
    assert math.isclose(pair["error"], 2.0)


# --------------------------------------------------------------------------------------------------------------- page


def test_a_page_of_eight_members_and_a_hundred_intervals_is_small(tmp_path, capsys):
    folder = record(tmp_path / "run", population())
    with pytest.raises(SystemExit) as end:
        cli.main(["report", str(folder)])
    assert end.value.code == 0
    out = folder / "report.html"
    assert capsys.readouterr().out == f"Report: {out}\n"
    assert out.stat().st_size < 400_000  # the issue allows 5 MB
    # Again over itself, and the run folder is still one.
    with pytest.raises(SystemExit) as end:
        cli.main(["report", str(folder)])
    assert end.value.code == 0


def test_the_demo_ends_by_naming_its_report(tmp_path, monkeypatch, capsys):
    train_seeds = demo.train_seeds

    def small(population, *rest):
        tiny = {"mix": {"adam": 2}, "optimizers": {}, "steps": 60, "interval": 30, "learning_starts": 20, "batch_size": 32}
        layers = {"actor_layers": (4,), "critic_layers": (4,), "episodes": 1, "final_episodes": 1}
        return train_seeds(dataclasses.replace(population, **tiny, **layers), *rest)

    monkeypatch.setattr(demo, "train_seeds", small)
    with pytest.raises(SystemExit) as end:
        cli.main(["demo", "--out", str(tmp_path / "demo")])
    assert end.value.code == 0
    assert capsys.readouterr().out.splitlines()[-1] == f"Report: {tmp_path / 'demo' / 'report.html'}"
    assert (tmp_path / "demo" / "report.html").stat().st_size > 50_000


def test_a_page_allows_its_own_script_and_style_alone(small):
    text = page.html(page.data([small], [[("resume", "evolute resume x")]]))
    policy = re.search(r'Content-Security-Policy" content="([^"]+)"', text)[1]
    for tag in ("script", "style"):
        (inside,) = re.findall(rf"<{tag}>(.*?)</{tag}>", text, re.DOTALL)
        assert f"{tag}-src 'sha256-{base64.b64encode(hashlib.sha256(inside.encode()).digest()).decode()}'" in policy
    assert policy.startswith("default-src 'none'")
    assert "connect-src 'none'" in policy
    assert not re.search(r"https?://(?!www\.w3\.org)", text)


def test_no_text_of_a_run_ends_the_data(small):
    shown = page.data([small], [[]])
    shown["runs"][0]["name"] = "</script><!--<script>&\u2028\ud800"
    inside = re.search(r'id="data">(.*?)</script>', page.html(shown), re.DOTALL)[1]
    assert "<" not in inside
    assert json.loads(inside)["runs"][0]["name"] == shown["runs"][0]["name"]


@pytest.mark.parametrize("name", ["config.toml", "folder", "none/report.html"])
def test_nothing_else_is_overwritten(copy, name):
    (copy / "folder").mkdir()
    before = (copy / "config.toml").read_bytes()
    with pytest.raises(UserError, match="--out is"):
        page.write("page", copy / name)
    assert (copy / "config.toml").read_bytes() == before


@pytest.mark.parametrize(
    ("words", "said"), [([], "no run folder is given"), (["{}", "{}"], "named twice"), (["{}/x"], "does not exist")]
)
def test_mistakes_are_one_sentence(small, words, said, capsys):
    with pytest.raises(SystemExit) as end:
        cli.main(["report", *(word.format(small) for word in words)])
    assert end.value.code == 2
    assert said in capsys.readouterr().err


# ------------------------------------------------------------------------------------------------------------ colours

# Machado, Oliveira, Fernandes: A Physiologically-based Model for Simulation of Color Vision Deficiency (2009), at full severity.
EYES = {
    "usual": np.eye(3),
    "deuteranopia": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    "protanopia": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "tritanopia": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
}
TO_XYZ = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])


def light_of(colour):
    value = np.array([int(colour[n : n + 2], 16) / 255 for n in (1, 3, 5)])
    return np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)


def lab(light):
    x, y, z = np.cbrt(TO_XYZ @ np.clip(light, 0, 1) / [0.9505, 1.0, 1.089])
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


@pytest.mark.parametrize("eye", EYES)
@pytest.mark.parametrize("theme", [0, 1], ids=["light", "dark"])
def test_colours_of_kinds_stay_apart_in_every_eye(eye, theme):
    found = re.findall(r"--c\d: (#\w{6});", page._part(page.STYLE))
    kinds = found[8 * theme : 8 * theme + 8]
    seen = [lab(np.array(EYES[eye]) @ light_of(colour)) for colour in kinds]
    # A just noticeable difference is 2.3.
    assert min(float(np.linalg.norm(a - b)) for a, b in itertools.combinations(seen, 2)) > 15
