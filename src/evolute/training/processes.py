"""Workers in processes of their own, one per share of this machine's cores, and who gets which members.

What a process computes depends on its members alone, so one that is lost is replaced: the new one is brought to the last
checkpoint and does again what was asked for since. Messages between processes of one program are pickled; nothing of a file is.
"""

import contextlib
import ctypes
import itertools
import logging
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax

from evolute import interruption
from evolute.children import CONTEXT, Child
from evolute.config import Run
from evolute.environments.gym import registered_here
from evolute.environments.spaces import Shape
from evolute.errors import Damaged, RunStopped, UserError
from evolute.files import REPLAY_FOLDER
from evolute.policy import Policy
from evolute.training import placement, storage
from evolute.training.evaluate import Evaluation
from evolute.training.host import Host
from evolute.training.replay import ReplayBuffer
from evolute.training.rollout import PROGRESS_PERIOD
from evolute.training.serving import ALL, Clock, serve
from evolute.training.worker import Orders, Parcel, Tell, Trained, Worker

LOG = logging.getLogger("evolute")
# Losses of a worker between two checkpoints after which the run stops: what kills a process every time goes on doing so.
MOST_LOSSES = 3
# Seconds for a worker to close its environments.
CLOSE_LIMIT = 5.0
# Of JAX, what a process was told of this one's.
SETTINGS = (
    "jax_platforms",
    "jax_compilation_cache_dir",
    "jax_persistent_cache_min_compile_time_secs",
    "jax_persistent_cache_min_entry_size_bytes",
)


def told_of_jax() -> dict[str, Any]:
    """Return what a process of this one's is told of JAX: the argument of `serving.settle`."""
    return {name: getattr(jax.config, name) for name in SETTINGS}


def start(
    runs: Sequence[Run], count: int, note: Callable[[str], None], folders: Sequence[Path], policy: Policy | None = None
) -> list[Worker]:
    """Return the workers that train populations whose runs differ by the seed alone.

    Args:
        runs: of the populations.
        count: how many processes; 1 for this one. More than there are members are as many as there are.
        note: is told where a process was lost and replaced.
        folders: of the runs, if they are checkpointed: otherwise a lost process ends the run.
        policy: that members start from, if any.

    Raises:
        UserError: the count is of no use here.
    """
    members = len(runs[0].kinds) * len(runs)
    if type(count) is not int or count < 1:
        raise UserError(f"workers is {count!r}; it must be a whole number of at least 1, such as the number of cores.")
    if min(count, members) == 1:
        placement.use_all_cores(members)
        return [Host(runs, range(members), policy)]
    platform = placement.devices_here()[0].platform
    if platform != "cpu":
        raise UserError(
            f"workers is {count}, and members train on a {platform} here, which one process drives; set workers to 1."
        )
    if runs[0].placement == "vmap":
        raise UserError(
            f"workers is {count} and placement is vmap, whose numbers depend on who shares a process; set one of them."
        )
    crew: list[WorkerProcess] = []
    done = CONTEXT.RawArray(ctypes.c_int64, min(count, members))
    try:
        for number, (lanes, cores) in enumerate(zip(dealt(members, count), shares(count), strict=False)):
            crew.append(WorkerProcess(runs, lanes, cores, Clock(done, number), note, folders, policy))
        for one in crew:
            one.await_start()
    except BaseException:
        for one in crew:
            one.close()
        raise
    return list(crew)


def dealt(members: int, count: int) -> list[list[int]]:
    """Return each worker's lanes: in turn, because kinds stand side by side and cost alike."""
    return [list(range(first, members, count)) for first in range(min(count, members))]


def shares(count: int) -> list[list[int]]:
    """Return each worker's cores: equal shares, of which none overlap as long as there are cores enough. Empty: any core."""
    if not hasattr(os, "sched_getaffinity"):
        return [[] for _ in range(count)]
    cores = sorted(os.sched_getaffinity(0))
    if count >= len(cores):
        return [[cores[number % len(cores)]] for number in range(count)]
    edges = [len(cores) * number // count for number in range(count + 1)]
    return [cores[first:last] for first, last in itertools.pairwise(edges)]


class Lost(Exception):
    """A worker's process is no more; says how it ended."""


class Stored(NamedTuple):
    """What is remembered of a replay buffer that is on disk: a copy in memory would live until the next checkpoint."""

    folder: Path
    capacity: int
    inserted: int
    segments: list[dict[str, Any]]

    @classmethod
    def of(cls, replay: ReplayBuffer, folder: Path) -> "Stored":
        """Return what is remembered of a buffer all of whose transitions are in a run folder."""
        return cls(folder, replay.capacity, replay.inserted, [segment._asdict() for segment in replay.segments])

    def read(self, shape: Shape) -> ReplayBuffer:
        """Return the buffer; raises Damaged where what is on disk is not what was written."""
        replay = ReplayBuffer(self.capacity, *shape)
        for segment in self.segments:
            storage.verify(self.folder / REPLAY_FOLDER / segment["file"], segment["bytes"], segment["sha256"])
        storage.restore_replay(self.folder, replay, {"inserted": self.inserted, "segments": self.segments}, shape)
        return replay


class WorkerProcess:
    """A Host in a process of its own. The contract is worker.Worker."""

    def __init__(
        self,
        runs: Sequence[Run],
        lanes: Sequence[int],
        cores: Sequence[int],
        clock: Clock,
        note: Callable[[str], None],
        folders: Sequence[Path],
        policy: Policy | None,
    ):
        """Start the process; `await_start` comes next.

        Args:
            runs: of all populations side by side.
            lanes: of the members that it has.
            cores: on which it runs; empty for all.
            clock: of the crew.
            note: is told where the process was lost and replaced.
            folders: of the runs, from which what a lost process had is restored; empty where it cannot be.
            policy: that its members start from, if any.
        """
        self.lanes, self._note, self._folders = lanes, note, folders
        self._runs, self._cores, self._policy = runs, cores, policy
        self._clock = clock
        self._losses = 0
        # What the last checkpoint says of the members, by folder and lane, and the same of one that is not whole yet.
        self._saved: dict[Path, dict[int, dict[str, Any]]] = {}
        self._saving: dict[Path, dict[int, dict[str, Any]]] = {}
        # What has changed the members since then: calls and their arguments.
        self._since: list[tuple[str, tuple[Any, ...]]] = []
        self._busy = False
        self._begin()

    def await_start(self) -> None:
        """Wait until the members are made; raises UserError where they cannot be."""
        try:
            self.facts = self._receive(None)
        except Lost as lost:
            raise UserError(
                f"a worker process {lost} before it was ready; its own message is above; in a script, begin under "
                "`if __name__ == '__main__':`, or set workers to 1."
            ) from None

    def train(self, interval: int, orders: Mapping[int, Orders], tell: Tell) -> Callable[[], Trained]:
        """Start an interval; what is returned waits for its end."""
        self._clock.tell(0)
        self._send("train", (interval, orders))
        return lambda: self._answer("train", (interval, orders), tell)

    def give(self, lane: int) -> Parcel:
        """Return what an exploit copies of a member."""
        return self._ask("give", lane)

    def take(self, lane: int, parcel: Parcel, reset: bool, interval: int) -> None:
        """Make a member a copy."""
        self._ask("take", lane, parcel, reset, interval)

    def become(self, lane: int, kind: str) -> None:
        """Let a member learn as another kind from now on."""
        self._ask("become", lane, kind)

    def save_replay(self, folder: Path, lanes: Sequence[int], interval: int) -> None:
        """Write new transitions of members into a run folder."""
        self._ask("save_replay", folder, lanes, interval)

    def save(self, folder: Path, lanes: Sequence[int], interval: int) -> dict[int, dict[str, Any]]:
        """Write the learners of members and return what a checkpoint's manifest says of each, by lane."""
        described = self._ask("save", folder, lanes, interval)
        self._saving[folder] = described
        if sum(map(len, self._saving.values())) == len(self.lanes):
            self._saved, self._saving, self._since, self._losses = self._saving, {}, [], 0
        return described

    def restore(self, folder: Path, members: Mapping[int, dict[str, Any]]) -> None:
        """Bring new members, by lane, to where a checkpoint's manifest says."""
        self._ask("restore", folder, members)
        self._saved[folder] = dict(members)

    def play(self, policy: Policy, seeds: list[int]) -> Evaluation:
        """Play episodes with a policy in an environment made anew."""
        return self._ask("play", policy, seeds)

    def close(self) -> None:
        """End the process."""
        if not self._busy:
            # OSError: it is lost, and nobody needs it any more.
            with contextlib.suppress(OSError):
                self._child.pipe.send(("close", ()))
                self._child.pipe.poll(CLOSE_LIMIT)
        self._child.end()

    def _begin(self) -> None:
        settings = told_of_jax()
        spec = registered_here(self._runs[0].env)
        about = (list(self._runs), list(self.lanes), self._cores, settings, spec, self._policy, self._clock)
        try:
            # Not childless: environments with a time limit live in processes of their own.
            self._child = Child(serve, about, "evolute-worker", childless=False)
        except OSError as error:
            raise RunStopped(
                f"no worker process can be started: {error.strerror or error}; raise the limits that `ulimit -n` (open files) "
                "and `ulimit -u` (processes) show, or choose fewer workers."
            ) from None
        self._busy = True

    def _ask(self, call: str, *arguments: Any) -> Any:
        self._send(call, arguments)
        return self._answer(call, arguments, None)

    def _send(self, call: str, arguments: tuple[Any, ...]) -> None:
        self._busy = True
        # OSError: whoever waits for the answer finds out.
        with contextlib.suppress(OSError):
            self._child.pipe.send((call, arguments))

    def _answer(self, call: str, arguments: tuple[Any, ...], tell: Tell | None) -> Any:
        """Return the answer to a call that was sent, from a new process where the old one is lost."""
        while True:
            try:
                answer = self._receive(tell)
                break
            except Lost as lost:
                self._replace(str(lost), tell)
                self._send(call, arguments)
        if self._folders and call in ("train", "take", "become", "save_replay"):
            self._since.append((call, self._remembered(call, arguments)))
        return answer

    def _remembered(self, call: str, arguments: tuple[Any, ...]) -> tuple[Any, ...]:
        """Return what is remembered of a call's arguments."""
        if call != "take":
            return arguments
        # Replay is written before an evolution, and a parent is of the child's population, so in its folder.
        lane, parcel, *rest = arguments
        folder = self._folders[lane // len(self._runs[0].kinds)]
        return lane, parcel._replace(replay=Stored.of(parcel.replay, folder)), *rest

    def _recalled(self, call: str, arguments: tuple[Any, ...]) -> tuple[Any, ...]:
        """Return the arguments of a call of which these are remembered."""
        if call != "take":
            return arguments
        lane, parcel, *rest = arguments
        return lane, parcel._replace(replay=parcel.replay.read(self.facts.shape)), *rest

    def _receive(self, tell: Tell | None) -> Any:
        """Return the process's next answer; raises what it raised, and Lost where no answer comes."""
        while True:
            try:
                while not self._child.pipe.poll(PROGRESS_PERIOD):
                    interruption.check()
                    if tell is not None and (done := self._clock.slowest) < ALL:
                        tell(done)
                kind, answer = self._child.pipe.recv()
            except (EOFError, OSError):
                raise Lost(self._child.ending()) from None
            if kind == "log":
                LOG.info("%s", answer)
                continue
            self._busy = False
            if kind == "raised":
                raise answer
            return answer

    def _replace(self, how: str, tell: Tell | None) -> None:
        """Start a new process and bring it to where the lost one was."""
        members = f"with member{'s' if len(self.lanes) > 1 else ''} {', '.join(self._names())}"
        while True:
            self._losses += 1
            if not self._folders:
                raise RunStopped(f"the worker process {members} {how}, and the run is not checkpointed; give it a folder.")
            if self._losses > MOST_LOSSES:
                raise RunStopped(
                    f"the worker process {members} {how}, {self._losses} times since the last checkpoint; if memory is short, "
                    "lower buffer_size or the members; if the environment ends its process, give it a time_limit."
                )
            self._note(f"the worker process {members} {how}; a new one goes on from the last checkpoint.")
            self._child.end()
            self._begin()
            try:
                self._receive(tell)
                for folder, described in self._saved.items():
                    for part, file in (pair for member in described.values() for pair in storage.files_of(member)):
                        storage.verify(folder / part / file["file"], file["bytes"], file["sha256"])
                    self._again("restore", (folder, described), tell)
                for call, arguments in self._since:
                    self._again(call, self._recalled(call, arguments), tell)
                return
            except Lost as lost:
                how = str(lost)
            except Damaged as damage:
                raise RunStopped(f"the worker process {members} {how}, and the last checkpoint is damaged: {damage}.") from None

    def _again(self, call: str, arguments: tuple[Any, ...], tell: Tell | None) -> None:
        self._clock.tell(0)
        self._send(call, arguments)
        self._receive(tell)

    def _names(self) -> list[str]:
        size = len(self._runs[0].kinds)
        return [
            f"{lane % size}" if len(self._runs) == 1 else f"{lane % size} of seed {self._runs[lane // size].seed}"
            for lane in self.lanes
        ]
