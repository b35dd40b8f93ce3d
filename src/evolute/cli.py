"""The command line: call the library, print. Options are in flags.py."""

import contextlib
import os
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evolute.errors import RunStopped, UserError, closest, printable
from evolute.flags import (
    DemoFlags,
    EvaluateFlags,
    ResumeFlags,
    ShowFlags,
    folder_of,
    parse,
    seconds,
    settings_of,
    train_flags,
    value_of,
    whole_number,
)
from evolute.interruption import Interrupted, catch_again, check, end_in_time, interruptible

if TYPE_CHECKING:
    from evolute.config import Run
    from evolute.state import Observer, Progress, Result

# Exit codes; a run that a signal ended exits with 128 + its number.
MISTAKE, STOPPED, INTERRUPTED = 2, 3, 130
# Seconds after which it is said that an environment is waited for.
SLOW = 10.0


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line; exits with 2 and one sentence for a user's mistake."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    try:
        sys.exit(_run(words))
    except UserError as mistake:
        print(f"evolute: {mistake}", file=sys.stderr)
        sys.exit(MISTAKE)
    except MemoryError:
        print("evolute: there is not enough memory; lower buffer_size, batch_size, the layers or the members.", file=sys.stderr)
        sys.exit(MISTAKE)
    except RunStopped as stop:
        print(f"evolute: the run has stopped: {printable(str(stop))}", file=sys.stderr)
        sys.exit(STOPPED)
    except Interrupted as interruption:
        sys.exit(interruption.exit_code)
    except KeyboardInterrupt:
        print("evolute: interrupted.", file=sys.stderr)
        sys.exit(INTERRUPTED)
    finally:
        if arguments is None:
            code = getattr(sys.exc_info()[1], "code", 1)
            end_in_time(code if isinstance(code, int) else 0)


def _run(words: list[str]) -> int:
    commands: dict[str, tuple[Callable[[], Any], Callable[[Any], None]]] = {
        "train": (train_flags, _train),
        "resume": (lambda: ResumeFlags, _resume),
        "evaluate": (lambda: EvaluateFlags, _evaluate),
        "show": (lambda: ShowFlags, _show),
        "demo": (lambda: DemoFlags, _demo),
    }
    if words and words[0] in commands:
        flags, command = commands[words[0]]
        given = parse(flags(), words[0], words[1:])
        with contextlib.nullcontext() if words[0] == "show" else interruptible():
            command(given)
        return 0
    if words and words[0] in ("--version", "-V"):
        from evolute import __version__

        print(__version__)
        return 0
    if not words or words[0] in ("--help", "-h", "help"):
        print(USAGE)
        return 0
    raise UserError(f"unknown command {words[0]!r}{closest(words[0], commands)}; choose from {', '.join(commands)}.")


USAGE = """evolute: populations of reinforcement-learning agents whose members use different optimizers

  evolute train ENV     train a population, such as: evolute train HalfCheetah-v4 --mix adam=2 kfac=1 diag_ggn=1
  evolute resume RUN    go on with a run that was stopped, or make it longer
  evolute evaluate RUN  play deterministic episodes with a run's best policy
  evolute show RUN      print a run's leaderboard, lineage and learning curves
  evolute demo          train a small mixed population in a few minutes

`evolute COMMAND --help` explains every option with its default and unit; `evolute --version` prints the version."""

# -------------------------------------------------------------------------------------------------------------- train


def _train(flags: Any) -> None:
    from evolute.config import Run
    from evolute.environments import module_of
    from evolute.records import default_folder

    settings = settings_of(flags)
    if "env" not in settings:
        raise UserError("no environment is given; name one, such as: evolute train HalfCheetah-v4.")
    if flags.seed is not None and flags.seeds is not None:
        raise UserError("both --seed and --seeds are given; choose one.")
    run = Run(**settings)
    seeds = [run.seed] if flags.seeds is None else [whole_number("--seeds", seed, least=0) for seed in flags.seeds]
    # Who types the environment means its module, too.
    admit(run.env, module_of(run.env) if flags.env is not None else flags.allow_import)
    train_and_report(run, seeds, flags.out or default_folder(run.env, run.mix, seeds), quiet=flags.quiet)


def admit(env: str, allowed: str | None) -> None:
    """Let an environment's module be imported, if there is one and it is the allowed one; raises UserError otherwise."""
    from evolute.environments import check_import, module_of

    check_import(env, allowed)
    if module_of(env) is not None:
        # Like `python -m`: a module beside the user is found. Last, so that it shadows nothing; and only now, so that nothing in
        # a stranger's folder stands in for what a library tries to import.
        sys.path.append(os.getcwd())


def train_and_report(run: "Run", seeds: list[int], out: Path, quiet: bool) -> None:
    """Train one population per seed while showing them, then print the leaderboards and what to type next."""
    from evolute import engine, records
    from evolute.environments import Environment

    outs = [out] if len(seeds) == 1 else [out / f"seed-{seed}" for seed in seeds]
    # Before an environment is made, which may change the working folder. What is printed stays as it was typed.
    folders = [path.absolute() for path in outs]
    for path in outs:
        records.refuse_existing(path)
    with said_if_slow(quiet):
        Environment(run.env, run.time_limit).close()  # A mistake in its name is told before anything is announced.
    members = f"{len(run.kinds)} member{'s' if len(run.kinds) > 1 else ''}"
    what = members if len(seeds) == 1 else f"{len(seeds)} populations of {members}"
    opening = f"Training {what} on {run.env}; records go to {out}"
    watch_and_report(lambda observer: engine.train_seeds(run, seeds, folders, observer), outs, folders, opening, quiet)


@contextlib.contextmanager
def said_if_slow(quiet: bool = False) -> Iterator[None]:
    """Say what is waited for, should an environment take long to be made."""
    from evolute.isolation import START_LIMIT

    text = (
        f"evolute: waiting for the environment to be made. With a time limit it has {START_LIMIT:g} seconds, or the time limit "
        "if that is longer; without one, Ctrl-C twice ends the wait."
    )
    timer = threading.Timer(SLOW, lambda: print(text, file=sys.stderr, flush=True))
    timer.daemon = True
    if not quiet:
        timer.start()
    try:
        yield
    finally:
        timer.cancel()


def watch_and_report(
    train: Callable[["Observer"], list["Result"]], outs: list[Path], folders: list[Path], opening: str, quiet: bool
) -> None:
    """Train while showing the populations; stop on a signal; say how to go on, or what to type next.

    Args:
        train: is given an observer.
        outs: the run folders as the user typed them.
        folders: the same, wherever the working folder is by then.
        opening: is printed first.
        quiet: print nothing.
    """
    from evolute.display import LiveTable, PlainLines, console
    from evolute.records import CONFIG_FILE

    remember_compiled_programs()
    screen = console()
    try:
        with contextlib.ExitStack() as stack:
            if opening and not quiet:
                screen.print(opening, soft_wrap=True, markup=False)
            show = None if quiet else stack.enter_context((LiveTable if screen.is_terminal else PlainLines)(screen))

            def observe(progress: "Progress") -> None:
                catch_again()
                check()
                if show is not None:
                    show(progress)

            results = train(observe)
    except (Interrupted, RunStopped) as stop:
        pairs = zip(outs, folders, strict=True)
        left = [f"evolute resume {out}" for out, folder in pairs if (folder / CONFIG_FILE).is_file()]
        how = f"Go on from the last checkpoint with: {' and '.join(left)}" if left else ""
        if isinstance(stop, RunStopped):
            raise RunStopped(f"{stop} {how}".strip()) from None
        print(f"evolute: stopped. {how}".strip(), file=sys.stderr)
        raise
    if not quiet:
        for result, out in zip(results, outs, strict=True):
            _print_result(result, out)


def remember_compiled_programs() -> None:
    """Keep compiled programs between runs, unless the user told JAX where: a second start takes seconds."""
    import jax

    given = os.environ.get("JAX_COMPILATION_CACHE_DIR")
    if given is None:
        base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
        jax.config.update("jax_compilation_cache_dir", str(base.absolute() / "evolute" / "jax"))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)
    elif given and "://" not in given:
        # An environment may change the working folder.
        jax.config.update("jax_compilation_cache_dir", os.path.abspath(given))


def _print_result(result: "Result", out: Path) -> None:
    from evolute.display import console, duration, leaderboard_table, number

    screen, best = console(), result.summary["best"]
    screen.print(leaderboard_table(result.leaderboard))
    screen.print(
        f"Best policy: member {best['member']} ({best['kind']}), return {number(best['return_mean'])} ± "
        f"{number(best['return_std'])} over {best['episodes']} fresh episodes, "
        f"after {duration(result.summary['wall_seconds'])}.\n"
        f"Run folder: {out}\n"
        f"Next: evolute show {out}\n"
        f"      evolute evaluate {out} --steps 150000",
        soft_wrap=True,
        markup=False,
    )


# ------------------------------------------------------------------------------------------------------------ resume


def _resume(flags: ResumeFlags) -> None:
    from evolute.display import console
    from evolute.resumption import resume

    path, screen = folder_of(flags.run), console()
    folder, making = path.absolute(), contextlib.ExitStack()
    steps = None if flags.steps is None else whole_number("--steps", flags.steps, least=1)

    def note(sentence: str) -> None:
        making.close()
        if not flags.quiet:
            screen.print(f"{path}: {printable(sentence)}", soft_wrap=True, markup=False)

    def train(observer: "Observer") -> list["Result"]:
        with making:
            making.enter_context(said_if_slow(flags.quiet))
            return [resume(path, steps, observer, flags.allow_version_change, flags.allow_import, note)]

    if flags.allow_import is not None:
        admit(f"{flags.allow_import}:", flags.allow_import)
    watch_and_report(train, [path], [folder], "", flags.quiet)


# ---------------------------------------------------------------------------------------------------------- evaluate


def _evaluate(flags: EvaluateFlags) -> None:
    from evolute import evaluate
    from evolute.display import number
    from evolute.environments import Environment
    from evolute.records import RunFolder

    if flags.steps is not None and flags.episodes is not None:
        raise UserError("both --steps and --episodes are given; choose one.")
    steps = whole_number("--steps", flags.steps or "150000", least=1)
    episodes = None if flags.episodes is None else whole_number("--episodes", flags.episodes, least=1)
    seed, time_limit = whole_number("--seed", flags.seed, least=0), seconds("--time-limit", flags.time_limit)
    policy = RunFolder.open(folder_of(flags.run)).best_policy()
    admit(policy.env, flags.allow_import)
    with said_if_slow():
        environment = Environment(policy.env, time_limit)
    if environment.shape != (len(policy.weights[0][0]), len(policy.low)):
        raise UserError(
            f"the policy was trained on another {policy.env!r} than the one installed here, with other numbers of "
            "observations or actions; install the versions that the run's metadata.json names."
        )
    try:
        if episodes is not None:
            result = evaluate.by_episodes(environment, policy.unit_action, list(range(seed, seed + episodes)))
        else:
            result = evaluate.by_steps(environment, policy.unit_action, steps, seed)
    except RunStopped as stop:
        raise UserError(str(stop)) from None
    if not result.returns:
        raise UserError(f"--steps is {steps}, and no episode ended within them; raise it or give --episodes.")
    print(
        f"{policy.env}: return {number(result.mean)} ± {number(result.std)} over {len(result.returns)} "
        f"completed episodes ({sum(result.lengths):,} steps), deterministic policy"
        + (f"; {result.faults} more in which the environment failed" if result.faults else "")
    )


# -------------------------------------------------------------------------------------------------------- show, demo


def _show(flags: ShowFlags) -> None:
    from evolute.display import console, curves_table, leaderboard_table, lineage_table
    from evolute.records import RunFolder

    folder, screen = RunFolder.open(folder_of(flags.run)), console()
    metrics, result = folder.metrics(), folder.result()
    exploits = [event for event in folder.events() if event["event"] == "exploit"]
    if not metrics:
        screen.print("No interval has ended yet.")
        return
    screen.print(leaderboard_table(result["leaderboard"] if result else standings(metrics, exploits)))
    screen.print(curves_table(metrics))
    screen.print(lineage_table(exploits) if exploits else "Nobody has copied anybody.")
    if not result:
        screen.print("The run has not ended.")


def standings(metrics: list[dict[str, Any]], exploits: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return a leaderboard from the newest metrics of a run that has not ended."""
    newest = max(row["interval"] for row in metrics)
    rows = list({row["member"]: row for row in metrics if row["interval"] == newest}.values())
    parents = {exploit["member"]: exploit["parent"] for exploit in exploits}
    rows.sort(key=lambda row: (row["fitness"] is None, -(row["fitness"] or 0.0), row["member"]))
    return [{**row, "rank": rank, "parent": parents.get(row["member"])} for rank, row in enumerate(rows, start=1)]


def _demo(flags: DemoFlags) -> None:
    from evolute.config import Run
    from evolute.records import default_folder

    # Small networks and a short warm-up: enough to run, literally, within minutes.
    run = Run(
        "HalfCheetah-v4",
        mix={"adam": 2, "kfac": 1, "diag_ggn": 1},
        steps=30_000,
        seed=value_of(flags.seed),
        actor_layers=(64, 64),
        critic_layers=(64, 64),
        batch_size=128,
        learning_starts=1_000,
        interval=3_000,
        episodes=2,
    )
    train_and_report(run, [run.seed], flags.out or default_folder(run.env, run.mix, [run.seed]), quiet=flags.quiet)


if __name__ == "__main__":
    main()
