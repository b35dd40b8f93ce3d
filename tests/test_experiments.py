"""Experiments as data: what their files say, which runs they are, and what is kept of them."""

import dataclasses
import json
import os
import shlex
import shutil
import signal
import tomllib

import numpy as np
import pytest

from evolute import Run, UserError, overlay, train
from evolute.commands import cli
from evolute.experiments import costs, evidence, figures, grid, page, records, tables
from evolute.experiments.cell import train_cell
from evolute.experiments.grid import Experiment
from evolute.report import statistics
from evolute.runs.folder import RunFolder
from faults import evolute, finish, start, wait_until, workers_of

# A grid of one's own: tiny members on the quickest task.
OWN = """
title = "Mine"
envs = ["InvertedPendulum-v4"]
seeds = 2
reference = "adam"
evaluation_steps = 60
success = { InvertedPendulum-v4 = 5.0 }
tables = ["returns", "compared", "success", "ancestors", "seconds"]
figures = ["curves", "seconds", "updates", "survival", "profiles"]

[settings]
steps = 90
interval = 30
learning_starts = 20
actor_layers = [8]
critic_layers = [8]
batch_size = 16
buffer_size = 100
episodes = 1
final_episodes = 1
truncation = 0.5
max_episode_steps = 50

[arms.adam]
mix = { adam = 2 }
[arms.mixed]
mix = { adam = 1, sgd = 1 }
"""


@pytest.fixture
def own(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text(OWN)
    return path


def reproduce(capsys, *words):
    with pytest.raises(SystemExit) as end:
        cli.main(["reproduce", *map(str, words)])
    captured = capsys.readouterr()
    return end.value.code, captured.out, captured.err


# --------------------------------------------------------------------------------------------------------------- files


@pytest.mark.parametrize("scale", ["full", "small", "smoke"])
@pytest.mark.parametrize("name", grid.names())
def test_every_experiment_is_of_valid_runs(name, scale):
    experiment = grid.load(name, scale)
    cells = grid.cells(experiment, seeds=1)
    assert len(cells) == len(experiment.envs) * len(experiment.arms)
    assert len({records.name(cell.run, cell.evaluation_steps) for cell in cells}) == len(cells)
    # The page lists every setting that a scale changes.
    changed = page.reductions(name, scale)
    assert (changed == {}) == (scale == "full")
    for arm in grid.published(experiment.published).values() if experiment.published else ():
        # The control of `swimmer` is ours.
        assert set(experiment.arms) - set(arm) <= ({"6-2 Adam at 0.003"} if name == "swimmer" else set())
        assert scale != "full" or set(arm) <= set(experiment.arms)
    assert set(experiment.success) <= set(grid.load(name).envs)


def test_full_is_the_papers_protocol():
    for name in (
        "single-agents",
        "mixes-kfac",
        "mixes-diag-ggn",
        "population-sizes",
        "step-adjusted-kfac",
        "step-adjusted-diag-ggn",
    ):
        experiment = grid.load(name)
        assert experiment.envs == ("Ant-v4", "HalfCheetah-v4", "Hopper-v4", "Swimmer-v4", "Walker2d-v4")
        assert (experiment.evaluation_steps, experiment.seeds) == (150_000, 10 if name == "single-agents" else 5)
        for cell in grid.cells(experiment, seeds=1):
            preset = Run(cell.env, mix=cell.run.mix)
            assert set(overlay.difference(vars(cell.run), vars(preset))) <= {"steps_per_interval"}
            assert (cell.run.steps, cell.run.interval, cell.run.truncation, cell.run.factors) == (
                1_000_000,
                10_000,
                0.2,
                (0.8, 1.2),
            )
    mixes = [list(cell.run.mix.items()) for cell in grid.cells(grid.load("mixes-kfac"), ["Ant-v4"], seeds=1)]
    assert mixes == [
        [("adam", 8)],
        [("adam", 6), ("kfac", 2)],
        [("adam", 4), ("kfac", 4)],
        [("adam", 2), ("kfac", 6)],
        [("kfac", 8)],
    ]
    adjusted = [cell.run.steps_per_interval for cell in grid.cells(grid.load("step-adjusted-kfac"), ["Ant-v4"], seeds=1)]
    assert adjusted == [{}, *[{"kfac": 3_000}] * 4]


def test_published_numbers_are_those_of_the_paper():
    # Two of the text's own figures.
    assert grid.published("table4_adam_kfac")["Swimmer-v4"] == {
        "8-0": (229, 159),
        "6-2": (361, 2),
        "4-4": (361, 1),
        "2-6": (359, 2),
        "0-8": (350, 13),
    }
    assert grid.published("table2_single_agent")["HalfCheetah-v4"]["kfac"] == (8696, 1081)
    assert grid.published("no such table") == {}
    swimmer, table3, table4 = (
        grid.published(table)["Swimmer-v4"] for table in ("tables3_4_swimmer", "table3_adam_diag_ggn", "table4_adam_kfac")
    )
    assert swimmer == {
        **{"8-0": table4["8-0"], "6-2 kfac": table4["6-2"], "0-8 kfac": table4["0-8"], "6-2 kfac_empirical": table4["6-2"]},
        "6-2 diag_ggn": table3["6-2"],
    }
    table5 = "table5_improvement_percent_diag_ggn"
    assert (grid.published(table5), grid.published_percent(table5)["Ant-v4"]) == ({}, {"single": -16, "pbt_adam": -9})
    assert grid.load("improvements-diag-ggn").published == table5


def test_equal_cells_of_different_experiments_are_one():
    ours, theirs = (
        {records.name(cell.run, cell.evaluation_steps) for cell in grid.cells(grid.load(name, "small"))}
        for name in ("mixes-kfac", "improvements-kfac")
    )
    assert ours < theirs


def test_a_member_of_another_name_alone_is_adam():
    """The controls rest on it: AdamW without decay of weights takes Adam's steps."""
    import jax
    import jax.numpy as jnp

    from evolute import optimizers
    from evolute.optimizers.base import Rates

    run = grid.cells(grid.load("control-drift"), ["Hopper-v4"], ["6-2 by name"], 1)[0].run
    assert run.optimizers_of("adamw")["actor"][1]["learning_rate"] == run.optimizers_of("adam")["actor"][1]["learning_rate"]
    rng = np.random.default_rng(0)
    start = [(jnp.asarray(rng.normal(size=(3, 2)), jnp.float32), jnp.asarray(rng.normal(size=2), jnp.float32))]
    gradients = [jax.tree.map(lambda x: jnp.asarray(rng.normal(size=x.shape), jnp.float32), start) for _ in range(5)]
    ends = []
    for kind in ("adam", "adamw"):
        name, table = run.optimizers_of(kind)["actor"]
        optimizer = optimizers.build(name, table)
        networks, state = start, optimizer.init(start)
        for step, gradient in enumerate(gradients):
            rates = Rates(jnp.float32(1e-3), jnp.float32(0.0))
            networks, state, _ = optimizer.update(gradient, state, networks, rates, None, jnp.int32(step))
        ends.append(networks)
    assert jax.tree.all(jax.tree.map(lambda a, b: bool((a == b).all()), *ends))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (("title = ", "titel = "), "unknown key 'titel'"),
        (('envs = ["InvertedPendulum-v4"]', ""), "has no envs; give one, such as envs = ['Hopper-v4']"),
        (("seeds = 2", "seeds = 0"), "seeds is 0; it must be a positive number of seeds"),
        (("seeds = 2", "seeds = 'two'"), "seeds is 'two'; it must be a whole number"),
        (('reference = "adam"', 'reference = "eve"'), "has the reference 'eve', which is no arm; choose from adam, mixed"),
        (('tables = ["returns"', 'tables = ["retruns"'), "tables is retruns compared success ancestors seconds"),
        (("interval = 30", "intervall = 30"), "unknown setting 'intervall' (did you mean 'interval'?)"),
        (("mix = { adam = 2 }", "mix = { adma = 2 }"), "the arm 'adam' on InvertedPendulum-v4: "),
        (("[settings]", "include = ['nothing']\n[settings]"), "there is no experiment 'nothing'"),
        (("[arms.adam]", "[[arms.adam]]"), "has arms.adam = [{'mix': {'adam': 2}}]; write a table, such as [arms.'adam']"),
        ((OWN[OWN.index("[arms.adam]") :], ""), "has no arms; give a table for each"),
        (("[arms.adam]", "[arms.adam"), "is not valid TOML"),
        (("[arms.adam]", "[grid]\nseed = 3\n[arms.adam]"), "has a grid that is no table of lists"),
        (
            ("[arms.adam]", "[grid]\nmix = [1]\n'mix.adam' = [1]\n[arms.adam]"),
            "'mix' and 'mix.adam', of which one holds the other",
        ),
        (("[settings]", "settings = 5\n[other]"), "has settings = 5; write a table, such as [settings]"),
        (("[settings]", "by_env = { InvertedPendulum-v4 = 5 }\n[settings]"), "has by_env.InvertedPendulum-v4 = 5; write a table"),
        (("[settings]", "[settings]\nseed = 3"), "has 'seed' in 'settings', which every run has from envs and seeds"),
        (("[arms.adam]", "[arms.adam]\nenv = 'Hopper-v4'"), "has 'env' in 'adam', which every run has from envs and seeds"),
        (
            ('envs = ["InvertedPendulum-v4"]', 'envs = [["InvertedPendulum-v4"]]'),
            "envs is ['InvertedPendulum-v4']; it must be one or more different environments",
        ),
        (('tables = ["returns"', 'tables = [["returns"]'), "tables is "),
        (("[settings]", "scale = 5\n[settings]"), "has scale = 5; write a table, such as [scale]"),
        (("[settings]", "scale = { small = 5 }\n[settings]"), "has scale.small = 5; write a table"),
        (("[settings]", "scale = { small = { most_envs = 'a' } }\n[settings]"), "has most_envs = 'a'; write a whole number"),
        (("[settings]", "scale = { small = { settings = 5 } }\n[settings]"), "the scale 'small' of the experiment"),
        (("success = { I", "success = { i"), "has success on 'invertedPendulum-v4' (did you mean 'InvertedPendulum-v4'?)"),
        (("[settings]", "published = 'table4'\n[settings]"), "has published = 'table4'"),
        (("[settings]", "include = ['mixes-kfac', 'mixes-diag-ggn']\n[settings]"), "two experiments that have an arm '6-2' each"),
    ],
)
def test_a_wrong_file_is_one_sentence(tmp_path, own, capsys, change, said):
    own.write_text(OWN.replace(*change))
    code, out, err = reproduce(capsys, own, "--out", tmp_path / "out")
    assert (code, out) == (2, "")
    assert said in err
    assert len(err.strip().splitlines()) == 1
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((), "no experiment is named; choose from cadence,"),
        (("nothing",), "there is no experiment 'nothing'; choose from "),
        (("nothing.toml",), "the experiment 'nothing.toml' does not exist; check the path"),
        (("swimmer", "--scale", "smal"), "there is no scale 'smal' (did you mean 'small'?); choose from full, small, smoke"),
        (("swimmer", "--env", "Hopper-v4"), "there is no environment 'Hopper-v4' in swimmer; choose from Swimmer-v4."),
        (("swimmer", "--arms", "8"), "there is no arm '8' in swimmer; choose from 8-0, 6-2 kfac,"),
        (("swimmer", "mixes-kfac", "--arms", "8-1"), "there is no arm '8-1' in swimmer or mixes-kfac (did you mean '8-0'?)"),
        (
            ("swimmer", "mixes-kfac", "--arms", "6-2 diag_ggn"),
            "mixes-kfac has no arm '6-2 diag_ggn'; leave it out, or name one of its own: 8-0,",
        ),
        (("mixes-kfac", "swimmer", "--env", "Hopper-v4"), "swimmer has no environment 'Hopper-v4'; leave it out"),
        (("swimmer", "--seeds", "0"), "--seeds is 0; it must be a whole number, at least 1"),
        (("swimmer", "--jobs", "none"), "--jobs is none"),
    ],
)
def test_a_wrong_option_is_one_sentence(tmp_path, monkeypatch, capsys, words, said):
    monkeypatch.chdir(tmp_path)
    code, _, err = reproduce(capsys, *words)
    assert code == 2
    assert said in err
    assert list(tmp_path.iterdir()) == []


def test_each_of_several_experiments_takes_the_arms_that_it_has(tmp_path, capsys):
    arms = ["6-2 by name", "8 random search", "8-0"]
    names = ["control-drift", "control-independent", "control-drift"]
    code, said, err = reproduce(capsys, *names, "--scale", "small", "--tables", "--seeds", 1, "--out", tmp_path, "--arms", *arms)
    assert (code, err) == (0, "")
    assert said.count("0 of 6 runs") == 3
    for name, own in (("control-drift", arms[::2]), ("control-independent", arms[1:])):
        command = next(line for line in (tmp_path / name / "README.md").read_text().splitlines() if line.startswith("evolute "))
        words = shlex.split(command)
        assert words[words.index("--arms") + 1 : words.index("--seeds")] == own


def test_an_evaluation_is_no_shorter_than_an_episode(tmp_path, own, capsys):
    own.write_text(OWN.replace("evaluation_steps = 60", "evaluation_steps = 49"))
    code, said, _ = reproduce(capsys, own, "--out", tmp_path / "out", "--seeds", 1, "--jobs", 1)
    assert code == 3
    assert "evaluation_steps is 49, and an episode of InvertedPendulum-v4 may have 50 steps" in said
    assert not (tmp_path / "out" / "runs").exists()


def test_a_table_of_settings_that_is_new_is_named_by_its_entries():
    assert "bounds" not in page.reductions("mixes-kfac", "small")
    assert page.reductions("mixes-kfac", "small")["bounds.batch_size"] == ("32, 128", "None")


def test_a_file_that_names_a_module_needs_leave(tmp_path, own, capsys):
    own.write_text(
        OWN.replace('"InvertedPendulum-v4"', '"probe_envs:Noisy-v0"').replace("InvertedPendulum-v4", "'probe_envs:Noisy-v0'")
    )
    code, _, err = reproduce(capsys, own, "--out", tmp_path / "out")
    assert code == 2
    assert "--allow-import probe_envs" in err
    # Tables of what is there need no module.
    code, said, err = reproduce(capsys, own, "--out", tmp_path / "out", "--tables")
    assert (code, err) == (0, "")
    assert "0 of 4 runs" in said


def test_settings_of_an_environment_lie_between_those_of_every_run_and_the_arms(own):
    both = OWN.replace('envs = ["InvertedPendulum-v4"]', 'envs = ["InvertedPendulum-v4", "Hopper-v4"]')
    scale = (
        "settings = { batch_size = 32, learning_starts = 20, steps = 90, interval = 30 }\nby_env = { Hopper-v4 = { steps = 40 } }"
    )
    own.write_text(f"{both}interval = 10\n[by_env.Hopper-v4]\nsteps = 60\ninterval = 20\n[scale.small]\n{scale}\n")
    found = {
        (cell.env, cell.arm, scale): (cell.run.steps, cell.run.interval)
        for scale in ("full", "small")
        for cell in grid.cells(grid.load(str(own), scale), seeds=1)
    }
    assert found[("InvertedPendulum-v4", "adam", "full")] == (90, 30)
    assert found[("Hopper-v4", "adam", "full")] == (60, 20)
    assert found[("Hopper-v4", "mixed", "full")] == (60, 10)
    assert found[("Hopper-v4", "adam", "small")] == (40, 20)


def test_what_is_included_keeps_the_settings_of_its_own_experiment(tmp_path, own):
    other = tmp_path / "other.toml"
    other.write_text(
        f"title = 'Other'\nenvs = ['InvertedPendulum-v4']\ninclude = [{str(own)!r}]\n[arms.mine]\nmix = {{ adam = 1 }}\n"
    )
    runs = {cell.arm: cell.run for cell in grid.cells(grid.load(str(other)), seeds=1)}
    assert (runs["adam"].steps, runs["mine"].steps) == (90, 1_000_000)
    assert runs["adam"] == grid.cells(grid.load(str(own)), arms=["adam"], seeds=1)[0].run


def test_what_is_named_twice_counts_once(own):
    experiment = grid.load(str(own))
    assert len(grid.cells(experiment, ["InvertedPendulum-v4"] * 2, ["adam"] * 2)) == experiment.seeds
    with pytest.raises(UserError, match="there is no environment 'Hopper-v4' in the experiment; choose from InvertedPendulum-v4"):
        grid.cells(experiment, ["Hopper-v4"])


def test_values_of_a_grid_that_are_nearly_equal_are_arms_of_their_own(own):
    own.write_text(OWN + "[grid]\ntau = [0.1, 0.1000001]\n")
    assert {"0.1", "0.1000001"} <= set(grid.load(str(own)).arms)


# -------------------------------------------------------------------------------------------------------------- running


def test_what_is_missing_is_trained_what_is_there_is_not(tmp_path, own, capsys):
    out = tmp_path / "out"
    code, said, err = reproduce(capsys, own, "--out", out, "--jobs", "2", "--seeds", "1")
    assert code == 0, err
    assert "Mine: 2 of 2 runs" in said
    first = {path.name: path.read_bytes() for path in (out / "records").iterdir()}
    assert len(first) == 2
    for path in (out / "runs").iterdir():
        if path.is_dir():
            assert RunFolder.open(path).has_ended
            assert not (path / "replay").exists()
            assert not (path / "checkpoints").exists()
    code, said, err = reproduce(capsys, own, "--out", out, "--jobs", "2", "--keep")
    assert code == 0, err
    assert "Mine: 4 of 4 runs" in said
    assert {name: (out / "records" / name).read_bytes() for name in first} == first
    text = (out / "mine" / "README.md").read_text()
    assert "4 of 4 runs have ended" in text
    for name in tomllib.loads(OWN)["tables"]:
        assert (out / "mine" / f"{name}.csv").read_text().startswith("environment,")
        assert (out / "mine" / f"{name}.tex").read_text().startswith(r"\begin{tabular}")
    pytest.importorskip("matplotlib")
    for name in tomllib.loads(OWN)["figures"]:
        assert f"]({name}.png)" in text
        assert (out / "mine" / f"{name}.png").read_bytes().startswith(b"\x89PNG")
    # What was made of it is in the records alone: an install without the runs makes the same page.
    again = tmp_path / "again"
    (again / "records").mkdir(parents=True)
    for path in (out / "records").iterdir():
        (again / "records" / path.name).write_bytes(path.read_bytes())
    assert reproduce(capsys, own, "--out", again, "--tables")[0] == 0
    assert (again / "mine" / "README.md").read_text() == text.replace(str(out), str(again)).replace(" --jobs 2", "")


def test_a_record_says_what_the_run_folder_says(tmp_path, own, capsys):
    out = tmp_path / "out"
    assert reproduce(capsys, own, "--out", out, "--arms", "mixed", "--seeds", "1")[0] == 0
    [cell] = grid.cells(grid.load(str(own)), arms=["mixed"], seeds=1)
    record = records.read_all(out)[records.name(cell.run, 60)]
    [path] = [path for path in (out / "runs").iterdir() if path.is_dir()]
    folder = RunFolder.open(path)
    rows = folder.metrics()
    best = [max(row["fitness"] for row in rows if row["interval"] == n) for n in (1, 2, 3)]
    assert record["curve"]["steps"] == [30, 60, 90]
    assert record["curve"]["best"] == pytest.approx(best, rel=1e-5)
    assert record["curve"]["gradient_steps"] == [20, 80, 140]
    assert sorted(record["curve"]["processor_seconds"]) == record["curve"]["processor_seconds"]
    last = [row for row in rows if row["interval"] == 3]
    assert record["winner"]["fitness"] == pytest.approx(max(row["fitness"] for row in last), rel=1e-5)
    assert len(record["ancestors"]) == 3
    assert record["final"]["episodes"] > 0
    # Of this version's settings it is this run, and of a changed one it is none.
    assert records.name(dataclasses.replace(cell.run, tau=0.01), 60) not in records.read_all(out)


def test_ancestors_follow_the_copies_backwards():
    exploits = [
        {"interval": 1, "member": 0, "parent": 2},
        {"interval": 2, "member": 1, "parent": 0},
        {"interval": 2, "member": 2, "parent": 3},
    ]
    kinds = ["a", "b", "c", "d"]
    # 1 became a copy of 0 after interval 2, and 0 one of 2 after interval 1.
    assert records.ancestors(exploits, 1, kinds, 3) == ["c", "a", "b"]
    assert records.ancestors(exploits, 2, kinds, 3) == ["d", "d", "c"]
    assert records.ancestors([], 3, kinds, 2) == ["d", "d"]


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda text: text[:-10], "cannot be read"),
        (lambda text: "[]", "is damaged: it must be a JSON object"),
        (lambda text: text.replace('"final":{', '"last":{'), "is damaged: 'final' is missing"),
    ],
)
def test_a_damaged_record_is_named(tmp_path, own, capsys, damage, said):
    made(tmp_path, own)
    path = sorted((tmp_path / "records").iterdir())[0]
    path.write_text(damage(path.read_text()))
    code, _, err = reproduce(capsys, own, "--out", tmp_path, "--tables")
    assert code == 2
    assert str(path) in err
    assert said in err
    assert "delete it to train its run again" in err


# ------------------------------------------------------------------------------------------------------------- evidence


def made(out, own, finals=None, envs=()):
    """Write records as runs leave them, with made-up returns, and return what they are evidence of; None is a run that failed."""
    experiment = grid.load(str(own))
    for cell in grid.cells(experiment, envs):
        mean = (finals or {}).get((cell.arm, cell.run.seed), 10.0 * cell.run.seed)
        record = {
            "format": records.FORMAT,
            "settings": records.toml.to_toml(cell.run),
            "evaluation_steps": cell.evaluation_steps,
            "curve": {
                "steps": [30, 60, 90],
                "best": [0.0, mean and mean / 2, mean],
                "gradient_steps": [20, 80, 140],
                "processor_seconds": [1.0, 2.0, 4.0],
            },
            "winner": {"member": 0, "kind": "adam", "fitness": mean},
            "ancestors": ["adam", "adam", cell.run.kinds[-1]],
            "seconds": {"learn": [9.0, 2.0, 3.0], "evaluate": [1.0, 1.0, 1.0]},
            "stopped": None if mean is not None else 90,
            "final": {"mean": mean, "std": 1.0, "episodes": 3},
        }
        records.write(out, cell.run, record)
    return evidence.gather(experiment, out)


def test_tables_say_what_the_records_say(tmp_path, own):
    found = made(tmp_path, own, {("adam", 0): 2.0, ("adam", 1): 4.0, ("mixed", 0): 6.0, ("mixed", 1): 12.0})
    by_name = {name: tables.MAKERS[name](found) for name in found.experiment.tables}
    # Deviations of samples: 1.41 and 4.24.
    assert by_name["returns"].rows == [["InvertedPendulum-v4", "here", "3 ± 1 (2)", "9 ± 4 (2)"]]
    [compared] = by_name["compared"].rows
    assert compared[:3] == ["InvertedPendulum-v4", "mixed", "2"]
    assert compared[5].startswith("1.00 [1.00, 1.00]")
    # Two of two above two of two: one of three ways, twice.
    assert compared[6] == "0.333"
    success = {row[1]: row for row in by_name["success"].rows}
    assert success["adam"][3].startswith("0% [0%, 66%]")
    assert success["mixed"][3].startswith("100% [34%, 100%]")
    assert success["adam"][5] == "more than 90"
    # Best 3 and 6 after 60 steps, 6 and 12 after 90.
    assert success["mixed"][5] == "60"
    shares = {row[2]: row[3:5] for row in by_name["ancestors"].rows}
    assert shares["sgd"] == ["50%", "33% [33%, 33%]"]
    assert [row[1:] for row in by_name["seconds"].rows] == [
        ["processor, 10,000 gradient steps of a member", "250.0", "250.0"],
        ["processor, an interval of the population", "1.5", "1.5"],
        ["wall clock, an interval of the population", "3.5", "3.5"],
    ]
    # Two against two can say no more than that.
    assert "Comparisons made here: 1;" in by_name["compared"].notes[1]
    assert by_name["compared"].notes[2] == "It cannot be less than 0.333 with these runs, whatever they are."


def test_enough_runs_may_have_any_p_value_that_is_shown():
    least = statistics.least_difference(9, 8)
    assert 0 < least < 0.001
    assert tables.p(least) == "< 0.001"
    assert tables.least_corrected(least) == []
    assert tables.least_corrected(0.009) == ["It cannot be less than 0.009 with these runs, whatever they are."]


@pytest.mark.parametrize("name", ["returns.csv", "curves.png", "curves.svg", "README.md"])
def test_a_page_that_cannot_be_written_is_one_sentence(tmp_path, own, capsys, name):
    made(tmp_path, own)
    (tmp_path / "mine" / name).mkdir(parents=True)
    code, _, err = reproduce(capsys, own, "--out", tmp_path, "--tables")
    assert (code, err.count("\n")) == (2, 1)
    assert f"{name}' cannot be written: Is a directory" in err
    assert "fix that first" in err


def test_one_run_has_no_interval(tmp_path, own):
    own.write_text(OWN.replace("seeds = 2", "seeds = 1"))
    found = made(tmp_path, own, {("adam", 0): 2.0, ("mixed", 0): 6.0})
    assert {row[2]: row[4] for row in tables.ancestors(found).rows} == {"adam": "67%", "sgd": "33%"}
    assert tables.compared(found).rows[0][3:6] == ["6 (1)", "2 (1)", "1.00"]


def test_a_run_that_failed_counts_as_worse_than_any_other_and_in_no_mean(tmp_path, own):
    own.write_text(OWN.replace("seeds = 2", "seeds = 3"))
    finals = {("adam", seed): -1e9 for seed in range(3)} | {("mixed", 0): None, ("mixed", 1): None, ("mixed", 2): 6.0}
    found = made(tmp_path, own, finals)
    [[_, _, adam, mixed]] = tables.returns(found).rows
    assert mixed == "6 (1), 2 failed"
    assert tables.FAILED in tables.returns(found).notes
    [row] = tables.compared(found).rows
    # One of the three beats all of the reference's.
    assert row[5].startswith("0.33 ")
    assert {row[1]: row[3] for row in tables.success(found).rows}["mixed"].startswith("33%")
    assert adam.endswith("(3)")
    # With no sound run at all there is no mean.
    all_failed = made(tmp_path, own, {("mixed", seed): None for seed in range(3)})
    assert tables.returns(all_failed).rows[0][3] == "3 failed"
    assert tables.compared(all_failed).rows[0][3] == "3 failed"
    if pytest.importorskip("matplotlib"):
        for name in found.experiment.figures:
            figures.draw(found, name, tmp_path)
            figures.draw(all_failed, name, tmp_path)


def test_a_mix_of_every_run_is_that_of_its_arms(tmp_path, own):
    own.write_text(
        OWN.replace("mix = { adam = 2 }", "tau = 0.01").replace("mix = { adam = 1, sgd = 1 }", "tau = 0.02")
        + "[by_env.InvertedPendulum-v4]\nmix = { adam = 1, sgd = 1 }\n"
    )
    rows = tables.ancestors(made(tmp_path, own)).rows
    assert [row[1:4] for row in rows] == [[arm, kind, "50%"] for arm in ("adam", "mixed") for kind in ("adam", "sgd")]


def test_a_probability_over_all_environments_stands_below_the_rows_of_each(tmp_path, own):
    own.write_text(OWN.replace('envs = ["InvertedPendulum-v4"]', 'envs = ["InvertedPendulum-v4", "InvertedDoublePendulum-v4"]'))
    found = made(tmp_path, own, {("adam", 0): 1.0, ("adam", 1): 2.0, ("mixed", 0): 3.0, ("mixed", 1): 4.0})
    *_, last = tables.compared(found).rows
    assert last == ["all 2", "mixed", "4", "", "", "1.00 [1.00, 1.00]", "", ""]


def test_profiles_leave_out_environments_without_a_scale(tmp_path, own):
    pytest.importorskip("matplotlib")
    assert figures.MAKERS["profiles"](made(tmp_path, own, {("adam", 0): 9.0, ("adam", 1): 10.0})) is not None
    assert figures.MAKERS["profiles"](made(tmp_path, own, {("adam", 0): -9.0, ("adam", 1): 10.0})) is None
    assert figures.MAKERS["profiles"](made(tmp_path, own, {("adam", 0): -9.0, ("adam", 1): -10.0})) is None


def test_no_two_of_many_lines_look_alike():
    styles = [figures._style(number) for number in range(32)]
    assert len({(style["color"], style["linestyle"]) for style in styles}) == 32


def test_what_was_not_run_is_said(tmp_path, own):
    found = evidence.gather(grid.load(str(own)), tmp_path)
    assert (found.asked, found.ended) == (4, 0)
    assert tables.returns(found).rows == [["InvertedPendulum-v4", "here", "not run", "not run"]]
    assert [row[3] for row in tables.compared(found).rows] == ["not run"]
    assert "Comparisons made here: 0;" in tables.compared(found).notes[1]
    assert [row[3] for row in tables.success(found).rows] == ["not run", "not run"]
    assert all(figures.MAKERS[name](found) is None for name in found.experiment.figures)


def test_forms_of_a_table_quote_what_they_must():
    table = tables.Table("name", "Title", ["Note."], ["a|b", "50%"], [["x, y", "1 ± 2"], ['"', "a_b & c"]])
    assert "| a\\|b | 50% |" in tables.markdown(table)
    assert tables.csv(table) == 'a|b,50%\n"x, y",1 ± 2\n"""",a_b & c\n'
    assert r"a\_b \& c" in tables.latex(table)
    assert r"1 $\pm$ 2" in tables.latex(table)


def test_improvements_are_over_the_means():
    assert tables.percent(110.0, 100.0) == "+10%"
    assert tables.percent(-90.0, -100.0) == "+10%"
    assert tables.percent(1.0, None) == "not run"


def test_a_grid_is_every_combination(tmp_path, own):
    own.write_text(OWN.replace("[arms.adam]", '[grid]\n"optimizers.sgd.learning_rate" = [0.1, 0.01]\ntau = [0.5]\n[arms.adam]'))
    experiment = grid.load(str(own))
    assert list(experiment.arms) == ["adam", "mixed", "0.1 0.5", "0.01 0.5"]
    assert experiment.arms["0.01 0.5"] == {"optimizers": {"sgd": {"learning_rate": 0.01}}, "tau": 0.5}
    assert isinstance(experiment, Experiment)
    assert json.dumps(experiment.grid)


# --------------------------------------------------------------------------------------------------------- interruptions


def trained(record):
    """What a record says of training: all but the time that it took."""
    curve = {name: values for name, values in record["curve"].items() if name != "processor_seconds"}
    return {**record, "curve": curve, "seconds": None}


def one_run(own, steps=300):
    own.write_text(OWN.replace("steps = 90", f"steps = {steps}"))
    return ["reproduce", own, "--arms", "mixed", "--seeds", "1", "--jobs", "1"]


@pytest.mark.parametrize("how", ["SIGINT", pytest.param("a lost process", marks=pytest.mark.slow)])
def test_what_was_interrupted_goes_on_from_its_last_checkpoint(tmp_path, own, how):
    words = one_run(own)
    code, _, err = evolute(tmp_path, *words, "--out", "whole")
    assert code == 0, err
    process = start(tmp_path, *words, "--out", "cut")
    wait_until(lambda: list((tmp_path / "cut" / "runs").glob("*/checkpoints/00000[2-9].json")))
    if how == "SIGINT":
        process.send_signal(signal.SIGINT)
        code, out, err = finish(process)
        assert code == 130
        assert "stopped. The same command goes on from the last checkpoints." in err
        assert not (tmp_path / "cut" / "records").exists()
        code, out, err = evolute(tmp_path, *words, "--out", "cut")
    else:
        [cell] = workers_of(process)
        os.kill(cell, signal.SIGKILL)
        code, out, err = finish(process)
        assert "its process was ended by signal 9; a new one goes on from the last checkpoint" in out
    assert code == 0, err
    whole, cut = (list(records.read_all(tmp_path / name).values()) for name in ("whole", "cut"))
    assert [trained(record) for record in cut] == [trained(record) for record in whole]


def test_a_run_that_fails_is_named_and_tried_again(tmp_path, own, capsys):
    """A run folder that another version has begun."""
    words = one_run(own, 90)[1:]
    out = tmp_path / "out"
    [cell] = grid.cells(grid.load(str(own)), arms=["mixed"], seeds=1)
    folder = out / "runs" / records.name(cell.run, 60)
    folder.mkdir(parents=True)
    (folder / "config.toml").write_text("nonsense")
    code, said, err = reproduce(capsys, *words, "--out", out)
    assert code == 3
    assert "InvertedPendulum-v4 mixed seed 0: " in said
    assert "1 of 1 runs failed (see above); the same command tries them again" in err
    (folder / "config.toml").unlink()
    shutil.rmtree(folder)
    assert reproduce(capsys, *words, "--out", out)[0] == 0


def test_a_run_whose_members_all_diverge_has_a_record_and_the_page_is_written(tmp_path, own, capsys):
    own.write_text(
        OWN.replace("mix = { adam = 1, sgd = 1 }", "mix = { sgd = 1 }\noptimizers = { sgd = { learning_rate = 1e30 } }")
    )
    words, out = [own, "--seeds", "1", "--jobs", "1", "--out", tmp_path / "out"], tmp_path / "out"
    code, said, err = reproduce(capsys, *words)
    assert code == 0, err
    assert "InvertedPendulum-v4 mixed seed 0: failed, every member had diverged after 30 steps" in said
    assert "note: every member is in quarantine" in said
    assert ", 1 failed" not in (page := (out / "mine" / "README.md").read_text())
    assert "| 1 failed |" in page
    [record] = [record for record in records.read_all(out).values() if record["stopped"] is not None]
    assert (record["stopped"], record["curve"]["steps"], record["final"]["mean"]) == (30, [30], None)
    # The same after the process was lost before the record was written.
    before = {path.name: path.read_bytes() for path in (out / "records").iterdir()}
    for path in (out / "records").iterdir():
        path.unlink()
    assert reproduce(capsys, *words)[0] == 0
    assert {path.name: path.read_bytes() for path in (out / "records").iterdir()} == before


def test_a_new_run_is_not_told_by_an_earlier_ones_policy(tmp_path, own):
    words = one_run(own, 90)[1:]
    [cell] = grid.cells(grid.load(str(own)), arms=["mixed"], seeds=1)
    name, out = records.name(cell.run, 60), tmp_path / "out"

    def result(keep):
        record = train_cell(cell.run, 60, out, 1, keep, lambda steps: None, lambda sentence: None)
        return record["final"], (out / "policies" / name / "policy.safetensors").read_bytes()

    assert words
    whole = result(keep=True)
    # An earlier run's, or half of one.
    for left in ("policy.json", "policy.safetensors"):
        (out / "policies" / name / left).write_bytes(b"")
        assert result(keep=True) == whole
    shutil.rmtree(out / "runs")
    assert result(keep=False) == whole
    # Without its checkpoints what was kept is all there is.
    assert result(keep=False) == whole


# ------------------------------------------------------------------------------------------------------------- comparing


def test_any_runs_are_compared(tmp_path, own, capsys):
    for name, settings in (("one", {}), ("two", {"seed": 1}), ("three", {"tau": 0.01}), ("four", {"tau": 0.01, "seed": 1})):
        [cell, *_] = grid.cells(grid.load(str(own)), arms=["mixed"], seeds=1)
        train(dataclasses.replace(cell.run, **settings), tmp_path / name, note=lambda sentence: None)
    with pytest.raises(SystemExit) as end:
        cli.main(["compare", *(str(tmp_path / name) for name in ("one", "two", "three", "four")), "--out", str(tmp_path / "out")])
    assert end.value.code == 0
    out = capsys.readouterr().out
    assert "adam=1 sgd=1 tau=0.01" in out
    finals = [RunFolder.open(tmp_path / name).result()["best"]["return_mean"] for name in ("one", "two")]
    assert f"{np.mean(finals):.0f} ± {np.std(finals, ddof=1):.0f} (2)" in out
    assert (tmp_path / "out" / "returns.csv").is_file()


def label_of(runs):
    groups = evidence.grouped(runs, [f"runs/{number}" for number in range(len(runs))])
    labels = evidence.named([runs[members[0]] for members in groups], [f"run{members[0]}" for members in groups])
    return dict(zip(labels, groups, strict=True))


def test_runs_are_one_arm_where_they_differ_by_environment_and_seed_alone():
    one = Run("Hopper-v4", mix={"adam": 2})
    rate = dataclasses.replace(one, optimizers={"adam": {"learning_rate": 0.01}}, seed=1)
    assert label_of([one, dataclasses.replace(one, seed=1), rate]) == {
        "adam=2": [0, 1],
        "adam=2 optimizers.adam.actor.learning_rate=0.01 optimizers.adam.critic.learning_rate=0.01": [2],
    }
    # The fourth difference tells them apart, too.
    three = dataclasses.replace(one, tau=0.01, discount=0.9, policy_delay=3)
    four = dataclasses.replace(three, strategy="none", seed=1)
    assert sorted(map(len, label_of([one, three, four]).values())) == [1, 1, 1]
    # Presets of environments differ, and a setting that is the same everywhere does not.
    swimmer = Run("Swimmer-v4", mix={"adam": 2})
    assert label_of([one, swimmer]) == {"adam=2": [0, 1]}
    assert label_of([dataclasses.replace(one, tau=0.01), dataclasses.replace(swimmer, tau=0.01)]) == {"adam=2": [0, 1]}
    alike = dataclasses.replace(swimmer, discount=0.99, seed=1)
    assert sorted(label_of([one, swimmer, alike]).values()) == [[0, 1], [2]]
    with pytest.raises(UserError, match="'runs/0' and 'runs/1' have the same settings and seed"):
        label_of([one, one])


def test_runs_that_have_not_ended_cannot_be_compared(tmp_path, capsys):
    with pytest.raises(SystemExit) as end:
        cli.main(["compare", str(tmp_path)])
    assert end.value.code == 2
    assert "holds no run" in capsys.readouterr().err


# ----------------------------------------------------------------------------------------------------------------- costs


def test_what_a_run_takes_is_measured_and_nothing_is_trained(tmp_path, own, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    code, out, err = reproduce(capsys, own, "--dry-run", "--arms", "adam", "--jobs", "2")
    assert code == 0, err
    assert "measuring adam on InvertedPendulum-v4" in err
    assert out.count("InvertedPendulum-v4 adam seed ") == 2
    assert "2 of 2 runs are missing" in out
    sizes = ["--steps", "5000", "--learning-starts", "100", "--actor-layers", "8", "--critic-layers", "8"]
    with pytest.raises(SystemExit) as end:
        cli.main(["train", "InvertedPendulum-v4", *sizes, "--dry-run"])
    assert end.value.code == 0
    assert "of memory" in (said := capsys.readouterr().out)
    assert "on 1 core, and a minute of compilation" in said
    assert [path.name for path in tmp_path.iterdir()] == ["mine.toml"]


def test_costs_add_up(own):
    [cell, *_] = grid.cells(grid.load(str(own)), arms=["mixed"], seeds=1)
    kinds = {kind: costs.brief(cell.run, kind) for kind in cell.run.mix}
    # It is the same member, for a moment.
    for kind, run in kinds.items():
        assert run.settings_of(kind) == cell.run.settings_of(kind)
        assert run.optimizers_of(kind) == cell.run.optimizers_of(kind)
    found = {costs.price(kinds["adam"]): costs.Cost(1.0, 0.01), costs.price(kinds["sgd"]): costs.Cost(0.5, 0.02)}
    # 90 steps each; three evaluations of one episode of at most 50 steps each; at the end another one, and 60 steps.
    expected = 90 * 1.5 + 3 * 50 * 0.03 + (50 + 60) * 0.01
    assert costs.seconds(cell, found, 1_000) == pytest.approx(expected)
    # The same where the environment's own limit holds.
    longer = cell._replace(run=dataclasses.replace(cell.run, max_episode_steps=None))
    assert costs.seconds(longer, found, 1_000) == pytest.approx(90 * 1.5 + 3 * 1_000 * 0.03 + (1_000 + 60) * 0.01)
    slower = cell._replace(run=dataclasses.replace(cell.run, steps_per_interval={"sgd": 15}, learning_starts=10))
    prices = [costs.price(costs.brief(slower.run, kind)) for kind in ("adam", "sgd")]
    with_less = dict(zip(prices, found.values(), strict=True))
    assert costs.seconds(slower, with_less, 1_000) == pytest.approx(expected - 45 * 0.5)


def test_members_that_differ_by_data_of_a_program_have_one_price(own):
    [cell, *_] = grid.cells(grid.load(str(own)), arms=["adam"], seeds=1)

    def price(**changes):
        return costs.price(costs.brief(dataclasses.replace(cell.run, **changes), "adam"))

    for same in ({"optimizers": {"adam": {"learning_rate": 0.5}}}, {"tau": 0.5}, {"seed": 7}, {"steps": 2 * cell.run.steps}):
        assert price(**same) == price(), same
    for other in ({"batch_size": 20}, {"actor_layers": (5,)}, {"env": "Hopper-v4"}, {"optimizers": {"adam": {"nesterov": True}}}):
        assert price(**other) != price(), other
    # A grid over rates and dampings is measured once an environment.
    assert len({costs.price(costs.brief(cell.run, "kfac")) for cell in grid.cells(grid.load("grid-kfac", "small"))}) == 1


def test_members_of_one_batch_are_measured_together(own):
    [cell, *_] = grid.cells(grid.load(str(own)), arms=["adam"], seeds=1)
    assert costs.brief(cell.run, "adam").mix == {"adam": 1}
    assert costs.brief(dataclasses.replace(cell.run, placement="vmap"), "adam").mix == {"adam": 2}
