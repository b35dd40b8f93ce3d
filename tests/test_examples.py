"""Every example in the documents and docstrings works: a renamed option, function or file makes one of these tests fail.

Examples are collected, not listed. Runs are made small by SMALL, after they have been checked as they are written.
"""

import ast
import dataclasses
import doctest
import re
import shlex
import shutil
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

import evolute
from evolute.commands import cli, flags, foreign, train
from evolute.config import Run
from evolute.runs import cautions

ROOT = Path(__file__).parent.parent
# Put over the run of a program, once it is known to be valid.
SMALL = {
    **{"mix": {"adam": 2}, "optimizers": {}, "initial": {}, "steps_per_interval": {}},
    **{"steps": 60, "interval": 30, "learning_starts": 20, "batch_size": 32, "buffer_size": 1_000, "bounds": {}},
    **{"actor_layers": (4,), "critic_layers": (4,), "episodes": 1, "final_episodes": 1},
}
# What stands for something of the reader's own, and what it is here; RUN is a run that was trained here.
PLACEHOLDERS = {
    **{"ENV": "HalfCheetah-v4", "COMMAND": "train", "KIND": "kfac", "ALGORITHM": "sac", "NAME": "tau", "N": "3000"},
    **{"TARGET": "numpy", "DIR": ".", "URL": "file://."},
}
# Put behind a command that is executed: a run that has ended goes on only when it is made longer, and 150,000 steps take long.
SHORT = {"resume": ("--steps", "100"), "evaluate": ("--episodes", "1"), "export": ("--to", "numpy")}
# Commands that take long, go on until they are stopped, or need what not every machine has (a way to draw, a display). They are
# checked and not executed.
ELSEWHERE = ("train", "demo", "watch", "reproduce", "sweep", "video", "play")


class Example(NamedTuple):
    """A piece of text that somebody may copy."""

    where: str
    text: str


def prose() -> list[Example]:
    """Return the documents, and the docstrings of the code."""
    files = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "results/README.md", *sorted((ROOT / "docs").rglob("*.md"))]
    found = [Example(str(file.relative_to(ROOT)), file.read_text(encoding="utf-8")) for file in files]
    for file in sorted((ROOT / "src").rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            documented = isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
            if documented and (text := ast.get_docstring(node)):
                found.append(Example(f"{file.relative_to(ROOT)}:{getattr(node, 'lineno', 1)}", text))
    return [*found, Example("evolute --help", cli.usage())]


def blocks(text: str, *languages: str) -> list[str]:
    return [found[2] for found in re.finditer(r"^```(\w*)\n(.*?)^```", text, re.DOTALL | re.MULTILINE) if found[1] in languages]


def spans(text: str) -> list[str]:
    """Return what stands in backticks within a line, without the blocks."""
    return re.findall(r"`([^`\n]+)`", re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE))


def commands(text: str) -> list[str]:
    lines = [line for block in blocks(text, "", "sh", "bash") for line in block.splitlines()]
    # The list of commands in `evolute --help` has its explanations two blanks further to the right.
    listed = [line.strip().partition("  ")[0] for line in text.splitlines() if line.startswith("  evolute ")]
    return [line for line in (*lines, *spans(text), *listed) if line.startswith("evolute ")]


def programs(text: str) -> list[str]:
    """Return the blocks of Python, and what an interpreter is told (>>>)."""
    told = "".join(example.source for example in doctest.DocTestParser().get_examples(text))
    return [*blocks(text, "python"), *([told] if told else [])]


COMMANDS = [Example(where, command) for where, text in prose() for command in commands(text)]
PROGRAMS = [Example(where, program) for where, text in prose() for program in programs(text)]
NAMED = [Example(where, span) for where, text in prose() for span in spans(text)]


def ids(examples: list[Example]) -> list[str]:
    return [f"{where} {text.splitlines()[0][:70]}" for where, text in examples]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("trained") / "run"
    evolute.train(dataclasses.replace(Run("InvertedPendulum-v4", mix={"adam": 2}), **SMALL), out=folder)
    return folder


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


# ----------------------------------------------------------------------------------------------------------- commands


def words_of(command: str, run: Path | None = None) -> list[str]:
    """Return a command's words after `evolute`, without a comment or what a pipe does, and with something for placeholders."""
    words = shlex.split(command.partition(" | ")[0], comments=True)[1:]
    here = {**PLACEHOLDERS, "RUN": str(run)}
    return [re.sub(r"\b[A-Z]+\b", lambda word: here.get(word[0], word[0]), word) for word in words]


def checked(words: list[str]) -> None:
    """Check a command as it is written; for `train`, up to a valid run."""
    name, *rest = words
    assert name in cli.COMMANDS
    if not rest or {"--help", "-h"} & set(rest):
        return
    parsed = flags.parse(flags.module_of(name).Flags, name, rest)
    if name == "train":
        train.asked_for(dataclasses.replace(parsed, allow_import=("my_package",)))


def executed(words: list[str]) -> None:
    with pytest.raises(SystemExit) as end:
        cli.main(words)
    assert end.value.code == 0


@pytest.mark.parametrize("example", COMMANDS, ids=ids(COMMANDS))
def test_a_command_works(example, trained, tmp_path):
    if example.text.startswith(("evolute -", "evolute COMMAND -")):
        executed(words_of(example.text))
        return
    copy = shutil.copytree(trained, tmp_path / "run")
    name, *rest = words_of(example.text, copy)
    checked([name, *rest])
    if name not in ELSEWHERE and rest:
        executed([name, rest[0], *SHORT.get(name, ())])


TRAINS = sorted({example.text for example in COMMANDS if re.match(r"evolute train [A-Z].* --mix ", example.text)})


@pytest.mark.parametrize("command", TRAINS)
def test_a_population_of_the_documents_evolves_with_settings_that_have_an_effect(command):
    name, *rest = words_of(command)
    parsed = flags.parse(flags.module_of(name).Flags, name, rest)
    run, _ = train.asked_for(dataclasses.replace(parsed, allow_import=("my_package",)))
    assert [*cautions.unevolved(run), *cautions.idle(run)] == []


# An option and its values, in a sentence.
ADVICE = re.compile(r"--[a-z-]+(?: (?:[0-9][\w.]*|[\w.]+=[\w.-]+|[a-z]+_[a-z_]+|PATH|gradient|true|run\.toml)(?=[ ,;)]|$))+")


@pytest.mark.parametrize("text", sorted(set(foreign.POINTERS.values())))
def test_what_is_said_to_an_option_of_another_library_works(text, tmp_path):
    (tmp_path / "run.toml").touch()
    for advice in ADVICE.findall(text):
        mix = "" if advice.startswith("--mix") else "--mix adam=1 kfac=1 sac:adam=1"
        checked(words_of(f"evolute train HalfCheetah-v4 {mix} {advice}"))


# ------------------------------------------------------------------------------------------------------------- Python


@pytest.mark.parametrize("example", PROGRAMS, ids=ids(PROGRAMS))
def test_a_program_works(example, monkeypatch):
    train = evolute.train
    # The run that the program describes has been checked when it comes here.
    monkeypatch.setattr(evolute, "train", lambda run, **more: train(dataclasses.replace(run, **SMALL), **more), raising=False)
    exec(compile(example.text, example.where, "exec"), {"observation": np.zeros(17)})


# ---------------------------------------------------------------------------------------------------- what they refer to


def test_options_that_the_text_names_exist():
    known = {
        "--" + field.name.replace("_", "-") for name in cli.COMMANDS for field in dataclasses.fields(flags.module_of(name).Flags)
    }
    named = {(where, span.split()[0]) for where, span in NAMED if re.match(r"--[a-z]", span)}
    assert len(named) > 10
    assert [(where, option) for where, option in named if option not in known | {"--help", "--version"}] == []


def test_targets_of_make_that_the_text_names_exist():
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    texts = [span for _, span in NAMED] + [
        line for _, text in prose() for block in blocks(text, "") for line in block.splitlines()
    ]
    named = {found[1] for text in texts if (found := re.match(r"make ([a-z-]+)", text))}
    assert len(named) > 3
    assert named <= set(targets)


def test_files_that_the_text_links_or_runs_exist():
    for where, text in prose():
        folder = (ROOT / where.partition(":")[0]).parent
        for link in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", text):
            assert (folder / link).exists(), f"{where} links {link}"
        for script in re.findall(r"`python ([\w/]+\.py)", text):
            assert (ROOT / script).is_file(), f"{where} runs {script}"
