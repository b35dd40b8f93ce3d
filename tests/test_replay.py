"""The replay buffer against a deque, and the sizes that batches are padded to."""

from collections import deque

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from evolute.training.replay import ReplayBuffer, batch_of, bucket, row_width


def transition(number: int, observations: int = 3, actions: int = 2) -> dict:
    """The transition of that number: all of its entries differ from those of any other."""
    return {
        "obs": number + np.arange(observations) / 16,
        "action": number + 0.25 + np.arange(actions) / 16,
        "reward": number + 0.5,
        "terminated": number % 3 == 0,
        # Every fourth step's next observation is where the next step begins: so it is within an episode.
        "next_obs": number + (1 if number % 4 == 1 else 0.75) + np.arange(observations) / 16,
    }


def as_row(number: int) -> np.ndarray:
    return np.hstack(list(transition(number).values())).astype(np.float32)


def filled(capacity: int, numbers: range) -> ReplayBuffer:
    buffer = ReplayBuffer(capacity, 3, 2)
    for number in numbers:
        buffer.insert(**transition(number))
    return buffer


class BufferAgainstDeque(RuleBasedStateMachine):
    """Two buffers, of which one may become a copy of the other at any time, and the deques that they should equal."""

    @initialize(capacity=st.integers(1, 7))
    def begin(self, capacity: int) -> None:
        self.buffers = [ReplayBuffer(capacity, 3, 2) for _ in range(2)]
        self.models: list[deque[int]] = [deque(maxlen=capacity) for _ in range(2)]
        self.count = 0

    @rule(which=st.integers(0, 1), times=st.integers(1, 5))
    def insert(self, which: int, times: int) -> None:
        for _ in range(times):
            self.buffers[which].insert(**transition(self.count))
            self.models[which].append(self.count)
            self.count += 1

    @rule(which=st.integers(0, 1))
    def copy(self, which: int) -> None:
        self.buffers[which].copy_from(self.buffers[1 - which])
        self.models[which] = self.models[1 - which].copy()

    @rule(which=st.integers(0, 1), seed=st.integers(0, 9), size=st.integers(1, 9), padding=st.integers(0, 4))
    @precondition(lambda self: all(self.models))
    def sample(self, which: int, seed: int, size: int, padding: int) -> None:
        rows, weights = self.buffers[which].sample(np.random.default_rng(seed), size, size + padding)
        held = {as_row(number).tobytes() for number in self.models[which]}
        assert {row.tobytes() for row in rows[:size]} <= held
        assert rows.dtype == weights.dtype == np.float32
        np.testing.assert_array_equal(rows[size:], np.zeros((padding, row_width(3, 2))))
        np.testing.assert_array_equal(weights, np.float32([1 / size] * size + [0] * padding))

    @invariant()
    def holds_the_same_in_the_same_order(self) -> None:
        for buffer, model in zip(getattr(self, "buffers", ()), getattr(self, "models", ()), strict=True):
            assert len(buffer) == len(model)
            held = buffer.transitions()
            np.testing.assert_array_equal(held, np.reshape([as_row(number) for number in model], (-1, row_width(3, 2))))


test_buffer_equals_deque = BufferAgainstDeque.TestCase


def test_the_oldest_transition_is_overwritten_first():
    buffer = filled(4, range(6))
    assert len(buffer) == 4
    assert buffer.transitions()[:, 5].tolist() == [2.5, 3.5, 4.5, 5.5]


def test_samples_are_uniform_and_with_replacement():
    buffer = filled(50, range(5))
    rows, _ = buffer.sample(np.random.default_rng(0), 10_000, 10_000)
    rewards, counts = np.unique(rows[:, 5], return_counts=True)
    np.testing.assert_array_equal(rewards, np.arange(5) + 0.5)
    # Five standard deviations of a binomial count.
    assert np.all(np.abs(counts - 2000) < 5 * np.sqrt(10_000 * 0.2 * 0.8))


@pytest.mark.parametrize("batch_size", [1, 16, 20])
def test_the_batch_size_is_how_many_rows_weigh_anything(batch_size):
    _, weights = filled(8, range(8)).sample(np.random.default_rng(0), batch_size, 24)
    assert np.count_nonzero(weights) == batch_size
    np.testing.assert_allclose(weights.sum(), 1, rtol=1e-6)


def test_a_generator_in_the_same_state_draws_the_same_batch():
    buffer = filled(8, range(20))
    same, again, other = (buffer.sample(np.random.default_rng(seed), 16, 16)[0] for seed in (0, 0, 1))
    np.testing.assert_array_equal(same, again)
    assert np.any(same != other)


@given(observations=st.integers(1, 5), actions=st.integers(1, 4), numbers=st.lists(st.integers(0, 99), min_size=1))
def test_unpacked_rows_are_the_transitions_that_were_inserted(observations, actions, numbers):
    buffer = ReplayBuffer(len(numbers), observations, actions)
    inserted = [transition(number, observations, actions) for number in numbers]
    for one in inserted:
        buffer.insert(**one)
    batch = batch_of(buffer.transitions(), np.ones(len(numbers), np.float32), observations, actions)
    for name in inserted[0]:
        expected = np.float32([one[name] for one in inserted])
        np.testing.assert_array_equal(getattr(batch, name), expected)
        assert getattr(batch, name).shape == expected.shape


def test_a_copy_and_its_original_go_separate_ways():
    original, copy = filled(4, range(6)), filled(4, range(10, 13))
    copy.copy_from(original)
    before = original.transitions()
    np.testing.assert_array_equal(copy.transitions(), before)
    copy.insert(**transition(7))
    np.testing.assert_array_equal(original.transitions(), before)
    original.insert(**transition(8))
    assert 8.5 not in copy.transitions()[:, 5]
    assert 7.5 in copy.transitions()[:, 5]


@pytest.mark.parametrize("length", [1, 3, 1000])
def test_an_observation_is_held_once_however_many_episodes_there_are(length):
    buffer, capacity, observations = ReplayBuffer(200, 50, 1), 200, 50
    for number in range(3 * capacity):
        last = (number + 1) % length == 0
        step = {"obs": number + np.zeros(observations), "action": [0.0], "reward": 0.0, "terminated": last}
        buffer.insert(**step, next_obs=(-number if last else number + 1) + np.zeros(observations))
    ends = buffer.transitions()[:, -1] < 0
    assert abs(ends.sum() - capacity / length) < 1
    # Room grows twofold, so half of it may be free.
    assert len(buffer._next_obs) <= max(16, 2 * (ends.sum() + 1))


def test_minus_zero_is_not_zero():
    buffer = ReplayBuffer(4, 1, 1)
    buffer.insert(np.float32([1.0]), np.float32([0.0]), 0.0, np.float32([-0.0]), False)
    buffer.insert(np.float32([0.0]), np.float32([0.0]), 0.0, np.float32([2.0]), False)
    assert np.signbit(buffer.transitions()[0, -1])
    assert not np.signbit(buffer.transitions()[1, 0])


@given(st.integers(1, 100_000), st.integers(1, 100_000))
def test_buckets_are_few_monotone_and_hardly_larger_than_the_batch(one, other):
    size = bucket(one)
    assert size >= max(one, 16)
    assert one <= 16 or 2 * size < 3 * one
    assert bucket(size) == size
    odd_part = size // (size & -size)
    assert odd_part in (1, 3)
    assert bucket(min(one, other)) <= bucket(max(one, other))


@given(
    st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=60),
    st.integers(1, 6),
    st.integers(5, 40),
    st.floats(0.0, 1.0),
)
def test_joined_steps_are_those_of_one_episode(ends, steps, capacity, discount):
    """Beside a loop over a list of transitions; an episode ends by termination, or is cut."""
    buffer, rng, written = ReplayBuffer(capacity, 1, 1), np.random.default_rng(0), []
    obs = rng.standard_normal(1).astype(np.float32)
    for terminated, cut in ends:
        following = rng.standard_normal(1).astype(np.float32)
        reward = float(np.float32(rng.standard_normal()))
        buffer.insert(obs, np.zeros(1, np.float32), reward, following, terminated)
        written.append((obs, reward, following, terminated, terminated or cut))
        obs = rng.standard_normal(1).astype(np.float32) if terminated or cut else following
    held = written[-capacity:]
    # Two generators in the same state draw the same transitions.
    rows, _ = buffer.sample(np.random.default_rng(1), 50, 50, steps, discount)
    plain, _ = buffer.sample(np.random.default_rng(1), 50, 50)
    for row, first in zip(rows, plain, strict=True):
        n = next(n for n, one in enumerate(held) if one[0] == first[0])
        total, m = 0.0, 0
        while True:
            _, reward, following, terminated, over = held[n + m]
            total += discount**m * reward
            m += 1
            if m == steps or over or n + m == len(held):
                break
        np.testing.assert_allclose(row[2], total, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(row[3], 1.0 - discount ** (m - 1) * (1.0 - terminated), rtol=1e-6, atol=1e-6)
        assert (row[0], row[4]) == (first[0], following[0])
    if steps == 1:
        assert np.array_equal(rows, plain)
