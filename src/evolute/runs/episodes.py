"""A member's replay as episodes. It keeps no flag of truncation, but where an episode ended another observation follows."""

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from evolute.environments.spaces import Facts
from evolute.errors import Damaged
from evolute.files import REPLAY_FOLDER
from evolute.training.replay import Steps, fits
from evolute.training.storage import load_arrays


class Episode(NamedTuple):
    """Consecutive transitions; an episode that does not terminate was truncated, by the environment or by the run."""

    observations: np.ndarray  # [T + 1, O] float32
    actions: np.ndarray  # [T, A] float32, in [-1, 1]
    rewards: np.ndarray  # [T] float32
    terminated: bool


class _Piece(NamedTuple):
    """Transitions of one episode that lie in one segment."""

    rows: np.ndarray  # [T, O + A + 2]
    following: np.ndarray  # [O]: the next observation of the last one
    # Whether the next segment may go on with the episode.
    open: bool


def of_member(run: Path, described: dict[str, Any], facts: Facts, carries: bool) -> Iterator[Episode]:
    """Yield the episodes of all transitions that a member has on disk, oldest first.

    Args:
        run: the run folder.
        described: the member, by a checkpoint's manifest.
        facts: of the run's environment.
        carries: whether episodes go on over the end of an interval. If so, and older transitions were deleted, the first episode
            is left out: its beginning is no more.

    Raises:
        Damaged: the replay cannot be read, or does not belong to the environment.
    """
    begun = sum(segment["rows"] for segment in described["segments"]) == described["inserted"]
    joined = _joined(_pieces(run, described["segments"], facts), facts.shape.observations, carries)
    for piece in itertools.islice(joined, int(carries and not begun), None):
        yield from _episodes(piece, facts)


def _pieces(run: Path, segments: list[dict[str, Any]], facts: Facts) -> Iterator[_Piece]:
    for segment in segments:
        arrays = load_arrays(run / REPLAY_FOLDER, segment)
        if arrays.keys() != set(Steps._fields):
            raise Damaged(f"{segment['file']} has other arrays than replay has")
        part = Steps(**arrays)
        if not fits(part, segment["rows"], *facts.shape):
            raise Damaged(f"{segment['file']} has arrays of other shapes than replay has here")
        next_obs = dict(zip(part.ends.tolist(), part.next_obs, strict=True))
        terminated = part.steps[:, -1] == 1.0
        begin = 0
        for end in np.union1d(part.ends, terminated.nonzero()[0]).tolist():
            # Where no observation is kept apart, the next transition begins with it.
            following = next_obs[end] if end in next_obs else part.steps[end + 1, : facts.shape.observations]
            yield _Piece(part.steps[begin : end + 1], following, end + 1 == len(part.steps) and not terminated[end])
            begin = end + 1


def _joined(pieces: Iterator[_Piece], observations: int, carries: bool) -> Iterator[_Piece]:
    """Yield pieces as whole episodes."""
    last: _Piece | None = None
    for piece in pieces:
        if last is not None:
            # Bits, not numbers, as the replay compares.
            if carries and last.following.tobytes() == piece.rows[0, :observations].tobytes():
                piece = piece._replace(rows=np.concatenate([last.rows, piece.rows]))
            else:
                yield last
        last = piece
        if not piece.open:
            yield piece
            last = None
    if last is not None:
        yield last


def _episodes(piece: _Piece, facts: Facts) -> Iterator[Episode]:
    """Yield a piece as an episode; as several where it is too long for one, because a reset gave the very same observation."""
    observations = facts.shape.observations
    seen = np.concatenate([piece.rows[:, :observations], piece.following[None]])
    longest = facts.longest_episode or len(piece.rows)
    for begin in range(0, len(piece.rows), longest):
        rows = piece.rows[begin : begin + longest]
        own = seen[begin : begin + len(rows) + 1]
        yield Episode(own, rows[:, observations:-2], rows[:, -2], bool(rows[-1, -1] == 1.0))
