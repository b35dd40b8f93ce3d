"""What other programs' trackers are told of a run: points and texts by name, from its rows. docs/tracking.md. Imports no JAX."""

import contextlib
import math
import statistics
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from evolute import kinds
from evolute.errors import RunStopped, UserError, printable
from evolute.report import trackers
from evolute.report.events import in_words
from evolute.report.story import rounded
from evolute.report.trackers import Point, Tracker
from evolute.runs.columns import COLUMNS
from evolute.runs.folder import RunFolder

if TYPE_CHECKING:
    from evolute.state import Note, Progress

POPULATION = "population"
# Names by which users of CleanRL and of Stable-Baselines3 look for what a column holds.
FAMILIAR = {
    "training_return": ("charts/episodic_return", "rollout/ep_rew_mean"),
    "fitness": ("eval/mean_reward",),
    "episode_length": ("eval/mean_ep_length",),
    "critic_loss": ("train/critic_loss",),
    "actor_loss": ("losses/actor_loss", "train/actor_loss"),
    "q_value": ("losses/qf1_values",),
}
SPEED = ("charts/SPS", "time/fps")
# What a row is found by, or is no number.
NO_POINTS = ("interval", "steps", "member", "kind", "quarantined", "hyperparameters")
Rows = Sequence[dict[str, Any]]


class Interval(NamedTuple):
    """What a run recorded of an interval."""

    rows: Rows  # of metrics
    events: Rows


def points(interval: Interval, length: int, at: float) -> Iterator[Point]:
    """Return everything that trackers are told of an interval.

    Args:
        interval: that ended.
        length: environment steps of the run's clock in it.
        at: seconds since 1970 that it ended at, by the time that the run has taken.
    """
    for row in interval.rows:
        for name, value in _numbers(row, length):
            if (number := _finite(value)) is not None:
                yield Point(_of_member(row["member"]), name, row["steps"], number, at)
    if interval.rows:
        fitness = [number for row in interval.rows if (number := _finite(row["fitness"])) is not None]
        found = {"best": max(fitness), "median": statistics.median(fitness)} if fitness else {}
        found["exploits"] = sum(event["event"] == "exploit" for event in interval.events)
        for name, value in found.items():
            yield Point(POPULATION, f"{POPULATION}/{name}", interval.rows[0]["steps"], float(value), at)
    for event in interval.events:
        stream = _of_member(event["member"]) if type(event.get("member")) is int else POPULATION
        yield Point(stream, "exploits" if event["event"] == "exploit" else "events", _steps(event), _told(event), at)


def _numbers(row: Mapping[str, Any], length: int) -> Iterator[tuple[str, Any]]:
    for column in COLUMNS:
        value = row.get(column.name)
        if column.name in NO_POINTS:
            continue
        if isinstance(value, list):
            yield from ((f"evolute/{column.name}/{n}", item) for n, item in enumerate(value))
            continue
        for name in FAMILIAR.get(column.name, (f"evolute/{column.name}",)):
            yield name, value
    # CleanRL's is one critic's; the metrics hold the sum.
    critics = 1 if kinds.of(row["kind"]).algorithm == "ddpg" else 2
    yield "losses/qf1_loss", row["critic_loss"] / critics if _finite(row.get("critic_loss")) is not None else None
    seconds = math.fsum(_seconds(row))
    yield from ((name, length / seconds if seconds > 0 else None) for name in SPEED)
    # What the member does not have is zero.
    yield from ((f"hyperparameters/{name}", value or None) for name, value in row["hyperparameters"].items())


def _seconds(row: Mapping[str, Any]) -> list[float]:
    spent = row.get("seconds")
    return [value for value in spent.values() if _finite(value) is not None] if isinstance(spent, dict) else []


def _finite(value: Any) -> float | None:
    return float(value) if type(value) in (int, float) and abs(value) < 1e300 else None


def _of_member(slot: int) -> str:
    return f"member-{slot}"


def _steps(event: Mapping[str, Any]) -> int:
    steps = event.get("steps")
    return steps if type(steps) is int else 0


def _told(event: dict[str, Any]) -> str:
    """Return an event in words; of an exploit also which hyperparameters changed."""
    if event["event"] != "exploit":
        return in_words(event)
    given, new = event.get("old_hyperparameters"), event["new_hyperparameters"]
    old = given if isinstance(given, dict) else {}
    pairs = [(name, rounded(old.get(name)), rounded(value)) for name, value in new.items()]
    changes = [f"{name} {was:g} → {now:g}" for name, was, now in pairs if was is not None and now is not None and was != now]
    return "; ".join([in_words(event), *changes])


class Feed:
    """Tells trackers of one run: of all that its folder holds, and then of what comes.

    What a process that was killed had told is told anew: a tracker begins with an empty hand, so no point is there twice.
    """

    def __init__(self, path: Path, names: Iterable[str], fail: Callable[[str, str], None]):
        """Begin with what the folder holds; raises UserError where that cannot be read.

        Args:
            path: the run folder.
            names: of the trackers.
            fail: is told of a tracker that failed, and why; it is left out from then on.
        """
        folder = RunFolder.open(path)
        self._run, self._fail, self._told, self._clock = folder.run(), fail, 0, _started(folder.metadata())
        self._trackers: dict[str, Tracker] = {}
        for name in names:
            self._attempt(name, lambda name=name: self._trackers.update({name: trackers.TRACKERS[name].begin(path, self._run)}))
        for interval in history(folder.metrics(), folder.events()):
            self.tell(interval)

    def tell(self, interval: Interval) -> None:
        """Tell of an interval that ended."""
        begins = (interval.rows[0]["interval"] - 1) * self._run.interval if interval.rows else 0
        length = interval.rows[0]["steps"] - begins if interval.rows else 0
        self._clock += math.fsum(_seconds(interval.rows[0])) if interval.rows else 0.0
        found = list(points(interval, length, self._clock))
        self._told += len(found)
        for name, tracker in list(self._trackers.items()):
            self._attempt(name, lambda tracker=tracker: tracker.write(found))

    def close(self) -> int:
        """End what the trackers have open; return how many points they were told."""
        for name, tracker in list(self._trackers.items()):
            self._attempt(name, tracker.close)
        return self._told

    def _attempt(self, name: str, action: Callable[[], Any]) -> None:
        try:
            action()
        # Whatever a tracker raises: hours of training must not end for it.
        except Exception as error:
            self._trackers.pop(name, None)
            self._fail(name, printable(f"{type(error).__name__}: {' '.join(str(error).split())}", 300))


def _started(metadata: Mapping[str, Any]) -> float:
    try:
        return datetime.strptime(str(metadata.get("started")), "%Y-%m-%dT%H:%M:%S%z").timestamp()
    except ValueError:
        return time.time()


def history(metrics: Rows, events: Rows) -> list[Interval]:
    """Return a run's records by interval; what belongs to none comes last."""
    found: tuple[dict[Any, Any], dict[Any, Any]] = ({}, {})
    for rows, by_interval in zip((metrics, events), found, strict=True):
        for row in rows:
            number = row.get("interval")
            by_interval.setdefault(number if type(number) is int else math.inf, []).append(row)
    return [Interval(found[0].get(key, []), found[1].get(key, [])) for key in sorted(found[0].keys() | found[1].keys())]


class Tracking:
    """An observer that feeds trackers with one run or with several side by side."""

    def __init__(self, names: Sequence[str], folder_of: Callable[[int], Path], note: "Note"):
        """Name what is fed.

        Args:
            names: of the trackers.
            folder_of: the run of a seed.
            note: is told of a tracker that failed.
        """
        self.names, self._folder_of, self._note = names, folder_of, note
        self._feeds: dict[int, Feed] = {}
        self._failed: set[str] = set()

    def __call__(self, progress: "Progress") -> None:
        """Tell of what an interval brought."""
        seed = progress.state.run.seed
        if seed in self._feeds:
            if progress.rows or progress.events:
                self._feeds[seed].tell(Interval(progress.rows, progress.events))
            return
        # What an interval brings is in the folder before it is told of here.
        try:
            self._feeds[seed] = Feed(self._folder_of(seed), self.names, lambda name, why: self._fail(progress, name, why))
        except UserError as mistake:
            for name in self.names:
                self._fail(progress, name, str(mistake))
            self.names = ()

    def close(self) -> None:
        """End what the trackers have open."""
        for feed in self._feeds.values():
            feed.close()

    def _fail(self, progress: "Progress", name: str, why: str) -> None:
        state = progress.state
        event = {"event": "tracking_failed", "interval": state.interval, "steps": state.steps_done, "tracker": name}
        # RunStopped: the run finds out by itself that its folder cannot be written.
        with contextlib.suppress(RunStopped):
            RunFolder(self._folder_of(state.run.seed)).append_events([event | {"message": f"{name} failed: {why}"}])
        if name not in self._failed:
            self._failed.add(name)
            self._note(f"{name} failed and is told no more ({why}); make up for it later with: evolute track RUN --to {name}")
