"""The command `dlb`: explain a model, list packs, ops and modes.

`parser` says what can be typed, `explain` and `listings` are the commands, `failure` turns an error into one message
and an exit code. Nothing here imports torch before a command runs.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from dlb_core.cli.failure import FAILED, INTERRUPTED, UsageError, exit_code, message, warnings_to_stderr
from dlb_core.plain import plain

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line and returns the exit code: 0, 1 (failed), 2 (bad usage or input), 130 (interrupted)."""
    from dlb_core.cli.parser import build_parser

    debug = False
    try:
        args = build_parser().parse_args(argv)
        debug = args.debug
        with warnings_to_stderr(args.log_level, verbose=args.verbose):
            code: int = args.run(args)
            sys.stdout.flush()  # a reader that is gone shows here, and not while Python shuts down
            return code
    except SystemExit as stop:  # --help and --version
        return stop.code if isinstance(stop.code, int) else FAILED
    except KeyboardInterrupt:
        sys.stderr.write("dlb: interrupted\n")
        return INTERRUPTED
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    except Exception as error:
        if debug:
            raise
        hint = f"\n{error.hint}" if isinstance(error, UsageError) and error.hint else ""
        said = plain(message(error) + hint, keep="\n")
        sys.stderr.write(f"dlb: error: {said}\n")
        return exit_code(error)
