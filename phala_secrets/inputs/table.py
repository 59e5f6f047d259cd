"""Every input and every output, once.

The parser, ``--help``, README.md, action.yml and docs/ come from these rows: add a row, then run
``make docs``. Texts are Markdown in which only code is marked, with backticks.
"""

from __future__ import annotations

from phala_secrets.inputs.outputs import OUTPUTS, PREPARED, RESULT
from phala_secrets.inputs.row import MODES, PREFIX, PROVING, WORDS, Input, Output, plain

__all__ = ["INPUTS", "MODES", "OUTPUTS", "PREFIX", "PREPARED", "RESULT", "WORDS", "Input", "Output", "plain"]


def _group(heading: str, words: tuple[str, ...], *rows: Input) -> tuple[Input, ...]:
    return tuple(row._replace(heading=heading, words=row.words or words) for row in rows)


_INPUTS = (
    *_group(
        "Account and CVM",
        MODES,
        Input(
            "mode",
            "what to do: `update`, `plan` (all but the update), `encrypt` (output the ciphertext), `verify` "
            "(prove the key), `status` (show what the CVM has) or `wait` (follow the operation in progress)",
            "choice",
            default="update",
            choices=MODES,
            flag=False,
        ),
        Input(
            "cvm",
            "the CVM: name, `cvm_…` id, UUID, app id or `instance_…` id; separate multiple with commas or "
            "line breaks",
            "names",
            "CVM",
            otherwise="`phala.toml` in the working folder",
        ),
        Input("app", "an app id, for every CVM of the app", metavar="APP_ID", words=(*MODES, "list")),
        Input(
            "app-id",
            "the app that the CVM must belong to; separate multiple with commas or line breaks; each needs a "
            "CVM",
            "names",
            "APP_ID",
            protects=True,
        ),
        Input(
            "api-key",
            "the Phala Cloud API key",
            otherwise="`PHALA_CLOUD_API_KEY`, else GitHub's OIDC token",
            fallback="PHALA_CLOUD_API_KEY",
            flag=False,
            words=WORDS,
        ),
        Input("api-key-file", "a file with the API key", metavar="FILE", action=False, words=WORDS),
        Input(
            "workspace",
            "the workspace for GitHub's OIDC token, if multiple workspaces trust this repository",
            metavar="WORKSPACE",
            words=WORDS,
        ),
        Input(
            "api-url",
            "the URL of the API",
            metavar="URL",
            otherwise="`PHALA_CLOUD_API_PREFIX`, else `https://cloud-api.phala.com/api/v1`",
            fallback="PHALA_CLOUD_API_PREFIX",
            words=WORDS,
        ),
    ),
    *_group(
        "The secrets",
        ("update", "plan", "encrypt"),
        Input(
            "env-file",
            "dotenv files, one per line; the command reads standard input for `-`",
            "lines",
            "FILE",
            otherwise="`env_file` of `phala.toml`",
        ),
        Input("env", "dotenv text", "raw", flag=False),
        Input(
            "secrets",
            "names to take from this step's environment, separated by commas or line breaks; `TARGET=SOURCE` "
            "renames",
            "names",
            "NAMES",
        ),
        Input(
            "secrets-json",
            "a JSON object of strings, e.g. `toJSON(secrets)`; needs `secrets-include`",
            "raw",
            flag=False,
        ),
        Input("secrets-include", "globs: which names of `secrets-json` to take", "names", "GLOBS"),
        Input("files", "`NAME=path`, one per line: the variable is the file's content", "lines", "NAME=PATH"),
        Input("base64", "globs: send these variables base64-encoded", "names", "GLOBS"),
        Input(
            "no-mask",
            "globs: leave these variables unmasked in the log, because they are settings",
            "names",
            "GLOBS",
        ),
        Input("allow-empty", "let a name in `secrets` be unset or empty", "bool", default="false"),
        Input(
            "guest-check",
            "what to do with a value that would not arrive as written: `error`, `warn` or `off`",
            "choice",
            default="error",
            choices=("error", "warn", "off"),
        ),
    ),
    *_group(
        "Trust",
        PROVING,
        Input("kms", "the KMS to ask, by slug or id", metavar="KMS", otherwise="the KMS of the CVM"),
        Input(
            "trusted-signers",
            "the only KMS roots to accept: secp256k1 public keys in hex, one per line; `phala-cloud` is the "
            "published root of the Cloud KMS",
            "lines",
            "KEY",
            protects=True,
        ),
        Input(
            "require-trust",
            "the minimum trust in the KMS root: `api`, `known` (the published root of the Cloud KMS), "
            "`chain` or `pinned`",
            "choice",
            choices=("api", "known", "chain", "pinned"),
            protects=True,
        ),
        Input(
            "kms-contract",
            "the KMS contract to read through `rpc-url`",
            metavar="ADDRESS",
            otherwise="the well-known contract of the chain",
            protects=True,
        ),
        Input("rpc-url", "JSON-RPC of the app's chain", metavar="URL", fallback="ETH_RPC_URL"),
    ),
    *_group(
        "Attestation",
        PROVING,
        Input(
            "attest",
            "prove that the CVM is a genuine TEE with an accepted OS and this app, compose hash and KMS: "
            "`off`, `warn` or `require` (`update`, `verify`, `status`)",
            "choice",
            default="off",
            choices=("off", "warn", "require"),
            protects=True,
        ),
        Input(
            "trusted-os",
            "accepted `os-measurements`, one per line; required with `attest: require`",
            "lines",
            "SHA256",
            protects=True,
        ),
        Input(
            "trusted-kms-ca",
            "accepted CA keys of the KMS that gave the CVM its keys: SPKI hex, one per line",
            "lines",
            "KEY",
            otherwise="the key of the KMS contract (`rpc-url`) or of the published Cloud KMS",
            protects=True,
        ),
        Input(
            "allow-tcb",
            "TCB statuses to accept besides `UpToDate`, such as `SWHardeningNeeded`, one per line",
            "lines",
            "STATUS",
        ),
        Input(
            "pccs-url",
            "the service that provides Intel's collateral for quotes",
            metavar="URL",
            default="https://pccs.phala.network",
        ),
        Input(
            "evidence-file",
            "a file for the evidence of one CVM; `verify` reads it without a CVM or an API key",
            metavar="FILE",
        ),
        Input(
            "at",
            "the time to verify `evidence-file` at with its stored collateral: Unix seconds or ISO 8601",
            metavar="TIME",
            action=False,
            words=("verify",),
        ),
        Input(
            "attestation-root",
            "the root certificate of simulated quotes, in PEM or DER; only if `api-url` is a loopback "
            "address",
            metavar="FILE",
            action=False,
        ),
    ),
    *_group(
        "The update",
        ("update", "plan"),
        Input(
            "allow-removal",
            "let the update drop variables that the CVM has today; `all` allows empty sources too",
            "switch",
            default="false",
            choices=("false", "true", "all"),
        ),
        Input("wait", "wait until the CVM runs with the new environment", "bool", default="true"),
        Input(
            "wait-for",
            "what to wait for: `running`, or `containers` (all up, and healthy if they have a health check)",
            "choice",
            default="running",
            choices=("running", "containers"),
            words=("update", "plan", "wait"),
        ),
        Input("start", "start a CVM that is still stopped after the update", "bool", default="false"),
        Input(
            "wait-timeout",
            "how long to wait for the update: seconds, or `10m`; a blocking operation gets the same time",
            "duration",
            "TIME",
            default="600",
            low=1,
            high=24 * 3600,
            words=("update", "plan", "wait"),
        ),
        Input(
            "max-parallel",
            "how many CVMs to update at once; 1 is a rolling update",
            "number",
            "N",
            default="1",
            low=1,
            high=64,
        ),
        Input("fail-fast", "stop at the first CVM that fails", "bool", default="true"),
    ),
    *_group(
        "The compose file",
        ("update", "plan"),
        Input(
            "compose-file",
            "a docker compose file to deploy in the same operation as the secrets",
            metavar="FILE",
        ),
        Input(
            "keep-secrets",
            "with `compose-file` and no source: leave the encrypted environment and its names unchanged",
            "bool",
            default="false",
        ),
        Input(
            "require-digest",
            "refuse a compose file that names an image without a digest",
            "bool",
            default="false",
            protects=True,
        ),
    ),
    *_group(
        "On-chain approval",
        ("update", "plan"),
        Input(
            "private-key",
            "the app owner's key, to register a compose hash",
            fallback="PRIVATE_KEY",
            flag=False,
        ),
        Input("private-key-file", "a file with the app owner's key", metavar="FILE", action=False),
        Input("allow-device", "device ids to allow for the app if needed, one per line", "lines", "DEVICE"),
        Input(
            "prepare-only",
            "if an on-chain approval is needed, stop and output what it takes",
            "bool",
            default="false",
        ),
        Input(
            "prepared-file",
            "the file that `prepare-only` writes for the second run, which reads it instead of "
            "`encrypted-env`, `env-keys` and `compose-hash`",
            metavar="FILE",
        ),
        Input("encrypted-env", "an existing ciphertext, to send instead of a source", metavar="HEX"),
        Input("encrypted-env-file", "a file with that ciphertext", metavar="FILE"),
        Input("env-keys", "the names in that ciphertext, as a JSON list", metavar="JSON"),
        Input(
            "prepared-digest",
            "the output `prepared-digest` of the first run, to refuse anything else. Required "
            "with `compose-hash` and `prepared-file`; `none` skips the check",
            metavar="SHA256",
            protects=True,
        ),
        Input(
            "compose-hash",
            "the approved compose hash; with `attest` or `evidence-file`, the one to expect",
            metavar="HASH",
            protects=True,
            words=("update", "plan", "verify"),
        ),
        Input("transaction-hash", "the transaction that approved `compose-hash`", metavar="HASH"),
    ),
    *_group(
        "How it runs",
        WORDS,
        Input(
            "timeout", "seconds that one request may take", "number", "SECONDS", default="30", low=1, high=600
        ),
        Input("output-file", "write the outputs to this file", metavar="FILE", action=False, words=MODES),
        Input(
            "output-format",
            "the format of `output-file`: `dotenv`, `shell` (safe to source) or `json` (as `--json` prints)",
            "choice",
            default="dotenv",
            choices=("dotenv", "shell", "json"),
            action=False,
            words=MODES,
        ),
        Input(
            "summary-file",
            "write the summary to this file as Markdown, for a comment or a CI that shows it",
            metavar="FILE",
            words=MODES,
        ),
        Input(
            "full",
            "show ids and hashes in full",
            "bool",
            default="false",
            action=False,
            words=MODES,
        ),
        Input(
            "json",
            "print the outputs as one JSON object on standard output",
            "bool",
            default="false",
            action=False,
        ),
        Input("yes", "update without asking", "bool", default="false", action=False, words=("update",)),
        Input(
            "quiet",
            "print only errors and warnings, and the names that `plan` would change",
            "bool",
            default="false",
            action=False,
        ),
        Input(
            "verbose",
            "print each request with its status and time; `RUNNER_DEBUG=1` does the same",
            "bool",
            default="false",
            action=False,
        ),
    ),
)

INPUTS = {row.name: row for row in _INPUTS}
"""Every input by its name."""
