"""A deterministic policy that needs NumPy alone. It reads policy.json and policy.safetensors beside this file.

`load()` returns it: observation [O] or [N, O] to action in the environment's units, both flat.
"""

import json
from pathlib import Path

import numpy as np

ACTIVATIONS = {
    "relu": lambda z: np.maximum(z, 0.0),
    "tanh": np.tanh,
    "elu": lambda z: np.where(z > 0, z, np.expm1(np.minimum(z, 0.0))),
}


def load(folder=Path(__file__).parent):
    """Return the policy that a folder holds."""
    about = json.loads((Path(folder) / "policy.json").read_text(encoding="utf-8"))
    network, activate, last = about.get("network", "mlp"), ACTIVATIONS.get(about["hidden_activation"]), len(about["layers"]) - 2
    if about["format"] not in [f"evolute policy {n}" for n in (1, 2, 3)] or activate is None or network not in ("mlp", "simba"):
        raise ValueError("policy.json describes a policy that this file cannot compute; export it again.")
    data = (Path(folder) / "policy.safetensors").read_bytes()
    start, arrays = 8 + int.from_bytes(data[:8], "little"), {}
    for name, entry in json.loads(data[8:start]).items():
        if name != "__metadata__":
            begin, end = (start + offset for offset in entry["data_offsets"])
            arrays[name] = np.frombuffer(data[begin:end], "<f4").reshape(entry["shape"])
    low, high = (np.array(about[f"action_{end}"], about["action_dtype"]) for end in ("low", "high"))

    def linear(n, x):
        return x @ arrays[f"{n}.w"] + arrays[f"{n}.b"]

    def normalise(z):
        centred = z - z.mean(-1, keepdims=True)
        return centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-6)

    def policy(observation):
        x = np.asarray(observation, np.float32)
        if "observation.mean" in arrays:
            x = np.clip((x - arrays["observation.mean"]) * arrays["observation.factor"], -10.0, 10.0)
        if network == "simba":
            x = linear(0, x)
            for n in range(1, last, 2):
                x = x + linear(n + 1, activate(linear(n, normalise(x))))
            x = normalise(x)
        for n in range(last) if network == "mlp" else ():
            x = activate(normalise(linear(n, x)) if about.get("layer_norm") else linear(n, x))
        unit = np.tanh(linear(last, x)).astype(np.float64)
        action = (1.0 - unit) * 0.5 * low + (1.0 + unit) * 0.5 * high
        return np.clip(action.astype(low.dtype), low, high)

    return policy
