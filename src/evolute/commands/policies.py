"""Which policy of a run a command means and where it comes from, and the environment that it plays in."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evolute.commands.flags import member_of
from evolute.commands.folders import one_run, run_of
from evolute.commands.watching import admit
from evolute.errors import UserError

if TYPE_CHECKING:
    from evolute.environments.gym import Environment
    from evolute.environments.making import Making
    from evolute.policy import Policy
    from evolute.runs.folder import RunFolder
    from evolute.runs.policies import Source


def chosen(run: Path | None, member: str) -> "tuple[RunFolder, Source]":
    """Return a run folder, and the policy that --member means; raises UserError where there is none."""
    from evolute.runs.folder import RunFolder
    from evolute.runs.policies import source

    folder = RunFolder.open(one_run(run))
    return folder, source(folder, member_of(member))


def making_for(folder: "RunFolder", policy: "Policy", allowed: Sequence[str], **arguments: Any) -> "Making":
    """Return how a run's environment is made, with more arguments; UserError where it needs a module that is not allowed."""
    from evolute.environments.making import making_of, modules_of

    making = making_of(run_of(folder))
    admit(modules_of(policy.env, making.wrap), allowed)
    return making._replace(kwargs={**making.kwargs, **arguments})


def environment_of(policy: "Policy", making: "Making", time_limit: float = 0.0) -> "Environment":
    """Return the environment of a policy; raises UserError where it cannot be made, or is another one than it was trained in."""
    from evolute.environments.gym import Environment

    environment = Environment(policy.env, time_limit, making)
    if environment.shape != (len(policy.weights[0][0]), len(policy.low)):
        raise UserError(
            f"the policy was trained on another {policy.env!r} than the one installed here, with other numbers of "
            "observations or actions; install the versions that the run's metadata.json names."
        )
    return environment
