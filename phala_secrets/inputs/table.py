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
        "Which CVM, on whose account",
        MODES,
        Input(
            "mode",
            "what to do: `update`, `plan` (all but the update), `encrypt` (output the ciphertext), `verify` "
            "(prove the key), `status` (what the CVM has today) or `wait` (for the operation that runs now)",
            "choice",
            default="update",
            choices=MODES,
            flag=False,
        ),
        Input(
            "cvm",
            "the CVM: its name, `cvm_…` id, UUID, app id or `instance_…` id; multiple, split at commas and "
            "lines",
            "names",
            "CVM",
            otherwise="`phala.toml` in the working folder",
        ),
        Input("app", "an app id: every CVM of the app", metavar="APP_ID", words=(*MODES, "list")),
        Input(
            "app-id",
            "the app that the CVM must belong to; multiple, split at commas and lines, and each needs a CVM",
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
            "with GitHub's OIDC token: the workspace, if multiple trust this repository",
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
            "dotenv files, one per line; for the command, `-` is standard input",
            "lines",
            "FILE",
            otherwise="`env_file` of `phala.toml`",
        ),
        Input("env", "dotenv text", "raw", flag=False),
        Input(
            "secrets",
            "names to take from this step's environment, split at commas and lines; `TARGET=SOURCE` renames",
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
            "globs: these variables are settings, not secrets, and are not masked in the log",
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
            "the least that the proof must rest on: `api`, `known` (the published root of the Cloud KMS), "
            "`chain` or `pinned`",
            "choice",
            choices=("api", "known", "chain", "pinned"),
            protects=True,
        ),
        Input(
            "kms-contract",
            "the KMS contract to read through `rpc-url`",
            metavar="ADDRESS",
            otherwise="the well-known one of the chain",
            protects=True,
        ),
        Input("rpc-url", "JSON-RPC of the app's chain", metavar="URL", fallback="ETH_RPC_URL"),
    ),
    *_group(
        "Attestation",
        PROVING,
        Input(
            "attest",
            "prove that what runs is a genuine TEE with an accepted OS, this app, this compose hash and this "
            "KMS: `off`, `warn` or `require` (`update`, `verify`, `status`)",
            "choice",
            default="off",
            choices=("off", "warn", "require"),
            protects=True,
        ),
        Input(
            "trusted-os",
            "accepted `os-measurements`, one per line; `attest: require` needs it",
            "lines",
            "SHA256",
            protects=True,
        ),
        Input(
            "trusted-kms-ca",
            "accepted CA keys of the KMS that the CVM got its keys from: SPKI hex, one per line",
            "lines",
            "KEY",
            otherwise="that of the KMS contract (`rpc-url`), or of the published Cloud KMS",
            protects=True,
        ),
        Input(
            "allow-tcb",
            "TCB statuses to accept beside `UpToDate`, such as `SWHardeningNeeded`, one per line",
            "lines",
            "STATUS",
        ),
        Input(
            "pccs-url",
            "where Intel's collateral for quotes comes from",
            metavar="URL",
            default="https://pccs.phala.network",
        ),
        Input(
            "evidence-file",
            "keep the evidence of one CVM there; `verify` reads it, and needs no CVM and no API key",
            metavar="FILE",
        ),
        Input(
            "at",
            "with `evidence-file`: the time to verify at, as Unix seconds or ISO 8601, with the collateral "
            "that was stored",
            metavar="TIME",
            action=False,
            words=("verify",),
        ),
        Input(
            "attestation-root",
            "the root certificate of simulated quotes, in PEM or DER; only while `api-url` is a loopback "
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
            "let the update drop variables that the CVM has today: `true`, or `all` for sources that hold "
            "no variable",
            "switch",
            default="false",
            choices=("false", "true", "all"),
        ),
        Input("wait", "wait until the CVM runs with the new environment", "bool", default="true"),
        Input(
            "wait-for",
            "what to wait for: `running`, or `containers`, all of them up, and healthy where they have a "
            "health check",
            "choice",
            default="running",
            choices=("running", "containers"),
            words=("update", "plan", "wait"),
        ),
        Input("start", "start a CVM that is still stopped after the update", "bool", default="false"),
        Input(
            "wait-timeout",
            "how long to wait for the update, in seconds or as `10m`, and as long again for another "
            "operation in the way",
            "duration",
            "TIME",
            default="600",
            low=1,
            high=24 * 3600,
            words=("update", "plan", "wait"),
        ),
        Input(
            "max-parallel",
            "CVMs to update at once, where 1 is a rolling update",
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
            "a docker compose file, to deploy in the same operation as the secrets",
            metavar="FILE",
        ),
        Input(
            "keep-secrets",
            "with `compose-file` and no source: leave the encrypted environment and its names as they are",
            "bool",
            default="false",
        ),
        Input(
            "require-digest",
            "refuse a compose file with an image that is not named by digest",
            "bool",
            default="false",
            protects=True,
        ),
    ),
    *_group(
        "An approval on chain",
        ("update", "plan"),
        Input(
            "private-key",
            "the app owner's key, to register a compose hash",
            fallback="PRIVATE_KEY",
            flag=False,
        ),
        Input("private-key-file", "a file with the app owner's key", metavar="FILE", action=False),
        Input("allow-device", "device ids that may be added to the app, one per line", "lines", "DEVICE"),
        Input(
            "prepare-only",
            "stop where an on-chain approval is needed, and output what it takes",
            "bool",
            default="false",
        ),
        Input(
            "prepared-file",
            "one file with all that the second half needs: written with `prepare-only`, otherwise read, in "
            "place of `encrypted-env`, `env-keys` and `compose-hash`",
            metavar="FILE",
        ),
        Input("encrypted-env", "a ciphertext made before, to send in place of a source", metavar="HEX"),
        Input("encrypted-env-file", "a file with that ciphertext", metavar="FILE"),
        Input("env-keys", "the names in that ciphertext, a JSON list", metavar="JSON"),
        Input(
            "prepared-digest",
            "the digest that `prepare-only` gave out; any difference from it is refused. Required with "
            "`compose-hash` and `prepared-file`; `none` to do without",
            metavar="SHA256",
            protects=True,
        ),
        Input(
            "compose-hash",
            "the approved compose hash; with `attest` or `evidence-file`, the one that has to be shown",
            metavar="HASH",
            protects=True,
            words=("update", "plan", "verify"),
        ),
        Input("transaction-hash", "the transaction that approved it", metavar="HASH"),
    ),
    *_group(
        "How it runs",
        WORDS,
        Input(
            "timeout", "seconds that one request may take", "number", "SECONDS", default="30", low=1, high=600
        ),
        Input("output-file", "write the outputs there", metavar="FILE", action=False, words=MODES),
        Input(
            "output-format",
            "its format: `dotenv`, `shell` (safe to source) or `json` (what `--json` prints)",
            "choice",
            default="dotenv",
            choices=("dotenv", "shell", "json"),
            action=False,
            words=MODES,
        ),
        Input(
            "summary-file",
            "write the summary there as Markdown, for a comment or a CI that shows it",
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
            "print each request with its status and time; `RUNNER_DEBUG=1` does it too",
            "bool",
            default="false",
            action=False,
        ),
    ),
)

INPUTS = {row.name: row for row in _INPUTS}
"""Every input by its name."""
