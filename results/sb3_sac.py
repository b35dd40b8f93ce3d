"""Stable-Baselines3's SAC with the paper preset's hyperparameters: the peer of learning_curves.py.

python results/sb3_sac.py ENV SEED STEPS EVERY EPISODES     prints a JSON line per evaluation
"""

import sys

import gymnasium
import torch
from sb3_td3 import Evaluate
from stable_baselines3 import SAC


def main():
    env_id, seed, steps, every, episodes = sys.argv[1], *map(int, sys.argv[2:6])
    torch.set_num_threads(1)
    model = SAC(
        "MlpPolicy",
        gymnasium.make(env_id),
        learning_rate=3e-4,
        buffer_size=1_000_000,
        learning_starts=10_000,
        batch_size=256,
        train_freq=1,
        gradient_steps=1,
        gamma=0.999 if env_id.startswith("Swimmer-") else 0.99,
        policy_kwargs={"net_arch": [256, 256]},
        seed=seed,
        device="cpu",
    )
    model.learn(steps, callback=Evaluate(env_id, every, episodes))


if __name__ == "__main__":
    main()
