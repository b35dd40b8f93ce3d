"""A deterministic policy that needs NumPy alone, and its file: weights in safetensors, which cannot execute code."""

import itertools
import json
import math
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import safetensors
import safetensors.numpy

from evolute import limits
from evolute.errors import UserError
from evolute.files import is_folder, make_folder, read_at_most, write_whole
from evolute.structure import ACTIVATIONS, NETWORKS, PLAIN, Structure, is_chain, output

WEIGHTS_FILE = "policy.safetensors"
DESCRIPTION_FILE = "policy.json"
# Of a description: without and with a scaling of observations, which a program that knows the first alone would leave out; and of
# a network of another structure than an MLP of rectified units, with a scaling or without.
FORMAT, SCALED_FORMAT, STRUCTURED_FORMAT = "evolute policy 1", "evolute policy 2", "evolute policy 3"

# Types of the numbers of an action.
ACTION_TYPES = ("float16", "float32", "float64")
LARGEST = float(np.finfo(np.float64).max)


def in_units_of(low: np.ndarray, high: np.ndarray, unit_action: np.ndarray) -> np.ndarray:
    """Return an action [..., A] in [-1, 1] in the units of the bounds [A]: within them, and of their type."""
    least, largest, unit = low.astype(np.float64), high.astype(np.float64), unit_action.astype(np.float64)
    if low.dtype == np.float64 and (0.5 * largest - 0.5 * least > 0.5 * LARGEST).any():
        # The distance of the bounds is no number.
        action = (1.0 - unit) * 0.5 * least + (1.0 + unit) * 0.5 * largest
    else:
        action = least + (unit + 1.0) * 0.5 * (largest - least)
    # Sums round, so the largest action may come out above its bound.
    return np.minimum(np.maximum(action.astype(low.dtype), low), high)


# A scaled observation lies between its negative and this (as in CleanRL and Stable-Baselines3).
LARGEST_SCALED = 10.0


class Scaling(NamedTuple):
    """How observations are scaled before a network sees them."""

    mean: np.ndarray  # [O] float32
    factor: np.ndarray  # [O] float32: one over the standard deviation

    def apply(self, obs: np.ndarray) -> np.ndarray:
        """Return observations [..., O] in standard deviations from the mean, clipped."""
        with np.errstate(over="ignore"):
            return np.clip((obs - self.mean) * self.factor, -LARGEST_SCALED, LARGEST_SCALED)


class Policy:
    """An actor as a function: `policy(obs) -> action`, in the environment's own units.

    Attributes:
        weights: (w [i, o], b [o]) of each linear layer.
        scaling: of the observations, if the networks saw them scaled.
        low, high: the environment's action bounds [A], in the type of its actions.
        env: the environment's id.
        structure: how the network computes.
    """

    def __init__(
        self,
        weights: list[tuple[np.ndarray, np.ndarray]],
        low: np.ndarray,
        high: np.ndarray,
        env: str,
        scaling: Scaling | None = None,
        structure: Structure = PLAIN,
    ):
        # Of parts of larger arrays safetensors may write other numbers.
        self.weights = [(np.ascontiguousarray(w, np.float32), np.ascontiguousarray(b, np.float32)) for w, b in weights]
        dtype = np.result_type(np.asarray(low), np.asarray(high), np.float16)
        self.low, self.high = np.asarray(low, dtype), np.asarray(high, dtype)
        self.env = env
        self.scaling = scaling and Scaling(*(np.ascontiguousarray(x, np.float32) for x in scaling))
        self.structure = structure

    @property
    def finite(self) -> bool:
        """Whether every number in it is finite."""
        return all(bool(np.isfinite(x).all()) for pair in self.pairs for x in pair)

    @property
    def pairs(self) -> list[tuple[np.ndarray, np.ndarray]]:
        """All its arrays: each layer's weights and biases, and then the scaling, if there is one."""
        return [*self.weights, *([(self.scaling.mean, self.scaling.factor)] if self.scaling else [])]

    def unit_action(self, obs: np.ndarray) -> np.ndarray:
        """Return the action [..., A] in [-1, 1] for observations [..., O]."""
        x = np.asarray(obs, np.float32)
        x = x if self.scaling is None else self.scaling.apply(x)
        return np.tanh(output(self.weights, x, self.structure))

    def __call__(self, obs: np.ndarray) -> np.ndarray:
        """Return the action [..., A] in the environment's units and type for observations [..., O]."""
        return in_units_of(self.low, self.high, self.unit_action(obs))

    def save(self, folder: str | Path, about: dict[str, Any] | None = None) -> None:
        """Write the weights and what is needed to run them into a folder, replacing an older policy there.

        Args:
            folder: is made where there is none.
            about: what else the description is to say; it is plain data, and nothing reads it.

        Raises:
            RunStopped: the folder or a file in it cannot be written.
        """
        folder = Path(folder)
        make_folder(folder)
        tensors = {f"{n}.{name}": x for n, layer in enumerate(self.weights) for name, x in zip("wb", layer, strict=True)}
        tensors |= {f"observation.{name}": x for name, x in (self.scaling._asdict() if self.scaling else {}).items()}
        structured = {
            "network": self.structure.network,
            "layer_norm": self.structure.layer_norm,
            "scaled_observations": self.scaling is not None,
        }
        plain = self.structure == PLAIN
        description = {
            "format": (SCALED_FORMAT if self.scaling else FORMAT) if plain else STRUCTURED_FORMAT,
            "env": self.env,
            "layers": [self.weights[0][0].shape[0], *(len(b) for _, b in self.weights)],
            **({} if plain else structured),
            "hidden_activation": self.structure.activation,
            "output_activation": "tanh",
            "action_low": self.low.tolist(),
            "action_high": self.high.tolist(),
            "action_dtype": self.low.dtype.name,
            **(about or {}),
        }
        write_whole(folder / WEIGHTS_FILE, safetensors.numpy.save(tensors))
        write_whole(folder / DESCRIPTION_FILE, (json.dumps(description, indent=2) + "\n").encode())

    @classmethod
    def load(cls, folder: str | Path) -> "Policy":
        """Read a policy from the folder that holds it, such as RUN/best; raises UserError where a file is missing or damaged."""
        folder = Path(folder)
        if not is_folder(folder):
            raise UserError(f"there is no policy in {str(folder)!r}: it is no folder; check the path.")
        try:
            description = json.loads(read_at_most(folder / DESCRIPTION_FILE, limits.DESCRIPTION_BYTES).decode("utf-8"))
            layers, env = description["layers"], description["env"]
            low, high = description["action_low"], description["action_high"]
            structure, scaled = _structure(description)
            _check_description(layers, low, high, env, structure)
            low, high = _typed(low, high, description.get("action_dtype"))
            numbers = sum((i + 1) * o for i, o in itertools.pairwise(layers)) + 2 * layers[0] * scaled
            tensors = load_arrays(folder / WEIGHTS_FILE, 4 * numbers)
            weights = [(tensors[f"{n}.w"], tensors[f"{n}.b"]) for n in range(len(layers) - 1)]
            shapes = [(w.shape, b.shape) for w, b in weights]
            if shapes != [((i, o), (o,)) for i, o in itertools.pairwise(layers)]:
                raise ValueError(f"the weights' shapes {shapes} do not match the layers {layers}")
            scaling = Scaling(*(tensors[f"observation.{name}"] for name in Scaling._fields)) if scaled else None
            if scaling and any(x.shape != (layers[0],) for x in scaling):
                raise ValueError(f"the scaling of observations does not match the layers {layers}")
            if any(x.dtype != np.float32 for pair in (*weights, *([scaling] if scaling else [])) for x in pair):
                raise ValueError("its weights must be float32")
            policy = cls(weights, low, high, env, scaling, structure)
            if not policy.finite:
                raise ValueError("a weight is not finite")
            return policy
        except FileNotFoundError as error:
            raise UserError(f"there is no policy in {str(folder)!r}: {Path(error.filename).name!r} is missing.") from None
        except KeyError as error:
            raise UserError(f"the policy in {str(folder)!r} is damaged: {error} is missing; train it again.") from None
        except RecursionError:
            raise UserError(f"the policy in {str(folder)!r} is damaged: it nests too deeply; train it again.") from None
        except (OSError, ValueError, TypeError, OverflowError, safetensors.SafetensorError) as error:
            raise UserError(f"the policy in {str(folder)!r} is damaged: {error}; train it again.") from None


def load_arrays(path: Path, most: int) -> dict[str, np.ndarray]:
    """Return the arrays of a safetensors file.

    Args:
        path: the file.
        most: bytes that the arrays may have together; a larger file is not even read.

    Raises:
        ValueError, OSError, safetensors.SafetensorError: it cannot be read, is damaged or too large.
    """
    data = read_at_most(path, min(most + limits.HEADER_BYTES, limits.POLICY_BYTES))
    if int.from_bytes(data[:8], "little") > limits.HEADER_BYTES:
        raise ValueError("its header is too large")
    return safetensors.numpy.load(data)


def _structure(description: dict[str, Any]) -> tuple[Structure, bool]:
    """Return how a file's network computes, and whether it sees scaled observations; raises ValueError for what is unknown."""
    version = description.get("format", FORMAT)
    if version != STRUCTURED_FORMAT:
        if version not in (FORMAT, SCALED_FORMAT):
            raise ValueError("its format is none that this version knows")
        return PLAIN, version == SCALED_FORMAT
    structure = Structure(description["network"], description["hidden_activation"], description["layer_norm"])
    if structure.network not in NETWORKS or structure.activation not in ACTIVATIONS:
        raise ValueError(f"network and hidden_activation must be of {', '.join(NETWORKS)} and of {', '.join(ACTIVATIONS)}")
    scaled = description["scaled_observations"]
    if type(structure.layer_norm) is not bool or type(scaled) is not bool:
        raise ValueError("layer_norm and scaled_observations must be true or false")
    return structure, scaled


def _check_description(layers: Any, low: Any, high: Any, env: Any, structure: Structure) -> None:
    """Raise ValueError unless what a file says is what `save` writes; nothing is allocated by what it says."""
    if not isinstance(env, str) or not 0 < len(env) <= limits.NAME or not env.isprintable():
        raise ValueError(f"env must be a name of at most {limits.NAME} printable characters")
    whole = isinstance(layers, list) and all(type(units) is int and 0 < units <= limits.INPUTS for units in layers)
    # A residual block has two linear layers.
    most = 2 + limits.LAYERS if structure.network == "mlp" else 3 + 2 * limits.LAYERS
    if not whole or not 2 <= len(layers) <= most:
        raise ValueError(f"its layers do not match the rule: 2 to {most} positive whole numbers")
    if not is_chain(layers, structure):
        raise ValueError(f"its layers {layers} do not match a network of {structure}")
    for bound in (low, high):
        if not isinstance(bound, list) or not all(type(x) in (int, float) and abs(x) < math.inf for x in bound):
            raise ValueError("the action bounds must be lists of finite numbers")
        if len(bound) != layers[-1]:
            raise ValueError(f"the action bounds do not match the layers {layers}")
    if any(least > largest for least, largest in zip(low, high, strict=True)):
        raise ValueError("a lower action bound is above the upper one")


def _typed(low: list[float], high: list[float], dtype: Any) -> tuple[np.ndarray, np.ndarray]:
    """Return a file's action bounds in the type that it names, or ValueError; older files name none."""
    exact = np.asarray([low, high], np.float64)
    with np.errstate(over="ignore"):
        if dtype is None:
            dtype = "float32" if (exact.astype(np.float32) == exact).all() else "float64"
        if dtype not in ACTION_TYPES:
            raise ValueError(f"action_dtype must be one of {', '.join(ACTION_TYPES)}")
        typed = exact.astype(dtype)
    if not np.isfinite(typed).all():
        raise ValueError(f"the action bounds must be finite numbers of the type {dtype}")
    return typed[0], typed[1]
