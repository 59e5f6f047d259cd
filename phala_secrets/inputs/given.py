"""Every input, once: its name, its meaning, and the three ways in. From them comes the Job.

A flag wins over ``INPUT_…`` (as GitHub passes it, or with ``_`` for ``-``), which wins over
``PHALA_SECRETS_…``. What is set but empty counts as not given.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from phala_secrets.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Mapping

Kind = Literal["text", "raw", "lines", "names", "bool", "choice", "number"]
MODES = ("update", "plan", "encrypt", "verify")


@dataclass(frozen=True, slots=True)
class Input:
    """One input. ``raw`` text is taken as it is; ``names`` are split at commas and lines."""

    name: str
    help: str
    kind: Kind = "text"
    default: str = ""
    choices: tuple[str, ...] = ()
    flag: bool = True
    action: bool = True
    metavar: str = ""


def _text(name: str, metavar: str, help_: str, *, action: bool = True) -> Input:
    return Input(name, help_, metavar=metavar, action=action)


INPUTS: tuple[Input, ...] = (
    Input("mode", "what to do: update, plan (all but the update), encrypt (output the ciphertext) or verify "
          "(prove the key)", "choice", "update", MODES, flag=False),
    Input("api-key", "the Phala Cloud API key (PHALA_CLOUD_API_KEY)", flag=False),
    _text("api-key-file", "FILE", "a file with the API key", action=False),
    _text("api-url", "URL", "the API's URL (PHALA_CLOUD_API_PREFIX, else https://cloud-api.phala.com/api/v1)"),
    Input("cvm", "the CVM: its name, cvm_… id, UUID, app id or instance_… id; several, one a line "
          "(phala.toml in the working folder)", "lines", metavar="CVM"),
    _text("app", "APP_ID", "an app id: every CVM of the app"),
    _text("app-id", "APP_ID", "the app that the CVM has to belong to; any other is refused"),
    Input("env-file", "dotenv files, one a line; the command reads standard input "
          "as - (env_file of phala.toml)", "lines", metavar="FILE"),
    Input("env", "dotenv text", "raw", flag=False),
    Input("secrets", "names taken from this step's environment, at commas and lines; TARGET=SOURCE renames",
          "names", metavar="NAMES"),
    Input("secrets-json", "a JSON object of strings, such as toJSON(secrets); with secrets-include",
          "raw", flag=False),
    Input("secrets-include", "globs: which names of secrets-json are taken", "names", metavar="GLOBS"),
    Input("files", "NAME=path, one a line: the variable is the file's content", "lines", metavar="NAME=PATH"),
    Input("base64", "globs: these variables are sent base64-encoded", "names", metavar="GLOBS"),
    Input("allow-empty", "let a name in secrets be unset or empty", "bool", "false"),
    Input("allow-removal", "let variables that the CVM has today be dropped", "bool", "false"),
    Input("guest-check", "what to do with a value that would not arrive as written: error, warn or off",
          "choice", "error", ("error", "warn", "off")),
    _text("kms", "KMS", "the KMS to ask, by slug or id (the CVM's)"),
    Input("trusted-signers", "the only KMS roots accepted: secp256k1 public keys as hex, one a line",
          "lines", metavar="KEY"),
    Input("require-trust", "what the proof has to rest on at least: api, chain or pinned",
          "choice", "", ("api", "chain", "pinned")),
    _text("kms-contract", "ADDRESS", "the KMS contract that rpc-url is asked about (the well-known one)"),
    _text("rpc-url", "URL", "JSON-RPC of the app's chain (ETH_RPC_URL)"),
    Input("private-key", "the app owner's key, to register a compose hash (PRIVATE_KEY)", flag=False),
    _text("private-key-file", "FILE", "a file with the app owner's key", action=False),
    Input("allow-device", "device ids that may be added to the app, one a line", "lines", metavar="DEVICE"),
    Input("prepare-only", "stop where an approval on chain is needed, with what it takes", "bool", "false"),
    _text("encrypted-env", "HEX", "a ciphertext made before, sent in place of a source"),
    _text("encrypted-env-file", "FILE", "a file with that ciphertext"),
    _text("env-keys", "JSON", "the names in that ciphertext, a JSON list"),
    _text("prepared-digest", "SHA256", "the digest that prepare-only gave out: nothing may differ from it"),
    _text("compose-hash", "HASH", "the compose hash that was approved"),
    _text("transaction-hash", "HASH", "the transaction that approved it"),
    Input("wait", "wait until the CVM runs with the new environment", "bool", "true"),
    Input("wait-timeout", "seconds to wait", "number", "600", metavar="SECONDS"),
    Input("max-parallel", "CVMs updated at once; 1 is a rolling update", "number", "1", metavar="N"),
    Input("fail-fast", "stop at the first CVM that fails", "bool", "true"),
    Input("timeout", "seconds that one request may take", "number", "30", metavar="SECONDS"),
    _text("output-file", "FILE", "write the outputs there, as dotenv", action=False),
    Input("json", "print the outputs as one JSON object on standard output", "bool", "false", action=False),
    Input("quiet", "print errors and warnings only", "bool", "false", action=False),
    Input("verbose", "print each request, its status and time (RUNNER_DEBUG=1)", "bool", "false",
          action=False),
)  # fmt: skip
BY_NAME = {entry.name: entry for entry in INPUTS}

_FALLBACKS = {
    "api-key": "PHALA_CLOUD_API_KEY",
    "api-url": "PHALA_CLOUD_API_PREFIX",
    "rpc-url": "ETH_RPC_URL",
    "private-key": "PRIVATE_KEY",
}
_OURS = "PHALA_SECRETS_"


@dataclass(frozen=True, slots=True)
class Given:
    """The inputs as text, by name, and the names that came as inputs rather than from a fallback."""

    values: Mapping[str, str]
    explicit: frozenset[str]

    def __repr__(self) -> str:
        return f"Given({', '.join(sorted(self.values))})"

    def text(self, name: str) -> str:
        """An input's text, or its default; stripped, unless it is raw."""
        value = self.values.get(name, "")
        return (value if BY_NAME[name].kind == "raw" else value.strip()) or BY_NAME[name].default

    def lines(self, name: str) -> tuple[str, ...]:
        """The lines of an input, or for ``names`` what stands between commas too; empty ones dropped."""
        text = self.text(name)
        if BY_NAME[name].kind == "names":
            text = text.replace(",", "\n")
        return tuple(line.strip() for line in text.splitlines() if line.strip())

    def choice(self, name: str) -> str:
        """One of the choices; InputError otherwise."""
        value, choices = self.text(name), BY_NAME[name].choices
        if value and value not in choices:
            raise InputError(
                f"{name}: {value[:60]!a} is none of its values", hint=f"use {', '.join(choices)}"
            )
        return value

    def flag(self, name: str) -> bool:
        """Whether ``true`` or ``false`` was given, as YAML spells them; InputError otherwise."""
        value = self.text(name)
        if value.lower() not in ("true", "false"):
            raise InputError(f"{name}: {value[:60]!a} is neither true nor false", hint="use true or false")
        return value.lower() == "true"

    def number(self, name: str, low: int, high: int) -> int:
        """A whole number in its range; InputError otherwise."""
        value = self.text(name)
        if not (value.isascii() and value.isdigit() and low <= int(value[:9]) <= high):
            raise InputError(
                f"{name}: {value[:60]!a} is not a whole number from {low} to {high}", hint=f"change {name}"
            )
        return int(value)


def read(flags: Mapping[str, str], environ: Mapping[str, str]) -> Given:
    """All inputs that are given, each from the first way in that has it.

    Raises InputError for a ``PHALA_SECRETS_…`` variable that names no input.
    """
    _refuse_unknown(environ)
    values: dict[str, str] = {}
    explicit: set[str] = set()
    for name in BY_NAME:
        upper = name.upper()
        shell = upper.replace("-", "_")
        ways = (
            flags.get(name),
            environ.get(f"INPUT_{upper}"),
            environ.get(f"INPUT_{shell}"),
            environ.get(f"{_OURS}{shell}"),
        )
        if value := next((way for way in ways if way and way.strip()), None):
            values[name] = value
            explicit.add(name)
        elif (fallback := environ.get(_FALLBACKS.get(name, ""), "")).strip():
            values[name] = fallback
    return Given(values, frozenset(explicit))


def _refuse_unknown(environ: Mapping[str, str]) -> None:
    known = [name.upper().replace("-", "_") for name in BY_NAME]
    for variable in environ:
        if variable.startswith(_OURS) and (name := variable.removeprefix(_OURS)) not in known:
            import difflib

            close = difflib.get_close_matches(name, known, n=1)
            raise InputError(
                f"{variable[:80]!a} names no input",
                hint=f"did you mean {_OURS}{close[0]}?"
                if close
                else "see phala-secrets update --help for the inputs",
            )
