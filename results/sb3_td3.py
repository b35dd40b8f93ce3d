"""Stable-Baselines3's TD3 with the paper preset's hyperparameters: the peer of `evolute reproduce learning-curves`.

python results/sb3_td3.py ENV SEED STEPS EVERY EPISODES     prints a JSON line per evaluation
"""

import json
import sys
import time

import gymnasium
import numpy as np
import torch
from stable_baselines3 import TD3
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.noise import NormalActionNoise


class Evaluate(BaseCallback):
    def __init__(self, env_id, every, episodes):
        super().__init__()
        self.env, self.every, self.episodes = gymnasium.make(env_id), every, episodes
        self.began, self.began_cpu = time.perf_counter(), time.process_time()

    def _on_step(self):
        if self.num_timesteps % self.every == 0:
            returns = [self._episode(100_000 + n) for n in range(self.episodes)]
            point = {
                "steps": self.num_timesteps,
                "return": float(np.mean(returns)),
                "std": float(np.std(returns)),
                "wall_seconds": time.perf_counter() - self.began,
                "cpu_seconds": time.process_time() - self.began_cpu,
            }
            print(json.dumps(point), flush=True)
        return True

    def _episode(self, seed):
        obs, _ = self.env.reset(seed=seed)
        total, ended = 0.0, False
        while not ended:
            action, _ = self.model.predict(obs, deterministic=True)
            obs, reward, terminated, truncated, _ = self.env.step(action)
            total, ended = total + float(reward), terminated or truncated
        return total


def run(algorithm, settings_of):
    """Train one of the library's algorithms as the command line asks; `settings_of` an environment are its own."""
    env_id, seed, steps, every, episodes = sys.argv[1], *map(int, sys.argv[2:6])
    torch.set_num_threads(1)
    env = gymnasium.make(env_id)
    common = {"buffer_size": 1_000_000, "learning_starts": 10_000, "batch_size": 256, "train_freq": 1, "gradient_steps": 1}
    model = algorithm("MlpPolicy", env, **common, **settings_of(env), seed=seed, device="cpu")
    model.learn(steps, callback=Evaluate(env_id, every, episodes))


def td3(env):
    actions = env.action_space.shape[0]
    return {
        "learning_rate": 1e-3,
        "gamma": 0.9999 if env.spec.id.startswith("Swimmer-") else 0.99,
        "action_noise": NormalActionNoise(np.zeros(actions), 0.1 * np.ones(actions)),
        "policy_kwargs": {"net_arch": [400, 300]},
    }


if __name__ == "__main__":
    run(TD3, td3)
