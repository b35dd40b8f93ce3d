"""A member's running mean and variance of what it observes: its networks see scaled observations, its replay holds raw ones."""

import numpy as np

from evolute.policy import Scaling

# Added to a variance, so that what never changes is not divided by zero (as in Gymnasium, CleanRL and Stable-Baselines3).
EPSILON = 1e-8


class Normaliser:
    """Mean and variance of all observations so far, by Welford's method (1962), in double precision.

    Attributes:
        count: observations so far.
        mean: their mean [O].
        squares: the sum of their squared distances from it [O].
    """

    def __init__(self, size: int):
        self.count = 0
        self.mean, self.squares = np.zeros(size), np.zeros(size)

    def see(self, obs: np.ndarray) -> None:
        """Take in an observation [O]."""
        self.count += 1
        apart = obs - self.mean
        self.mean += apart / self.count
        self.squares += apart * (obs - self.mean)

    @property
    def scaling(self) -> Scaling:
        """What networks and policies scale by: the mean [O] and one over the standard deviation [O]; ones before any is known."""
        if self.count < 2:
            return Scaling(self.mean.astype(np.float32), np.ones(len(self.mean), np.float32))
        deviation = np.sqrt(self.squares / self.count + EPSILON)
        return Scaling(self.mean.astype(np.float32), (1.0 / deviation).astype(np.float32))

    def copy_from(self, other: "Normaliser") -> None:
        """Become a copy of another member's."""
        self.count, self.mean, self.squares = other.count, other.mean.copy(), other.squares.copy()

    @property
    def arrays(self) -> dict[str, np.ndarray]:
        """All that it is, as arrays by name."""
        return {"count": np.array(self.count, np.int64), "mean": self.mean, "squares": self.squares}

    def become(self, arrays: dict[str, np.ndarray]) -> None:
        """Become what `arrays` says."""
        self.count, self.mean, self.squares = int(arrays["count"]), arrays["mean"].copy(), arrays["squares"].copy()
