"""Tests that train with equal settings share the compiled programs, as the members of one run do.

Each run would trace and load them again, which takes longer than most tests train.
"""

import functools
from typing import Any

import pytest

from evolute import Run, algorithms, optimizers
from evolute.algorithms.base import Algorithm
from evolute.training import placement

build, make_programs = algorithms.build, placement.make_programs
_built: dict[Any, Algorithm] = {}


def _build_once(run: Run, kind: str, observations: int, actions: int) -> Algorithm:
    used = run.optimizers_of(kind)
    # A test may have a curvature kind of its own under the name of another one's.
    factories = [optimizers.CURVATURE_KINDS[name].factory for name, _ in used.values() if name in optimizers.CURVATURE_KINDS]
    key = (kind, observations, actions, repr(run.settings_of(kind)), repr(used), *factories)
    if key not in _built:
        _built[key] = build(run, kind, observations, actions)
    return _built[key]


@functools.lru_cache(maxsize=64)
def _make_once(algorithm: Algorithm, precision: str, kind: str, usual: bool) -> placement.Programs:
    return make_programs(algorithm, precision, kind)


def _make_programs(algorithm: Algorithm, precision: str = "float32", kind: str = "") -> placement.Programs:
    return _make_once(algorithm, precision, kind, placement.usual_settings())


def share() -> None:
    """Let all runs of this process share programs from now on."""
    algorithms.build, placement.make_programs = _build_once, _make_programs


@pytest.fixture
def own_programs(monkeypatch):
    """What is compiled is new: for tests of what is compiled."""
    monkeypatch.setattr(algorithms, "build", build)
    monkeypatch.setattr(placement, "make_programs", make_programs)
