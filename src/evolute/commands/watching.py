"""What every command that trains has in common: show it, stop it on a signal, and say what to type next."""

import contextlib
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evolute.commands.folders import outs_of
from evolute.errors import RunStopped, UserError, closest, printable
from evolute.interruption import Interrupted, catch_again, check, stopping_gently
from evolute.streams import complain, make_output_optional

if TYPE_CHECKING:
    from evolute.config import Run
    from evolute.report.json_lines import JsonLines
    from evolute.report.live import LiveTable, PlainLines
    from evolute.report.tracking import Tracking
    from evolute.state import Observer, Progress, Result
    from evolute.training.worker import Hire

    Watcher = LiveTable | PlainLines | JsonLines | None
    # A result, its folder, and the modules that are imported for its environment.
    Ended = tuple[Result, Path, Sequence[str]]


def workers_of(flags: Any) -> int | None:
    """Return how many processes train; None where nobody says."""
    from evolute.commands.flags import whole_number

    return None if flags.workers is None else whole_number("--workers", flags.workers, least=1)


@contextlib.contextmanager
def hiring(flags: Any) -> Iterator["int | Hire"]:
    """Return what trains: a number of processes here, or what hires workers on the cluster that is connected meanwhile."""
    from evolute.cluster import connection

    count, on = workers_of(flags), connection.LOCAL if flags.on is None else flags.on
    connection.check(on, flags.without_token)
    if on == connection.LOCAL:
        from evolute.training import processes

        yield processes.Processes(count or 1, flags.stragglers)
        return
    with connection.connected(on, flags.without_token):
        from evolute.cluster import population

        yield population.hire(count, flags.stragglers)


def admit(modules: Sequence[str], allowed: Sequence[str]) -> None:
    """Let the modules that an environment needs be imported; raises UserError where one is not allowed."""
    from evolute.environments.making import check_imports

    check_imports(modules, allowed)
    if modules:
        # Like `python -m`: a module beside the user is found. Last, so that it shadows nothing; and only now, so that nothing in
        # a stranger's folder stands in for what a library tries to import.
        sys.path.append(os.getcwd())


@contextlib.contextmanager
def watching(quiet: bool, log: str = "auto") -> Iterator["Watcher"]:
    """Show what trains meanwhile, or nothing where it is to be quiet; standard output is not worth ending a run for."""
    from evolute.commands.flags import LOGS
    from evolute.report.json_lines import JsonLines
    from evolute.report.live import LiveTable, PlainLines, listening
    from evolute.report.tables import console

    if log not in LOGS:
        raise UserError(f"--log is {log!r}{closest(log, LOGS)}; choose from {', '.join(LOGS)}.")
    if quiet and log != "auto":
        raise UserError(f"both --quiet and --log {log} are given; choose one.")
    make_output_optional()
    if quiet or log == "json":
        yield None if quiet else JsonLines()
        return
    screen = console()
    with listening() as doing, (LiveTable if screen.is_terminal else PlainLines)(screen, doing) as watcher:
        yield watcher


def trackers_of(option: str, names: Sequence[str] | None) -> list[str]:
    """Return the trackers that an option names; raises UserError where there is no such, or its package is not installed."""
    from evolute.commands.flags import separate
    from evolute.export.writing import require
    from evolute.report.trackers import TENSORBOARD, TRACKERS

    separate(option, names or (), TENSORBOARD)
    for name in names or ():
        if name not in TRACKERS:
            raise UserError(f"{option} is {name!r}{closest(name, TRACKERS)}; choose from {', '.join(TRACKERS)}.")
        require(f"{option} {name}", name, [TRACKERS[name].module])
    if names is not None and not names:
        raise UserError(f"{option} is empty; choose from {', '.join(TRACKERS)}.")
    return list(dict.fromkeys(names or ()))


def tracking(names: Sequence[str], folder_of: Callable[[int], Path], watcher: "Watcher") -> "Tracking":
    """Return what tells trackers of the runs of seeds."""
    from evolute.report.tracking import Tracking

    return Tracking(names, folder_of, noting("note", watcher))


def train_seeds(
    run: "Run",
    seeds: list[int],
    out: Path | None,
    watcher: "Watcher",
    workers: "int | Hire" = 1,
    trackers: Sequence[str] = (),
) -> list["Ended"]:
    """Train one population per seed while showing them."""
    from evolute import engine
    from evolute.environments.gym import Environment
    from evolute.environments.making import making_of, modules_of
    from evolute.runs import naming
    from evolute.runs.folder import refuse_existing
    from evolute.training import needs, placement
    from evolute.training.processes import count_here

    for path in [] if out is None else outs_of(out, seeds):
        refuse_existing(path)
    default = naming.default_folder(run.env, run.mix, seeds)
    # An environment may change the working folder. What is printed stays as it was typed.
    here = Path.cwd()
    # A mistake in what the run names, or a missing device, is reported before anything is announced.
    probe = Environment(run.env, run.time_limit, making_of(run))
    probe.close()
    placement.use_all_cores(len(run.kinds) * len(seeds))
    count = count_here(workers)
    need = needs.needs(run, len(seeds), probe.shape, count or len(run.kinds) * len(seeds))
    needs.check(run, need, [here / (default if out is None else out)], count is not None)
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

        told = tracking(trackers, dict(zip(seeds, folders, strict=True)).__getitem__, watcher) if trackers else None
        return watch(train, outs_of(out or shown, seeds), folders, modules_of(run.env, run.wrap), watcher, told)


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
    tracking: "Tracking | None" = None,
) -> list["Ended"]:
    """Train while showing the populations; stop on a signal, and say how to go on.

    Args:
        train: is given an observer.
        outs: the run folders, as they are to be printed.
        folders: the same as absolute paths, because the working folder may change.
        modules: which are imported for the environment.
        watcher: shows the populations.
        tracking: tells trackers of them, if that is asked for.
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
        if tracking is not None:
            tracking(progress)

    try:
        with stopping_gently(), contextlib.closing(tracking) if tracking is not None else contextlib.nullcontext():
            results = train(observe)
    except (Interrupted, RunStopped) as stop:
        left = [out for out, folder in zip(outs, folders, strict=True) if (folder / CONFIG_FILE).is_file()]
        more = ["--track", *tracking.names] if tracking is not None else []
        how = f"Go on from the last checkpoint with: {hints.commands('resume', left, modules, *more)}" if left else ""
        if isinstance(stop, RunStopped):
            raise RunStopped(f"{stop} {how}".strip()) from None
        complain(f"stopped. {how}".strip())
        raise
    return [(result, out, modules) for result, out in zip(results, outs, strict=True)]


def report(ended: list["Ended"], watcher: "Watcher") -> None:
    """Print the leaderboards of runs that have ended, and what to type next; to a program the results alone."""
    from evolute.report.json_lines import JsonLines

    for result, out, modules in ended:
        if isinstance(watcher, JsonLines):
            watcher.end(result, out)
        elif watcher is not None:
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
        f"      {command('report', out)}\n"
        f"      {command('evaluate', out, modules, '--steps', '150000')}",
        soft_wrap=True,
        markup=False,
    )
