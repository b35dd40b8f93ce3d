"""One population over the machines of a cluster: its workers are Ray's actors, each on its share of a machine's cores.

Between intervals only numbers travel. At an exploit the driver hands on where the parcel is, and the child's machine fetches it
from the parent's. Checkpoints are written by every worker into the run folder, which all machines see: replay has gigabytes, and
would otherwise go through one machine, on its way out and on every way back.
"""

import contextlib
import logging
import math
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import ray  # pyright: ignore[reportMissingImports]
import ray.exceptions  # pyright: ignore[reportMissingImports]
from ray.util.scheduling_strategies import (  # pyright: ignore[reportMissingImports]
    NodeAffinitySchedulingStrategy,
    PlacementGroupSchedulingStrategy,
)

from evolute import interruption
from evolute.cluster import actor
from evolute.cluster.actor import Told, Where
from evolute.cluster.cores import cores_each
from evolute.cluster.machines import Machines
from evolute.config import Run
from evolute.environments.gym import Environment, registered_here
from evolute.environments.making import making_of
from evolute.errors import RunStopped, UserError
from evolute.policy import Policy
from evolute.training import needs
from evolute.training.elsewhere import Elsewhere, Job
from evolute.training.line import Gone, Lost
from evolute.training.processes import check_stragglers, dealt, others_go_on, told_of_jax
from evolute.training.rollout import PROGRESS_PERIOD
from evolute.training.serving import ALL
from evolute.training.worker import Hire, Tell, Worker

LOG = logging.getLogger("evolute")
# Seconds for the cluster to make room for a population at its start; a cluster that grows by itself needs some.
ROOM_LIMIT = 120.0
# Seconds after which a worker that is to replace a lost one shares cores with others, where no cores are free.
PLACE_LIMIT = 20.0
# Processes that are started for one worker before it counts as lost.
ATTEMPTS = 3
# Seconds for a worker to close its environments.
CLOSE_LIMIT = 5.0


class Seat(NamedTuple):
    """Where a worker is at home: its part of what was reserved on the cluster."""

    group: Any  # Ray's placement group
    number: int  # of the bundle, and of the worker
    cores: int


class Crew:
    """What the workers of a population share."""

    def __init__(self, group: Any, count: int, machines: Machines, note: Callable[[str], None]):
        self.machines, self.note = machines, note
        self.lines: list[RayLine | None] = [None] * count
        self._group, self._left = group, 0

    def look(self) -> int:
        """Hear of every worker, and return the steps that all have done."""
        lines = [line for line in self.lines if line is not None]
        for line in lines:
            line.hear()
            # Whoever asks for its answer finds out that it is lost.
            with contextlib.suppress(Lost):
                line.come_up()
        return min((line.steps for line in lines), default=ALL)

    def leave(self) -> None:
        """Give back what was reserved once every worker is closed."""
        self._left += 1
        if self._left == len(self.lines):
            ray.util.remove_placement_group(self._group)


class RayLine:
    """How a worker on a machine of the cluster is reached. The contract is line.Line."""

    # A parcel is on the giver's machine.
    keeps = False
    unready = "its log files are in /tmp/ray/session_latest/logs on its machine"

    def __init__(self, crew: Crew, seat: Seat, job: Job):
        """Start a worker; `settle` comes next.

        Args:
            crew: of the population.
            seat: where it is at home.
            job: what it is to be.
        """
        self.steps = 0
        self._crew, self._seat, self._job = crew, seat, job
        self._where: Where | None = None
        self._cores, self._call = [], ""
        self._news, self._asked = None, 0.0
        self._pending: Any = None
        self._parcel: list[Any] = []
        crew.lines[seat.number] = self
        self._at_home, self._began, self._attempts = True, time.monotonic(), 0
        self._actor, self._whereabouts = self._started()

    @property
    def node(self) -> str | None:
        """Where it runs, by Ray's name of the machine; None until it does."""
        return self._where and self._where.node

    def settle(self) -> None:
        """Wait until it runs somewhere, give it cores there, and let it begin; raises RunStopped where it cannot."""
        if self._pending is not None:
            return
        while not self._placed(PROGRESS_PERIOD):
            interruption.check()
        with self._crew.machines.seen() as seen:
            asked = self._actor.sees.remote(seen)
            while not ray.wait([asked], timeout=PROGRESS_PERIOD)[0]:
                interruption.check()
            sees = self._got(asked)
        assert self._where is not None, "it has just been placed"
        self._cores = self._crew.machines.admit(self._where, sees, self._seat.cores)
        runs, lanes, _, policy = self._job
        spec = registered_here(runs[0].env)
        self._pending = self._actor.begin.remote(told_of_jax(), list(runs), list(lanes), self._cores, spec, policy)

    def send(self, call: str, arguments: tuple[Any, ...]) -> None:
        """Ask for something."""
        self._call = call
        if call == "train":
            self.steps = 0
        if call == "give":
            # Where the two parts of the parcel are; the parts themselves stay there.
            self._pending, *self._parcel = self._actor.give.remote(*arguments)
        else:
            self._pending = self._actor.call.remote(call, *arguments)

    def receive(self, tell: Tell | None) -> Any:
        """Return the worker's next answer; raises what it raised, Lost where no answer comes, and Gone for a lost parcel."""
        self.settle()
        while not ray.wait([self._pending], timeout=PROGRESS_PERIOD)[0]:
            interruption.check()
            if (done := self._crew.look()) < ALL and tell is not None:
                tell(done)
        kind, answer = self._got(self._pending)
        if self._call == "train":
            self.steps = ALL
        if kind == "raised":
            raise answer
        return self._parcel if self._call == "give" else answer

    def ready(self) -> bool:
        """Return whether an answer is there already; raises Lost where none comes."""
        self.come_up()
        return self._pending is not None and bool(ray.wait([self._pending], timeout=0)[0])

    def come_up(self) -> None:
        """Settle as soon as that takes no time; raises as `settle`, and Lost."""
        if self._pending is None and self._placed(0.0):
            self.settle()

    def stand_aside(self) -> None:
        """Count as somebody who has done all steps."""
        self.steps = ALL

    def hear(self) -> None:
        """Ask how far it is, now and then, and hear what it says."""
        if self._news is None:
            if time.monotonic() - self._asked > PROGRESS_PERIOD:
                self._asked = time.monotonic()
                self._news = self._actor.told.remote()
        elif ray.wait([self._news], timeout=0)[0]:
            news, self._news = self._news, None
            # Whoever waits for its answer finds out that it is lost.
            with contextlib.suppress(ray.exceptions.RayError):
                told: Told = ray.get(news)
                for sentence in told.said:
                    LOG.info("%s", sentence)
                if self.steps != ALL:
                    self.steps = told.steps

    def could_move(self) -> bool:
        """Return whether it shares others' cores, and there is room again."""
        return not self._at_home and self._has_room()

    def end(self, kindly: bool) -> None:
        """End the worker."""
        if kindly:
            # It is lost, and nobody needs it any more.
            with contextlib.suppress(ray.exceptions.RayError):
                ray.wait([self._actor.call.remote("close")], timeout=CLOSE_LIMIT)
        ray.kill(self._actor)
        if self._where is not None:
            self._crew.machines.leave(self._where, self._cores)
            self._cores = []
        if self._crew.lines[self._seat.number] is self:
            self._crew.lines[self._seat.number] = None

    def _got(self, answer: Any) -> Any:
        try:
            return ray.get(answer)
        except ray.exceptions.ObjectLostError:
            if self._call == "take":
                raise Gone from None
            raise self._lost() from None
        except ray.exceptions.RayError:
            raise self._lost() from None

    def _lost(self) -> Lost:
        return Lost(f"on {self._where.machine!r} was lost" if self._where else "was lost")

    def _placed(self, seconds: float) -> bool:
        """Return whether it runs somewhere, after waiting some seconds for that."""
        if self._where is not None:
            return True
        if not ray.wait([self._whereabouts], timeout=seconds)[0]:
            if self._at_home and time.monotonic() - self._began > PLACE_LIMIT and not self._has_room():
                self._crew.note(f"no cores are free for the worker {self._job.members}; it shares those of others.")
                self._at_home = False
                ray.kill(self._actor)
                self._actor, self._whereabouts = self._started()
            return False
        try:
            self._where = self._got(self._whereabouts)
        except Lost:
            # It was to start on a machine of which Ray did not know yet that it is no more.
            self._attempts += 1
            if self._attempts >= ATTEMPTS:
                raise
            self._actor, self._whereabouts = self._started()
        return self._where is not None

    def _started(self) -> tuple[Any, Any]:
        """Return a new process, at home or on the machine that has the fewest workers for its cores, and what will say where."""
        made = self._new()
        return made, made.where.remote()

    def _new(self) -> Any:
        if self._at_home:
            place: Any = PlacementGroupSchedulingStrategy(self._seat.group, self._seat.number)
            return actor.new(num_cpus=self._seat.cores, scheduling_strategy=place)
        there = [line.node for line in self._crew.lines if line is not None]
        nodes = {node["NodeID"]: node["Resources"]["CPU"] for node in ray.nodes() if node["Alive"] and "CPU" in node["Resources"]}
        least = min(nodes, key=lambda node: there.count(node) / nodes[node], default=None)
        place = NodeAffinitySchedulingStrategy(least, soft=True) if least else "DEFAULT"
        return actor.new(num_cpus=0, scheduling_strategy=place)

    def _has_room(self) -> bool:
        """Return whether its home is on a machine that is there."""
        return ray.util.placement_group_table(self._seat.group)["state"] == "CREATED"


def hire(count: int | None = None, stragglers: bool = False) -> Hire:
    """Return what hires the workers of a population on the cluster that is connected: the argument `workers` of `train`.

    Args:
        count: of workers; None for one per core of the cluster, and no more than there are members.
        stragglers: whether the members of a worker that is lost miss intervals, and the others go on; otherwise they wait.
    """
    return partial(_hired, count, stragglers)


def _hired(
    count: int | None,
    stragglers: bool,
    runs: Sequence[Run],
    note: Callable[[str], None],
    folders: Sequence[Path],
    policy: Policy | None,
) -> list[Worker]:
    members = len(runs[0].kinds) * len(runs)
    if runs[0].placement == "vmap":
        raise UserError("placement is vmap, whose numbers depend on who shares a process; on a cluster, use another one.")
    nodes = [int(node["Resources"].get("CPU", 0)) for node in ray.nodes() if node["Alive"]]
    most = min(members, sum(nodes)) if count is None else min(count, members)
    each = min(cores_each(nodes, most), math.ceil(members / most)) if most else 0
    if each == 0:
        raise UserError(
            f"workers is {most}, and the machines of the cluster have {sum(nodes)} cores; choose at most as many workers, or add "
            "a machine."
        )
    if stragglers:
        check_stragglers(runs[0], most, folders)
    group = _reserved(most, each, _memory(runs, most), note)
    crew = Crew(group, most, Machines(folders[0] if folders else None, note), note)
    found: list[Elsewhere] = []
    try:
        for number, lanes in enumerate(dealt(members, most)):
            begin, job = partial(RayLine, crew, Seat(group, number, each)), Job(runs, lanes, folders, policy)
            found.append(Elsewhere(job, begin, "worker", note, crew.leave, partial(others_go_on, stragglers, found, number)))
        for line in crew.lines:
            assert line is not None, "each has just been started"
            line.settle()
        for one in found:
            one.await_start()
    except BaseException as error:
        for one in found:
            one.close()
        ray.util.remove_placement_group(group)
        if isinstance(error, RunStopped | Lost):
            # Nothing has begun.
            raise UserError(str(error) if isinstance(error, RunStopped) else f"a worker {error}; {RayLine.unready}.") from None
        raise
    return list(found)


def _memory(runs: Sequence[Run], count: int) -> int:
    """Return the bytes of memory that each of some workers takes."""
    probe = Environment(runs[0].env, runs[0].time_limit, making_of(runs[0]))
    probe.close()
    need = needs.needs(runs[0], len(runs), probe.shape, count)
    return math.ceil(need.memory / count)


def _reserved(count: int, cores: int, memory: int, note: Callable[[str], None]) -> Any:
    """Return a placement group with a bundle for each worker: all of them, or none; raises UserError where there is no room."""
    group = ray.util.placement_group([{"CPU": cores, "memory": memory}] * count, strategy="PACK")
    began = time.monotonic()
    while not group.wait(1):
        interruption.check()
        if time.monotonic() - began > ROOM_LIMIT:
            ray.util.remove_placement_group(group)
            raise UserError(
                f"the cluster has no room for {count} workers of {cores} cores and {needs.size(memory)} of memory each; see "
                "`ray status`, and choose fewer workers, lower buffer_size, or add a machine."
            )
    return group
