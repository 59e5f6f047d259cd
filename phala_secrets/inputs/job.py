"""A run's inputs, read and checked: the Job. Nothing is sent before there is one."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, cast

from phala_secrets.cloud import known, trust
from phala_secrets.cloud.ids import CvmRef, parse_api_key, parse_cvm, parse_url
from phala_secrets.cloud.requests import DEFAULT_URL
from phala_secrets.cloud.secret import Secret
from phala_secrets.dstack.encryption import parse_sealed
from phala_secrets.dstack.ids import parse_app_id, parse_hash
from phala_secrets.dstack.key_proof import parse_signer
from phala_secrets.errors import InputError
from phala_secrets.inputs.sources import Sources
from phala_secrets.runners.detect import in_ci

if TYPE_CHECKING:
    from collections.abc import Mapping

    from phala_secrets.inputs.given import Given

Mode = Literal["update", "plan", "encrypt", "verify"]
MAX_CIPHERTEXT = 16 * 1024 * 1024
"""Bytes of hex: 1 MiB of values, each character of which may take six in JSON, and two in hex."""


class Prepared(NamedTuple):
    """A ciphertext made before (hex), its names, and what it was approved as."""

    encrypted_env: str
    env_keys: tuple[str, ...]
    digest: str | None = None
    compose_hash: str | None = None
    transaction_hash: str | None = None


class Job(NamedTuple):
    """What to do, for which CVMs, from which sources, trusting whom. Its repr shows no secret."""

    mode: Mode
    api_url: str
    api_key: Secret
    cvms: tuple[CvmRef, ...]
    app: str | None
    sources: Sources
    prepared: Prepared | None
    policy: trust.Policy
    folder: Path
    root: Path | None
    allow_removal: bool
    guest_check: str
    private_key: Secret | None
    allow_device: tuple[str, ...]
    prepare_only: bool
    compose_hash: str | None
    wait: bool
    wait_timeout: int
    max_parallel: int
    fail_fast: bool
    timeout: int


def read_job(mode: str, given: Given, environ: Mapping[str, str], folder: Path) -> Job:
    """The Job that the inputs describe; InputError, naming the input, for what is wrong or missing."""
    project = Project(folder)
    api_key, api_url = credentials(given, environ, project)
    cvms, app = _target(given, project)
    prepared = _prepared(given, folder)
    sources = _sources(given)
    if prepared and sources.given:
        raise InputError(
            "both encrypted-env and a source are given", hint="the ciphertext is sent in place of a source"
        )
    if prepared and mode == "encrypt":
        raise InputError("encrypted-env is given, so there is nothing to encrypt", hint="use mode: update")
    if mode != "verify" and not prepared and not sources.given:
        # In CI an unset secret must not turn into some file of the checkout, for a CVM named elsewhere.
        named = bool(given.text("cvm") or given.text("app"))
        default = "" if named and in_ci(environ) else project.first("env_file")
        if not default:
            raise InputError("no source is given", hint="give env-file, env, files, secrets or secrets-json")
        sources = replace(sources, env_files=(default,))
    policy = replace(_policy(given, cvms, app), cloud_root=known.expected_root(api_url))
    policy.check()
    on_github = environ.get("GITHUB_ACTIONS") == "true"
    workspace = environ.get("GITHUB_WORKSPACE") if on_github else None
    return Job(
        mode=cast("Mode", mode),
        api_url=api_url,
        api_key=api_key,
        cvms=cvms,
        app=app,
        sources=sources,
        prepared=prepared,
        policy=policy,
        folder=folder,
        root=Path(workspace) if workspace else None,
        allow_removal=given.flag("allow-removal"),
        guest_check=given.choice("guest-check"),
        private_key=_private_key(given, folder),
        allow_device=tuple(parse_hash(device, "allow-device") for device in given.lines("allow-device")),
        prepare_only=given.flag("prepare-only"),
        compose_hash=_hash(given, "compose-hash"),
        wait=given.flag("wait"),
        wait_timeout=given.number("wait-timeout"),
        max_parallel=given.number("max-parallel"),
        fail_fast=given.flag("fail-fast"),
        timeout=given.number("timeout"),
    )


class Project:
    """``phala.toml`` of the working folder, read when something of it is needed; there may be none."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def first(self, *names: str) -> str:
        """The first of these settings that it has, or nothing."""
        return next((str(self._settings[name]) for name in names if self._settings.get(name)), "")

    @cached_property
    def _settings(self) -> dict[str, Any]:
        path = self.folder / "phala.toml"
        if not path.is_file():
            return {}
        import tomllib

        try:
            return tomllib.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            raise InputError(
                "phala.toml cannot be read as TOML",
                hint="mend it, or give what is looked for there",
                file="phala.toml",
            ) from None


def credentials(given: Given, environ: Mapping[str, str], project: Project) -> tuple[Secret, str]:
    """The API key and the API's URL; outside CI from the official CLI's login, where no key is given."""
    url = given.text("api-url")
    key = _secret(given, "api-key", project.folder)
    if not key and not in_ci(environ):
        key, prefix = _login(environ, project.first("profile"))
        url = url or prefix
    if not key:
        raise InputError("no API key", hint="give api-key, or set PHALA_CLOUD_API_KEY")
    return Secret(parse_api_key(key, "api-key")), parse_url(url or DEFAULT_URL, "api-url")


def _secret(given: Given, name: str, folder: Path) -> str:
    """A secret input, or the content of the file that ``NAME-file`` names."""
    path = given.text(f"{name}-file")
    if not path:
        return given.text(name)
    try:
        text = _read(folder, path, f"{name}-file").strip()
    except InputError as error:  # what is no path may be the key itself
        raise InputError(error.message, hint="give the path of a file; it is not shown here") from None
    if not text:
        raise InputError(f"{name}-file: the file is empty", hint=f"check {path[:200]!a}", file=path)
    return text


def _read(folder: Path, path: str, what: str) -> str:
    try:
        with (folder / path).open("rb") as file:
            content = file.read(MAX_CIPHERTEXT + 1)
        if len(content) > MAX_CIPHERTEXT:
            raise InputError(f"{what}: the file is too large", hint="check the path", file=path)
        return content.decode()
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise InputError(f"{what}: cannot be read: {reason}", hint="check the path", file=path) from None
    except UnicodeDecodeError:
        raise InputError(f"{what}: not UTF-8 text", hint="check the path", file=path) from None


def _private_key(given: Given, folder: Path) -> Secret | None:
    text = _secret(given, "private-key", folder)
    if not text:
        return None
    from phala_secrets.chain.owner import parse_private_key

    return Secret(parse_private_key(text))


def _login(environ: Mapping[str, str], profile: str) -> tuple[str, str]:
    """The token and API prefix of the official CLI's current profile, or nothing."""
    home = environ.get("HOME")
    folder = environ.get("PHALA_CLOUD_DIR") or (f"{home}/.phala-cloud" if home else "")
    path = Path(folder) / "credentials.json"
    if not folder or not path.is_file():
        return "", ""
    try:
        content = json.loads(path.read_bytes())
        entry = content["profiles"][profile or content["current_profile"]]
        return str(entry.get("token") or ""), str(entry.get("api_prefix") or "")
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        raise InputError(
            "the official CLI's login cannot be read",
            hint="log in again with the CLI, or set PHALA_CLOUD_API_KEY",
            file=str(path),
        ) from None


def _target(given: Given, project: Project) -> tuple[tuple[CvmRef, ...], str | None]:
    app = given.text("app")
    named = given.lines("cvm")
    if app and named:
        raise InputError("both cvm and app are given", hint="app is every CVM of the app: give one of them")
    if app:
        return (), parse_app_id(app, "app")
    if not named:
        default = project.first("id", "uuid", "app_id", "instance_id", "name")
        if not default:
            raise InputError(
                "no CVM is given", hint="give cvm, or app, or a phala.toml in the working folder"
            )
        named = (default,)
    return tuple(dict.fromkeys(parse_cvm(text) for text in named)), None


def _sources(given: Given) -> Sources:
    return Sources(
        env_files=given.lines("env-file"),
        env=given.text("env"),
        files=given.lines("files"),
        secrets_json=given.text("secrets-json"),
        secrets_include=given.lines("secrets-include"),
        secrets=given.lines("secrets"),
        base64=given.lines("base64"),
        allow_empty=given.flag("allow-empty"),
    )


def _prepared(given: Given, folder: Path) -> Prepared | None:
    text, path, names = (given.text(name) for name in ("encrypted-env", "encrypted-env-file", "env-keys"))
    if text and path:
        raise InputError("both encrypted-env and encrypted-env-file are given", hint="give one of them")
    if path:
        text = _read(folder, path, "encrypted-env-file").strip()
    digest = _digest(given)
    if not text:
        for name in ("env-keys", "prepared-digest", "transaction-hash"):
            if given.text(name):
                raise InputError(f"{name} is given without encrypted-env", hint="they belong together")
        return None
    if given.text("transaction-hash") and not given.text("compose-hash"):
        raise InputError(
            "transaction-hash is given without compose-hash",
            hint="give the output compose-hash that came with it",
        )
    return Prepared(
        encrypted_env=parse_sealed(text, "encrypted-env"),
        env_keys=_names(names),
        digest=digest,
        compose_hash=_hash(given, "compose-hash"),
        transaction_hash=_transaction(given),
    )


def _names(text: str) -> tuple[str, ...]:
    try:
        names = json.loads(text)
    except ValueError:
        names = None
    if not isinstance(names, list) or not all(isinstance(name, str) and name for name in names):
        raise InputError(
            "env-keys is not a JSON list of names",
            hint="give the output env-keys that came with encrypted-env",
        )
    return tuple(names)


def _hash(given: Given, name: str) -> str | None:
    text = given.text(name)
    return parse_hash(text, name) if text else None


def _digest(given: Given) -> str | None:
    text = given.text("prepared-digest")
    if not text:
        return None
    from phala_secrets.chain.handover import parse_digest

    return parse_digest(text)


def _transaction(given: Given) -> str | None:
    text = given.text("transaction-hash")
    if text == "already-registered":
        return text
    return "0x" + parse_hash(text, "transaction-hash") if text else None


def _policy(given: Given, cvms: tuple[CvmRef, ...], app: str | None) -> trust.Policy:
    app_id = parse_app_id(given.text("app-id")) if given.text("app-id") else app
    for named in {ref.app_id for ref in cvms} | {app}:
        if app_id and named and named != app_id:
            raise InputError(
                f"app-id is {app_id}, but the CVM is given by the app id {named}", hint="correct one of them"
            )
    rpc_url = given.text("rpc-url")
    contract = given.text("kms-contract")
    return trust.Policy(
        signers=tuple(_signers(given)),
        rpc_url=parse_url(rpc_url, "rpc-url") if rpc_url else None,
        rpc_given="rpc-url" in given.explicit,
        kms_contract="0x" + parse_app_id(contract, "kms-contract") if contract else None,
        require=cast("trust.Level", given.choice("require-trust")) or None,
        app_id=app_id,
        kms=given.text("kms") or None,
    )


def _signers(given: Given) -> list[str]:
    signers = []
    for number, line in enumerate(given.lines("trusted-signers"), 1):
        if line == known.NAME:
            signers.append(known.published.root)
            continue
        try:
            signers.append(parse_signer(line))
        except InputError as error:
            raise InputError(f"trusted-signers, line {number}: {error.message}", hint=error.hint) from None
    return signers
