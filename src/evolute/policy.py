"""A deterministic policy that needs NumPy alone, and its file: weights in safetensors, which cannot execute code."""

import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import safetensors.numpy

from evolute.errors import UserError
from evolute.files import write_whole

WEIGHTS_FILE = "policy.safetensors"
DESCRIPTION_FILE = "policy.json"


def in_units_of(low: np.ndarray, high: np.ndarray, unit_action: np.ndarray) -> np.ndarray:
    """Return an action [..., A] in [-1, 1] in the units of the bounds [A], as float64."""
    return low + (unit_action.astype(np.float64) + 1.0) * 0.5 * (high - low)


class Policy:
    """An actor as a function: `policy(obs) -> action`, in the environment's own units.

    Attributes:
        weights: (w [i, o], b [o]) of each layer.
        low, high: the environment's action bounds [A].
        env: the environment's id.
    """

    def __init__(self, weights: list[tuple[np.ndarray, np.ndarray]], low: np.ndarray, high: np.ndarray, env: str):
        self.weights = [(np.asarray(w, np.float32), np.asarray(b, np.float32)) for w, b in weights]
        self.low = np.asarray(low, np.float64)
        self.high = np.asarray(high, np.float64)
        self.env = env

    @property
    def finite(self) -> bool:
        """Whether every weight is finite."""
        return all(bool(np.isfinite(x).all()) for layer in self.weights for x in layer)

    def unit_action(self, obs: np.ndarray) -> np.ndarray:
        """Return the action [..., A] in [-1, 1] for observations [..., O]."""
        x = np.asarray(obs, np.float32)
        for w, b in self.weights[:-1]:
            x = np.maximum(x @ w + b, 0.0)
        w, b = self.weights[-1]
        return np.tanh(x @ w + b)

    def __call__(self, obs: np.ndarray) -> np.ndarray:
        """Return the action [..., A] in the environment's units for observations [..., O]."""
        return in_units_of(self.low, self.high, self.unit_action(obs)).astype(np.float32)

    def save(self, folder: Path, about: dict[str, Any]) -> None:
        """Write the weights and what is needed to run them into a folder, replacing an older policy there."""
        folder.mkdir(parents=True, exist_ok=True)
        tensors = {f"{n}.{name}": x for n, layer in enumerate(self.weights) for name, x in zip("wb", layer, strict=True)}
        description = {
            "format": "evolute policy 1",
            "env": self.env,
            "layers": [self.weights[0][0].shape[0], *(len(b) for _, b in self.weights)],
            "hidden_activation": "relu",
            "output_activation": "tanh",
            "action_low": self.low.tolist(),
            "action_high": self.high.tolist(),
            **about,
        }
        write_whole(folder / WEIGHTS_FILE, safetensors.numpy.save(tensors))
        write_whole(folder / DESCRIPTION_FILE, (json.dumps(description, indent=2) + "\n").encode())

    @classmethod
    def load(cls, folder: Path) -> "Policy":
        """Read a policy; raises UserError where a file is missing or damaged."""
        try:
            description = json.loads((folder / DESCRIPTION_FILE).read_text(encoding="utf-8"))
            tensors = safetensors.numpy.load((folder / WEIGHTS_FILE).read_bytes())
            layers = description["layers"]
            weights = [(tensors[f"{n}.w"], tensors[f"{n}.b"]) for n in range(len(layers) - 1)]
            shapes = [(w.shape, b.shape) for w, b in weights]
            if not weights or shapes != [((i, o), (o,)) for i, o in itertools.pairwise(layers)]:
                raise ValueError(f"the weights' shapes {shapes} do not match the layers {layers}")
            policy = cls(weights, description["action_low"], description["action_high"], str(description["env"]))
            if not policy.low.shape == policy.high.shape == (layers[-1],):
                raise ValueError(f"the action bounds do not match the layers {layers}")
            return policy
        except FileNotFoundError as error:
            raise UserError(f"there is no policy in {str(folder)!r}: {Path(error.filename).name!r} is missing.") from None
        except KeyError as error:
            raise UserError(f"the policy in {str(folder)!r} is damaged: {error} is missing; train it again.") from None
        except (OSError, ValueError, TypeError, safetensors.SafetensorError) as error:
            raise UserError(f"the policy in {str(folder)!r} is damaged: {error}; train it again.") from None
