"""The command line: call the library, print. Options are in flags.py."""

import contextlib
import dataclasses
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

# The rest is imported where it is needed: it takes a while, in which Ctrl-C must already end the program quietly.
from evolute.commands.folders import one_run, outs_of
from evolute.commands.show import show
from evolute.errors import RunStopped, UserError, closest, printable
from evolute.interruption import Interrupted, catch_again, check, end_in_time, interruptible, stopping_gently
from evolute.streams import ReaderGone, complain, make_output_optional, prepared

if TYPE_CHECKING:
    from evolute.commands.flags import DemoFlags, EvaluateFlags, ResumeFlags
    from evolute.config import Run
    from evolute.report.live import LiveTable, PlainLines
    from evolute.runs.folder import RunFolder
    from evolute.state import Observer, Progress, Result

    Watcher = LiveTable | PlainLines | None
    # A result, its folder, and the modules that are imported for its environment.
    Ended = tuple[Result, Path, Sequence[str]]

# Exit codes; a run that a signal ended exits with 128 + its number, and 141 is a shell's for a reader that has gone away.
MISTAKE, STOPPED, READER_GONE = 2, 3, 141


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line; exits with 2 and one sentence for a user's mistake."""
    code: Any = 1
    with prepared() as output:
        try:
            try:
                with interruptible():
                    code = _run(list(sys.argv[1:] if arguments is None else arguments))
            except SystemExit as end:
                # tyro's, after --help.
                code = end.code
            output.flush()
        except UserError as mistake:
            complain(str(mistake))
            code = MISTAKE
        except MemoryError:
            complain("there is not enough memory; lower buffer_size, batch_size, the layers or the members.")
            code = MISTAKE
        except RunStopped as stop:
            complain(f"the run has stopped: {printable(str(stop))}")
            code = STOPPED
        except Interrupted as interruption:
            code = interruption.exit_code
        except ReaderGone:
            code = READER_GONE
        finally:
            if arguments is None:
                end_in_time(code if isinstance(code, int) else 0)
    sys.exit(code)


def _run(words: list[str]) -> int:
    commands: dict[str, Callable[[Any], None]] = {
        "train": _train,
        "resume": _resume,
        "evaluate": _evaluate,
        "show": show,
        "demo": _demo,
    }
    if words and words[0] in commands:
        from evolute.commands.flags import flags_of, parse

        commands[words[0]](parse(flags_of(words[0]), words[0], words[1:]))
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
    with watching(flags.quiet) as watcher:
        run, seeds = _asked_for(flags)
        ended = train_seeds(run, seeds, flags.out, watcher, workers_of(flags))
    report(ended, flags.quiet)


def _asked_for(flags: Any) -> tuple["Run", list[int]]:
    """Return the run that flags and file describe, and its seeds."""
    from evolute.commands.flags import settings_of
    from evolute.config import Run
    from evolute.environments.making import modules_of

    settings = settings_of(flags)
    if "env" not in settings:
        raise UserError("no environment is given; name one, such as: evolute train HalfCheetah-v4.")
    if flags.seed is not None and flags.seeds is not None:
        raise UserError("both --seed and --seeds are given; choose one.")
    run = Run(**settings)
    seeds = [run.seed] if flags.seeds is None else _different(flags.seeds)
    for seed in seeds:
        dataclasses.replace(run, seed=seed)  # keeps the rule of a seed, or is refused
    # Who types an environment or a wrapper means its module, too.
    typed = modules_of(run.env if flags.env is not None else "", run.wrap if flags.wrap is not None else ())
    admit(modules_of(run.env, run.wrap), [*typed, *(flags.allow_import or ())])
    return run, seeds


def workers_of(flags: Any) -> int:
    """Return how many processes train."""
    from evolute.commands.flags import whole_number

    return 1 if flags.workers is None else whole_number("--workers", flags.workers, least=1)


def _different(words: Sequence[str]) -> list[int]:
    """Return the numbers that --seeds was given."""
    from evolute.commands.flags import separate, whole_number

    separate("--seeds", words, "0 1 2")
    seeds = [whole_number("--seeds", word, least=0) for word in words]
    if not seeds or len(set(seeds)) < len(seeds):
        given = " ".join(words) or "empty"
        raise UserError(f"--seeds is {given}; it must be one or more different whole numbers, such as 0 1 2.")
    return seeds


def admit(modules: Sequence[str], allowed: Sequence[str]) -> None:
    """Let the modules that an environment needs be imported; raises UserError where one is not allowed."""
    from evolute.environments.making import check_imports

    check_imports(modules, allowed)
    if modules:
        # Like `python -m`: a module beside the user is found. Last, so that it shadows nothing; and only now, so that nothing in
        # a stranger's folder stands in for what a library tries to import.
        sys.path.append(os.getcwd())


@contextlib.contextmanager
def watching(quiet: bool) -> Iterator["Watcher"]:
    """Show what trains meanwhile, or nothing where it is to be quiet; standard output is not worth ending a run for."""
    from evolute.report.live import LiveTable, PlainLines, listening
    from evolute.report.tables import console

    make_output_optional()
    if quiet:
        yield None
        return
    screen = console()
    with listening() as doing, (LiveTable if screen.is_terminal else PlainLines)(screen, doing) as watcher:
        yield watcher


def train_seeds(run: "Run", seeds: list[int], out: Path | None, watcher: "Watcher", workers: int = 1) -> list["Ended"]:
    """Train one population per seed while showing them."""
    from evolute import engine
    from evolute.environments.gym import Environment
    from evolute.environments.making import making_of, modules_of
    from evolute.runs import naming
    from evolute.runs.folder import refuse_existing
    from evolute.training import needs, placement

    for path in [] if out is None else outs_of(out, seeds):
        refuse_existing(path)
    default = naming.default_folder(run.env, run.mix, seeds)
    # An environment may change the working folder. What is printed stays as it was typed.
    here = Path.cwd()
    # A mistake in what the run names, or a missing device, is reported before anything is announced.
    probe = Environment(run.env, run.time_limit, making_of(run))
    probe.close()
    placement.use_all_cores(len(run.kinds) * len(seeds))
    need = needs.needs(run, len(seeds), probe.shape, workers)
    needs.check(run, need, [here / (default if out is None else out)])
    with naming.claimed(here / default) if out is None else contextlib.nullcontext(here / out) as own:
        folders = outs_of(own, seeds)
        shown = own.relative_to(here) if own.is_relative_to(here) else own
        if watcher is not None:
            members = f"{len(run.kinds)} member{'s' if len(run.kinds) > 1 else ''}"
            what = members if len(seeds) == 1 else f"{len(seeds)} populations of {members}"
            count = need.environments
            takes = f"{needs.size(need.memory)} of memory, {needs.size(need.disk)} of disk, and {count} environments at once"
            watcher.say(f"Training {what} on {run.env}; records go to {out or shown}; takes up to {takes}")

        def train(observer: "Observer") -> list["Result"]:
            return engine.train_seeds(run, seeds, folders, observer, noting("note", watcher), workers)

        return watch(train, outs_of(out or shown, seeds), folders, modules_of(run.env, run.wrap), watcher)


def noting(whose: str, watcher: "Watcher") -> Callable[[str], None]:
    """Return what prints a sentence that a run tells of itself."""

    def note(sentence: str) -> None:
        if watcher is not None:
            watcher.say(printable(f"{whose}: {sentence}"))

    return note


def watch(
    train: Callable[["Observer"], list["Result"]],
    outs: list[Path],
    folders: list[Path],
    modules: Sequence[str],
    watcher: "Watcher",
) -> list["Ended"]:
    """Train while showing the populations; stop on a signal, and say how to go on.

    Args:
        train: is given an observer.
        outs: the run folders, as they are to be printed.
        folders: the same as absolute paths, because the working folder may change.
        modules: which are imported for the environment.
        watcher: shows the populations.
    """
    from evolute.commands import hints
    from evolute.commands.compile_cache import remember_compiled_programs
    from evolute.runs.folder import CONFIG_FILE

    remember_compiled_programs()

    def observe(progress: "Progress") -> None:
        catch_again()
        check()
        if watcher is not None:
            watcher(progress)

    try:
        with stopping_gently():
            results = train(observe)
    except (Interrupted, RunStopped) as stop:
        left = [out for out, folder in zip(outs, folders, strict=True) if (folder / CONFIG_FILE).is_file()]
        how = f"Go on from the last checkpoint with: {hints.commands('resume', left, modules)}" if left else ""
        if isinstance(stop, RunStopped):
            raise RunStopped(f"{stop} {how}".strip()) from None
        complain(f"stopped. {how}".strip())
        raise
    return [(result, out, modules) for result, out in zip(results, outs, strict=True)]


def report(ended: list["Ended"], quiet: bool) -> None:
    """Print the leaderboards of runs that have ended, and what to type next."""
    for result, out, modules in () if quiet else ended:
        _print_result(result, out, modules)


def _print_result(result: "Result", out: Path, modules: Sequence[str]) -> None:
    from evolute.commands.hints import command
    from evolute.report.tables import console, duration, leaderboard_table, number

    screen, best = console(), result.summary["best"]
    screen.print(leaderboard_table(result.leaderboard, screen.width))
    screen.print(
        f"Best policy: member {best['member']} ({best['kind']}), return {number(best['return_mean'])} ± "
        f"{number(best['return_std'])} over {best['episodes']} fresh episodes, "
        f"after {duration(result.summary['wall_seconds'])}.\n"
        f"Run folder: {printable(str(out))}\n"
        f"Next: {command('show', out)}\n"
        f"      {command('evaluate', out, modules, '--steps', '150000')}",
        soft_wrap=True,
        markup=False,
    )


# ------------------------------------------------------------------------------------------------------------ resume


def _resume(flags: "ResumeFlags") -> None:
    from evolute.commands.flags import whole_number

    path = one_run(flags.run)
    folder = path.absolute()
    steps = None if flags.steps is None else whole_number("--steps", flags.steps, least=1)
    workers, allowed = workers_of(flags), flags.allow_import or ()
    with watching(flags.quiet) as watcher:
        from evolute.resumption import resume

        def train(observer: "Observer") -> list["Result"]:
            note = noting(str(path), watcher)
            return [resume(path, steps, observer, flags.allow_version_change, allowed, note, workers)]

        admit(allowed, allowed)
        ended = watch(train, [path], [folder], allowed, watcher)
    report(ended, flags.quiet)


# ---------------------------------------------------------------------------------------------------------- evaluate


def _evaluate(flags: "EvaluateFlags") -> None:
    from evolute.commands.flags import seconds, whole_number
    from evolute.environments.gym import Environment
    from evolute.environments.making import making_of, modules_of
    from evolute.report.live import listening, signs_on_error
    from evolute.report.tables import number
    from evolute.runs.folder import RunFolder
    from evolute.runs.policies import of_member
    from evolute.training import evaluate

    if flags.steps is not None and flags.episodes is not None:
        raise UserError("both --steps and --episodes are given; choose one.")
    steps = whole_number("--steps", flags.steps or "150000", least=1)
    episodes = None if flags.episodes is None else whole_number("--episodes", flags.episodes, least=1)
    seed, time_limit = whole_number("--seed", flags.seed, least=0), seconds("--time-limit", flags.time_limit)
    member = None if flags.member is None else whole_number("--member", flags.member, least=0)
    folder = RunFolder.open(one_run(flags.run))
    run = run_of(folder)
    # Before the environment is made: it says whether there is one.
    policy = folder.best_policy() if member is None else None
    env, making = policy.env if policy else run.env, making_of(run)
    admit(modules_of(env, making.wrap), flags.allow_import or ())
    environment = Environment(env, time_limit, making)
    policy = policy or of_member(folder.path, member or 0, environment.facts)
    if environment.shape != (len(policy.weights[0][0]), len(policy.low)):
        raise UserError(
            f"the policy was trained on another {policy.env!r} than the one installed here, with other numbers of "
            "observations or actions; install the versions that the run's metadata.json names."
        )
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


def run_of(folder: "RunFolder") -> "Run":
    """Return the run of a folder; raises UserError where its configuration cannot be read."""
    from evolute import toml
    from evolute.config import Run
    from evolute.runs.folder import CONFIG_FILE

    return Run(**toml.read(folder.path / CONFIG_FILE))


# -------------------------------------------------------------------------------------------------------------- demo


def _demo(flags: "DemoFlags") -> None:
    from evolute.commands.flags import value_of

    with watching(flags.quiet) as watcher:
        from evolute.config import Run

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
        ended = train_seeds(run, [run.seed], flags.out, watcher)
    report(ended, flags.quiet)


if __name__ == "__main__":
    main()
