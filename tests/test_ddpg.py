"""DDPG's update against stable-baselines3, and that it is TD3 without its additions."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

import oracles
from evolute import optimizers
from evolute.algorithms import ddpg, td3
from evolute.algorithms.base import Batch

OBS, ACT = 5, 3
ADAM = optimizers.build("adam", {"learning_rate": 1e-3})
ALGORITHM = ddpg.make(td3.Settings(OBS, ACT, (16, 12), (16, 12), ADAM, ADAM))
learn = jax.jit(ALGORITHM.learn)


def test_ten_updates_equal_those_of_stable_baselines3():
    arrays = oracles.golden("ddpg_sb3.npz")
    rates = dict.fromkeys(("actor_learning_rate", "critic_learning_rate"), 1e-3)
    hyper = oracles.on_device(oracles.hyperparameters(discount=0.99, tau=0.005, **rates))

    def at(prefix: str) -> dict:
        mlp = functools.partial(oracles.golden_mlp, arrays)
        actor, target = mlp(f"{prefix}/actor"), mlp(f"{prefix}/target_actor")
        critic, target_critic = mlp(f"{prefix}/critic0"), mlp(f"{prefix}/target_critic0")
        return {"actor": actor, "target_actor": target, "critics": (critic,), "target_critics": (target_critic,)}

    learner = ALGORITHM.reset(td3.Learner(**at("before"), critic_states=(), actor_state=()))
    for k in range(10):
        rows = {name: jnp.asarray(arrays[f"batch/{name}"][k]) for name in ("obs", "action", "reward", "next_obs", "terminated")}
        noise = jnp.asarray(arrays["batch/noise"][k][:, :ACT])
        learner, sums = learn(learner, Batch(**rows, weight=jnp.full(32, 1 / 32)), hyper, noise, jnp.int32(k))
        for name, expected in at(f"after/{k + 1}").items():
            oracles.assert_close(getattr(learner, name), expected, rtol=0, atol=1e-5)
        np.testing.assert_allclose(sums.critic_loss, arrays["loss/critic"][k], rtol=1e-4)
        np.testing.assert_allclose(sums.actor_loss, arrays["loss/actor"][k], rtol=1e-4)
        assert (float(sums.updates), float(sums.critic_updates), float(sums.actor_updates)) == (1, 1, 1)
    assert "critic1/0/w" not in {name.removeprefix("before/") for name in arrays}
