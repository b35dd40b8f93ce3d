"""Which cluster is used, whether it may be trusted, and how it is reached.

Ray's drivers and workers send each other pickled code and data, so whoever reaches a cluster can run code on every machine of it.
Its own answer is a token that all of them share (docs/scale.md).
"""

import contextlib
import importlib
import logging
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

from evolute.errors import UserError

# Where a command trains: on this machine, or on the cluster that it belongs to; `ray://HOST:PORT` names one by its Ray Client.
LOCAL, HERE, CLIENT = "local", "ray", "ray://"
AUTH_MODE = "RAY_AUTH_MODE"
TOKENS = "RAY_AUTH_"


def check(on: str, without_token: bool = False) -> None:
    """Raise UserError where `on` names no place to train at, or one where `without_token` changes nothing."""
    if on == LOCAL and without_token:
        raise UserError("--without-token is for a cluster; leave it out, or train on one with --on ray.")
    host, colon, port = on.removeprefix(CLIENT).rpartition(":")
    if on not in (LOCAL, HERE) and not (on.startswith(CLIENT) and host and colon and port.isdecimal()):
        raise UserError(
            f"--on is {on!r}; it must be local, ray for the cluster that this machine belongs to, or the address of a cluster's "
            "Ray Client, such as ray://head:10001."
        )


def ray_itself() -> Any:
    """Return the library; raises UserError where it is not installed."""
    try:
        return importlib.import_module("ray")
    except ModuleNotFoundError:
        raise UserError("training on a cluster needs ray; install it with: pip install 'evolute[ray]'.") from None


@contextlib.contextmanager
def connected(on: str, without_token: bool = False) -> Iterator[None]:
    """Be connected to a cluster.

    Args:
        on: HERE, or an address as `check` wants it.
        without_token: trust machines that anyone may run code on who reaches them.

    Raises:
        UserError: Ray is not installed, there is no cluster, or it may not be trusted.
    """
    ray = ray_itself()
    # Nothing of this machine goes to another one before that is known; behind a Ray Client nobody can ask for it.
    if on.startswith(CLIENT) and not without_token and os.environ.get(AUTH_MODE, "").lower() != "token":
        host = on.removeprefix(CLIENT).rpartition(":")[0].strip("[]")
        if not is_here(host):
            raise untrusted(host)
    # Ray's own workers must not print into a live table; what they say is in its log files.
    quiet = {"logging_level": logging.ERROR, "log_to_driver": False}
    try:
        ray.init(address="auto" if on == HERE else on, **quiet)
    except ConnectionError as error:
        raise UserError(
            f"no Ray cluster is reached at {on!r} ({_first_line(error)}); start one with `ray start --head`, join others with "
            f"`ray start --address=HEAD:6379`, and where it has a token, set {AUTH_MODE}=token here, too."
        ) from None
    except (ray.exceptions.RayError, ImportError, RuntimeError, ValueError) as error:
        said = _first_line(error)
        raise UserError(f"the Ray cluster at {on!r} cannot be used: {said}; check its version and its token.") from None
    try:
        others = [node["NodeManagerAddress"] for node in ray.nodes() if node["Alive"] and not is_here(node["NodeManagerAddress"])]
        if others and not without_token and not (on.startswith(CLIENT) or asks_for_a_token(ray)):
            raise untrusted(others[0])
        yield
    finally:
        ray.shutdown()


def asks_for_a_token(ray: Any) -> bool:
    """Return whether the cluster that is connected refuses somebody who has no token."""
    own = {name: value for name, value in os.environ.items() if not name.startswith(TOKENS)} | {AUTH_MODE: "disabled"}
    address = ray.get_runtime_context().gcs_address
    words = [sys.executable, "-m", "ray.scripts.scripts", "health-check", "--address", address]
    return subprocess.run(words, env=own, capture_output=True, check=False).returncode != 0


def untrusted(host: str) -> UserError:
    """Return the error of a cluster that has machines besides this one, and no token."""
    return UserError(
        f"the Ray cluster has the machine {host!r}, and it asks nobody for a token: whoever reaches it could run code here; set "
        f"{AUTH_MODE}=token on every machine before `ray start`, with the token of `ray get-auth-token --generate`, or say "
        "--without-token where nobody else reaches its network."
    )


def is_here(host: str) -> bool:
    """Return whether a host is this machine: a socket can be bound to one of its addresses."""
    with contextlib.suppress(OSError):
        for family, kind, protocol, _, address in socket.getaddrinfo(host, 0, type=socket.SOCK_STREAM):
            with socket.socket(family, kind, protocol) as tried:
                tried.bind(address)
        return True
    return False


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
