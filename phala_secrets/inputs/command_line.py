"""The command line: modes, flags, and the help that a person reads."""

from __future__ import annotations

import argparse
from itertools import groupby
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn

from phala_secrets import __version__
from phala_secrets.errors import InputError
from phala_secrets.inputs.table import INPUTS, MODES, Input, plain

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from phala_secrets.simulator.stage import Stage

_ACTS_ON_SOURCE = "(--cvm CVM | --app APP_ID) --env-file FILE [flags]"
_WORDS = {
    "update": ("put secrets into a CVM, and wait until it runs with them", _ACTS_ON_SOURCE),
    "plan": ("everything but the update: what would change, and what would be refused", _ACTS_ON_SOURCE),
    "encrypt": (
        "prove the app's key and print the ciphertext; nothing is sent",
        "--cvm CVM --env-file FILE [flags] > CIPHERTEXT",
    ),
    "verify": ("prove the app's key alone", "--cvm CVM [flags]"),
    "list": ("the CVMs of an app", "--app APP_ID [flags]"),
    "kms": ("the KMSes, and keys they give out", "LOOKUP [flags]"),
    "simulate": (
        "a Phala Cloud on this machine, to try things out",
        "[flags]",
    ),
}
"""Each first word of the command: what it does, and what follows it."""
_LOOKUPS = {
    "list": ((), "every KMS contract, with its root"),
    "nodes": (("[CONTRACT]",), "the KMS nodes, of one contract or of all"),
    "info": (("KMS",), "one KMS node, by its slug or id"),
    "on-chain": (("CHAIN",), "the KMS contracts, devices and OS images of a chain"),
    "pubkey": (("KMS", "APP_ID"), "an app's key; not verified (see phala-secrets verify)"),
    "next-app-ids": (("[COUNT]",), "reserves app ids, 1 to 20"),
}
_EXIT_CODES = """\
exit codes:
  0  done                                    5  Phala Cloud refused
  1  an internal error                       6  Phala Cloud or the RPC could not be reached
  2  an input is wrong; nothing was sent     7  an approval on chain is needed
  3  the key is not proven; nothing sent     8  accepted, but the CVM did not come up
  4  the guest would not get what was given  130  interrupted
"""


class Command(NamedTuple):
    """What the command line says: the mode (empty: the input ``mode``), inputs by name, and other options."""

    mode: str
    flags: Mapping[str, str] = MappingProxyType({})
    options: Mapping[str, str] = MappingProxyType({})
    stage: Stage | None = None
    """What ``simulate`` has on its stage."""


class _Parser(argparse.ArgumentParser):
    def read(self, arguments: Sequence[str]) -> dict[str, object]:
        """The values by name; what follows an unknown flag is not shown, for it may be a secret."""
        values, unknown = self.parse_known_args(arguments)
        if unknown:
            flags = [word for word in unknown if word.startswith("-")] or unknown
            self.error(f"unrecognized arguments: {' '.join(word.partition('=')[0][:40] for word in flags)}")
        return vars(values)

    def error(self, message: str) -> NoReturn:
        raise InputError(message, hint=f"see {self.prog} --help")


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
    """The command, or the text of ``--help`` or ``--version``; InputError for what is neither."""
    if not arguments:
        return Command("")
    mode, *rest = arguments
    if mode in ("--version", "-V"):
        return f"phala-secrets {__version__}\n"
    if mode in ("--help", "-h", "help"):
        return _overview()
    if mode not in _WORDS:
        raise InputError(
            f"unknown mode {mode[:60]!a}", hint=f"use one of {', '.join(_WORDS)}; see phala-secrets --help"
        )
    try:
        return _parse_mode(mode, rest)
    except _HelpPrinted as help_:
        return help_.text


def _overview() -> str:
    modes = "\n".join(f"  {name:<10}{what}" for name, (what, _) in _WORDS.items())
    return (
        "usage: phala-secrets MODE [flags]\n\n"
        "Puts secrets into confidential VMs on Phala Cloud: proves the key, checks what the guest\n"
        "will get, encrypts, updates, waits.\n\n"
        f"modes:\n{modes}\n\n"
        "Every flag can be given as an environment variable, too: --env-file as PHALA_SECRETS_ENV_FILE.\n"
        "phala-secrets MODE --help shows the flags of a mode.\n\n" + _EXIT_CODES
    )


def _parse_mode(mode: str, rest: Sequence[str]) -> Command:
    if mode == "simulate":
        return _parse_simulate(rest)
    if mode == "kms":
        return _parse_lookup(rest)
    parser = _parser(f"phala-secrets {mode}", *_WORDS[mode], _epilog(mode))
    _add_flags(parser, mode)
    return Command(mode, _flags(parser.read(rest)))


def _epilog(mode: str) -> str:
    """Return what a person needs to know beside the flags."""
    without = [entry for entry in _inputs_of(mode) if not entry.flag and entry.name != "mode"]
    variables = "".join(
        f"  {entry.fallback or entry.variable:<28}{plain(entry.meaning)}\n" for entry in without
    )
    return (
        f"without a flag, since a command line is public:\n{variables}\n"
        "Every flag can be given as an environment variable, too: --api-url as PHALA_SECRETS_API_URL.\n\n"
        f"{_EXIT_CODES}"
    )


def _parse_lookup(rest: Sequence[str]) -> Command:
    if not rest or rest[0] not in _LOOKUPS:
        lines = "\n".join(
            f"  {f'{name} {chr(32).join(args)}':<24}{what}" for name, (args, what) in _LOOKUPS.items()
        )
        _, usage = _WORDS["kms"]
        text = f"usage: phala-secrets kms {usage}\n\nlookups:\n{lines}\n\n--json prints the response.\n"
        if not rest or rest[0] in ("--help", "-h"):
            raise _HelpPrinted(text)
        raise InputError(f"unknown lookup {rest[0][:60]!a}", hint=f"use one of {', '.join(_LOOKUPS)}")
    lookup = rest[0]
    names, what = _LOOKUPS[lookup]
    parser = _parser(f"phala-secrets kms {lookup}", what, " ".join((*names, "[flags]")), _epilog("kms"))
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


def _parse_simulate(rest: Sequence[str]) -> Command:
    from phala_secrets.inputs.simulate_flags import add_flags, stage_of

    parser = _parser("phala-secrets simulate", *_WORDS["simulate"])
    add_flags(parser)
    return Command("simulate", stage=stage_of(parser.read(rest)))


def _parser(prog: str, what: str, usage: str, epilog: str | None = None) -> _Parser:
    parser = _Parser(
        prog=prog,
        usage=f"{prog} {usage}",
        description=f"{what[0].upper()}{what[1:]}.",
        epilog=epilog,
        add_help=False,
        allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("-h", "--help", action=_Help, nargs=0, help="this text")
    return parser


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
    """What was given, as the text that an environment variable would have."""
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
