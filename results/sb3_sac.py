"""Stable-Baselines3's SAC with the paper preset's hyperparameters: the peer of `evolute reproduce learning-curves`.

python results/sb3_sac.py ENV SEED STEPS EVERY EPISODES     prints a JSON line per evaluation
"""

from sb3_td3 import run
from stable_baselines3 import SAC


def sac(env):
    return {
        "learning_rate": 3e-4,
        "gamma": 0.999 if env.spec.id.startswith("Swimmer-") else 0.99,
        "policy_kwargs": {"net_arch": [256, 256]},
    }


if __name__ == "__main__":
    run(SAC, sac)
