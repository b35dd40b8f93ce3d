"""A ring buffer of transitions per member, kept in host memory.

It stays out of the compiled programs: a buffer that travels through them is copied whole every step. A batch leaves it packed,
one row of float32 per transition, [obs, action, reward, terminated, next obs]: one gather and one transfer.

Most next observations are the observation of the step that follows, so memory and disk hold them once (Humanoid-v4's million
transitions take 1.6 GB instead of 3.1). What follows is laid down behind each step, so a packed transition is a window of the
ring. Where an episode ended, another observation lies there, and the true one is kept apart: no transition joins two episodes.
"""

import itertools
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from evolute.algorithms.base import Batch


class Sample(NamedTuple):
    """What an update draws: a packed batch and its noise; with a leading axis [M] inside a group."""

    rows: np.ndarray  # [B, W]
    weights: np.ndarray  # [B]
    noise: np.ndarray  # [B, N], standard normal: as many as the algorithm wants


class Steps(NamedTuple):
    """Consecutive transitions of a buffer, oldest first, with each observation once."""

    steps: np.ndarray  # [N, O + A + 2] float32: obs, action, reward, terminated
    ends: np.ndarray  # [K] int64, rising: steps whose next observation is not the next step's observation; the last one always
    next_obs: np.ndarray  # [K, O] float32: theirs


class Segment(NamedTuple):
    """Transitions of a buffer in a file that never changes."""

    file: str
    rows: int
    sha256: str
    bytes: int


def row_width(observations: int, actions: int) -> int:
    """Return the number of floats in a packed transition."""
    return 2 * observations + actions + 2


def batch_of(rows: jax.Array, weight: jax.Array, observations: int, actions: int) -> Batch:
    """Split packed rows [B, W] into a batch."""
    edge = observations + actions
    return Batch(
        obs=rows[:, :observations],
        action=rows[:, observations:edge],
        reward=rows[:, edge],
        next_obs=rows[:, edge + 2 :],
        terminated=rows[:, edge + 1],
        weight=weight,
    )


def fits(part: Steps, count: int, observations: int, actions: int) -> bool:
    """Return whether a part has `count` transitions of these sizes and is consistent: it may come from anywhere."""
    steps, ends, next_obs = part
    return (
        (steps.dtype, ends.dtype, next_obs.dtype) == (np.float32, np.int64, np.float32)
        and count > 0
        and steps.shape == (count, observations + actions + 2)
        and ends.ndim == 1
        and next_obs.shape == (len(ends), observations)
        and len(ends) > 0
        and bool(np.all((ends >= 0) & (ends < count)) and np.all(np.diff(ends) > 0))
        and ends[-1] == count - 1
    )


def bucket(batch_size: int) -> int:
    """Round a batch size up to the shape that is compiled for it: 2^k or 3·2^k, at least 16.

    From 16 on, less than a third of it is padding.
    """
    size = 16
    while size < batch_size:
        size = size * 3 // 2 if size & (size - 1) == 0 else size * 4 // 3
    return size


def _padded(rows: np.ndarray, count: int) -> np.ndarray:
    """Return `count` rows: these, and zeros after them."""
    # Not np.pad: it takes as long as drawing them, and more than ten times as long as this.
    larger = np.zeros((count, *rows.shape[1:]), rows.dtype)
    larger[: len(rows)] = rows
    return larger


class ReplayBuffer:
    """The last `capacity` transitions of one member, oldest overwritten first.

    Insertion n lies in slot n % (capacity + 1) of a ring. The one slot left over is open: it holds the next observation of the
    newest step, where the following step is expected to begin.
    """

    def __init__(self, capacity: int, observations: int, actions: int):
        self.capacity = capacity
        self.inserted = 0
        # Where the transitions are on disk, oldest first, and how many insertions they cover; kept by storage.py.
        self.segments: list[Segment] = []
        self.saved = 0
        self._observations = observations
        self._slots = capacity + 1
        self._width = row_width(observations, actions)
        # np.empty: the operating system hands out pages only as they are filled. One row more repeats the first observation,
        # so that the last slot's window does not end at the ring's seam.
        self._ring = np.empty((self._slots + 1, self._width - observations), np.float32)
        # Overlapping windows, each one opaque item: NumPy gathers those about as fast as rows.
        window = np.dtype((np.void, self._width * self._ring.itemsize))
        self._windows = np.ndarray((self._slots,), window, self._ring, strides=self._ring.strides[:1])
        # By slot: 0, or n where the next observation is the n-th of those kept apart. These are a ring, too, which grows.
        self._end = np.zeros(self._slots, np.int64)
        self._next_obs = np.empty((16, observations), np.float32)
        self._ended = 0
        self._held_ends = 0

    def __len__(self) -> int:
        """Return how many transitions are held."""
        return min(self.inserted, self.capacity)

    def insert(self, obs: np.ndarray, action: np.ndarray, reward: float, next_obs: np.ndarray, terminated: bool) -> None:
        """Add one transition; the action is in [-1, 1]."""
        o, slot, following = self._observations, self.inserted % self._slots, (self.inserted + 1) % self._slots
        row = self._ring[slot]
        expected = row[:o].copy()
        self._open(slot, obs)
        # Bits, not numbers: -0.0 equals 0.0.
        if len(self) and row[:o].tobytes() != expected.tobytes():
            self._keep(expected, (self.inserted - 1) % self._slots)
        row[o:-2] = action
        row[-2:] = reward, terminated
        self._forget(following)
        self._open(following, next_obs)
        self.inserted += 1

    def _open(self, slot: int, obs: np.ndarray) -> None:
        """Lay down the observation with which a slot begins."""
        self._ring[slot, : self._observations] = obs
        if slot == 0:
            self._repeat_first()

    def _repeat_first(self) -> None:
        self._ring[-1, : self._observations] = self._ring[0, : self._observations]

    def _keep(self, obs: np.ndarray, slot: int) -> None:
        """Keep the next observation of the step in this slot apart."""
        if self._held_ends == len(self._next_obs):
            numbers = np.arange(self._ended - self._held_ends, self._ended) + 1
            larger = np.empty((2 * len(self._next_obs), self._observations), np.float32)
            larger[numbers % len(larger)] = self._next_obs[numbers % len(self._next_obs)]
            self._next_obs = larger
        self._ended += 1
        self._held_ends += 1
        self._next_obs[self._ended % len(self._next_obs)] = obs
        self._end[slot] = self._ended

    def _forget(self, slot: int) -> None:
        """Give up what is kept apart for the step in this slot, the oldest one if there is any."""
        if self._end[slot]:
            self._end[slot] = 0
            self._held_ends -= 1

    def _packed(self, slots: np.ndarray) -> np.ndarray:
        """Return the transitions [N, W] in these slots [N]."""
        rows = self._windows[slots].view(np.float32).reshape(-1, self._width)
        ends = self._end[slots]
        if ends.any():
            where = ends.nonzero()[0]
            rows[where, -self._observations :] = self._next_obs[ends[where] % len(self._next_obs)]
        return rows

    def transitions(self) -> np.ndarray:
        """Return all transitions [N, W], packed, oldest first, as a copy."""
        return self.last(len(self))

    def last(self, count: int) -> np.ndarray:
        """Return the newest `count` transitions [N, W], packed, oldest first, as a copy."""
        return self._packed(np.arange(self.inserted - count, self.inserted) % self._slots)

    def spaced(self, most: int) -> np.ndarray:
        """Return at most that many transitions [N, W], packed, evenly spaced over all that are held."""
        chosen = np.linspace(0, len(self) - 1, min(most, len(self))).astype(np.int64)
        return self._packed((self.inserted - len(self) + chosen) % self._slots)

    def largest(self) -> tuple[float, float]:
        """Return about the largest magnitude of an observation and of a reward: of what lies in the ring; zeros for none."""
        if not self.inserted:
            return 0.0, 0.0
        # No copy: the buffer may fill most of the memory. The open slot has an observation and no reward.
        seen = self._ring[: min(self.inserted + 1, self._slots), : self._observations]
        rewards = self._ring[: min(self.inserted, self._slots), -2]
        observed, rewarded = (max(float(x.max()), -float(x.min())) for x in (seen, rewards))
        return observed, rewarded

    def sample(
        self, rng: np.random.Generator, batch_size: int, padded: int, steps: int = 1, discount: float = 1.0
    ) -> tuple[np.ndarray, np.ndarray]:
        """Draw `batch_size` transitions uniformly with replacement, and pad them with zeros.

        Args:
            rng: consumed.
            batch_size: how many.
            padded: the number of rows.
            steps: that a transition joins, as far as its episode goes (E1n): its reward is the discounted sum of theirs.
            discount: of a step.

        Returns:
            rows [padded, W] and weights [padded], 1 / batch_size for the drawn rows and 0 for the padding. An empty buffer gives
            padding alone.
        """
        if not len(self):
            # Its member's environment has failed from the start, and members of a group learn together.
            return np.zeros((padded, self._width), np.float32), np.zeros(padded, np.float32)
        drawn = rng.integers(self.inserted - len(self), self.inserted, size=batch_size)
        rows, weights = self._packed(drawn % self._slots), np.full(batch_size, 1.0 / batch_size, np.float32)
        if steps > 1:
            self._join(rows, drawn, steps, discount)
        return (_padded(rows, padded), _padded(weights, padded)) if batch_size < padded else (rows, weights)

    def _join(self, rows: np.ndarray, first: np.ndarray, steps: int, discount: float) -> None:
        """Make packed transitions [N, W], the insertions `first` [N], each one of up to so many steps of its episode, in place.

        What bootstraps is discounted by every step but the last, which learners do, so `terminated` becomes
        1 - discount^(m - 1) (1 - terminated) after m steps.
        """
        last, going, factor = first.copy(), np.ones(len(first), bool), np.ones(len(first))
        reward = self._ring[first % self._slots, -2].astype(np.float64)
        for _ in range(steps - 1):
            slots = last % self._slots
            # Not beyond an episode's end, nor an interval's that cut one, nor the newest step.
            going &= (self._ring[slots, -1] == 0.0) & (self._end[slots] == 0) & (last + 1 < self.inserted)
            last += going
            factor[going] *= discount
            reward[going] += factor[going] * self._ring[last[going] % self._slots, -2]
        observations, slots = self._observations, last % self._slots
        rows[:, -observations - 2] = reward
        rows[:, -observations - 1] = 1.0 - factor * (1.0 - self._ring[slots, -1])
        rows[:, -observations:] = self._packed(slots)[:, -observations:]

    def copy_from(self, other: "ReplayBuffer") -> None:
        """Become a copy of another member's buffer of the same shape."""
        used = min(other.inserted + 1, self._slots)
        self._ring[:used] = other._ring[:used]
        self._ring[-1] = other._ring[-1]
        self._end[:] = other._end
        self._next_obs = other._next_obs.copy()
        self._ended, self._held_ends = other._ended, other._held_ends
        self.inserted = other.inserted
        self.segments = list(other.segments)
        self.saved = other.saved

    def __getstate__(self) -> dict[str, Any]:
        """Return what another process needs to have the same buffer: what is held, not the memory that is reserved."""
        sizes = (self.capacity, self._observations, self._width - 2 * self._observations - 2)
        parts = [self._since(self.inserted - len(self))] if len(self) else []
        return {"sizes": sizes, "parts": parts, "inserted": self.inserted, "segments": self.segments, "saved": self.saved}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Become the buffer that another process had."""
        self.__init__(*state["sizes"])
        self.restore(state["parts"], state["inserted"], state["segments"])
        self.saved = state["saved"]

    def unsaved(self) -> Steps:
        """Return the transitions that no segment holds yet, as copies."""
        return self._since(max(self.saved, self.inserted - len(self)))

    def _since(self, first: int) -> Steps:
        """Return the transitions from one insertion on, as copies."""
        slots = np.arange(first, self.inserted) % self._slots
        own = self._end[slots] > 0
        own[-1:] = True
        ends = own.nonzero()[0]
        # safetensors writes an array's memory as it lies.
        next_obs = np.ascontiguousarray(self._packed(slots[ends])[:, -self._observations :])
        return Steps(self._ring[slots], ends, next_obs)

    def restore(self, parts: Sequence[Steps], inserted: int, segments: list[Segment]) -> None:
        """Become a buffer after `inserted` insertions, the last of which are in `parts`, which are on disk."""
        self._end = np.zeros_like(self._end)
        self._ended = self._held_ends = 0
        self.inserted = inserted - sum(len(part.steps) for part in parts)
        for part, later in itertools.zip_longest(parts, parts[1:]):
            # Those that the ring has no room for are overwritten by later ones.
            first = self.inserted
            self.inserted += len(part.steps)
            skipped = max(0, inserted - self.capacity - first)
            slots = np.arange(first + skipped, self.inserted) % self._slots
            self._ring[slots] = part.steps[skipped:]
            # A part has its last step's next observation in any case. Where the next part begins with it, the episode went on.
            follows = part.next_obs[-1] if later is None else later.steps[0, : self._observations]
            apart = len(part.ends) - (follows.tobytes() == part.next_obs[-1].tobytes())
            for end, obs in zip(part.ends[:apart].tolist(), part.next_obs, strict=False):
                if end >= skipped:
                    self._keep(obs, (first + end) % self._slots)
        if parts:
            # Where the next step is expected to begin.
            self._open(inserted % self._slots, parts[-1].next_obs[-1])
        # The open slot has no action and no reward yet, and `largest` looks at all.
        self._ring[inserted % self._slots, self._observations :] = 0.0
        self._repeat_first()
        self.saved = inserted
        self.segments = segments
