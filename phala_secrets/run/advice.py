"""Advice to pin what only the API vouches for, as one block to paste."""

from __future__ import annotations

from typing import TYPE_CHECKING

from phala_secrets.cloud import known

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from phala_secrets.run.context import Run

_APPS = 10
"""App ids in a block. With more, ``app`` or a matrix is the better way."""


def advice(run: Run) -> list[tuple[str, str]]:
    """Return a sentence, and the inputs to add: flags on a terminal, YAML on GitHub.

    Return nothing where all is pinned.
    """
    apps, roots = _apps(run), _roots(run)
    words = ["app"] if apps else []
    if roots:
        words.append("KMS root" if "trusted-signers" in roots else "kind of KMS (Cloud KMS)")
    if not words:
        return []
    if len(words) == 1:
        said = f"Only the API vouches for the {words[0]}. Check it as docs/trust.md says, then pin it:"
    else:
        what = f"the app and the {words[1]}"
        said = f"Only the API vouches for {what}. Check them as docs/trust.md says, then pin them:"
    block = _flags if run.runner.speaks_flags else _yaml
    return [(said, block({**apps, **roots}))]


def _apps(run: Run) -> dict[str, Sequence[str]]:
    """Return the apps of all CVMs, since one that is not named would be refused."""
    if not any(target.named for target in run.targets):
        return {}
    app_ids = list(run.keys)
    return {"app-id": app_ids} if len(app_ids) <= _APPS else {}


def _roots(run: Run) -> dict[str, Sequence[str]]:
    """Return what refuses every root but those of today."""
    keys = run.keys.values()
    levels = {key.trust for key in keys}
    if "api" in levels:
        signers = {known.NAME if key.trust == "known" else f"0x{key.signer}" for key in keys}
        return {"trusted-signers": sorted(signers)}
    if levels == {"known"} and run.job.policy.require in (None, "api"):
        return {"require-trust": ["known"]}
    return {}


def _flags(inputs: Mapping[str, Sequence[str]]) -> str:
    """Return lines that go on in the next one, as a shell takes them."""
    return " \\\n".join(f"--{name} {value}" for name, values in inputs.items() for value in values)


def _yaml(inputs: Mapping[str, Sequence[str]]) -> str:
    lines = []
    for name, values in inputs.items():
        if len(values) == 1:
            lines.append(f"{name}: {_quoted(values[0])}")
        else:
            lines += [f"{name}: |", *(f"  {value}" for value in values)]
    return "\n".join(lines)


def _quoted(value: str) -> str:
    """Return a scalar that is text to YAML, which takes ``0x…``, and an app id of digits, for a number."""
    return f'"{value}"' if value.startswith("0x") or value.replace("e", "").isdigit() else value
