"""A deterministic policy that needs NumPy alone. It reads policy.json and policy.safetensors beside this file.

`load()` returns it: observation [O] or [N, O] to action in the environment's units, both flat.
"""

import itertools
import json
from pathlib import Path

import numpy as np


class Policy:
    """An actor as a function of observations [..., O]."""

    def __init__(self, about: dict, arrays: dict):
        known = about["format"] in ("evolute policy 1", "evolute policy 2")
        if not known or (about["hidden_activation"], about["output_activation"]) != ("relu", "tanh"):
            raise ValueError("policy.json describes a policy that this file cannot compute; export it again.")
        self.mean, self.factor = arrays.get("observation.mean"), arrays.get("observation.factor")
        self.layers = [(arrays[f"{n}.w"], arrays[f"{n}.b"]) for n, _ in enumerate(itertools.pairwise(about["layers"]))]
        self.low, self.high = (np.array(about[f"action_{end}"], about["action_dtype"]) for end in ("low", "high"))

    def __call__(self, observation):
        """Return the action [..., A]."""
        x = np.asarray(observation, np.float32)
        if self.mean is not None:
            x = np.clip((x - self.mean) * self.factor, -10.0, 10.0)
        *hidden, (w, b) = self.layers
        for hidden_w, hidden_b in hidden:
            x = np.maximum(x @ hidden_w + hidden_b, 0.0)
        unit = np.tanh(x @ w + b).astype(np.float64)
        action = (1.0 - unit) * 0.5 * self.low + (1.0 + unit) * 0.5 * self.high
        return np.clip(action.astype(self.low.dtype), self.low, self.high)


def load(folder=Path(__file__).parent):
    """Return the policy that a folder holds."""
    about = json.loads((Path(folder) / "policy.json").read_text(encoding="utf-8"))
    data = (Path(folder) / "policy.safetensors").read_bytes()
    start = 8 + int.from_bytes(data[:8], "little")
    arrays = {}
    for name, entry in json.loads(data[8:start]).items():
        if name != "__metadata__":
            begin, end = (start + offset for offset in entry["data_offsets"])
            arrays[name] = np.frombuffer(data[begin:end], "<f4").reshape(entry["shape"])
    return Policy(about, arrays)
