"""Every random draw of a run, by name: no global generators, so a run can be cut and continued at any interval.

A draw belongs to (seed, member, interval, purpose). Each of these names has one consumer; two members,
two intervals or two purposes never share a stream. All draws are made on the host: compiled programs are functions of
their arguments, which keeps them quick to compile and makes mapped, vmapped and accelerated members draw the same
numbers.
"""

from enum import IntEnum

import numpy as np

from evolute.config import Run


class Purpose(IntEnum):
    """What a stream is used for. The numbers are part of a run's identity: append, never reorder."""

    INITIALISE = 0
    ENVIRONMENT = 1
    WARM_UP = 2
    REPLAY = 3
    NOISE = 4
    BURN_IN = 5
    EVALUATE = 6
    SELECT = 7
    EXPLORE = 8
    FINAL_EVALUATION = 9
    REBUILD = 10
    START = 11
    GRAFT = 12
    HELD_OUT = 13


# A stream that belongs to the whole population rather than to one member.
POPULATION = 2**32 - 1


def seed_sequence(seed: int, member: int, interval: int, purpose: Purpose) -> np.random.SeedSequence:
    """Return the seed sequence of one stream. The zero is part of a run's identity."""
    return np.random.SeedSequence([seed, 0, member, interval, int(purpose)])


def generator(seed: int, member: int, interval: int, purpose: Purpose) -> np.random.Generator:
    """Return the generator of one stream."""
    return np.random.default_rng(seed_sequence(seed, member, interval, purpose))


def stream(run: Run, slot: int, interval: int, purpose: Purpose) -> np.random.Generator:
    """Return one of a run's random streams."""
    return generator(run.seed, slot, interval, purpose)
