"""A worker that is elsewhere, in another process or on another machine, and how a new one takes the place of one that is lost.

What a worker computes depends on its members alone. So what it was asked since the last checkpoint is remembered: a new one is
brought to the checkpoint and asked the same again, and the others wait. Or they go on: its members miss the interval, and join
again from the checkpoint once a new one is ready. How it is reached is its line (line.py).
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from evolute.config import Run
from evolute.environments.spaces import Facts
from evolute.errors import Damaged, RunStopped, UserError
from evolute.policy import Policy
from evolute.training import storage
from evolute.training.evaluate import Evaluation
from evolute.training.line import Gone, Line, Lost
from evolute.training.worker import Orders, Tell, Trained, Trouble

# Losses of a worker between two checkpoints after which the run stops: what kills a process every time goes on doing so.
MOST_LOSSES = 3


class Job(NamedTuple):
    """What a worker is to be."""

    runs: Sequence[Run]  # of all populations side by side
    lanes: Sequence[int]  # of the members that it has
    # Of the runs, from which what a lost worker had is restored; empty where it cannot be.
    folders: Sequence[Path]
    policy: Policy | None  # that its members start from, if any

    def folder_of(self, lane: int) -> Path | None:
        """Return the run folder that a member's replay is written to."""
        return self.folders[lane // len(self.runs[0].kinds)] if self.folders else None

    @property
    def members(self) -> str:
        """The members, in words."""
        size = len(self.runs[0].kinds)
        names = [
            f"{lane % size}" if len(self.runs) == 1 else f"{lane % size} of seed {self.runs[lane // size].seed}"
            for lane in self.lanes
        ]
        return f"with member{'s' if len(names) > 1 else ''} {', '.join(names)}"


@dataclass
class Handed:
    """A parcel that one worker gave for another: by value, or wherever the line left it. It is None where it was lost.

    Attributes:
        giver: who gave it.
        number: of the call that it came of, among those that the giver remembers.
        parcel: without the replay, which is named by its files.
        replay: until it was taken; afterwards it is read from its files.
    """

    giver: "Elsewhere"
    number: int
    parcel: Any
    replay: Any


class Elsewhere:
    """A Host elsewhere. The contract is worker.Worker.

    Attributes:
        late: whether its members miss intervals, until a new worker is ready.
    """

    facts: Facts

    def __init__(
        self,
        job: Job,
        begin: Callable[[Job], Line],
        what: str,
        note: Callable[[str], None],
        leave: Callable[[], None] = lambda: None,
        others_go_on: Callable[[], bool] = lambda: False,
    ):
        """Start it; `await_start` comes next.

        Args:
            job: what it is to be.
            begin: starts a worker and returns its line; raises RunStopped where it cannot.
            what: it is, in words, such as "worker process".
            note: is told where it was lost and replaced.
            leave: is called once it is closed.
            others_go_on: says whether its members may miss an interval.
        """
        self.lanes, self.late, self._others_go_on = job.lanes, False, others_go_on
        self._job, self._start, self._note, self._leave = job, begin, note, leave
        self._named = f"the {what} {job.members}"
        self._what, self._losses = what, 0
        # What the last checkpoint says of the members, by folder and lane, and the same of one that is not whole yet.
        self._saved: dict[Path, dict[int, dict[str, Any]]] = {}
        self._saving: dict[Path, dict[int, dict[str, Any]]] = {}
        # What was asked since then that changes the members, or that others need; and how much of it this worker has done.
        self._since: list[tuple[str, tuple[Any, ...]]] = []
        self._done = 0
        self._line = begin(job)
        self._busy = True

    def await_start(self) -> None:
        """Wait until the members are made; raises UserError where they cannot be."""
        try:
            self.facts = self._receive(None)
        except Lost as lost:
            raise UserError(f"a {self._what} {lost} before it was ready; {self._line.unready}.") from None

    def train(self, interval: int, orders: Mapping[int, Orders], tell: Tell) -> Callable[[], Trained]:
        """Start an interval; what is returned waits for its end."""
        if self.late and not self._joined(tell):
            return self._missed
        # After a checkpoint a new worker has nothing to do again.
        if self._saved and not self._since and self._line.could_move():
            self._note(f"{self._named} moves to a machine that has room.")
            self._line.end(kindly=True)
            try:
                self._renew(tell)
            except Lost as lost:
                self._replace(str(lost), tell)
        self._send("train", (interval, orders))
        return lambda: self._answer("train", (interval, orders), tell)

    def give(self, lane: int) -> Handed:
        """Return what an exploit copies of a member, for another worker of the crew."""
        arguments = (lane, self._job.folder_of(lane))
        self._send("give", arguments)
        handed = Handed(self, len(self._since), *self._answer("give", arguments))
        self._remember("give", handed, *arguments)
        return handed

    def take(self, lane: int, parcel: Handed, reset: bool, interval: int) -> None:
        """Make a member a copy."""
        try:
            self._ask("take", lane, parcel, reset, interval)
        except Damaged as damage:
            raise self._spoilt(damage) from None
        # It is in the giver's files; a copy in memory would live until the next checkpoint.
        parcel.replay = None
        self._remember("take", lane, parcel, reset, interval)

    def become(self, lane: int, kind: str) -> None:
        """Let a member learn as another kind from now on."""
        self._ask("become", lane, kind)
        self._remember("become", lane, kind)

    def save_replay(self, folder: Path, lanes: Sequence[int], interval: int) -> Callable[[], None]:
        """Begin to write new transitions of members into a run folder; what is returned waits for the end."""
        if self.late:
            return lambda: None
        arguments = (folder, lanes, interval)
        self._send("save_replay", arguments)
        return lambda: self._replay_saved(arguments)

    def _replay_saved(self, arguments: tuple[Any, ...]) -> None:
        self._answer("save_replay", arguments)
        self._remember("save_replay", *arguments)

    def save(self, folder: Path, lanes: Sequence[int], interval: int) -> Callable[[], dict[int, dict[str, Any]]]:
        """Begin to write the learners of members; what is returned waits for what a checkpoint's manifest says of each."""
        if self.late:
            # They are where the last checkpoint has them.
            return lambda: {lane: self._saved[folder][lane] for lane in lanes}
        arguments = (folder, lanes, interval)
        self._send("save", arguments)
        return lambda: self._saved_all(arguments)

    def _saved_all(self, arguments: tuple[Any, ...]) -> dict[int, dict[str, Any]]:
        folder, described = arguments[0], self._answer("save", arguments)
        self._saving[folder] = described
        if sum(map(len, self._saving.values())) == len(self.lanes):
            self._saved, self._saving, self._since, self._done, self._losses = self._saving, {}, [], 0, 0
        return described

    def restore(self, folder: Path, members: Mapping[int, dict[str, Any]]) -> None:
        """Bring new members, by lane, to where a checkpoint's manifest says."""
        self._ask("restore", folder, members)
        self._saved[folder] = dict(members)

    def play(self, policy: Policy, seeds: list[int]) -> Evaluation:
        """Play episodes with a policy in an environment made anew."""
        return self._ask("play", policy, seeds)

    def close(self) -> None:
        """End it."""
        self._line.end(kindly=not self._busy)
        self._leave()

    def _ask(self, call: str, *arguments: Any) -> Any:
        self._send(call, arguments)
        return self._answer(call, arguments)

    def _send(self, call: str, arguments: tuple[Any, ...]) -> None:
        self._busy = True
        self._line.send(call, self._at_hand(arguments))

    def _at_hand(self, arguments: tuple[Any, ...]) -> tuple[Any, ...]:
        """Return a call's arguments as the worker is to have them: what was handed over in two parts."""
        lane, *rest = arguments or (None,)
        if not rest or not isinstance(rest[0], Handed):
            return arguments
        return lane, rest[0].parcel, rest[0].replay, *rest[1:]

    def _receive(self, tell: Tell | None) -> Any:
        answer = self._line.receive(tell)
        self._busy = False
        return answer

    def _answer(self, call: str, arguments: tuple[Any, ...], tell: Tell | None = None) -> Any:
        """Return the answer to a call that was sent, from a new worker where the old one is lost."""
        while True:
            try:
                self._catch_up(len(self._since), tell)
                if not self._busy:
                    self._send(call, arguments)
                answer = self._receive(tell)
                break
            except Lost as lost:
                if call == "train" and self._saved and not self._since and self._others_go_on():
                    self._fall_behind(str(lost))
                    return self._missed()
                self._replace(str(lost), tell)
            except Gone:
                self._give_again(arguments[1], tell)
        if call == "train":
            self._remember(call, *arguments)
        return answer

    def _remember(self, call: str, *arguments: Any) -> None:
        if self._job.folders:
            self._since.append((call, arguments))
            self._done = len(self._since)

    def _replace(self, how: str, tell: Tell | None) -> None:
        """Start a new worker and bring it to the last checkpoint."""
        while True:
            self._lose(how, "a new one goes on from the last checkpoint")
            self._done = 0
            for call, arguments in self._since:
                if call == "give" and not self._line.keeps:
                    arguments[0].parcel = arguments[0].replay = None
            try:
                self._renew(tell)
                return
            except Lost as lost:
                how = str(lost)

    def _lose(self, how: str, then: str, most: float = MOST_LOSSES) -> None:
        """Let go of a worker that is no more, and say so; raises RunStopped where it was one too many."""
        self._losses += 1
        if not self._job.folders:
            raise RunStopped(f"{self._named} {how}, and the run is not checkpointed; give it a folder.")
        if self._losses > most:
            raise RunStopped(
                f"{self._named} {how}, {self._losses} times since the last checkpoint that it wrote; if memory is short, lower "
                "buffer_size or the members; if the environment ends its process, give it a time_limit."
            )
        self._note(f"{self._named} {how}; {then}.")
        self._line.end(kindly=False)

    def _fall_behind(self, how: str) -> None:
        """Let the others go on meanwhile, however often that is."""
        self._lose(how, "the others go on, and a new one joins them from the last checkpoint", math.inf)
        self._line, self._busy, self.late = self._start(self._job), True, True
        self._line.stand_aside()

    def _joined(self, tell: Tell | None) -> bool:
        """Return whether the new worker is ready to go on with the others; it is at the last checkpoint then."""
        try:
            if not self._line.ready():
                return False
            self._come_up(tell)
        except Lost as lost:
            self._fall_behind(str(lost))
            return False
        self.late = False
        self._note(f"{self._named} has joined the others again.")
        return True

    def _missed(self) -> Trained:
        return Trained({lane: Trouble([], None) for lane in self.lanes}, {}, [], {}, self.lanes)

    def _renew(self, tell: Tell | None) -> None:
        """Start a new worker, and restore what the last checkpoint says."""
        self._line, self._busy = self._start(self._job), True
        self._come_up(tell)

    def _come_up(self, tell: Tell | None) -> None:
        """Wait for a worker that was started, and restore what the last checkpoint says."""
        self._receive(tell)
        try:
            for folder, described in self._saved.items():
                for part, file in (pair for member in described.values() for pair in storage.files_of(member)):
                    storage.verify(folder / part / file["file"], file["bytes"], file["sha256"])
                self._again("restore", (folder, described), tell)
        except Damaged as damage:
            raise RunStopped(f"{self._named} is no more, and the last checkpoint is damaged: {damage}.") from None

    def _catch_up(self, end: int, tell: Tell | None) -> None:
        """Do again what was asked since the last checkpoint, as far as a new worker has not done so yet."""
        while self._done < end:
            call, arguments = self._since[self._done]
            if call == "give":
                handed, *own = arguments
                if handed.parcel is None:
                    handed.parcel, _ = self._again("give", tuple(own), tell)
            else:
                self._do_again(call, arguments, tell)
            self._done += 1

    def _do_again(self, call: str, arguments: tuple[Any, ...], tell: Tell | None) -> None:
        while True:
            if call == "take" and arguments[1].parcel is None:
                self._give_again(arguments[1], tell)
            try:
                self._again(call, arguments, tell)
                return
            except Gone:
                arguments[1].parcel = None
            except Damaged as damage:
                raise self._spoilt(damage) from None

    def _spoilt(self, damage: Damaged) -> RunStopped:
        return RunStopped(f"{self._named} was lost, and replay that is copied is damaged: {damage}.")

    def _again(self, call: str, arguments: tuple[Any, ...], tell: Tell | None) -> Any:
        self._send(call, arguments)
        return self._receive(tell)

    def _give_again(self, handed: Handed, tell: Tell | None) -> None:
        """Let a parcel that was lost with its giver be given again: by a new giver, brought to where the old one gave it."""
        self._busy = False
        handed.parcel = handed.replay = None
        handed.giver.give_once_more(handed, tell)

    def give_once_more(self, handed: Handed, tell: Tell | None) -> None:
        """Give a parcel again that another worker needs."""
        if not self._job.folders:
            raise RunStopped(f"{self._named} was lost, and the run is not checkpointed; give it a folder.")
        if handed.number >= len(self._since) or self._since[handed.number][1][0] is not handed:
            raise RunStopped(f"{self._named} was lost while a checkpoint was written, with what another one had copied from it.")
        how = "was lost with its machine"
        while handed.parcel is None:
            if self._done > handed.number:
                self._replace(how, tell)
            try:
                self._catch_up(handed.number + 1, tell)
            except Lost as lost:
                how, self._done = str(lost), len(self._since)
