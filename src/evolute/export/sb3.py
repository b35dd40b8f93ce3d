"""A policy as a zip file of Stable-Baselines3, written by that library itself."""

# Of an extra.
# pyright: reportMissingImports=false

import io
from typing import Any

import gymnasium
import numpy as np
import torch
from gymnasium.spaces import Space
from stable_baselines3 import DDPG, SAC, TD3
from stable_baselines3.common.base_class import BaseAlgorithm
from torch import nn

from evolute.errors import UserError
from evolute.export.operations import Affine, Elu, Operation, Relu, Scale, Tanh, Units, operations_of, refuse
from evolute.policy import Policy

# What is between layers there, by its name in evolute.
ACTIVATIONS = {"relu": nn.ReLU, "tanh": nn.Tanh, "elu": nn.ELU}
CLASSES: dict[str, type[TD3 | SAC]] = {"td3": TD3, "ddpg": DDPG, "sac": SAC}
# The smallest log of a standard deviation that SAC has there: its random actions are its mean.
LOG_STD = -20.0
# Of what the scaling of observations adds to the network.
MOST_WEIGHTS = 2**27


class Spaces(gymnasium.Env):
    """An environment of which Stable-Baselines3 reads the spaces alone."""

    def __init__(self, observation_space: Space, action_space: Space):
        self.observation_space, self.action_space = observation_space, action_space


def archive(policy: Policy, algorithm: str, observation_space: Space, action_space: Space) -> bytes:
    """Return a policy as the content of a zip file.

    Args:
        policy: to be written.
        algorithm: td3, ddpg or sac, whose class of Stable-Baselines3 the zip is of.
        observation_space: of the environment, flat.
        action_space: of the environment.

    Raises:
        UserError: the network cannot be expressed.
    """
    if policy.scaling is not None and policy.structure.activation != "relu":
        raise UserError(
            "--to sb3 can scale and clip observations by rectified units alone, and the network's are "
            f"{policy.structure.activation}; choose another target."
        )
    layers = layers_of(operations_of(policy))
    sizes = [len(b) for _, b in layers[:-1]]
    critics = [len(b) for _, b in policy.weights[:-1]]
    made: Any = CLASSES[algorithm](
        "MlpPolicy",
        Spaces(observation_space, action_space),
        # Of the replay, which is not saved.
        buffer_size=1,
        policy_kwargs={"net_arch": {"pi": sizes, "qf": critics}, "activation_fn": ACTIVATIONS[policy.structure.activation]},
        device="cpu",
        seed=0,
    )
    actors = [made.actor, made.actor_target] if algorithm != "sac" else [made.actor]
    for actor in actors:
        _fill(actor, layers)
    # Of the replay of whoever trains on.
    made.buffer_size = 1_000_000
    content = io.BytesIO()
    made.save(content)
    return content.getvalue()


def layers_of(operations: list[Operation]) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return (w [i, o], b [o]) of a network that does what the operations do up to the tanh.

    Stable-Baselines3's networks begin with a layer and clip nothing. Rectified units can do both: with p and n the positive and
    the negative part of x - mean, and z = factor * (p - n), the clipped z is max(z, 0) - max(-z, 0) - max(z - limit, 0) +
    max(-z - limit, 0). Within the limit one term of each sum is not zero, so it rounds as the policy does; folded into the first
    layer's weights, factor * x - factor * mean would lose the digits of x by which a large mean exceeds its deviation.
    """
    layers: list[tuple[np.ndarray, np.ndarray]] = []
    clipped = False
    for operation in operations:
        match operation:
            case Scale(mean, factor, limit):
                size = len(mean)
                if 8 * size * size > MOST_WEIGHTS:
                    raise UserError(
                        f"--to sb3 needs {8 * size * size:,} weights to scale {size:,} observations; choose another target."
                    )
                one, diagonal = np.eye(size, dtype=np.float32), np.diag(factor)
                layers.append((np.hstack([one, -one]), np.hstack([-mean, mean])))
                scaled = np.vstack([diagonal, -diagonal])
                zeros, limits = np.zeros(2 * size, np.float32), np.full(2 * size, -limit, np.float32)
                layers.append((np.hstack([scaled, -scaled, scaled, -scaled]), np.hstack([zeros, limits])))
                clipped = True
            case Affine(w, b):
                layers.append((np.vstack([w, -w, -w, w]), b) if clipped else (w, b))
                clipped = False
            case Relu() | Tanh() | Elu() | Units():
                pass
            case _:
                refuse(operation, "sb3")
    return layers


def _fill(actor: Any, layers: list[tuple[np.ndarray, np.ndarray]]) -> None:
    """Put the layers into an actor; a standard deviation that it has besides becomes as small as can be."""
    own = [part for part in actor.modules() if isinstance(part, nn.Linear) and part is not getattr(actor, "log_std", None)]
    with torch.no_grad():
        for linear, (w, b) in zip(own, layers, strict=True):
            linear.weight.copy_(torch.from_numpy(np.ascontiguousarray(w.T)))
            linear.bias.copy_(torch.from_numpy(np.ascontiguousarray(b)))
        if hasattr(actor, "log_std"):
            actor.log_std.weight.zero_()
            actor.log_std.bias.fill_(LOG_STD)


def loaded(content: bytes, algorithm: str) -> BaseAlgorithm:
    """Return the model that a zip file's content makes; to be used on what was just written, because that executes it."""
    return CLASSES[algorithm].load(io.BytesIO(content), device="cpu")
