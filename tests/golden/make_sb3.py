"""Ten TD3 updates by stable-baselines3, written to td3_sb3.npz (see README.md for the keys)."""

import sys
from pathlib import Path
from unittest import mock

import gymnasium
import numpy as np
import torch
from stable_baselines3 import TD3
from stable_baselines3.common.logger import Logger
from stable_baselines3.common.type_aliases import ReplayBufferSamples
from torch import nn

OBS, ACT, BATCH, UPDATES = 5, 3, 32, 10


class Env(gymnasium.Env):
    """Only its two spaces are used: the batches are made here, nothing is ever stepped."""

    observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (OBS,), np.float32)
    action_space = gymnasium.spaces.Box(-1.0, 1.0, (ACT,), np.float32)


def networks(model: TD3) -> dict[str, nn.Sequential]:
    return {
        "actor": model.actor.mu,
        "critic0": model.critic.q_networks[0],
        "critic1": model.critic.q_networks[1],
        "target_actor": model.actor_target.mu,
        "target_critic0": model.critic_target.q_networks[0],
        "target_critic1": model.critic_target.q_networks[1],
    }


def weights(model: TD3) -> dict[str, np.ndarray]:
    """All weights, as copies, transposed to [in, out]."""
    out = {}
    for name, net in networks(model).items():
        for i, layer in enumerate(m for m in net if isinstance(m, nn.Linear)):
            out[f"{name}/{i}/w"] = layer.weight.detach().numpy().T.copy()
            out[f"{name}/{i}/b"] = layer.bias.detach().numpy().copy()
    return out


def spread(model: TD3, rng: np.random.Generator) -> None:
    """Make the start less tame than the default one.

    Targets that equal the online networks would hide a mix-up of the two, actions near zero would
    never reach the clamp to [-1, 1] after target smoothing, and critics that differ mostly by a
    constant would let one of them be the minimum on every sample.
    """
    with torch.no_grad():
        for net in (model.actor.mu, model.actor_target.mu):
            net[-2].weight *= 5.0  # the last Linear; net[-1] is the tanh
        for name, net in networks(model).items():
            if name.startswith("target"):
                for p in net.parameters():
                    p += torch.as_tensor(0.1 * rng.standard_normal(p.shape), dtype=p.dtype)
        inputs = torch.as_tensor(rng.standard_normal((1000, OBS + ACT)), dtype=torch.float32)
        for net in (*model.critic.q_networks, *model.critic_target.q_networks):
            net[-1].weight *= 3.0
            net[-1].bias -= net(inputs).mean()


def batches(rng: np.random.Generator) -> dict[str, np.ndarray]:
    n = (UPDATES, BATCH)
    arrays = {
        "obs": rng.standard_normal((*n, OBS)),
        "action": rng.uniform(-1.0, 1.0, (*n, ACT)),
        "reward": rng.standard_normal(n),
        "next_obs": rng.standard_normal((*n, OBS)),
        "done": rng.random(n) < 0.2,
        "noise": rng.standard_normal((*n, ACT)),
    }
    return {k: v.astype(np.float32) for k, v in arrays.items()}


def update(model: TD3, batch: dict[str, np.ndarray]) -> tuple[float, float]:
    """One unmodified `TD3.train` step on a given batch and given noise; returns both losses."""
    t = {k: torch.as_tensor(v) for k, v in batch.items()}
    sample = ReplayBufferSamples(
        observations=t["obs"],
        actions=t["action"],
        next_observations=t["next_obs"],
        dones=t["done"][:, None],
        rewards=t["reward"][:, None],
    )

    draws = 0

    def normal_(self: torch.Tensor, mean: float, std: float) -> torch.Tensor:
        nonlocal draws
        draws += 1
        return self.copy_(mean + std * t["noise"])

    model.logger.name_to_value.clear()  # the actor loss is recorded on even updates only
    with (
        mock.patch.object(model.replay_buffer, "sample", return_value=sample) as sampled,
        mock.patch.object(torch.Tensor, "normal_", normal_),
    ):
        model.train(gradient_steps=1, batch_size=BATCH)
    assert sampled.call_count == draws == 1  # nothing else in `train` is random
    losses = model.logger.name_to_value
    return losses["train/critic_loss"], losses.get("train/actor_loss", np.nan)


def main(path: Path) -> None:
    torch.set_num_threads(1)
    rng = np.random.default_rng(0)
    model = TD3(
        "MlpPolicy",
        Env(),
        learning_rate=1e-3,
        buffer_size=1,
        tau=0.005,
        gamma=0.99,
        policy_delay=2,
        target_policy_noise=0.2,
        target_noise_clip=0.5,
        policy_kwargs={"net_arch": [16, 12]},
        seed=0,
        device="cpu",
    )
    model.set_logger(Logger(folder=None, output_formats=[]))
    spread(model, rng)

    batch = batches(rng)
    out = {f"batch/{k}": v for k, v in batch.items()}
    out |= {f"before/{k}": v for k, v in weights(model).items()}
    losses = []
    for k in range(1, UPDATES + 1):
        losses.append(update(model, {name: v[k - 1] for name, v in batch.items()}))
        out |= {f"after/{k}/{name}": v for name, v in weights(model).items()}
    out["loss/critic"], out["loss/actor"] = np.array(losses).T
    np.savez_compressed(path, **out)


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).with_name("td3_sb3.npz"))
