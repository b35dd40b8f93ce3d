"""A Gaussian process whose past fades: regression on numbers that drift with time. docs/maths.md E21.

SciPy is imported where it is used: JAX factorises by its LAPACK, which counts its threads when it is loaded, and that must not
come before placement.use_all_cores.
"""

from typing import NamedTuple

import numpy as np

# Of a process on inputs in [0, 1] and standardised targets: signal variance, squared length of every input, noise variance, and
# the fraction of what is known that a unit of time takes away.
SIGNAL, LENGTH, NOISE, FADING = (1e-2, 1e2), (1e-2, 1e2), (1e-3, 4.0), (0.0, 0.5)
START = {"signal": 1.0, "length": 0.5, "noise": 0.1, "fading": 0.1}


class Process(NamedTuple):
    """A fitted process. N observations of D inputs."""

    x: np.ndarray  # [N, D], in [0, 1]
    time: np.ndarray  # [N]
    lower: np.ndarray  # [N, N]: Cholesky factor of the observations' covariance
    weights: np.ndarray  # [N]: that covariance's inverse times the targets
    parameters: np.ndarray  # [D + 3]: logarithms of signal, lengths and noise; fading as it is


def fit(x: np.ndarray, time: np.ndarray, y: np.ndarray) -> Process:
    """Fit a process by maximum likelihood.

    Args:
        x: inputs [N, D] in [0, 1].
        time: of each observation [N].
        y: targets [N], standardised.
    """
    from scipy import optimize

    d = x.shape[1]
    start = np.array([np.log(START["signal"]), *[np.log(START["length"])] * d, np.log(START["noise"]), START["fading"]])
    bounds = [np.log(SIGNAL), *[np.log(LENGTH)] * d, np.log(NOISE), FADING]
    apart = differences(x, time, x, time)
    found = optimize.minimize(_loss, start, (*apart, y), jac=True, bounds=bounds, method="L-BFGS-B", options={"maxiter": 50})
    return condition(x, time, y, found.x)


def condition(x: np.ndarray, time: np.ndarray, y: np.ndarray, parameters: np.ndarray) -> Process:
    """Return the process with given parameters."""
    from scipy import linalg

    covariance = kernel(parameters, *differences(x, time, x, time)) + np.exp(parameters[-2]) * np.eye(len(x))
    lower = linalg.cholesky(covariance, lower=True)
    return Process(x, time, lower, linalg.cho_solve((lower, True), y), parameters)


def differences(x: np.ndarray, time: np.ndarray, other: np.ndarray, then: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the squared differences of N and M inputs, by dimension [D, N, M], and those of their times [N, M]."""
    return (x.T[:, :, None] - other.T[:, None, :]) ** 2, np.abs(time[:, None] - then[None])


def kernel(parameters: np.ndarray, squares: np.ndarray, apart: np.ndarray) -> np.ndarray:
    """Return the covariance [N, M] of the function at inputs with these differences: s² exp(-Σ d²/l) (1 - ε)^(|Δt|/2)."""
    distance = np.tensordot(np.exp(-parameters[1:-2]), squares, axes=1)
    return np.exp(parameters[0] - distance + 0.5 * np.log1p(-parameters[-1]) * apart)


def predict(process: Process, x: np.ndarray, time: float) -> tuple[np.ndarray, np.ndarray]:
    """Return mean [M] and standard deviation [M] of the function, without noise, at inputs [M, D] and a time."""
    from scipy import linalg

    cross = kernel(process.parameters, *differences(x, np.full(len(x), time), process.x, process.time))
    explained = linalg.solve_triangular(process.lower, cross.T, lower=True)
    variance = np.exp(process.parameters[0]) - (explained**2).sum(0)
    return cross @ process.weights, np.sqrt(np.maximum(variance, 0.0))


def _loss(parameters: np.ndarray, squares: np.ndarray, apart: np.ndarray, y: np.ndarray) -> tuple[float, np.ndarray]:
    """Return the negative logarithm of the likelihood, without its constant, and its gradient."""
    from scipy import linalg

    known, noise = kernel(parameters, squares, apart), np.exp(parameters[-2])
    lower = linalg.cholesky(known + noise * np.eye(len(y)), lower=True)
    # d loss / dθ = tr((K⁻¹ - w wᵀ) dK/dθ) / 2
    inverse = linalg.cho_solve((lower, True), np.eye(len(y)))
    weights = inverse @ y
    inner = inverse - np.outer(weights, weights)
    weighted = inner * known
    along = np.tensordot(squares, weighted, axes=2) * np.exp(-parameters[1:-2])
    faded = -np.vdot(weighted, apart) / (2.0 * (1.0 - parameters[-1]))
    gradient = 0.5 * np.array([weighted.sum(), *along, noise * np.trace(inner), faded])
    return float(0.5 * y @ weights + np.log(np.diag(lower)).sum()), gradient
