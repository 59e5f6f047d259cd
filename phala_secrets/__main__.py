"""The process, from its first signal to its last flush: ``phala-secrets``, ``python -m phala_secrets``."""

import gc
import os
import sys
from contextlib import suppress
from typing import NoReturn

from phala_secrets.run import interrupts


def command() -> NoReturn:
    """Runs the command and ends at once: tidying up would take longer."""
    gc.set_threshold(100_000)  # what is loaded stays: looking through it again and again takes time
    sys.unraisablehook = lambda _: None  # nobody is shown a traceback
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


if __name__ == "__main__":
    command()
