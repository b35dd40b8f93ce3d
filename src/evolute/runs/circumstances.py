"""What a run's numbers depend on besides its configuration."""

import hashlib
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from evolute.config import Run


def circumstances(run: "Run") -> dict[str, Any]:
    """Return what a run's numbers depend on besides its configuration."""
    import jax

    from evolute.environments.gym import physics_fingerprint, versions
    from evolute.environments.making import making_of
    from evolute.training.placement import usable_cores

    return {
        "versions": versions(),
        "devices": [f"{d.platform}:{d.device_kind}" for d in jax.local_devices()],
        "cores": usable_cores(),
        "physics_fingerprint": physics_fingerprint(run.env, run.time_limit, making_of(run)),
        "arithmetic_fingerprint": arithmetic_fingerprint(),
    }


def arithmetic_fingerprint() -> str:
    """Return a hash of small computations: equal where the numerical libraries round alike.

    They choose their kernels by the processor and by variables such as OPENBLAS_CORETYPE, which no version tells of. The matrices
    are small enough that the number of cores makes no difference.
    """
    rng, digest = np.random.default_rng(0), hashlib.sha256()
    for dtype in (np.float32, np.float64):
        square, wide, row = (rng.standard_normal(shape).astype(dtype) for shape in ((48, 48), (400, 300), 400))
        definite = square @ square.T + 48 * np.eye(48, dtype=dtype)
        for result in (square @ square, row @ wide, np.linalg.cholesky(definite), np.tanh(square), square.sum()):
            digest.update(np.ascontiguousarray(result).tobytes())
    return digest.hexdigest()[:16]
