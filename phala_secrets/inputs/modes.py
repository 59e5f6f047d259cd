"""The first words of the command, with their help."""

from __future__ import annotations

from typing import NamedTuple

_ON_SOURCE = "(--cvm CVM | --app APP_ID) --env-file FILE [flags]"
_ON_CVM = "(--cvm CVM | --app APP_ID) [flags]"


class Word(NamedTuple):
    """What a word does, what follows it, and examples without the command's name."""

    what: str
    usage: str
    examples: tuple[str, ...]


COMMAND = {
    "update": Word(
        "put secrets into a CVM and wait until it runs with them",
        _ON_SOURCE,
        (
            "update --cvm my-app --env-file .env",
            "update --app APP_ID --secrets DB_URL,TOKEN --max-parallel 2",
            "update --cvm my-app --env-file .env --compose-file compose.yml",
        ),
    ),
    "plan": Word(
        "show what an update would change, or why it would be refused",
        _ON_SOURCE,
        ("plan --cvm my-app --env-file .env", "plan --cvm my-app --env-file .env --json"),
    ),
    "encrypt": Word(
        "prove the app's key and print the ciphertext; send nothing",
        "--cvm CVM --env-file FILE [flags] > CIPHERTEXT",
        ("encrypt --cvm my-app --env-file .env > sealed.hex",),
    ),
    "verify": Word(
        "prove the app's key; send nothing",
        "--cvm CVM [flags]",
        (
            "verify --cvm my-app",
            "verify --cvm my-app --require-trust known",
            "verify --evidence-file evidence.json --at 2026-09-24T12:00:00Z",
        ),
    ),
    "status": Word(
        "show what a CVM has today, and how each fact is known",
        _ON_CVM,
        ("status --cvm my-app", "status --app APP_ID --json"),
    ),
    "wait": Word(
        "follow the operation in progress to its end",
        _ON_CVM,
        ("wait --cvm my-app", "wait --cvm my-app --wait-timeout 30m --wait-for containers"),
    ),
    "list": Word(
        "list the CVMs of the workspace or of an app",
        "[--app APP_ID] [flags]",
        ("list", "list --app APP_ID --json"),
    ),
    "kms": Word("look up KMSes and their keys", "LOOKUP [flags]", ("kms list", "kms info phala")),
    "simulate": Word(
        "run a simulated Phala Cloud on this machine",
        "[flags]",
        ("simulate", "simulate --port 0 --cvm shop"),
    ),
    "completion": Word(
        "print a completion script for a shell",
        "(bash | zsh | fish)",
        (
            "completion bash > ~/.local/share/bash-completion/completions/phala-secrets",
            'completion zsh > "${fpath[1]}/_phala-secrets"',
            "completion fish > ~/.config/fish/completions/phala-secrets.fish",
        ),
    ),
}

LOOKUPS: dict[str, tuple[tuple[str, ...], str]] = {
    "list": ((), "list every KMS contract, with its root"),
    "nodes": (("[CONTRACT]",), "list the KMS nodes of one contract or of all"),
    "info": (("KMS",), "show one KMS node, by its slug or id"),
    "on-chain": (("CHAIN",), "show a chain's KMS contracts, devices and OS images"),
    "pubkey": (("KMS", "APP_ID"), "show an unverified app key; see phala-secrets verify"),
    "next-app-ids": (("[COUNT]",), "reserve 1 to 20 app ids"),
}
"""Each word after ``kms``: its arguments, and what it shows."""

SHELLS = ("bash", "zsh", "fish")

EXIT_CODES = """\
exit codes:
  0    done
  1    an internal error
  2    an input is invalid; nothing was sent
  3    the key is not proven; nothing was sent
  4    a value would not arrive as written, or a variable would be dropped;
       nothing was sent
  5    Phala Cloud refused
  6    Phala Cloud or the RPC could not be reached
  7    an on-chain approval is needed
  8    the update was accepted, but the CVM did not come up
  9    the CVM runs with the update, but is not attested
  130  interrupted
"""

VARIABLES = "Every flag has a variable too: --env-file is PHALA_SECRETS_ENV_FILE."


def overview() -> str:
    """Return the help of the command."""
    modes = "\n".join(f"  {name:<12}{word.what}" for name, word in COMMAND.items())
    return (
        "usage: phala-secrets MODE [flags]\n\n"
        "Put secrets into confidential VMs on Phala Cloud: prove the key, check what the\n"
        "guest will get, encrypt, update, wait.\n\n"
        f"modes:\n{modes}\n\n"
        f"{examples(['list', *COMMAND['plan'].examples[:1], *COMMAND['update'].examples[:1]])}\n"
        f"{VARIABLES}\nphala-secrets MODE --help shows the flags of a mode.\n\n{EXIT_CODES}"
    )


def lookups() -> str:
    """Return the help of ``kms``."""
    lines = "\n".join(
        f"  {f'{name} {chr(32).join(args)}':<24}{what}" for name, (args, what) in LOOKUPS.items()
    )
    word = COMMAND["kms"]
    return (
        f"usage: phala-secrets kms {word.usage}\n\nlookups:\n{lines}\n\n"
        f"{examples(word.examples)}\n--json prints the response.\n"
    )


def examples(lines: tuple[str, ...] | list[str]) -> str:
    """Return examples as the help shows them."""
    return "examples:\n" + "".join(f"  phala-secrets {line}\n" for line in lines)
