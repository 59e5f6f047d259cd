"""The command: inputs in, exit code out. The only place that catches every error.

What a mode does not need is imported by no other: a step runs for a tenth of a second.
"""

from __future__ import annotations

import io
import os
import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from phala_secrets import __version__
from phala_secrets.errors import CancelledError, InputError, PhalaSecretsError
from phala_secrets.inputs.command_line import Command, parse
from phala_secrets.inputs.given import Given, credentials, read
from phala_secrets.inputs.place import is_action
from phala_secrets.inputs.table import OUTPUTS
from phala_secrets.run import bugs, interrupts
from phala_secrets.runners.detect import detect
from phala_secrets.runners.report import Report

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from phala_secrets.run.context import Run
    from phala_secrets.runners.base import Runner
    from phala_secrets.runners.files import Value

_PR_SET_DUMPABLE = 4  # <linux/prctl.h>
_IMAGE_VARIABLES = "image.env"
"""Written by the Dockerfile beside the interpreter: what the base sets, one NAME=value a line."""

_REPORT_TO = "https://github.com/phala-secrets/phala-secrets/issues"


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command and return its exit code. Without arguments, the input ``mode`` names the mode."""
    _drop_core_dumps()
    _drop_image_variables()
    os.environ.pop("SSLKEYLOGFILE", None)  # httpx would write the session keys of a proxy's TLS there
    _open_streams()
    with interrupts.caught():
        try:
            return _main(list(sys.argv[1:] if argv is None else argv))
        except OSError:  # nobody reads the output any more, or the disk is full
            for stream in (1, 2):
                os.dup2(os.open(os.devnull, os.O_WRONLY), stream)
            return CancelledError.exit_code


class _Run:
    """One command.

    ``runner`` reports its end. It is set once the inputs are read. ``what`` names the run among others: the
    mode, and the CVM or app as the user named it. ``run`` is set once there is a job.
    """

    runner: Runner | None = None
    what = "the run"
    run: Run | None = None

    def __call__(self, arguments: Sequence[str]) -> None:
        command = parse(arguments)
        if isinstance(command, str):
            sys.stdout.write(command)
            sys.stdout.flush()
            return
        given = read(command.flags, os.environ)
        self.runner = _runner(given)
        _need_mode(command, given)
        mode = command.mode or given.text("mode")
        self.what = " of ".join(filter(None, (mode, _asked(given))))
        _carry_out(command, given, self.runner, self)
        if self.run:
            what = self.run.headline(self.what)
            self.runner.say(f"{what}: {self.runner.last_status()} after {self.runner.took}")
        self.runner.finish()


def _main(arguments: Sequence[str]) -> int:
    run = _Run()
    try:
        try:
            run(arguments)
        finally:
            interrupts.over()
    except PhalaSecretsError as error:
        return _failed(run, error)
    except BrokenPipeError:
        raise
    except OSError as error:  # from a file or the network it would be a PhalaSecretsError by now
        return _failed(run, _unwritten(error))
    except (KeyboardInterrupt, Exception) as error:  # noqa: BLE001 (a traceback could hold a value)
        interrupted = CancelledError("interrupted", hint="run again")
        return _failed(run, interrupted if interrupts.received() else bugs.as_error(error))
    return 0


def _need_mode(command: Command, given: Given) -> None:
    """Print the help and raise InputError where no mode is named."""
    if command.mode or "mode" in given.explicit or is_action(os.environ):
        return
    from phala_secrets.inputs.modes import overview

    sys.stderr.write(overview() + "\n")
    raise InputError("no mode specified", hint="start with one, such as phala-secrets plan")


def _carry_out(command: Command, given: Given, runner: Runner, this: _Run) -> None:
    _mask_credentials(given, runner)
    if command.stage:
        from phala_secrets.simulator.serve import serve

        serve(command.stage)
    elif command.mode == "completion":
        from phala_secrets.inputs.completion import script

        sys.stdout.write(script(command.options["shell"]))
    elif command.mode in ("kms", "list"):
        from phala_secrets.run import lookup

        lookup.run(command, given, os.environ, runner)
    else:
        mode = command.mode or given.choice("mode")
        if mode == "verify" and given.text("evidence-file"):
            for name in ("cvm", "app"):
                if given.text(name):
                    raise InputError(
                        f"both {name} and evidence-file are set, but verify reads only the file",
                        hint="leave one of them out",
                    )
            from phala_secrets.run.evidence_file import verify_file

            verify_file(given, runner)
            return
        _inject(mode, given, runner, this, stdin=_read_stdin if command.mode else None)
        if command.mode == "encrypt" and not runner.json:
            sys.stdout.write(str(runner.outputs["encrypted-env"]) + "\n")


def _inject(mode: str, given: Given, runner: Runner, this: _Run, stdin: Callable[[], bytes] | None) -> None:
    from phala_secrets.inputs.job import read_job

    job = read_job(mode, given, os.environ, Path())
    if job.private_key:
        runner.mask([job.private_key.reveal()], "the private key")

    from phala_secrets.cloud.driver import Driver
    from phala_secrets.run.connect import connect
    from phala_secrets.run.context import Run
    from phala_secrets.run.inject import inject

    with connect(job.login, job.api_url, runner, job.timeout, Driver) as client:
        run = this.run = Run(job, client, runner, os.environ, stdin)
        try:
            inject(run)
        except PhalaSecretsError:
            raise
        except BaseException as error:
            if not interrupts.received():
                if isinstance(error, OSError):  # nobody reads what is printed
                    raise
                raise bugs.as_error(error, run.progress) from None
            interrupts.over()
            raise run.interrupted() from None


def _read_stdin() -> bytes:
    from phala_secrets.inputs.files import MAX_FILE_BYTES

    return sys.stdin.buffer.read(MAX_FILE_BYTES + 1)


def _mask_credentials(given: Given, runner: Runner) -> None:
    """Mask what is a credential by itself, before anything can be said about it."""
    from phala_secrets.runners.secrecy import credentials_in

    runner.mask(filter(None, [given.text("api-key").strip()]), "the API key")
    runner.mask(filter(None, [given.text("private-key").strip()]), "the private key")
    for name in ("rpc-url", "api-url"):
        runner.mask(credentials_in(given.text(name)), name)
    for name in ("HTTPS_PROXY", "HTTP_PROXY", "ALL_PROXY"):
        for variable in (name, name.lower()):
            runner.mask(credentials_in(os.environ.get(variable, "")), variable)


def _runner(given: Given) -> Runner:
    debug = os.environ.get("RUNNER_DEBUG") == "1"
    options: Mapping[str, Any] = {
        "output_file": given.text("output-file") or None,
        "output_format": given.choice("output-format"),
        "summary_file": given.text("summary-file") or None,
        "no_mask": _no_mask(given),
        "json_output": given.flag("json"),
        "quiet": given.flag("quiet"),
        "verbose": given.flag("verbose") or debug,
    }
    return _detected(**options)


def _detected(**options: Any) -> Runner:
    return detect(os.environ, output_names=OUTPUTS, in_flags=_in_flags, **options)


def _in_flags(hint: str) -> str:
    from phala_secrets.inputs.words import in_flags

    return in_flags(hint)


def _no_mask(given: Given) -> Sequence[str]:
    globs = given.lines("no-mask")
    for glob in globs:
        if not glob.strip("*?"):
            raise InputError("no-mask names every variable", hint="name only settings, not secrets")
    return globs


def _failed(this: _Run, error: PhalaSecretsError) -> int:
    interrupts.over()
    runner = this.runner
    if runner is None:
        runner = _detected()
        _mask_credentials(credentials(os.environ), runner)
    status = "failed"
    if isinstance(error, CancelledError):
        status = "interrupted" if interrupts.received() else runner.last_status()
    outputs: dict[str, Value] = {
        "status": status,
        "error": runner.message_of(error),
        "hint": runner.spoken(error.marked_hint),
        "exit-code": error.exit_code,
        "version": __version__,
    }
    with suppress(InputError):  # the outputs cannot be written, which may be the very error
        for name, value in outputs.items():
            runner.output(name, value)
    runner.fail(error, None if this.run and this.run.explained else _report(this, error))
    if this.run and this.run.targets:
        what = this.run.headline(this.what)
        runner.say(f"{what}: {status} (exit code {error.exit_code}) after {runner.took}")
    runner.finish()
    return error.exit_code


def _report(this: _Run, error: PhalaSecretsError) -> Report:
    from phala_secrets.run import guide
    from phala_secrets.run.failure import failed, headline

    if this.run:
        return failed(this.run, this.what, error)
    return Report(headline(this.what, error), good=False, page=guide.page(error))


def _asked(given: Given) -> str:
    """Return the CVM or app as the user named it, or how many of them."""
    named = given.lines("cvm") or given.lines("app")
    return f"{len(named)} CVMs" if len(named) > 1 else "".join(named)


def _unwritten(error: OSError) -> CancelledError:
    return CancelledError(
        f"cannot write to standard output: {error.strerror or type(error).__name__}",
        hint="check that the disk is not full; what was sent stays sent",
    )


def _open_streams() -> None:
    """Open closed streams to nowhere, and escape what standard output cannot encode."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(os.open(os.devnull, os.O_RDWR), mode, encoding="utf-8"))
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")


def _drop_core_dumps() -> None:
    """Disable core dumps: memory holds the secrets.

    Linux takes a limit of 1 for "neither a file nor a pipe to a handler", and 0 for "no file" (core(5),
    ``fs/coredump.c``). Where no limit above 0 may be set, the process says itself that it has no image.
    """
    import resource

    try:
        resource.setrlimit(resource.RLIMIT_CORE, (1, 1))
    except ValueError:
        import ctypes

        with suppress(OSError, AttributeError):  # not Linux
            ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)


def _drop_image_variables() -> None:
    """Forget the variables of the image's base, such as GPG_KEY: they are not the user's.

    One that the user set to something else stays.
    """
    with suppress(OSError), (Path(sys.prefix) / _IMAGE_VARIABLES).open(encoding="utf-8") as file:
        for line in file:
            name, _, value = line.rstrip("\n").partition("=")
            if os.environ.get(name) == value:
                del os.environ[name]
