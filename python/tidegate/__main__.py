"""The ``tidegate`` command, which is part of the wheel."""

from __future__ import annotations

import signal
import sys

from ._tidegate import run_command


def main() -> int:
    """Runs the command on ``sys.argv`` and answers its exit code."""
    # The command listens to Ctrl-C itself; Python would only note it and look after the command had ended.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    return run_command(["tidegate", *sys.argv[1:]])


if __name__ == "__main__":
    sys.exit(main())
