"""Workers in processes of their own, one per share of this machine's cores, and who gets which members.

One that is lost is replaced (elsewhere.py). Messages between processes of one program are pickled; nothing of a file is.
"""

import contextlib
import ctypes
import itertools
import logging
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import jax

from evolute import interruption
from evolute.children import CONTEXT, Child
from evolute.config import Run
from evolute.environments.gym import registered_here
from evolute.errors import RunStopped, UserError
from evolute.policy import Policy
from evolute.training import placement
from evolute.training.elsewhere import Elsewhere, Job
from evolute.training.host import Host
from evolute.training.line import Lost
from evolute.training.rollout import PROGRESS_PERIOD
from evolute.training.serving import ALL, Clock, serve
from evolute.training.worker import Hire, Tell, Worker

LOG = logging.getLogger("evolute")
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
    runs: Sequence[Run], count: int | Hire, note: Callable[[str], None], folders: Sequence[Path], policy: Policy | None = None
) -> list[Worker]:
    """Return the workers that train populations whose runs differ by the seed alone.

    Args:
        runs: of the populations.
        count: how many processes; 1 for this one. More than there are members are as many as there are. Or what hires them.
        note: is told where a process was lost and replaced.
        folders: of the runs, if they are checkpointed: otherwise a lost process ends the run.
        policy: that members start from, if any.

    Raises:
        UserError: the count is of no use here.
    """
    return (count if callable(count) else Processes(count))(runs, note, folders, policy)


@dataclass(frozen=True)
class Processes:
    """Processes of this machine as the argument `workers` of `train`. It is what hires them."""

    # 1 for this process; more than there are members are as many as there are.
    count: int
    # Whether the members of a process that is lost miss intervals, and the others go on; otherwise they wait.
    stragglers: bool = False

    def __call__(
        self, runs: Sequence[Run], note: Callable[[str], None], folders: Sequence[Path], policy: Policy | None
    ) -> list[Worker]:
        """Hire them."""
        count, stragglers, members = self.count, self.stragglers, len(runs[0].kinds) * len(runs)
        if type(count) is not int or count < 1:
            raise UserError(f"workers is {count!r}; it must be a whole number of at least 1, such as the number of cores.")
        if stragglers:
            check_stragglers(runs[0], min(count, members), folders)
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
        # They read it when they load their libraries, which is before they begin; see use_all_cores.
        os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
        crew: list[Elsewhere] = []
        done = CONTEXT.RawArray(ctypes.c_int64, min(count, members))
        try:
            for number, (lanes, cores) in enumerate(zip(dealt(members, count), shares(count), strict=False)):
                begin, job = partial(Pipe, cores, Clock(done, number)), Job(runs, lanes, folders, policy)
                crew.append(
                    Elsewhere(job, begin, "worker process", note, others_go_on=partial(others_go_on, stragglers, crew, number))
                )
            for one in crew:
                one.await_start()
        except BaseException:
            for one in crew:
                one.close()
            raise
        return list(crew)


def count_here(workers: int | Hire) -> int | None:
    """Return how many processes of this machine the argument `workers` of `train` means; None where they are elsewhere."""
    if isinstance(workers, Processes):
        return workers.count
    return None if callable(workers) else workers


def check_stragglers(run: Run, count: int, folders: Sequence[Path]) -> None:
    """Raise UserError where the others cannot go on without a worker that is lost.

    Args:
        run: of the population.
        count: of workers.
        folders: of the runs.
    """
    if count == 1:
        raise UserError("stragglers is set, and there is one worker, whom nobody waits for; choose at least 2 workers.")
    if not folders:
        raise UserError("stragglers is set, and the run is not checkpointed; give it a folder.")
    if run.schedule:
        raise UserError("stragglers is set, and a member with a schedule cannot miss an interval; leave it out.")
    if run.checkpoint_every != 1:
        raise UserError(
            f"checkpoint_every is {run.checkpoint_every}, and with stragglers lost members go on from where the interval began; "
            "set it to 1."
        )


def others_go_on(stragglers: bool, crew: Sequence[Elsewhere], number: int) -> bool:
    """Return whether members of one of the crew, by its number, may miss an interval: somebody else has to be there."""
    return stragglers and any(not one.late for place, one in enumerate(crew) if place != number)


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


class Pipe:
    """How a worker in a process of its own is reached. The contract is line.Line."""

    # A parcel is in this process then.
    keeps = True
    unready = "its own message is above; in a script, begin under `if __name__ == '__main__':`, or set workers to 1"

    def __init__(self, cores: Sequence[int], clock: Clock, job: Job):
        """Start the process.

        Args:
            cores: on which it runs; empty for all.
            clock: of the crew.
            job: what it is to be.
        """
        self._clock = clock
        # What came that nobody has received yet.
        self._heard: tuple[str, Any] | None = None
        clock.tell(0)
        spec = registered_here(job.runs[0].env)
        about = (list(job.runs), list(job.lanes), cores, told_of_jax(), spec, job.policy, clock)
        try:
            # Not childless: environments with a time limit live in processes of their own.
            self.child = Child(serve, about, "evolute-worker", childless=False)
        except OSError as error:
            raise RunStopped(
                f"no worker process can be started: {error.strerror or error}; raise the limits that `ulimit -n` (open files) "
                "and `ulimit -u` (processes) show, or choose fewer workers."
            ) from None

    def send(self, call: str, arguments: tuple[Any, ...]) -> None:
        """Ask for something."""
        if call == "train":
            self._clock.tell(0)
        # OSError: whoever waits for the answer finds out.
        with contextlib.suppress(OSError):
            self.child.pipe.send((call, arguments))

    def receive(self, tell: Tell | None) -> Any:
        """Return the process's next answer; raises what it raised, and Lost where no answer comes."""
        while not self._hears(PROGRESS_PERIOD):
            interruption.check()
            if tell is not None and (done := self._clock.slowest) < ALL:
                tell(done)
        assert self._heard is not None, "it has just come"
        (kind, answer), self._heard = self._heard, None
        if kind == "raised":
            raise answer
        return answer

    def ready(self) -> bool:
        """Return whether an answer is there already; raises Lost where none comes."""
        return self._hears(0.0)

    def _hears(self, seconds: float) -> bool:
        """Return whether an answer comes within some seconds; passes on what is said before."""
        try:
            while self._heard is None and self.child.pipe.poll(seconds):
                kind, said = self.child.pipe.recv()
                if kind == "log":
                    LOG.info("%s", said)
                else:
                    self._heard = kind, said
        except (EOFError, OSError):
            raise Lost(self.child.ending()) from None
        return self._heard is not None

    def stand_aside(self) -> None:
        """Count as somebody who has done all steps."""
        self._clock.tell(ALL)

    def could_move(self) -> bool:
        """Return False: it has its share of this machine's cores from the beginning."""
        return False

    def end(self, kindly: bool) -> None:
        """End the process."""
        if kindly:
            # OSError: it is lost, and nobody needs it any more.
            with contextlib.suppress(OSError):
                self.child.pipe.send(("close", ()))
                self.child.pipe.poll(CLOSE_LIMIT)
        self.child.end()
