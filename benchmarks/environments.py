"""Ways to step a population's environments: speed side by side, and how exactly each repeats Gymnasium's dynamics.

python benchmarks/environments.py [--members 8] [--out FILE.json]

HalfCheetah-v4, random actions. EnvPool is measured where it is installed (pip install envpool) and left out elsewhere. What the
figures decided: docs/decisions/0010-environments-in-one-process.md.
"""

import argparse
import importlib.util
import json
import os
import time
from pathlib import Path

import gymnasium
import mujoco
import numpy as np
from bench import median_of_turns
from mujoco import rollout

ENV, STEPS, REPETITIONS = "HalfCheetah-v4", 500, 7
CORES = len(os.sched_getaffinity(0))


def timed(step, actions):
    """Return a measure of the seconds of one member's step; `step` takes the actions [M, A] of all members."""

    def measure():
        began = time.perf_counter()
        for row in actions:
            step(row)
        return (time.perf_counter() - began) / actions[:, :, 0].size

    return measure


def one_after_the_other(members):
    from evolute.environments.gym import Environment

    environments = [Environment(ENV) for _ in range(members)]
    for seed, environment in enumerate(environments):
        environment.reset(seed)

    def step(actions):
        for environment, action in zip(environments, actions, strict=True):
            answer = environment.step(action)
            if answer.terminated or answer.truncated:
                environment.reset()

    return step


def process_pool(members):
    """Gymnasium's own: a process per environment, observations in shared memory."""
    pool = gymnasium.vector.AsyncVectorEnv([lambda: gymnasium.make(ENV)] * members, shared_memory=True)
    pool.reset(seed=0)
    return pool.step


def physics_of(members):
    """Return models, states and a pool of threads for MuJoCo's own batched stepping: physics alone, no observation or reward."""
    environment = gymnasium.make(ENV).unwrapped
    data = [mujoco.MjData(environment.model) for _ in range(CORES)]
    start = np.empty(mujoco.mj_stateSize(environment.model, mujoco.mjtState.mjSTATE_FULLPHYSICS))
    environment.reset(seed=0)
    mujoco.mj_getState(environment.model, environment.data, start, mujoco.mjtState.mjSTATE_FULLPHYSICS)
    return environment, data, np.tile(start, (members, 1))


def mujoco_rollout(members):
    environment, data, states = physics_of(members)
    pool = rollout.Rollout(nthread=CORES)

    def step(actions):
        nonlocal states
        control = np.repeat(actions[:, None].astype(np.float64), environment.frame_skip, axis=1)
        states = pool.rollout(environment.model, data, states, control)[0][:, -1]

    return step


def env_pool(members):
    import envpool

    pool = envpool.make_gymnasium(ENV, num_envs=members, num_threads=CORES)
    pool.reset()
    return lambda actions: pool.step(actions.astype(np.float64))


# ------------------------------------------------------------------------------------------------------------- fidelity


def worst_until(differences):
    """Return the largest difference until steps 1, 10 and 100, of an iterator over steps."""
    worst = np.maximum.accumulate([next(differences) for _ in range(100)])
    return {str(n): float(worst[n - 1]) for n in (1, 10, 100)}


def apart_rollout(actions):
    """Yield the largest difference of joint positions and speeds from Gymnasium's after each action [A]."""
    environment, data, states = physics_of(1)
    size = environment.model.nq + environment.model.nv
    with rollout.Rollout(nthread=CORES) as pool:
        for action in actions:
            environment.step(action)
            control = np.repeat(action[None, None].astype(np.float64), environment.frame_skip, axis=1)
            states = pool.rollout(environment.model, data, states, control)[0][:, -1]
            truth = np.concatenate([environment.data.qpos, environment.data.qvel])
            yield np.abs(states[0, 1 : 1 + size] - truth).max()


def apart_envpool(actions):
    """Yield the largest difference of observations from Gymnasium's, begun where EnvPool begins, after each action [A]."""
    import envpool

    pool, environment = envpool.make_gymnasium(ENV, num_envs=1), gymnasium.make(ENV).unwrapped
    environment.reset(seed=0)
    obs = pool.reset()[0][0]
    # The first coordinate, the way gone, is not observed and changes nothing but itself.
    environment.set_state(np.concatenate([[0.0], obs[:8]]), obs[8:])
    for action in actions:
        theirs = pool.step(action[None].astype(np.float64))[0][0]
        yield np.abs(environment.step(action)[0] - theirs).max()


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--members", type=int, default=8)
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".json"))
    arguments = parser.parse_args()
    actions = np.random.default_rng(0).uniform(-1, 1, (STEPS, arguments.members, 6)).astype(np.float32)
    makers = {"one after the other": one_after_the_other, "process pool": process_pool, "mujoco.rollout": mujoco_rollout}
    apart = {"mujoco.rollout": worst_until(apart_rollout(actions[:, 0]))}
    if importlib.util.find_spec("envpool"):
        makers["EnvPool"] = env_pool
        apart["EnvPool"] = worst_until(apart_envpool(actions[:, 0]))
    seconds = median_of_turns({n: timed(make(arguments.members), actions) for n, make in makers.items()}, REPETITIONS)
    found = {"members": arguments.members, "cores": CORES, "mujoco": mujoco.__version__, "seconds": seconds, "apart": apart}
    arguments.out.write_text(json.dumps(found, indent=2) + "\n")
    for name, value in seconds.items():
        print(f"{name:22} {value * 1e6:6.1f} us per member and step; apart from Gymnasium: {apart.get(name, 'is Gymnasium')}")


if __name__ == "__main__":
    main()
