"""What a row of the table of inputs and outputs is."""

from __future__ import annotations

from typing import Literal, NamedTuple

Kind = Literal["text", "raw", "lines", "names", "bool", "choice", "switch", "number", "duration"]
"""``raw`` text keeps the white space around it; ``names`` are split at commas as well as at lines.

A ``switch`` is a choice whose flag may stand alone, for ``true``. A ``duration`` is in seconds, or
has its unit.
"""

MODES = ("update", "plan", "encrypt", "verify", "status", "wait")
PROVING = MODES[:-1]
"""The modes that prove a key."""

WORDS = (*MODES, "list", "kms")
"""The words of the command that take inputs as flags."""

PREFIX = "PHALA_SECRETS_"


class Input(NamedTuple):
    """One input.

    ``otherwise`` says in words where the value comes from if the input is left out, ``fallback`` is
    the variable that it comes from. ``heading`` and ``words`` are those of its group, unless a row has
    its own words. An input without ``action`` exists for the command alone. One that ``protects`` may
    be left out, but must not be empty: an expression that comes to nothing would disable it.
    """

    name: str
    help: str
    kind: Kind = "text"
    metavar: str = ""
    default: str = ""
    otherwise: str = ""
    fallback: str = ""
    choices: tuple[str, ...] = ()
    low: int = 0
    high: int = 0
    flag: bool = True
    action: bool = True
    protects: bool = False
    heading: str = ""
    words: tuple[str, ...] = ()

    @property
    def variable(self) -> str:
        """The variable that gives this input in any CI."""
        return PREFIX + self.name.upper().replace("-", "_")

    @property
    def meaning(self) -> str:
        """The help, with the range of a number."""
        return f"{self.help}; {self.low} to {self.high}" if self.high else self.help

    @property
    def shown_default(self) -> str:
        """What counts if the input is left out, or nothing."""
        code = self.default or self.fallback
        return self.otherwise or (f"`{code}`" if code else "")


class Output(NamedTuple):
    """One output."""

    name: str
    help: str
    heading: str = ""


def plain(text: str) -> str:
    """Return a text of the table without its marks."""
    return text.replace("`", "")
