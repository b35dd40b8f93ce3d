"""The metrics: each declared once, documented, and of the form that its rule wants."""

import re
from pathlib import Path

from evolute import Run, train
from evolute.runs import columns
from evolute.runs.folder import RunFolder

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
