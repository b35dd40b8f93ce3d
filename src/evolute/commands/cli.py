"""The command line: find the command that was asked for, and answer a mistake with one sentence."""

import sys
from collections.abc import Sequence
from typing import Any

# A command's module is imported where it is run: it takes a while, in which Ctrl-C must already end the program quietly.
from evolute.errors import RunStopped, UserError, closest, printable
from evolute.interruption import Interrupted, end_in_time, interruptible
from evolute.streams import ReaderGone, complain, prepared

# Each is a module of this folder, with its `Flags` and what runs it; what it is given, and what it does.
COMMANDS = {
    "train": ("ENV", "train a population, such as: evolute train HalfCheetah-v4 --mix adam=2 kfac=1 diag_ggn=1"),
    "resume": ("RUN", "go on with a run that was stopped, or make it longer"),
    "evaluate": ("RUN", "play deterministic episodes with a run's best policy"),
    "export": ("RUN", "write a policy for another library: ONNX, Stable-Baselines3, NumPy, the Hugging Face Hub, Minari"),
    "video": ("RUN", "record episodes of a policy, without a display"),
    "play": ("RUN", "play episodes of a policy in a window"),
    "list": ("DIR", "list all runs of a folder: environment, mix, steps, best, state"),
    "show": ("RUN", "print a run's leaderboard, lineage and learning curves"),
    "compare": ("RUN ...", "print tables of several runs, with the doubt that few repetitions leave"),
    "reproduce": ("NAME", "train an experiment of many runs, and make its tables and figures"),
    "track": ("RUN", "write a run's metrics for TensorBoard or Weights & Biases"),
    "replay": ("RUN", "train one agent through the ancestry of a run's winner, on new seeds"),
    "sweep": ("GRID", "train every run of a grid of your own, here or on a cluster"),
    "report": ("RUN", "write a page with a run's curves, genealogy and more; of several runs, a comparison"),
    "watch": ("RUN", "serve that page on this machine while the run goes on"),
    "demo": ("", "train a small mixed population in a few minutes"),
}

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
    if words and words[0] in COMMANDS:
        from evolute.commands.flags import module_of, parse

        command = module_of(words[0])
        command.run(parse(command.Flags, words[0], words[1:]))
        return 0
    if words and words[0] in ("--version", "-V"):
        from evolute import __version__

        print(__version__)
        return 0
    if words and words[0].split("=")[0] == "--print-completion":
        from evolute.commands.completion import script

        print(script(" ".join(words).removeprefix("--print-completion")[1:]), end="")
        return 0
    if not words or words[0] in ("--help", "-h", "help"):
        print(usage())
        return 0
    raise UserError(f"unknown command {words[0]!r}{closest(words[0], COMMANDS)}; choose from {', '.join(COMMANDS)}.")


def usage() -> str:
    """Return what `evolute --help` prints."""
    calls = {f"evolute {name} {argument}".rstrip(): text for name, (argument, text) in COMMANDS.items()}
    width = max(map(len, calls))
    lines = "\n".join(f"  {call:{width}}  {text}" for call, text in calls.items())
    return f"""evolute: populations of reinforcement-learning agents whose members use different optimizers

{lines}

`evolute COMMAND --help` explains every option with its default and unit; `evolute --version` prints the version, and
`evolute --print-completion bash` what completes commands and options in a shell (bash, zsh or tcsh)."""


if __name__ == "__main__":
    main()
