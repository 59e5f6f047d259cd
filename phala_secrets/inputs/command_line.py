"""The command line: modes, flags, and the help that a person reads."""

from __future__ import annotations

import argparse
import re
from itertools import groupby
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn

from phala_secrets import __version__
from phala_secrets.errors import InputError
from phala_secrets.inputs.modes import (
    COMMAND,
    EXIT_CODES,
    LOOKUPS,
    SHELLS,
    VARIABLES,
    Word,
    examples,
    lookups,
    overview,
)
from phala_secrets.inputs.table import INPUTS, MODES, Input, plain

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from phala_secrets.simulator.stage import Stage


_WORD = re.compile(r"[a-z]+(?:-[a-z]+)*")
_LONGEST_WORD = 24


class Command(NamedTuple):
    """What the command line says: the mode (empty: the input ``mode``), inputs by name, and other options."""

    mode: str
    flags: Mapping[str, str] = MappingProxyType({})
    options: Mapping[str, str] = MappingProxyType({})
    stage: Stage | None = None
    """What ``simulate`` has on its stage."""


class _Parser(argparse.ArgumentParser):
    more: Callable[[], str] = str
    """What the help ends with. It is only written for somebody who reads it."""

    def format_help(self) -> str:
        """Return the help, as wide as the terminal."""
        self.formatter_class = argparse.RawDescriptionHelpFormatter
        self.epilog = f"{self.epilog}\n{self.more()}".strip("\n")
        return super().format_help()

    def read(self, arguments: Sequence[str]) -> dict[str, object]:
        """Return the values by name. Do not show what follows an unknown flag: it may be a secret."""
        values, unknown = self.parse_known_args(arguments)
        flags = [word.partition("=")[0][:40] for word in unknown if word.startswith("-")]
        if flags:
            raise self._unknown(flags[0])
        if unknown:
            hint = (
                "name the CVM with --cvm"
                if "--cvm" in self._option_string_actions
                else f"see {self.prog} --help"
            )
            raise InputError(f"unexpected argument {_quoted(unknown[0])}", hint=hint)
        return vars(values)

    def error(self, message: str) -> NoReturn:
        raise InputError(message, hint=f"see {self.prog} --help")

    def _unknown(self, flag: str) -> InputError:
        """Return the error for a flag that holds a secret, belongs to another mode, or does not exist."""
        from phala_secrets.inputs.words import meant

        entry = INPUTS.get(flag.removeprefix("--"))
        if entry and not entry.flag and entry.name != "mode":
            file = {"env": "env-file"}.get(entry.name, f"{entry.name}-file")
            ways = [
                f"set {entry.fallback or entry.variable}",
                f"pass --{file} FILE" if file in INPUTS else "",
            ]
            return InputError(
                f"{flag} is not a flag, because others can read a command line",
                hint=", or ".join(filter(None, ways)),
            )
        if entry and entry.flag:
            return InputError(
                f"{flag} is not a flag of {self.prog}", hint=f"use it with {', '.join(entry.words)}"
            )
        known = [known.removeprefix("--") for known in self._option_string_actions]
        hint = meant(flag, known, f"see {self.prog} --help", prefix="--")
        return InputError(f"unknown flag {flag!a}", hint=hint)


class _HelpPrinted(Exception):  # noqa: N818 (no error: the help or version was asked for)
    def __init__(self, text: str) -> None:
        self.text = text


class _Help(argparse.Action):
    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> NoReturn:
        raise _HelpPrinted(parser.format_help())


class _Switch(argparse.Action):
    """A choice whose flag may stand alone, for ``true``, and whose opposite is ``false``."""

    def __init__(self, option_strings: Sequence[str], dest: str, **options: Any) -> None:
        (flag,) = option_strings
        opposite = f"--no-{flag.removeprefix('--')}"
        super().__init__([flag, opposite], dest, nargs="?", const="true", **options)

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: object,
        option_string: str | None = None,
    ) -> None:
        opposite = (option_string or "").startswith("--no-")
        if opposite and values != self.const:
            parser.error(f"argument {option_string}: ignored explicit argument")
        setattr(namespace, self.dest, "false" if opposite else values)


def parse(arguments: Sequence[str]) -> Command | str:
    """Return the command, or the text of ``--help`` or ``--version``.

    Raises:
        InputError: A word or flag is unknown or invalid.
    """
    if not arguments:
        return Command("")
    mode, *rest = arguments
    if mode in ("--version", "-V"):
        return f"phala-secrets {__version__}\n"
    if mode in ("--help", "-h", "help"):
        return overview()
    if mode not in COMMAND:
        from phala_secrets.inputs.words import meant

        raise InputError(
            f"unknown mode {_quoted(mode)}",
            hint=meant(mode, COMMAND, f"use one of {', '.join(COMMAND)}; see phala-secrets --help"),
        )
    try:
        return _parse_mode(mode, rest)
    except _HelpPrinted as help_:
        return help_.text


def _quoted(word: str) -> str:
    """Return a word that is none of ours as a message may show it: it may be a value in the wrong place."""
    plain_word = len(word) <= _LONGEST_WORD and _WORD.fullmatch(word)
    return ascii(word) if plain_word else "(not shown, since it may be a secret)"


def _parse_mode(mode: str, rest: Sequence[str]) -> Command:
    if mode == "simulate":
        return _parse_simulate(rest)
    if mode == "kms":
        return _parse_lookup(rest)
    if mode == "completion":
        return _parse_completion(rest)
    parser = _parser(f"phala-secrets {mode}", COMMAND[mode], lambda: _epilog(mode))
    _add_flags(parser, mode)
    return Command(mode, _flags(parser.read(rest)))


def _epilog(mode: str) -> str:
    """Return what a person needs to know besides the flags."""
    import shutil
    import textwrap

    without = [entry for entry in _inputs_of(mode) if not entry.flag and entry.name != "mode"]
    width = shutil.get_terminal_size().columns - 2  # as argparse has it
    variables = "".join(
        textwrap.fill(
            plain(entry.meaning),
            width,
            initial_indent=f"  {entry.fallback or entry.variable:<28}",
            subsequent_indent=" " * 30,
        )
        + "\n"
        for entry in without
    )
    return (
        f"without a flag, because others can read a command line:\n{variables}\n{VARIABLES}\n\n{EXIT_CODES}"
    )


def _parse_lookup(rest: Sequence[str]) -> Command:
    if not rest or rest[0] not in LOOKUPS:
        if not rest or rest[0] in ("--help", "-h"):
            raise _HelpPrinted(lookups())
        from phala_secrets.inputs.words import meant

        raise InputError(
            f"unknown lookup {_quoted(rest[0])}",
            hint=meant(rest[0], LOOKUPS, f"use one of {', '.join(LOOKUPS)}"),
        )
    lookup = rest[0]
    names, what = LOOKUPS[lookup]
    word = Word(what, " ".join((*names, "[flags]")), ())
    parser = _parser(f"phala-secrets kms {lookup}", word, lambda: _epilog("kms"))
    for name in names:
        optional = name.startswith("[")
        parser.add_argument(
            name.strip("[]").lower(), metavar=name.strip("[]"), nargs="?" if optional else None
        )
    _add_flags(parser, "kms")
    values = parser.read(rest[1:])
    own = {name.strip("[]").lower() for name in names}
    options = {name: str(values.pop(name)) for name in own if values.get(name) is not None}
    return Command(
        "kms", _flags({k: v for k, v in values.items() if k not in own}), {"lookup": lookup, **options}
    )


def _parse_completion(rest: Sequence[str]) -> Command:
    parser = _parser("phala-secrets completion", COMMAND["completion"])
    parser.add_argument("shell", choices=SHELLS, metavar="SHELL", help=", ".join(SHELLS))
    return Command("completion", {}, {"shell": str(parser.read(rest)["shell"])})


def _parse_simulate(rest: Sequence[str]) -> Command:
    from phala_secrets.inputs.simulate_flags import add_flags, stage_of

    parser = _parser("phala-secrets simulate", COMMAND["simulate"])
    add_flags(parser)
    return Command("simulate", stage=stage_of(parser.read(rest)))


def _parser(prog: str, word: Word, more: Callable[[], str] = str) -> _Parser:
    parser = _Parser(
        prog=prog,
        usage=f"{prog} {word.usage}",
        description=f"{word.what[0].upper()}{word.what[1:]}.",
        epilog=examples(word.examples) if word.examples else "",
        add_help=False,
        allow_abbrev=False,
        formatter_class=_formatter,
    )
    parser.more = more
    parser.add_argument("-h", "--help", action=_Help, nargs=0, help="show this help")
    return parser


def _formatter(prog: str) -> argparse.HelpFormatter:
    """Return what argparse tries each flag with. Without a width it would load ``shutil`` for that."""
    return argparse.HelpFormatter(prog, width=80)


def _inputs_of(mode: str) -> Iterator[Input]:
    return (entry for entry in INPUTS.values() if mode in entry.words)


def _add_flags(parser: argparse.ArgumentParser, mode: str) -> None:
    flags = (entry for entry in _inputs_of(mode) if entry.flag)
    for heading, entries in groupby(flags, lambda entry: _section(mode, entry)):
        section = parser.add_argument_group(heading)
        for entry in entries:
            flag = f"--{entry.name}"
            if entry.kind == "bool":
                section.add_argument(flag, action=argparse.BooleanOptionalAction, help=_help(entry))
            elif entry.kind == "switch":
                section.add_argument(flag, action=_Switch, metavar=_shown_choices(entry), help=_help(entry))
            elif entry.kind in ("lines", "names"):
                section.add_argument(flag, action="append", metavar=entry.metavar, help=_help(entry))
            else:
                choices = _shown_choices(entry) if entry.choices else entry.metavar
                section.add_argument(flag, metavar=choices, help=_help(entry))


def _shown_choices(entry: Input) -> str:
    return "{" + ",".join(entry.choices) + "}"


def _section(mode: str, entry: Input) -> str:
    """Return the heading of a flag in the help; a lookup has few flags, under one."""
    return entry.heading[0].lower() + entry.heading[1:] if mode in MODES else "flags"


def _help(entry: Input) -> str:
    text = entry.meaning + ("; repeatable" if entry.kind in ("lines", "names") else "")
    default = f" ({entry.shown_default})" if entry.shown_default else ""
    return plain(text + default).replace("%", "%%")


def _flags(values: Mapping[str, object]) -> dict[str, str]:
    """Return the flags as the text that an environment variable would have."""
    flags = {}
    for key, value in values.items():
        name = key.replace("_", "-")
        if name == "help" or value is None:
            continue
        if isinstance(value, bool):
            flags[name] = str(value).lower()
        else:
            flags[name] = "\n".join(map(str, value)) if isinstance(value, list) else str(value)
    return flags
