"""Ten steps of torch.optim.Adam on given gradients, written to adam_torch.npz (see README.md)."""

import sys
from pathlib import Path

import numpy as np
import torch

STEPS = 10
SHAPES = {"w": (4, 3), "b": (3,)}


def main(path: Path) -> None:
    torch.set_num_threads(1)
    rng = np.random.default_rng(0)
    out = {f"before/{k}": rng.standard_normal(shape) for k, shape in SHAPES.items()}
    grads = {k: rng.standard_normal((STEPS, *shape)) for k, shape in SHAPES.items()}
    # Gradients of the size of eps = 1e-8 and exact zeros show where eps enters the quotient.
    grads["w"][:, 0, :] *= 1e-8
    grads["b"][:, 0] = 0.0
    out |= {f"grad/{k}": g for k, g in grads.items()}

    params = {k: torch.nn.Parameter(torch.tensor(out[f"before/{k}"])) for k in SHAPES}
    adam = torch.optim.Adam(params.values(), lr=1e-3)
    after: dict[str, list[np.ndarray]] = {k: [] for k in SHAPES}
    for step in range(STEPS):
        for k, p in params.items():
            p.grad = torch.tensor(grads[k][step])
        adam.step()
        for k, p in params.items():
            after[k].append(p.detach().numpy().copy())
    np.savez_compressed(path, **out, **{f"after/{k}": np.stack(v) for k, v in after.items()})


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).with_name("adam_torch.npz"))
