"""The cut of the code: which part may import which, and how long a file may be."""

import ast
from pathlib import Path

import pytest

import evolute

ROOT = Path(evolute.__file__).parent
FILES = sorted(ROOT.rglob("*.py"))
# From the ground up: a part may import those before it, and what stands on its own line. Files of a folder may import each other.
LAYERS = (
    ("paths", "errors", "limits", "files", "streams", "interruption", "children", "structure", "networks", "policy"),
    ("options",),
    ("hyperparameters", "presets", "rules"),
    ("optimizers",),
    ("kinds", "overlay", "schedule"),
    ("resolution",),
    ("checks",),
    ("config",),
    ("toml",),
    ("algorithms", "evolution", "environments"),
    ("training",),
    ("state",),
    ("runs",),
    ("engine",),
    ("resumption", "report", "export"),
    ("experiments",),
    ("cluster",),
    ("commands",),
)
HEIGHT = {part: height for height, layer in enumerate(LAYERS) for part in layer}


def part_of(path):
    """The folder or the file directly below the package."""
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


def imported(path):
    """The parts that a file imports anywhere in it, in functions and for type checkers, too."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "evolute":
            below = node.module.split(".")[1:]
            found |= {below[0]} if below else {name.name for name in node.names if not name.name.startswith("__")}
        elif isinstance(node, ast.Import):
            found |= {name.name.split(".")[1] for name in node.names if name.name.startswith("evolute.")}
    return found


def test_every_part_has_its_place():
    assert {part_of(path) for path in FILES} - {"__init__", "__main__"} == set(HEIGHT)


@pytest.mark.parametrize(
    "path", [p for p in FILES if not p.name.startswith("__") or p.parent != ROOT], ids=lambda p: str(p.relative_to(ROOT))
)
def test_imports_point_down(path):
    own = part_of(path)
    others = imported(path) - {own}
    upwards = {part for part in others if HEIGHT[part] > HEIGHT[own]}
    assert upwards == set()


def test_parts_import_each_other_in_no_circle():
    edges = {part: set() for part in HEIGHT}
    for path in FILES:
        if (own := part_of(path)) in edges:
            edges[own] |= imported(path) - {own}
    while free := [part for part, needs in edges.items() if not needs]:
        for part in free:
            del edges[part]
        edges = {part: needs - set(free) for part, needs in edges.items()}
    assert edges == {}


@pytest.mark.parametrize(
    ("most", "paths"),
    [(400, [*FILES, *ROOT.rglob("*.js"), *ROOT.rglob("*.css")]), (250, [ROOT / "engine.py"])],
    ids=["all", "engine"],
)
def test_no_file_is_long(most, paths):
    assert [f"{path}: {lines}" for path in paths if (lines := len(path.read_text().splitlines())) > most] == []
