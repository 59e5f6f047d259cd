"""An internal error as one line: where it is, and how far the run had got."""

from __future__ import annotations

from pathlib import Path

from phala_secrets import __version__
from phala_secrets.errors import PhalaSecretsError

_REPORT_TO = "https://github.com/phala-secrets/phala-secrets/issues"


def as_error(error: BaseException, progress: str = "") -> PhalaSecretsError:
    """Return an internal error as one line: kind and place, but not its message, which may hold a value.

    ``progress`` is how far the run had got, if anything was sent.
    """
    frame, line = error.__traceback__, 0
    file = "?"
    while frame:
        file, line = Path(frame.tb_frame.f_code.co_filename).name, frame.tb_lineno
        frame = frame.tb_next
    sent = f"; {progress}" if progress else ""
    return PhalaSecretsError(
        f"internal error in phala-secrets {__version__}: {type(error).__name__} at {file}:{line}{sent}",
        hint=f"report this line at {_REPORT_TO}",
    )
