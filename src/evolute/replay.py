"""A ring buffer of transitions per member, kept in host memory.

It stays out of the compiled programs: a buffer that travels through them is copied whole every step. A row is one transition,
packed as float32 [obs, action, reward, next obs, terminated], so that a batch is one gather and one transfer. A row is
complete in itself: no transition can join two episodes.
"""

from typing import NamedTuple

import jax
import numpy as np


class Batch(NamedTuple):
    """B transitions. Truncated ones have terminated = 0: the learner bootstraps through truncation."""

    obs: jax.Array  # [B, O]
    action: jax.Array  # [B, A], in [-1, 1]
    reward: jax.Array  # [B]
    next_obs: jax.Array  # [B, O]
    terminated: jax.Array  # [B], 0 or 1
    weight: jax.Array  # [B], sums to one; zero where a row only pads the batch


class Sample(NamedTuple):
    """What an update draws: a packed batch and its noise; with a leading axis [M] inside a group."""

    rows: np.ndarray  # [B, W]
    weights: np.ndarray  # [B]
    noise: np.ndarray  # [B, A], standard normal


class Segment(NamedTuple):
    """Rows of a buffer in a file that never changes."""

    file: str
    rows: int
    sha256: str
    bytes: int


def row_width(observations: int, actions: int) -> int:
    """Return the number of floats in a packed transition."""
    return 2 * observations + actions + 2


def unpack(rows: jax.Array, weight: jax.Array, observations: int, actions: int) -> Batch:
    """Split packed rows [B, W] into a batch."""
    edges = np.cumsum([observations, actions, 1, observations]).tolist()
    return Batch(
        obs=rows[:, : edges[0]],
        action=rows[:, edges[0] : edges[1]],
        reward=rows[:, edges[1]],
        next_obs=rows[:, edges[2] : edges[3]],
        terminated=rows[:, edges[3]],
        weight=weight,
    )


def bucket(batch_size: int) -> int:
    """Round a batch size up to the shape that is compiled for it: 2^k or 3·2^k, at least 16.

    From 16 on, less than a third of it is padding.
    """
    size = 16
    while size < batch_size:
        size = size * 3 // 2 if size & (size - 1) == 0 else size * 4 // 3
    return size


class ReplayBuffer:
    """The last `capacity` transitions of one member, oldest overwritten first."""

    def __init__(self, capacity: int, observations: int, actions: int):
        # np.empty: the operating system hands out pages only as they are filled.
        self.rows = np.empty((capacity, row_width(observations, actions)), np.float32)
        self.inserted = 0
        # Where the rows are on disk, oldest first, and how many insertions they cover; kept by checkpoint.py.
        self.segments: list[Segment] = []
        self.saved = 0
        self._observations = observations
        self._actions = actions

    def __len__(self) -> int:
        """Return how many transitions are held."""
        return min(self.inserted, len(self.rows))

    def insert(self, obs: np.ndarray, action: np.ndarray, reward: float, next_obs: np.ndarray, terminated: bool) -> None:
        """Add one transition; the action is in [-1, 1]."""
        row = self.rows[self.inserted % len(self.rows)]
        o, a = self._observations, self._actions
        row[:o] = obs
        row[o : o + a] = action
        row[o + a] = reward
        row[o + a + 1 : -1] = next_obs
        row[-1] = terminated
        self.inserted += 1

    def sample(self, rng: np.random.Generator, batch_size: int, padded: int) -> tuple[np.ndarray, np.ndarray]:
        """Draw `batch_size` rows uniformly with replacement, and pad them with zeros.

        Returns:
            rows [padded, W] and weights [padded], 1 / batch_size for the drawn rows and 0 for the padding. An empty buffer gives
            padding alone.
        """
        rows = np.zeros((padded, self.rows.shape[1]), np.float32)
        weights = np.zeros(padded, np.float32)
        if not len(self):
            # Its member's environment has failed from the start, and members of a group learn together.
            return rows, weights
        np.take(self.rows, rng.integers(len(self), size=batch_size), axis=0, out=rows[:batch_size], mode="clip")
        weights[:batch_size] = 1.0 / batch_size
        return rows, weights

    def copy_from(self, other: "ReplayBuffer") -> None:
        """Become a copy of another member's buffer of the same shape."""
        held = len(other)
        self.rows[:held] = other.rows[:held]
        self.inserted = other.inserted
        self.segments = list(other.segments)
        self.saved = other.saved

    def unsaved(self) -> np.ndarray:
        """Return the rows that no segment holds yet, oldest first, as a copy."""
        first = max(self.saved, self.inserted - len(self))
        return self.rows[np.arange(first, self.inserted) % len(self.rows)]

    def restore(self, parts: list[np.ndarray], inserted: int, segments: list[Segment]) -> None:
        """Become a buffer after `inserted` insertions, the last of which are in `parts`, oldest first; these are on disk."""
        end, oldest = inserted, inserted - min(inserted, len(self.rows))
        for rows in reversed(parts):
            kept = rows[max(0, len(rows) - (end - oldest)) :]
            self.rows[np.arange(end - len(kept), end) % len(self.rows)] = kept
            end -= len(kept)
        self.inserted = self.saved = inserted
        self.segments = segments
