"""Ten updates of SAC and of DDPG by stable-baselines3, written to sac_sb3.npz and ddpg_sb3.npz (see README.md for the keys)."""

from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from make_sb3 import ACT, BATCH, OBS, UPDATES, Env
from stable_baselines3 import DDPG, SAC
from stable_baselines3.common.buffers import ReplayBuffer
from stable_baselines3.common.logger import Logger
from torch import nn
from torch.distributions import normal

COMMON: dict[str, Any] = {"buffer_size": 1, "tau": 0.005, "gamma": 0.99, "seed": 0, "device": "cpu"}


def layers_of(*parts: nn.Module) -> list[nn.Linear]:
    return [layer for part in parts for layer in part.modules() if isinstance(layer, nn.Linear)]


def networks(model: SAC | DDPG) -> dict[str, list[nn.Linear]]:
    """Each network's layers; the last one of SAC's actor is two of Stable-Baselines3's, named apart."""
    found = {}
    for prefix, critic in (("", model.critic), ("target_", model.critic_target)):
        found |= {f"{prefix}critic{n}": layers_of(net) for n, net in enumerate(critic.q_networks)}
    if isinstance(model, SAC):
        return found | {"actor": layers_of(model.actor.latent_pi, model.actor.mu), "log_std": [model.actor.log_std]}
    return found | {"actor": layers_of(model.actor.mu), "target_actor": layers_of(model.actor_target.mu)}


def weights(model: SAC | DDPG) -> dict[str, np.ndarray]:
    """All weights, as copies, transposed to [in, out]."""
    out = {}
    for name, layers in networks(model).items():
        for i, layer in enumerate(layers):
            out[f"{name}/{i}/w"] = layer.weight.detach().numpy().T.copy()
            out[f"{name}/{i}/b"] = layer.bias.detach().numpy().copy()
    if isinstance(model, SAC):
        out["log_temperature"] = model.log_ent_coef.detach().numpy()[0].copy()
    return out


def spread(model: SAC | DDPG, rng: np.random.Generator) -> None:
    """Make the start less tame than the default one, as make_sb3.py does.

    Standard deviations stay far below where they are clamped: tanh is flat there, and the log of its slope has few digits.
    """
    with torch.no_grad():
        for name, layers in networks(model).items():
            for layer in layers:
                if name.startswith("target"):
                    for p in layer.parameters():
                        p += torch.as_tensor(0.1 * rng.standard_normal(p.shape), dtype=p.dtype)
            if name == "actor":
                layers[-1].weight *= 3.0
            if name == "log_std":
                layers[-1].weight *= 2.0
        inputs = torch.as_tensor(rng.standard_normal((1000, OBS + ACT)), dtype=torch.float32)
        for net in (*model.critic.q_networks, *model.critic_target.q_networks):
            net[-1].weight *= 3.0
            net[-1].bias -= net(inputs).mean()
        if isinstance(model, SAC):
            model.log_ent_coef -= 0.7


def batches(rng: np.random.Generator) -> dict[str, np.ndarray]:
    """A fifth of the transitions terminate and a fifth are cut: a few do both."""
    n = (UPDATES, BATCH)
    arrays = {
        "obs": rng.standard_normal((*n, OBS)),
        "action": rng.uniform(-1.0, 1.0, (*n, ACT)),
        "reward": rng.standard_normal(n),
        "next_obs": rng.standard_normal((*n, OBS)),
        "terminated": rng.random(n) < 0.2,
        "truncated": rng.random(n) < 0.2,
        "noise": rng.standard_normal((*n, 2 * ACT)),
    }
    arrays["truncated"] &= ~arrays["terminated"]
    return {k: v.astype(np.float32) for k, v in arrays.items()}


def update(model: SAC | DDPG, batch: dict[str, np.ndarray]) -> dict[str, float]:
    """One unmodified `train` step on a given batch, through the library's own buffer, and given noise; returns the losses."""
    buffer = ReplayBuffer(BATCH, model.observation_space, model.action_space, "cpu", handle_timeout_termination=True)
    for n in range(BATCH):
        row = {name: x[n] for name, x in batch.items()}
        done, infos = np.array([row["terminated"] or row["truncated"]]), [{"TimeLimit.truncated": bool(row["truncated"])}]
        buffer.add(row["obs"][None], row["next_obs"][None], row["action"][None], row["reward"][None], done, infos)
    # The current actions are drawn before the next ones.
    draws = [batch["noise"][:, ACT:], batch["noise"][:, :ACT]]

    def standard_normal(*_: Any, **__: Any) -> torch.Tensor:
        return torch.as_tensor(draws.pop(0))

    everything = buffer._get_samples(np.arange(BATCH))
    model.logger.name_to_value.clear()
    with (
        mock.patch.object(model.replay_buffer, "sample", return_value=everything),
        mock.patch.object(normal, "_standard_normal", standard_normal),
    ):
        model.train(gradient_steps=1, batch_size=BATCH)
    assert len(draws) == (0 if isinstance(model, SAC) else 2)
    return {name.removeprefix("train/"): float(value) for name, value in model.logger.name_to_value.items()}


def write(model: SAC | DDPG, path: Path) -> None:
    rng = np.random.default_rng(0)
    model.set_logger(Logger(folder=None, output_formats=[]))
    spread(model, rng)
    batch = batches(rng)
    out = {f"batch/{k}": v for k, v in batch.items()} | {f"before/{k}": v for k, v in weights(model).items()}
    losses = []
    for k in range(1, UPDATES + 1):
        losses.append(update(model, {name: v[k - 1] for name, v in batch.items()}))
        out |= {f"after/{k}/{name}": v for name, v in weights(model).items()}
    out |= {f"loss/{name}": np.array([loss[f"{name}_loss"] for loss in losses]) for name in ("critic", "actor")}
    np.savez_compressed(path, **out)


if __name__ == "__main__":
    torch.set_num_threads(1)
    here = Path(__file__).parent
    write(SAC("MlpPolicy", Env(), learning_rate=3e-4, policy_kwargs={"net_arch": [16, 12]}, **COMMON), here / "sac_sb3.npz")
    write(DDPG("MlpPolicy", Env(), learning_rate=1e-3, policy_kwargs={"net_arch": [16, 12]}, **COMMON), here / "ddpg_sb3.npz")
