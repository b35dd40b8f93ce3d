"""evolute evaluate: play a policy of a run."""

from dataclasses import dataclass
from typing import Annotated

import tyro

from evolute.commands.flags import AllowImportFlag, MemberFlag, RunArgument, SeedFlag, member_of, seconds, whole_number
from evolute.commands.folders import one_run
from evolute.commands.policies import environment_of, making_for
from evolute.errors import RunStopped, UserError


@dataclass(frozen=True)
class Flags:
    """Play deterministic episodes with a run's best policy; only completed ones count (RL Baselines3 Zoo)."""

    run: RunArgument = None
    member: MemberFlag = "best"
    steps: Annotated[str | None, tyro.conf.arg(metavar="INT", help_behavior_hint="(default: 150000)")] = None
    """Environment steps to play."""
    episodes: Annotated[str | None, tyro.conf.arg(metavar="INT", help_behavior_hint="(default: none)")] = None
    """Episodes to play instead of a number of steps."""
    seed: SeedFlag = "0"
    """Seed of the first episode."""
    time_limit: Annotated[str, tyro.conf.arg(metavar="FLOAT")] = "0"
    """Seconds that a call of the environment may take before it is killed; 0 for no limit."""
    allow_import: AllowImportFlag = None


def run(flags: Flags) -> None:
    """Play, and print the mean return."""
    from evolute.report.live import listening, signs_on_error
    from evolute.report.tables import number
    from evolute.runs.folder import RunFolder
    from evolute.runs.policies import load_policy
    from evolute.training import evaluate

    if flags.steps is not None and flags.episodes is not None:
        raise UserError("both --steps and --episodes are given; choose one.")
    steps = whole_number("--steps", flags.steps or "150000", least=1)
    episodes = None if flags.episodes is None else whole_number("--episodes", flags.episodes, least=1)
    seed, time_limit = whole_number("--seed", flags.seed, least=0), seconds("--time-limit", flags.time_limit)
    folder = RunFolder.open(one_run(flags.run))
    policy = load_policy(folder.path, member_of(flags.member))
    environment = environment_of(policy, making_for(folder, policy, flags.allow_import or ()), time_limit)
    try:
        with listening() as doing, signs_on_error(doing):
            if episodes is not None:
                result = evaluate.by_episodes(environment, policy.unit_action, list(range(seed, seed + episodes)))
            else:
                result = evaluate.by_steps(environment, policy.unit_action, steps, seed)
    except RunStopped as stop:
        raise UserError(str(stop)) from None
    if not result.returns:
        raise UserError(f"--steps is {steps}, and {evaluate.no_episode(environment, steps, result.faults)}.")
    print(
        f"{policy.env}: return {number(result.mean)} ± {number(result.std)} over {len(result.returns)} "
        f"completed episode{'s' if len(result.returns) > 1 else ''} ({sum(result.lengths):,} steps), deterministic policy"
        + (f"; {result.cut} of them did not end and were cut" if result.cut else "")
        + (f"; {result.faults} more in which the environment failed" if result.faults else "")
    )
