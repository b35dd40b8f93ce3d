"""The command line, for Linux and macOS."""

import os
import sys

if os.name != "posix":
    # Before anything is imported that only they have: signals, locks of files.
    sys.exit("evolute: this system is not supported; use Linux or macOS, or on Windows the Windows Subsystem for Linux (WSL).")
