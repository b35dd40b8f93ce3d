"""`python -m evolute` is `evolute`."""

from evolute.commands.cli import main

main()
