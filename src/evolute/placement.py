"""Where members live and how one program drives several of them: the only place that jits, maps, donates and places.

A group is some members of one kind on one device, driven by one compiled program. On a CPU every member is a group of its own and
the groups are dealt over CPU devices, because products of small matrices with a batch axis are slow there; on an accelerator a
kind is one group and its members are a batch axis. Programs are dispatched without waiting, so one group's environments step
while the others' updates run.
"""

import contextlib
import os
from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from evolute import hyperparameters, td3
from evolute.hyperparameters import Hyperparameters
from evolute.replay import Batch, Sample, unpack
from evolute.td3 import Algorithm, Learner, Report

# What jax.local_devices() lists; jax.Device is no class that a type checker accepts.
Device = Any


class Programs(NamedTuple):
    """The compiled programs of a kind. Every argument but the last of `learn` has a leading axis [M] of members."""

    act: Any  # (actors, obs [M, O], hyper, noise [M, A]) -> actions [M, A]
    learn: Any  # (learners, reports, samples, obs, hyper, noise, step) -> (learners, reports, actions)
    burn_in: Any  # (learners, samples, hyper) -> learners
    reset_optimizers: Any  # (learners) -> learners


def use_all_cores(members: int) -> None:
    """Ask JAX for a CPU device per core, as far as there are members for them; must come before JAX's first computation."""
    # Every device factorises by itself, and LAPACK's threads on top would wait for each other: K-FAC steps took a third longer.
    # SciPy's library, which JAX loads with its first factorisation, reads this then.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    # RuntimeError: JAX has started, its devices are what they are, and the run is only slower.
    with contextlib.suppress(RuntimeError):
        jax.config.update("jax_num_cpu_devices", max(1, min(cores, members)))


def make_programs(algorithm: Algorithm, precision: str = "float32") -> Programs:
    """Return the programs of one kind. They compile on first use, once per batch bucket and device.

    Args:
        algorithm: what is fixed for the kind.
        precision: of the networks' products, in JAX's terms. Those of curvature are float32 in any, to stay definite.
    """

    def compiled(function: Any, shared: int = 0, donate: tuple[int, ...] = ()) -> Any:
        # A program is traced in the precision that holds then.
        many = jax.default_matmul_precision(precision)(_over_members(function, shared))
        return jax.jit(many, donate_argnums=donate)

    def batch(sample: Any) -> Batch:
        return unpack(sample.rows, sample.weights, algorithm.observations, algorithm.actions)

    def learn(learner: Learner, report: Report, sample: Any, obs: Any, hyper: Hyperparameters, noise: Any, step: Any) -> Any:
        learner, update = td3.learn(learner, batch(sample), hyper, sample.noise, step, algorithm)
        # The next action comes with the update: one call per step, and the freshest policy acts.
        return learner, jax.tree.map(jnp.add, report, update), td3.explore(learner.actor, obs, hyper, noise)

    def burn_in(learner: Learner, sample: Any, hyper: Hyperparameters) -> Learner:
        return td3.burn_in(learner, batch(sample), hyper, sample.noise, algorithm)

    return Programs(
        act=compiled(td3.explore),
        learn=compiled(learn, shared=1, donate=(0, 1)),
        burn_in=compiled(burn_in, donate=(0,)),
        reset_optimizers=compiled(partial(td3.reset_optimizers, algorithm=algorithm)),
    )


def _over_members(one: Any, shared: int = 0) -> Any:
    """Return a function of one member as a function of M members; the last `shared` arguments are common to all.

    A single member is not batched at all: its program is the function itself. Common arguments stay scalars inside, so that a
    branch on a shared counter remains a branch.
    """

    def many(*arguments: Any) -> Any:
        own, common = arguments[: len(arguments) - shared], arguments[len(arguments) - shared :]
        if len(jax.tree.leaves(own)[0]) == 1:
            result = one(*jax.tree.map(lambda x: x[0], own), *common)
            return jax.tree.map(lambda x: x[None], result)
        axes = (0,) * len(own) + (None,) * shared
        return jax.vmap(one, in_axes=axes)(*arguments)

    return many


class Group:
    """Some members of one kind on one device.

    Attributes:
        lanes: their places among all members of all populations, in order.
        updates: learner updates done so far; shared by the members, so schedules are one branch for all.
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
        self._device = device
        stacked = jax.tree.map(lambda *leaves: np.stack(leaves), *learners)
        self._learners: Learner = programs.reset_optimizers(self._place(stacked))
        self._steps_per_round = steps_per_round
        self._frozen: Any = None
        self._acted = 0
        self._actions: Any = None
        self._hyper: Any = None
        self._reports: Any = None

    def begin_interval(self, members: Sequence[Hyperparameters]) -> None:
        """Take the hyperparameters that hold for the coming interval, and start its report and its rounds."""
        self._acted = 0
        self._hyper = self._place(hyperparameters.as_arrays(list(members)))
        shapes = jax.eval_shape(td3.no_report)
        self._reports = self._place(jax.tree.map(lambda x: np.zeros((len(self.lanes), *x.shape), x.dtype), shapes))

    def act(self, obs: np.ndarray, noise: np.ndarray) -> None:
        """Start computing exploring actions for observations [M, O] with standard normal noise [M, A]."""
        actors = self._learners.actor
        if self._steps_per_round > 1:
            if self._acted % self._steps_per_round == 0:
                # A copy: an update gives the learners' memory away.
                self._frozen = jax.tree.map(jnp.copy, actors)
            actors = self._frozen
        self._acted += 1
        self._actions = self._programs.act(actors, obs, self._hyper, noise)

    def learn(self, sample: Sample, obs: np.ndarray, noise: np.ndarray) -> None:
        """Start one update from a sample of every member [M, ...], and the actions that follow it as in `act`."""
        if self._steps_per_round > 1:
            self.act(obs, noise)
        self._learners, self._reports, actions = self._programs.learn(
            self._learners, self._reports, sample, obs, self._hyper, noise, np.int32(self.updates)
        )
        if self._steps_per_round == 1:
            self._actions = actions
        self.updates += 1

    def actions(self) -> np.ndarray:
        """Wait for the actions [M, A] started last."""
        return np.asarray(self._actions)

    def reports(self) -> list[Report]:
        """Wait for the interval's updates and return each member's sums."""
        fetched = jax.device_get(self._reports)
        return [jax.tree.map(lambda x, n=n: float(x[n]), fetched) for n in range(len(self.lanes))]

    def burn_in(self, lane: int, samples: Sequence[Sample]) -> None:
        """Let one member's optimizers gather curvature from samples."""
        hyper = jax.tree.map(lambda x: x[self._index(lane)][None], self._hyper)
        learner = jax.tree.map(lambda x: x[None], self._device_learner(lane))
        for sample in samples:
            learner = self._programs.burn_in(learner, jax.tree.map(lambda x: x[None], sample), hyper)
        self._store(lane, jax.tree.map(lambda x: x[0], learner))

    def take(self, lane: int) -> Learner:
        """Return one member's learner as host arrays."""
        return jax.device_get(self._device_learner(lane))

    def actor(self, lane: int) -> list[tuple[np.ndarray, np.ndarray]]:
        """Return one member's actor as host arrays (w, b) by layer."""
        index = self._index(lane)
        return [(np.asarray(layer.w[index]), np.asarray(layer.b[index])) for layer in jax.device_get(self._learners.actor)]

    def not_finite(self, lane: int) -> list[str]:
        """Return which of one member's networks have a parameter that is not finite."""
        index, learner = self._index(lane), self._learners
        parts = {
            "actor": learner.actor,
            "critics": learner.critics,
            "target actor": learner.target_actor,
            "target critics": learner.target_critics,
        }
        own = jax.device_get(jax.tree.map(lambda x: x[index], parts))
        return [name for name, part in own.items() if not all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(part))]

    def put(self, lane: int, learner: Learner, reset_optimizers: bool) -> None:
        """Replace one member's learner; with `reset_optimizers` its optimizer states start anew."""
        if reset_optimizers:
            batched = self._place(
                jax.tree.map(lambda x: np.asarray(x)[None], learner._replace(actor_state=(), critic_states=((), ())))
            )
            learner = jax.tree.map(lambda x: x[0], self._programs.reset_optimizers(batched))
        self._store(lane, self._place(learner))

    def _index(self, lane: int) -> int:
        return self.lanes.index(lane)

    def _device_learner(self, lane: int) -> Learner:
        index = self._index(lane)
        return jax.tree.map(lambda x: jnp.copy(x[index]), self._learners)

    def _store(self, lane: int, learner: Learner) -> None:
        if len(self.lanes) == 1:
            self._learners = jax.tree.map(lambda x: x[None], learner)
        else:
            index = self._index(lane)
            self._learners = jax.tree.map(lambda all_, one: all_.at[index].set(one), self._learners, learner)

    def _place(self, tree: Any) -> Any:
        return jax.device_put(tree, self._device)


def deal(kinds: Sequence[str], placement: str) -> list[tuple[str, list[int], Device]]:
    """Return (kind, lanes, device) for every group of a population.

    Args:
        kinds: each lane's kind.
        placement: "map" for groups of one, dealt over the devices; "vmap" for one group per kind; "auto" by the platform.
    """
    devices = jax.local_devices()
    if placement == "auto":
        placement = "map" if devices[0].platform == "cpu" else "vmap"
    if placement == "map":
        return [(kind, [lane], devices[lane % len(devices)]) for lane, kind in enumerate(kinds)]
    cohorts: dict[str, list[int]] = {}
    for lane, kind in enumerate(kinds):
        cohorts.setdefault(kind, []).append(lane)
    return [(kind, lanes, devices[n % len(devices)]) for n, (kind, lanes) in enumerate(cohorts.items())]
