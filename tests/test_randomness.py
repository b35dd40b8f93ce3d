"""Streams of random numbers: one per name, the same in every run."""

import itertools
import re
from pathlib import Path

import numpy as np
import pytest

import evolute
from evolute.training import randomness
from evolute.training.randomness import POPULATION, Purpose

NAME = (7, 2, 3, Purpose.REPLAY)


def first_draw(*name) -> int:
    return int(randomness.generator(*name).integers(2**62))


def test_a_name_always_gives_the_same_stream():
    assert first_draw(*NAME) == first_draw(*NAME)
    # Numbers of today: they may not change, or a continued run would differ from an uninterrupted one.
    assert randomness.generator(*NAME).integers(1000, size=4).tolist() == [237, 166, 32, 703]
    assert [int(purpose) for purpose in Purpose] == list(range(len(Purpose)))
    assert (Purpose.INITIALISE, Purpose.REPLAY, Purpose.SELECT) == (0, 3, 7)


def test_names_that_differ_anywhere_give_different_streams():
    names = list(itertools.product((0, 1), (0, 1, POPULATION), (0, 1), list(Purpose)))
    assert len({first_draw(*name) for name in names}) == len(names)


@pytest.mark.parametrize("place", range(3))
def test_swapped_numbers_are_another_name(place):
    swapped = list(NAME[:3])
    swapped[place], swapped[place - 1] = swapped[place - 1], swapped[place]
    assert first_draw(*swapped, NAME[3]) != first_draw(*NAME)


@pytest.mark.parametrize("name", [(0, 0, 0), (2**32 - 1, POPULATION, 0)])
def test_streams_of_neighbours_are_uncorrelated(name):
    draws = np.array([randomness.generator(*name, purpose).standard_normal(4_000) for purpose in Purpose])
    correlations = np.corrcoef(draws)[~np.eye(len(Purpose), dtype=bool)]
    assert np.abs(correlations).max() < 4.5 / 4_000**0.5


def test_nothing_draws_from_a_global_generator():
    for file in Path(evolute.__file__).parent.rglob("*.py"):
        text = file.read_text(encoding="utf-8")
        found = re.findall(r"np\.random\.(?!default_rng|Generator|SeedSequence)\w+|\bimport random\b|default_rng\(\)", text)
        assert not found, (file.name, found)
