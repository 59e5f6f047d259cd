"""The process, from its first signal to its last flush: ``phala-secrets``, ``python -m phala_secrets``."""

import gc
import os
import sys
from typing import NoReturn


def command() -> NoReturn:
    """Run the command and exit at once: tidying up would take longer."""
    _leave_working_folder()
    gc.set_threshold(100_000)  # loaded modules stay: collecting them again and again takes time
    sys.unraisablehook = lambda _: None  # show no traceback
    from contextlib import suppress

    from phala_secrets.run import interrupts

    with interrupts.caught():
        try:
            from phala_secrets.run.command import main

            code = main()
        except KeyboardInterrupt:
            code = 130
            with suppress(OSError):
                os.write(2, b"error: interrupted before anything was sent\nhint: run again\n")
        with suppress(OSError, ValueError):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


def _leave_working_folder() -> None:
    """Import nothing from the working folder, which is a checkout: ``-m`` and PYTHONPATH put it in front.

    The image runs isolated and does not need this. Elsewhere it is all that this module can do: Python
    itself has imported modules before.
    """
    try:
        here = os.path.realpath(".", strict=True)
    except OSError:  # it is gone
        return
    sys.path[:] = [entry for entry in sys.path if entry and os.path.realpath(entry) != here]


if __name__ == "__main__":
    command()
