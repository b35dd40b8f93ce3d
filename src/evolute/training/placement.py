"""Where members live and how one program drives several of them: the only place that jits, maps, donates and places.

A group is some members of one kind on one device, driven by one compiled program. On a CPU every member is a group of its own and
the groups are dealt over CPU devices, because products of small matrices with a batch axis are slow there; on an accelerator a
kind is one group and its members are a batch axis. Programs are dispatched without waiting, so one group's environments step
while the others' updates run.
"""

import contextlib
import logging
import os
from collections.abc import Callable, Mapping, Sequence
from functools import wraps
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from evolute import hyperparameters
from evolute.algorithms.base import Algorithm, Learner, Sums, no_sums
from evolute.algorithms.graft import graft
from evolute.errors import UserError
from evolute.hyperparameters import Hyperparameters
from evolute.networks import MLP
from evolute.structure import Structure
from evolute.training.packing import Packed, pack, unpack
from evolute.training.replay import Batch, Sample, batch_of

# Hears what takes long before it begins.
LOG = logging.getLogger("evolute")

# What jax.local_devices() lists; jax.Device is no class that a type checker accepts.
Device = Any


class Programs(NamedTuple):
    """The compiled programs of a kind, for M members; learners, sums and hyperparameters are packed.

    What comes from the host has a leading axis [M]. What stays on the device has it, too, unless there is only one member.
    """

    act: Any  # (actors, hyper, obs [M, O], noise [M, A]) -> actions
    learn: Any  # (learners, sums, hyper, samples, obs, noise, step) -> (learners, sums, actions)
    # In turn: for how many batches, and (learners, hyper, samples) -> learners. Empty where no optimizer gathers curvature.
    burn_in: tuple[tuple[int, Any], ...]
    actors: Any  # (learners) -> copies of their actors
    begin: Any  # (learners without optimizer states) -> learners, packed
    # What a learner and its sums look like: their shapes and types.
    learner: Learner
    sums: Sums
    algorithm: Algorithm


def use_all_cores(members: int, cores: Sequence[int] = ()) -> None:
    """Ask JAX for a CPU device per core, as far as there are members for them; must come before JAX's first computation.

    Args:
        members: that this process trains.
        cores: on which it will be pinned; empty for all. Two devices on one core take turns: a step took a tenth longer.
    """
    # Every device factorises by itself, and LAPACK's threads on top would wait for each other: K-FAC steps took a third longer.
    # SciPy's library, which JAX loads with its first factorisation, reads this then.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    # RuntimeError: JAX has started, its devices are what they are, and the run is only slower.
    with contextlib.suppress(RuntimeError):
        jax.config.update("jax_num_cpu_devices", max(1, min(len(cores) or usable_cores(), members)))
    devices_here()


def usable_cores() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def devices_here() -> list[Device]:
    """Return JAX's devices on this machine; raises UserError where JAX_PLATFORMS names what is not here."""
    try:
        return jax.local_devices()
    # Some platforms that are missing end in an assertion without a word.
    except (RuntimeError, AssertionError) as error:
        asked = os.environ.get("JAX_PLATFORMS") or jax.config.read("jax_platforms")
        reason = " ".join(str(error).partition(" (set JAX")[0].split()) or "it is not there"
        raise UserError(
            f"JAX cannot use the device that JAX_PLATFORMS={asked} asks for ({reason}); unset JAX_PLATFORMS, or set it to cpu."
        ) from None


def usual_settings() -> bool:
    """Return whether JAX computes as this project is written for: in single precision, and with contained NaN allowed."""
    usual = {
        "enable_x64": (False,),
        "debug_nans": (False,),
        "debug_infs": (False,),
        "numpy_rank_promotion": ("allow",),
        "transfer_guard": (None, "allow"),
    }
    return all(getattr(jax.config, f"jax_{name}") in values for name, values in usual.items())


def with_usual_settings(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function as computed under the usual settings, whatever those of the process are.

    Only what is computed here: an environment may need others.
    """

    def under(*arguments: Any) -> Any:
        with (
            jax.enable_x64(False),
            jax.debug_nans(False),
            jax.debug_infs(False),
            jax.numpy_rank_promotion("allow"),
            jax.transfer_guard("allow"),
        ):
            return function(*arguments)

    return under


def make_programs(algorithm: Algorithm, precision: str = "float32", kind: str = "") -> Programs:
    """Return the programs of one kind. They compile on first use, once per batch bucket and device.

    Args:
        algorithm: what is fixed for the kind.
        precision: of the networks' products, in JAX's terms. Those of curvature are float32 in any, to stay definite.
        kind: its name, for messages.
    """
    here: Callable[[Any], Any] = (lambda function: function) if usual_settings() else with_usual_settings
    shapes = here(jax.eval_shape)
    like = shapes(algorithm.reset, algorithm.init(np.random.default_rng(0)))

    def compiled(function: Any, kept: int, shared: int = 0, donate: tuple[int, ...] = ()) -> Any:
        # A program is traced in the precision that holds then.
        many = jax.default_matmul_precision(precision)(_over_members(function, kept, shared))

        @wraps(many)
        def traced(*arguments: Any) -> Any:
            # Python comes here only where a program is about to be compiled.
            LOG.info("compiling %s of %s", function.__name__.replace("_", " "), kind)
            return many(*arguments)

        return here(jax.jit(traced, donate_argnums=donate))

    def batch(sample: Any) -> Batch:
        return batch_of(sample.rows, sample.weights, algorithm.observations, algorithm.actions)

    def act(actor: MLP, hyper: Any, obs: Any, noise: Any) -> Any:
        return algorithm.explore(actor, obs, Hyperparameters(*hyper), noise)

    def learn(packed: Packed, sums: Any, hyper: Any, sample: Any, obs: Any, noise: Any, step: Any) -> Any:
        numbers = Hyperparameters(*hyper)
        learner, update = algorithm.learn(unpack(packed, like), batch(sample), numbers, sample.noise, step)
        # The next action comes with the update: one call per step, and the freshest policy acts.
        return pack(learner), sums + jnp.stack(jax.tree.leaves(update)), algorithm.explore(learner.actor, obs, numbers, noise)

    def burn_in_of(gather: Callable[..., Learner]) -> Callable[..., Packed]:
        def burn_in(packed: Packed, hyper: Any, sample: Any) -> Packed:
            return pack(gather(unpack(packed, like), batch(sample), Hyperparameters(*hyper), sample.noise))

        return burn_in

    def actors(packed: Packed) -> MLP:
        def of_one(packed: Packed) -> MLP:
            return unpack(packed, like).actor

        single = next(iter(packed.small.values())).ndim == 1
        return of_one(packed) if single else jax.vmap(of_one)(packed)

    def begin(learner: Learner) -> Packed:
        return pack(algorithm.reset(learner))

    return Programs(
        act=compiled(act, kept=2),
        learn=compiled(learn, kept=3, shared=1, donate=(0, 1)),
        burn_in=tuple((count, compiled(burn_in_of(gather), kept=2, donate=(0,))) for count, gather in algorithm.burn_ins),
        actors=here(jax.jit(actors)),
        begin=compiled(begin, kept=0),
        learner=like,
        sums=shapes(no_sums),
        algorithm=algorithm,
    )


def _over_members(one: Any, kept: int, shared: int = 0) -> Any:
    """Return a function of one member as a function of M members.

    The first `kept` arguments stay on the device between calls; the last `shared` are common to all members, and stay scalars
    inside, so that a branch on a shared counter remains a branch. A single member is not batched at all: its program is the
    function itself, and what it keeps has no axis of length one, which would cost copies where memory is given away.
    """

    def many(*arguments: Any) -> Any:
        kept_, own, common = arguments[:kept], arguments[kept : len(arguments) - shared], arguments[len(arguments) - shared :]
        if len(jax.tree.leaves(own)[0]) == 1:
            return one(*kept_, *jax.tree.map(lambda x: x[0], own), *common)
        axes = (0,) * (len(arguments) - shared) + (None,) * shared
        return jax.vmap(one, in_axes=axes)(*arguments)

    return many


class Group:
    """Some members of one kind on one device.

    Attributes:
        lanes: their places among all members of all populations, in order.
        updates: learner updates done so far; shared by the members, so schedules are one branch for all.
        device: where their learners are.
    """

    def __init__(
        self,
        lanes: Sequence[int],
        kind: str,
        programs: Programs,
        device: Device,
        learners: Sequence[Learner],
        steps_per_round: int = 1,
    ):
        """Take new learners without optimizer states, one per lane.

        With `steps_per_round` above 1 the members act with a copy of their actors that is as many actions old at most, and every
        action is computed before the update that is started with it: their environments step while that update runs.
        """
        self.lanes = list(lanes)
        self.kind = kind
        self.updates = 0
        self._programs = programs
        self.device = device
        self._learners: Packed = programs.begin(self._place(jax.tree.map(lambda *leaves: np.stack(leaves), *learners)))
        self._steps_per_round = steps_per_round
        self._actors: Any = None
        self._acted = 0
        self._actions: Any = None
        self._hyper: Any = None
        self._sums: Any = None

    def begin_interval(self, members: Sequence[Hyperparameters]) -> None:
        """Take the hyperparameters that hold for the coming interval, and start its sums and its rounds."""
        self._acted = 0
        hyper = hyperparameters.as_array(list(members))
        sums = np.zeros((len(members), len(jax.tree.leaves(self._programs.sums))), np.float32)
        self._hyper, self._sums = self._place((hyper[0], sums[0]) if self._single else (hyper, sums))

    def act(self, obs: np.ndarray, noise: np.ndarray) -> None:
        """Start computing exploring actions for observations [M, O] with standard normal noise [M, A]."""
        if self._acted % self._steps_per_round == 0:
            # A copy: an update gives the learners' memory away.
            self._actors = self._programs.actors(self._learners)
        self._acted += 1
        self._actions = self._programs.act(self._actors, self._hyper, obs, noise)

    def learn(self, sample: Sample, obs: np.ndarray, noise: np.ndarray) -> None:
        """Start one update from a sample of every member [M, ...], and the actions that follow it as in `act`."""
        if self._steps_per_round > 1:
            self.act(obs, noise)
        self._learners, self._sums, actions = self._programs.learn(
            self._learners, self._sums, self._hyper, sample, obs, noise, np.int32(self.updates)
        )
        if self._steps_per_round == 1:
            self._actions = actions
        self.updates += 1

    def actions(self) -> np.ndarray:
        """Wait for the actions [M, A] started last."""
        return np.asarray(self._actions).reshape(len(self.lanes), -1)

    def sums(self) -> list[Sums]:
        """Wait for the interval's updates and return each member's sums."""
        structure = jax.tree.structure(self._programs.sums)
        rows = np.asarray(self._sums).reshape(len(self.lanes), -1).tolist()
        return [jax.tree.unflatten(structure, row) for row in rows]

    @property
    def structure(self) -> Structure:
        """How the members' networks compute."""
        return self._programs.algorithm.structure

    @property
    def noise(self) -> int:
        """How many standard normal numbers an update takes for each transition."""
        return self._programs.algorithm.noise

    @property
    def burn_in_batches(self) -> int:
        """How many samples `burn_in` takes."""
        return sum(count for count, _ in self._programs.burn_in)

    def burn_in(self, lane: int, samples: Sequence[Sample]) -> None:
        """Let one member's optimizers gather curvature from samples, each from as many as it wants."""
        packed, hyper = self._member(lane), self._hyper if self._single else self._hyper[self.lanes.index(lane)]
        programs = [program for count, program in self._programs.burn_in for _ in range(count)]
        for program, sample in zip(programs, samples, strict=True):
            packed = program(packed, hyper, jax.tree.map(lambda x: x[None], sample))
        self._store(lane, packed)

    def take(self, lane: int) -> Learner:
        """Return one member's learner as host arrays."""
        return self._on_host(self._learner(lane))

    def learner(self, lane: int) -> Learner:
        """Return one member's learner as host arrays, without its optimizer states."""
        return self._on_host(self._programs.algorithm.strip(self._learner(lane)))

    def networks_of(self, learner: Learner) -> Mapping[str, Any]:
        """Return a learner's networks by name."""
        return self._programs.algorithm.networks(learner)

    def policy_of(self, learner: Learner) -> Any:
        """Return a learner's deterministic policy, an MLP of arrays like the learner's."""
        return self._programs.algorithm.policy(learner.actor)

    def graft(self, lane: int, other: Learner, theirs: Structure, rng: np.random.Generator) -> None:
        """Replace one member's learner by what is alike in another algorithm's, and by new parts.

        Args:
            lane: of the member.
            other: the learner to copy from.
            theirs: the structure of its networks.
            rng: which is consumed.
        """
        new = self._programs.algorithm.init(rng)
        # Networks that compute otherwise have nothing in common, whatever their sizes.
        self.put(lane, graft(new, other) if theirs == self.structure else new, reset_optimizers=True)

    def put(self, lane: int, learner: Learner, reset_optimizers: bool) -> None:
        """Replace one member's learner; with `reset_optimizers` its optimizer states start anew."""
        if reset_optimizers:
            networks = jax.tree.map(lambda x: np.asarray(x)[None], self._programs.algorithm.strip(learner))
            packed = self._programs.begin(self._place(networks))
        else:
            packed = self._place(pack(jax.tree.map(np.asarray, learner), np.concatenate))
        self._store(lane, packed)

    @property
    def _single(self) -> bool:
        return len(self.lanes) == 1

    def _member(self, lane: int) -> Packed:
        if self._single:
            return self._learners
        index = self.lanes.index(lane)
        return jax.tree.map(lambda x: x[index], self._learners)

    def _learner(self, lane: int) -> Learner:
        # Large arrays stay on the device until somebody wants them.
        packed = self._member(lane)
        return unpack(packed._replace(small=self._on_host(packed.small)), self._programs.learner)

    def _store(self, lane: int, packed: Packed) -> None:
        if self._single:
            self._learners = packed
        else:
            index = self.lanes.index(lane)
            self._learners = jax.tree.map(lambda all_, one: all_.at[index].set(one), self._learners, packed)

    def _place(self, tree: Any) -> Any:
        return jax.device_put(tree, self.device)

    def _on_host(self, tree: Any) -> Any:
        # Copies: on a CPU device_get gives the device's own memory, which the next update gives away.
        return jax.tree.map(np.array, jax.device_get(tree))


def deal(kinds: Mapping[int, str], placement: str) -> list[tuple[str, list[int], Device]]:
    """Return (kind, lanes, device) for every group of members.

    Args:
        kinds: of the members, by lane.
        placement: "map" for groups of one, dealt over the devices; "vmap" for one group per kind; "auto" by the platform.
    """
    devices = devices_here()
    if placement == "auto":
        placement = "map" if devices[0].platform == "cpu" else "vmap"
    if placement == "map":
        return [(kind, [lane], devices[n % len(devices)]) for n, (lane, kind) in enumerate(kinds.items())]
    cohorts: dict[str, list[int]] = {}
    for lane, kind in kinds.items():
        cohorts.setdefault(kind, []).append(lane)
    return [(kind, lanes, devices[n % len(devices)]) for n, (kind, lanes) in enumerate(cohorts.items())]
