"""The metrics: each declared once, documented, and of the form that its rule wants."""

import json
import math
import re
from pathlib import Path

import jax

from evolute import Run, train
from evolute.algorithms.base import no_sums
from evolute.runs import columns
from evolute.runs.folder import RunFolder
from evolute.state import Profile, State
from evolute.training.evaluate import Evaluation
from evolute.training.health import Health
from evolute.training.worker import Outcome

PAGE = Path(__file__).parents[1] / "docs" / "metrics.md"


def test_the_page_of_metrics_is_what_is_declared():
    rows = re.findall(r"^\| `(\w+)` \| (.*?) \| (.*?) \|$", PAGE.read_text(), re.MULTILINE)
    declared = [(column.name, column.unit or "-", column.help) for column in columns.COLUMNS]
    assert rows[: len(declared)] == declared


def test_names_are_unique_and_every_heading_has_both_networks():
    names = [column.name for column in columns.COLUMNS]
    assert len(set(names)) == len(names)
    for heading in columns.NETWORK_HEADINGS:
        of_heading = {column.name.split("_")[0] for column in columns.COLUMNS if column.heading == heading}
        assert of_heading == {"actor", "critic"}
    assert {column.heading for column in columns.COLUMNS} - {""} == set(columns.NETWORK_HEADINGS)


def test_a_row_has_the_declared_fields_in_order_and_keeps_their_rules(tmp_path):
    run = Run("InvertedPendulum-v4", steps=60, interval=60, learning_starts=20, episodes=1, final_episodes=1, batch_size=16)
    train(run, tmp_path / "run")
    (row,) = RunFolder.open(tmp_path / "run").metrics()
    assert list(row) == [*(column.name for column in columns.COLUMNS), "seconds"]
    assert columns.fault(row) is None
    for column in columns.COLUMNS:
        if column.rule:
            assert columns.fault({**row, column.name: {"wrong": 1}}) is not None


def test_a_member_of_which_nothing_is_known_has_a_row_of_json():
    """In quarantine from its first step: it ended no episode, did no update and has no transition."""
    run = Run("InvertedPendulum-v4")
    member = Profile(0, "adam", run.initial_hyperparameters("adam"), quarantined="its environment failed.")
    sums = jax.tree.map(float, no_sums())
    health = Health([math.nan], [math.nan], math.nan, math.nan)
    outcome = Outcome(sums, Evaluation([], []), health, None, 0, 0, [], True)
    written = json.dumps(columns.row(columns.Ended(State(run, [member], None, {}), member, member.hyperparameters, outcome)))
    row = json.loads(written, parse_constant=lambda _: None)
    assert columns.fault(row) is None
    assert row["fitness"] is None


def test_a_row_of_the_first_version_is_sound():
    """Whatever is recorded since then has a rule only where a row may be without it: older runs can be shown and resumed."""
    hyper = {"batch_size": 256, **dict.fromkeys(("actor_learning_rate", "critic_learning_rate"), 1e-3)}
    hyper |= dict.fromkeys(("actor_damping", "critic_damping"), 0.0)
    row = {"interval": 1, "steps": 100, "member": 0, "kind": "adam", "fitness": None, "environment_steps": 100}
    assert columns.fault({**row, "hyperparameters": hyper}) is None
