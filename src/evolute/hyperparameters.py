"""The numbers that population-based training may change while a member trains.

They are data: arguments of the compiled programs, never constants in them. Changing one does not recompile.
"""

import math
from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from evolute import limits, options
from evolute.options import Setting


class Hyperparameters(NamedTuple):
    """One member's hyperparameters; inside a compiled program each is an array []."""

    batch_size: int
    actor_learning_rate: float
    critic_learning_rate: float
    # One that a member's optimizer or algorithm does not have is zero, and never perturbed.
    actor_damping: float
    critic_damping: float
    discount: float
    tau: float
    target_noise: float
    target_noise_clip: float
    exploration_noise: float
    temperature_learning_rate: float = 0.0


# What each means and may be; a run's settings of the same names are declared by it.
SETTINGS: dict[str, Setting] = {
    "batch_size": Setting("Transitions in a batch.", options.positive(limits.BATCH), "256", "transitions"),
    "actor_learning_rate": Setting("Step size of the actor's optimizer.", options.positive(), "0.001"),
    "critic_learning_rate": Setting("Step size of the critics' optimizer.", options.positive(), "0.001"),
    "actor_damping": Setting("Damping of the actor's curvature.", options.not_negative(), "0.1"),
    "critic_damping": Setting("Damping of the critics' curvature.", options.not_negative(), "0.1"),
    "discount": Setting("Discount of future rewards, per step.", options.FRACTION, "0.99"),
    "tau": Setting(
        "Fraction by which targets move towards their networks, per actor update.",
        options.Rule(lambda x: 0 < x <= 1, "above 0 and at most 1"),
        "0.005",
    ),
    "target_noise": Setting(
        "Standard deviation of the noise on target actions, in units of [-1, 1].", options.not_negative(), "0.2"
    ),
    "target_noise_clip": Setting("Largest noise on target actions, in units of [-1, 1].", options.not_negative(), "0.5"),
    "exploration_noise": Setting(
        "Standard deviation of the noise on training actions, in units of [-1, 1].", options.not_negative(), "0.1"
    ),
    "temperature_learning_rate": Setting("Step size of SAC's temperature, which Adam tunes.", options.positive(), "0.0003"),
}

# Least and largest values that exploration may reach; a run's `bounds` narrow or widen them.
BOUNDS: dict[str, tuple[float, float]] = {
    "batch_size": (32, 1024),
    "actor_learning_rate": (1e-6, 10.0),
    "critic_learning_rate": (1e-6, 10.0),
    "actor_damping": (1e-8, 1e4),
    "critic_damping": (1e-8, 1e4),
    "discount": (0.5, 0.99999),
    "tau": (1e-4, 0.5),
    "target_noise": (1e-3, 1.0),
    "target_noise_clip": (1e-3, 2.0),
    "exploration_noise": (1e-3, 1.0),
    "temperature_learning_rate": (1e-6, 1.0),
}

for _declared in (SETTINGS, BOUNDS):
    if tuple(_declared) != Hyperparameters._fields:
        raise TypeError(f"hyperparameters {Hyperparameters._fields} need a setting and bounds each, not {tuple(_declared)}.")


def ordered(names: Collection[str]) -> list[str]:
    """Return names of hyperparameters in the record's order, not the user's, so that the same set gives the same draws."""
    return [name for name in Hyperparameters._fields if name in names]


def drawn(start: Hyperparameters, starts: Mapping[str, Sequence[float]], rng: np.random.Generator) -> Hyperparameters:
    """Return a member's first hyperparameters: those of `starts` are drawn, the others are those of `start`.

    Two values are a range, from which a value is drawn log-uniformly; of three or more one is drawn. The generator is consumed.
    """
    found: dict[str, float] = {}
    for name in ordered(starts):
        values = starts[name]
        if len(values) > 2:
            found[name] = values[int(rng.integers(len(values)))]
        else:
            value = math.exp(rng.uniform(math.log(values[0]), math.log(values[1])))
            found[name] = min(max(round(value) if name == "batch_size" else value, values[0]), values[1])
    return start._replace(**found)


def as_array(members: list[Hyperparameters]) -> np.ndarray:
    """Return the hyperparameters of M members as one array [M, H] for a compiled program: float32, in the order of the fields."""
    return np.asarray(members, np.float32)
