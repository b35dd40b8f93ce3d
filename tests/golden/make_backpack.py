"""Diagonal Gauss-Newton matrices by BackPACK, written to diag_ggn_backpack.npz (see README.md)."""

import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from backpack import backpack, extend
from backpack.extensions import DiagGGNExact
from torch import nn

IN, HIDDEN, BATCH = 5, (16, 12), 32


def arrays(net: nn.Sequential, name: str, attribute: str, scale: float = 1.0) -> dict:
    """One attribute of every parameter ("data", "grad", ...), weights transposed to [in, out]."""
    out = {}
    for i, layer in enumerate(m for m in net if isinstance(m, nn.Linear)):
        out[f"{name}/{i}/w"] = scale * getattr(layer.weight, attribute).numpy().T
        out[f"{name}/{i}/b"] = scale * getattr(layer.bias, attribute).numpy()
    return out


def case(outputs: int, last: list[nn.Module]) -> dict[str, np.ndarray]:
    widths = (IN, *HIDDEN, outputs)
    modules: list[nn.Module] = []
    for i, o in pairwise(widths):
        modules += [nn.Linear(i, o), nn.ReLU()]
    net = extend(nn.Sequential(*modules[:-1], *last).double())
    loss_fn = extend(nn.MSELoss())

    x = torch.randn(BATCH, IN, dtype=torch.float64)
    y = torch.randn(BATCH, outputs, dtype=torch.float64)
    with backpack(DiagGGNExact()):
        loss = loss_fn(net(x), y)
        loss.backward()
    out = {"x": x.numpy(), "y": y.numpy(), "loss": np.array(loss.item())}
    out |= arrays(net, "net", "data")
    out |= arrays(net, "grad", "grad")
    if outputs == 1:
        return out | arrays(net, "diag", "diag_ggn_exact")
    # MSELoss averages over samples *and* outputs, so its output Hessian is 2/(N D) I. Times D/2
    # that is I/N: the Gauss-Newton matrix with identity output Hessian, averaged over samples.
    out |= arrays(net, "diag_raw", "diag_ggn_exact")
    return out | arrays(net, "diag", "diag_ggn_exact", scale=outputs / 2)


def main(path: Path) -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    out = case(1, [])
    out |= {f"vector/{k}": v for k, v in case(3, [nn.Tanh()]).items()}
    np.savez_compressed(path, **out)


if __name__ == "__main__":
    default = Path(__file__).with_name("diag_ggn_backpack.npz")
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else default)
