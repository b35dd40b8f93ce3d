"""The help of `evolute train`: every option in one box, the most used first, within the terminal."""

import itertools
import re

import pytest

from evolute import options
from evolute.commands import cli, flags, groups
from evolute.config import Run
from evolute.hyperparameters import BOUNDS


@pytest.fixture(params=[80, 120])
def columns(request, monkeypatch):
    monkeypatch.setenv("COLUMNS", str(request.param))
    return request.param


def boxes(capsys) -> dict[str, list[str]]:
    """Return the options of each box of the help, by the box's title."""
    with pytest.raises(SystemExit):
        cli.main(["train", "--help"])
    lines, found = capsys.readouterr().out.splitlines(), {}
    for line, below in itertools.pairwise(line.strip() for line in lines):
        if below and not below.strip("-"):  # a box without an encoding for its lines: a rule below its title
            found[line] = []
        elif names := re.match(r"(?:-h, )?--([a-z][a-z-]*)", line):
            list(found.values())[-1].append(names[1])
    return found


def test_every_option_stands_in_exactly_one_box(capsys):
    shown = [name for names in boxes(capsys).values() for name in names]
    assert sorted(shown) == sorted(["help", *(name.replace("_", "-") for name in names_of(flags.train_flags()) if name != "env")])


def names_of(record) -> list[str]:
    return list(record.__dataclass_fields__)


def test_the_ten_that_people_use_most_come_first_and_then_the_sections_of_a_run(capsys):
    found = boxes(capsys)
    assert list(found) == [
        *("positional arguments", "options", "most used options", "algorithm options", "population-based training options"),
        *("evaluation options", "environment options", "fault options", "execution options", "file and output options"),
    ]
    assert len(found["most used options"]) == 10
    assert found["most used options"][:2] == ["mix", "steps"]
    assert found["evaluation options"] == ["episodes", "final-episodes"]


def test_help_fits_the_terminal(capsys, columns):
    with pytest.raises(SystemExit):
        cli.main(["train", "--help"])
    assert max(map(len, capsys.readouterr().out.splitlines())) <= columns


def test_a_setting_that_names_no_section_belongs_to_that_of_the_one_before_it():
    @options.declared
    class Record:
        lonely: int = options.setting("A.", options.positive(), "1", default=1)
        first: int = options.setting("A.", options.positive(), "1", section="evaluation", default=1)
        famous: int = options.setting("A.", options.positive(), "1", common=True, default=1)
        new: int = options.setting("A.", options.positive(), "1", default=1)

    assert groups.group_of_each(Record) == {"lonely": "", "first": "evaluation", "famous": groups.MOST_USED, "new": "evaluation"}


def test_settings_of_a_run_have_a_group():
    assert set(groups.group_of_each(Run).values()) > {groups.MOST_USED, "algorithm"}
    assert [name for name, group in groups.group_of_each(Run).items() if not group] == ["env"]


def test_choices_are_shown_where_a_value_belongs(capsys):
    with pytest.raises(SystemExit):
        cli.main(["train", "--help"])
    out = capsys.readouterr().out
    assert "--strategy {pbt,pb2,mfpbt,blind,none,replay}" in out
    assert re.search(r"usage: evolute train .*\bENV$", out, re.MULTILINE)


def test_help_names_what_may_be_perturbed_with_its_bounds_and_has_no_empty_default(capsys):
    with pytest.raises(SystemExit):
        cli.main(["train", "--help"])
    out = " ".join(re.sub(r"[^\w(),.:=' -]", "", capsys.readouterr().out).split())
    assert "(default: )" not in out
    perturb, bounds = re.search(r"--perturb .*?\(default:", out)[0], re.search(r"--bounds .*?\)", out)[0]
    for name, (low, high) in BOUNDS.items():
        assert name in perturb
        assert f"{name}={low:g},{high:g}" in bounds.replace(", ", ",")
