"""Every output, once: the part of ``table`` that has them."""

from __future__ import annotations

from phala_secrets.inputs.row import Output


def _outputs(heading: str, *rows: Output) -> tuple[Output, ...]:
    return tuple(row._replace(heading=heading) for row in rows)


PREPARED = "Prepared for later"
RESULT = ("cvm-id", "name", "status", "correlation-id", "exit-code", "error")
"""What a row of the output ``results`` has. Until 1.0 the same names with ``_`` are there as well."""

_OUTPUTS = (
    *_outputs(
        "The run",
        Output(
            "status",
            "`running`, `in_progress`, `precondition_required`, `planned`, `encrypted`, `verified`, `failed` "
            "or `interrupted`; in mode `status`, the status of the CVM",
        ),
        Output("cvm-id", "the CVM; with multiple CVMs, all outputs but `results` are about the first"),
        Output("app-id", "the app that the CVM belongs to, 40 hex digits"),
        Output("correlation-id", "the operation that Phala Cloud started"),
        Output("transaction-hash", "the transaction that approved the compose hash, or `already-registered`"),
        Output(
            "results",
            "with multiple CVMs: a JSON list with an object for each. It has "
            + ", ".join(f"`{name}`" for name in RESULT)
            + ". Until 1.0 each name is there with `_` too. A CVM that was not reached has no exit code",
        ),
        Output("dashboard-url", "the CVM's page in the dashboard"),
        Output("error", "what failed"),
        Output("hint", "what to do about it"),
        Output("exit-code", "the exit code of a run that failed"),
        Output("version", "the version of phala-secrets"),
    ),
    *_outputs(
        "The key",
        Output("kms", "the KMS that served the key, by slug or id"),
        Output("kms-signer", "the KMS root that signed the key: compressed SEC1 hex without `0x`"),
        Output("trust", "what vouches for that root: `pinned`, `chain`, `known` or `api`"),
        Output("warning", "set if a root other than the published one signed a key of the Cloud KMS"),
        Output("public-key", "the app's key that the secrets are encrypted to, 64 hex digits"),
    ),
    *_outputs(
        "The attestation",
        Output("attested", "whether every link held: `true`, `false`, or empty if nothing was attested"),
        Output("os-measurements", "SHA-256 of MRTD, RTMR1 and RTMR2, which identify the OS image"),
        Output("attestation", "what was verified, link by link, and the SHA-256 of the evidence, as JSON"),
    ),
    *_outputs(
        "The variables",
        Output("env-keys", "the names of the variables, as a JSON list"),
        Output("keys-added", "the names that the CVM did not have before, as a JSON list"),
        Output("keys-removed", "the names that the CVM no longer has, as a JSON list"),
        Output("allowed-envs-changed", "whether the set of names changed"),
    ),
    *_outputs(
        PREPARED,
        Output(
            "approval-needed",
            "whether an on-chain approval is needed first: `true`, `false`, or empty if unknown",
        ),
        Output("encrypted-env", "the ciphertext in hex (`encrypt`, `prepare-only`)"),
        Output("compose-hash", "the compose hash that the CVM has, or will have"),
        Output("previous-compose-hash", "the compose hash that the CVM had before"),
        Output("device-id", "the device that the CVM runs on"),
        Output("chain-id", "the chain of the approval"),
        Output("calldata", "the approval as a call of `addComposeHash`, for a wallet (`prepare-only`)"),
        Output(
            "safe-transaction",
            "the approval as a file for Safe's Transaction Builder, with `addDevice` if needed "
            "(`prepare-only`)",
        ),
        Output(
            "prepared-digest",
            "SHA-256 over app, CVM, chain, device, key, names, compose hash, ciphertext, compose file in hex "
            "(`prepare-only`)",
        ),
    ),
)

OUTPUTS = {row.name: row for row in _OUTPUTS}
"""Every output by its name."""
