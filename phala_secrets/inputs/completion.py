"""Completion scripts for bash, zsh and fish: words, flags, and the choices of a flag."""

from __future__ import annotations

from typing import TYPE_CHECKING

from phala_secrets.inputs.modes import COMMAND, LOOKUPS, SHELLS
from phala_secrets.inputs.simulate_flags import FLAGS
from phala_secrets.inputs.table import INPUTS, Input, plain

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

_OWN = {"simulate": FLAGS}
"""Flags of a word that are no inputs."""

_AFTER = {"kms": tuple(LOOKUPS), "completion": SHELLS}
"""The words that come after a word."""


def script(shell: str) -> str:
    """Return the completion script of a shell."""
    return {"bash": _bash, "zsh": _zsh, "fish": _fish}[shell]()


def _flags(word: str) -> Iterator[tuple[str, str, Input | None]]:
    """Yield each flag of a word, what it is for, and its row."""
    inputs = (entry for entry in INPUTS.values() if entry.flag and word in entry.words)
    for entry in (*inputs, *_OWN.get(word, ())):
        yield f"--{entry.name}", entry.help, entry
        if entry.kind in ("bool", "switch"):
            yield f"--no-{entry.name}", f"the opposite of --{entry.name}", None
    yield "--help", "show the help", None


def _takes_file(entry: Input | None) -> bool:
    return entry is not None and "FILE" in entry.metavar


def _brief(text: str) -> str:
    """Return the beginning of a help text, with nothing in it that a shell reads."""
    first = plain(text).partition(";")[0].partition(": ")[0].partition(" (")[0]
    shown = first.replace("'", "\N{RIGHT SINGLE QUOTATION MARK}")
    return "".join(one for one in shown if one.isalnum() or one in " ,.-_/\N{RIGHT SINGLE QUOTATION MARK}")


def _bash() -> str:
    files = "|".join(f"--{entry.name}" for entry in INPUTS.values() if entry.flag and _takes_file(entry))
    rows = (row for row in (*INPUTS.values(), *FLAGS) if row.choices and row.kind != "switch")
    choices = {f"--{row.name}": row.choices for row in rows if row.flag}
    words = {word: (*_AFTER.get(word, ()), *(flag for flag, _, _ in _flags(word))) for word in COMMAND}
    return f"""\
# bash completion of phala-secrets
_phala_secrets() {{
    local current=${{COMP_WORDS[COMP_CWORD]}} before=${{COMP_WORDS[COMP_CWORD-1]}} words=''
    COMPREPLY=()
    case $before in
        {files}) COMPREPLY=($(compgen -f -- "$current")); return ;;
{_cases(choices)}
        *) if [ "$COMP_CWORD" -eq 1 ]; then words='{" ".join(COMMAND)} --help --version'
        else case ${{COMP_WORDS[1]}} in
{_cases(words)}
        esac; fi ;;
    esac
    COMPREPLY=($(compgen -W "$words" -- "$current"))
}}
complete -o filenames -F _phala_secrets phala-secrets
"""


def _cases(words: Mapping[str, Sequence[str]]) -> str:
    return "\n".join(f"        {name}) words='{' '.join(some)}' ;;" for name, some in words.items())


def _zsh() -> str:
    modes = "\n".join(f"        '{word}:{_brief(about.what)}'" for word, about in COMMAND.items())
    cases = "\n".join(f"        {word}) _arguments {_zsh_flags(word)} ;;" for word in COMMAND)
    return f"""\
#compdef phala-secrets
_phala_secrets() {{
    local -a modes=(
{modes}
    )
    if (( CURRENT == 2 )); then
        _describe mode modes
        return
    fi
    local mode=$words[2]
    shift words
    (( CURRENT-- ))
    case $mode in
{cases}
    esac
}}
_phala_secrets "$@"
"""


def _zsh_flags(word: str) -> str:
    after = [f"'1:word:({' '.join(_AFTER[word])})'"] if word in _AFTER else []
    return " ".join([*after, *(_zsh_flag(*one) for one in _flags(word))])


def _zsh_flag(flag: str, what: str, entry: Input | None) -> str:
    value = ""
    if entry and entry.kind not in ("bool", "switch"):
        kind = "_files" if _takes_file(entry) else f"({' '.join(entry.choices)})" if entry.choices else " "
        value = f":{(entry.metavar or entry.name).lower()}:{kind}"
    repeats = "*" if entry and entry.kind in ("lines", "names") else ""
    return f"'{repeats}{flag}[{_brief(what)}]{value}'"


def _fish() -> str:
    lines = ["# fish completion of phala-secrets", "complete -c phala-secrets -f"]
    for word, about in COMMAND.items():
        lines.append(
            f"complete -c phala-secrets -n __fish_use_subcommand -a {word} -d '{_brief(about.what)}'"
        )
        seen = f"complete -c phala-secrets -n '__fish_seen_subcommand_from {word}'"
        lines += [f"{seen} -a {after}" for after in _AFTER.get(word, ())]
        lines += [f"{seen} {_fish_flag(*one)}" for one in _flags(word)]
    return "\n".join(lines) + "\n"


def _fish_flag(flag: str, what: str, entry: Input | None) -> str:
    value = ""
    if entry and entry.kind not in ("bool", "switch"):
        choices = f" -a '{' '.join(entry.choices)}'" if entry.choices else ""
        value = " -r -F" if _takes_file(entry) else f" -x{choices}"
    return f"-l {flag.removeprefix('--')}{value} -d '{_brief(what)}'"
