"""The command: inputs in, exit code out. The only place that catches every error, and the only exit.

What a mode does not need is imported by no other: a step runs for a tenth of a second.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from phala_secrets import __version__
from phala_secrets.arguments import Command, parse
from phala_secrets.errors import CancelledError, InputError, PhalaSecretsError
from phala_secrets.inputs import Given, read
from phala_secrets.runners import Runner, detect

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from types import FrameType

_REPORT_TO = "https://github.com/phala-secrets/phala-secrets/issues"


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a command and returns its exit code; with no arguments, the mode in the input ``mode``."""
    _drop_core_dumps()
    with _Interruptible():
        return _main(list(sys.argv[1:] if argv is None else argv))


def _main(arguments: list[str]) -> int:
    runner: Runner | None = None
    try:
        command = parse(arguments)
        if isinstance(command, str):
            sys.stdout.write(command)
            return 0
        given = read(command.flags, os.environ)
        runner = _runner(given)
        _run(command, given, runner)
    except PhalaSecretsError as error:
        return _failed(runner, error)
    except KeyboardInterrupt:
        return _failed(runner, CancelledError("interrupted", hint="run again"))
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return CancelledError.exit_code
    except Exception as error:  # noqa: BLE001 (a user gets no traceback: it could hold a value)
        return _failed(runner, _bug(error))
    return _end(runner)


def _run(command: Command, given: Given, runner: Runner) -> None:
    if command.mode == "simulate":
        _simulate(command)
    elif command.mode in ("kms", "list"):
        from phala_secrets import lookup

        lookup.run(command, given, os.environ, runner)
    else:
        mode = command.mode or given.choice("mode")
        _inject(mode, given, runner, stdin=sys.stdin.buffer.read if command.mode else None)


def _inject(mode: str, given: Given, runner: Runner, stdin: Callable[[], bytes] | None) -> None:
    from phala_secrets.job import read_job

    runner.mask(filter(None, (given.text("api-key"), given.text("private-key"))))
    job = read_job(mode, given, os.environ, Path())
    runner.mask([job.api_key.reveal(), *([job.private_key.reveal()] if job.private_key else [])])

    from phala_secrets.client import Client
    from phala_secrets.inject import Injection

    trace = runner.trace if runner.verbose else None
    with Client(job.api_key.reveal(), job.api_url, timeout=job.timeout, trace=trace) as client:
        injection = Injection(job, client, runner, os.environ, stdin)
        try:
            injection.run()
        except KeyboardInterrupt:
            raise injection.interrupted() from None
    if mode == "encrypt" and not runner.json:
        sys.stdout.write(str(runner.outputs["encrypted-env"]) + "\n")


def _simulate(command: Command) -> None:
    from phala_secrets.simulator import serve

    serve(int(command.options["port"]), command.options["key"], command.options["names"].split("\n"))


class _Interruptible:
    """SIGINT and SIGTERM raise KeyboardInterrupt in the main thread, once: nothing takes it for a failure."""

    def __enter__(self) -> None:
        self._before = {
            number: signal.signal(number, self._raise) for number in (signal.SIGINT, signal.SIGTERM)
        }

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _raise(self, _number: int, _frame: FrameType | None) -> NoReturn:
        for each in self._before:
            signal.signal(each, signal.SIG_IGN)
        raise KeyboardInterrupt


def _runner(given: Given) -> Runner:
    debug = os.environ.get("RUNNER_DEBUG") == "1"
    options: Mapping[str, Any] = {
        "output_file": given.text("output-file") or None,
        "json_output": given.flag("json"),
        "quiet": given.flag("quiet"),
        "verbose": given.flag("verbose") or debug,
    }
    return detect(os.environ, **options)


def _failed(runner: Runner | None, error: PhalaSecretsError) -> int:
    runner = runner or detect(os.environ)
    try:
        if runner.outputs:
            runner.output(
                "status", "failed" if not isinstance(error, CancelledError) else runner.last_status()
            )
    except InputError:
        pass  # the outputs cannot be written, which may be the very error
    runner.fail(error)
    runner.finish()
    return error.exit_code


def _end(runner: Runner) -> int:
    runner.finish()
    return 0


def _bug(error: Exception) -> PhalaSecretsError:
    """A bug of ours as one line: its kind and place, and nothing that it says, which could be a value."""
    frame, line = error.__traceback__, 0
    file = "?"
    while frame:
        file, line = Path(frame.tb_frame.f_code.co_filename).name, frame.tb_lineno
        frame = frame.tb_next
    return PhalaSecretsError(
        f"a bug in phala-secrets {__version__}: {type(error).__name__} at {file}:{line}",
        hint=f"report this line at {_REPORT_TO}",
    )


def _drop_core_dumps() -> None:
    """A crash leaves no image of the memory, which holds the secrets."""
    import resource

    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
