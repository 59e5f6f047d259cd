"""The first words of the command, and what its help says of each."""

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
        "put secrets into a CVM, and wait until it runs with them",
        _ON_SOURCE,
        (
            "update --cvm my-app --env-file .env",
            "update --app APP_ID --secrets DB_URL,TOKEN --max-parallel 2",
            "update --cvm my-app --env-file .env --compose-file compose.yml",
        ),
    ),
    "plan": Word(
        "what an update would change, and what it would be refused for",
        _ON_SOURCE,
        ("plan --cvm my-app --env-file .env", "plan --cvm my-app --env-file .env --json"),
    ),
    "encrypt": Word(
        "prove the app's key and print the ciphertext; nothing is sent",
        "--cvm CVM --env-file FILE [flags] > CIPHERTEXT",
        ("encrypt --cvm my-app --env-file .env > sealed.hex",),
    ),
    "verify": Word(
        "prove the app's key alone",
        "--cvm CVM [flags]",
        (
            "verify --cvm my-app",
            "verify --cvm my-app --require-trust known",
            "verify --evidence-file evidence.json --at 2026-09-24T12:00:00Z",
        ),
    ),
    "status": Word(
        "what a CVM has today, and how each fact is known; nothing changes",
        _ON_CVM,
        ("status --cvm my-app", "status --app APP_ID --json"),
    ),
    "wait": Word(
        "follow the operation that runs now to its end",
        _ON_CVM,
        ("wait --cvm my-app", "wait --cvm my-app --wait-timeout 30m --wait-for containers"),
    ),
    "list": Word(
        "the CVMs of the workspace, or of an app",
        "[--app APP_ID] [flags]",
        ("list", "list --app APP_ID --json"),
    ),
    "kms": Word("the KMSes, and keys they give out", "LOOKUP [flags]", ("kms list", "kms info phala")),
    "simulate": Word(
        "a Phala Cloud on this machine, to try things out",
        "[flags]",
        ("simulate", "simulate --port 0 --cvm shop"),
    ),
    "completion": Word(
        "print what completes the command in a shell",
        "(bash | zsh | fish)",
        (
            "completion bash > ~/.local/share/bash-completion/completions/phala-secrets",
            'completion zsh > "${fpath[1]}/_phala-secrets"',
            "completion fish > ~/.config/fish/completions/phala-secrets.fish",
        ),
    ),
}

LOOKUPS: dict[str, tuple[tuple[str, ...], str]] = {
    "list": ((), "every KMS contract, with its root"),
    "nodes": (("[CONTRACT]",), "the KMS nodes, of one contract or of all"),
    "info": (("KMS",), "one KMS node, by its slug or id"),
    "on-chain": (("CHAIN",), "the KMS contracts, devices and OS images of a chain"),
    "pubkey": (("KMS", "APP_ID"), "an app's key; not verified (see phala-secrets verify)"),
    "next-app-ids": (("[COUNT]",), "reserves app ids, 1 to 20"),
}
"""Each word after ``kms``: its arguments, and what it shows."""

SHELLS = ("bash", "zsh", "fish")

EXIT_CODES = """\
exit codes:
  0    done
  1    an internal error
  2    an input is wrong; nothing was sent
  3    the key is not proven; nothing was sent
  4    the guest would not get what was given; nothing was sent
  5    Phala Cloud refused
  6    Phala Cloud or the RPC could not be reached
  7    an approval on chain is needed
  8    the update was accepted, but the CVM did not come up
  9    the CVM runs with the update, but it is not attested
  130  interrupted
"""

VARIABLES = "Every flag can be a variable, too: --env-file is PHALA_SECRETS_ENV_FILE."


def overview() -> str:
    """Return the help of the command."""
    modes = "\n".join(f"  {name:<12}{word.what}" for name, word in COMMAND.items())
    return (
        "usage: phala-secrets MODE [flags]\n\n"
        "Puts secrets into confidential VMs on Phala Cloud. Proves the key, checks what\n"
        "the guest will get, encrypts, updates, waits.\n\n"
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
