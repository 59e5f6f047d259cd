"""A run's inputs, read and checked: the Job. A run sends nothing before it has one."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple, cast

from phala_secrets.cloud import known, trust
from phala_secrets.cloud.ids import CvmRef, parse_cvm, parse_url
from phala_secrets.cloud.requests import DEFAULT_URL
from phala_secrets.cloud.secret import ApiKey
from phala_secrets.dstack.ids import parse_app_id, parse_hash
from phala_secrets.dstack.key_proof import parse_signer
from phala_secrets.errors import InputError
from phala_secrets.inputs.deploy import Deploy, read_deploy
from phala_secrets.inputs.files import Files, Root
from phala_secrets.inputs.login import log_in, owners_key
from phala_secrets.inputs.place import on_azure, person_at_terminal, root_of
from phala_secrets.inputs.prepared import Prepared, hash_of, read_prepared
from phala_secrets.inputs.project import Project
from phala_secrets.inputs.sources import Sources

if TYPE_CHECKING:
    from collections.abc import Mapping

    from phala_secrets.cloud.secret import Login, Secret
    from phala_secrets.inputs.attest import Attesting
    from phala_secrets.inputs.given import Given

__all__ = ["Job", "Mode", "Prepared", "read_job"]

_DASHBOARD = "https://cloud.phala.com"
_PLAIN_URL = re.compile(r"https://[A-Za-z0-9.:-]{1,200}")
"""The form of ``CLOUD_URL``, which becomes a link. Another program may use the name too."""

_OF_ATTESTATION = ("trusted-os", "trusted-kms-ca", "allow-tcb", "evidence-file")
"""What is held against evidence, or holds it."""

Mode = Literal["update", "plan", "encrypt", "verify", "status", "wait"]
_SENDING = ("update", "plan", "encrypt")
"""The modes that take a source."""


class Job(NamedTuple):
    """What to do, for which CVMs, from which sources, trusting whom. Its repr shows no secret.

    ``prepared_file`` is where to write what is prepared, or where it was read. ``undeployed`` is the
    compose file that ``phala.toml`` names, where nobody asked for it. ``dashboard`` is the URL that the
    page of a CVM is below, or nothing where the API is another than Phala's own. ``ask`` is
    whether a person is asked before the update.
    """

    mode: Mode
    api_url: str
    login: Login
    cvms: tuple[CvmRef, ...]
    app: str | None
    sources: Sources
    prepared: Prepared | None
    prepared_file: str
    deploy: Deploy | None
    undeployed: str
    policy: trust.Policy
    folder: Path
    root: Root | None
    allow_removal: bool
    guest_check: str
    private_key: Secret | None
    allow_device: tuple[str, ...]
    prepare_only: bool
    compose_hash: str | None
    wait: bool
    wait_for: str
    start: bool
    wait_timeout: int
    max_parallel: int
    fail_fast: bool
    timeout: int
    attest: Attesting | None = None
    full: bool = False
    dashboard: str = ""
    ask: bool = False


def read_job(mode: str, given: Given, environ: Mapping[str, str], folder: Path) -> Job:
    """Return the Job that the inputs describe.

    Raises:
        InputError: An input is invalid or missing. The message names it.
    """
    root = root_of(environ, folder)
    files = Files(folder, root)
    project = Project(files)
    login, api_url = log_in(given, environ, folder, project)
    cvms, app = _target(given, project)
    prepared = read_prepared(given, files)
    deploy = read_deploy(mode, given, files, prepared)
    keeps = deploy is not None and deploy.keeps_secrets
    sources = _sources(given, environ, login)
    if prepared and sources.given:
        name = "prepared-file" if prepared.whole else "encrypted-env"
        raise InputError(
            f"both {name} and a source are set",
            hint=f"leave one of them out: {name} replaces a source",
        )
    if keeps and sources.given:
        raise InputError("keep-secrets is true, but a source is set", hint="leave one of them out")
    if prepared and mode == "encrypt":
        raise InputError("encrypted-env is set, so there is nothing to encrypt", hint="use mode: update")
    if mode in _SENDING and not prepared and not sources.given and not keeps:
        sources = sources._replace(env_files=_default_files(given, environ, project), by_checkout=True)
    policy = _policy(given, cvms, app)._replace(cloud_root=known.expected_root(api_url))
    policy.check()
    return Job(
        mode=cast("Mode", mode),
        api_url=api_url,
        login=login,
        cvms=cvms,
        app=app,
        sources=sources,
        prepared=prepared,
        prepared_file=given.text("prepared-file"),
        deploy=deploy,
        undeployed="" if deploy or mode not in ("update", "plan") else project.seen("compose_file"),
        policy=policy,
        folder=folder,
        root=root,
        allow_removal=given.choice("allow-removal") != "false",
        guest_check=given.choice("guest-check"),
        private_key=owners_key(given, folder),
        allow_device=tuple(parse_hash(device, "allow-device") for device in given.lines("allow-device")),
        prepare_only=given.flag("prepare-only"),
        compose_hash=hash_of(given, "compose-hash"),
        wait=given.flag("wait"),
        wait_for=given.choice("wait-for"),
        start=given.flag("start"),
        wait_timeout=given.number("wait-timeout"),
        max_parallel=given.number("max-parallel"),
        fail_fast=given.flag("fail-fast"),
        timeout=given.number("timeout"),
        attest=_attesting(mode, given, api_url),
        ask=mode == "update" and _asks(given, environ),
        full=given.flag("full"),
        dashboard=_dashboard(environ, api_url),
    )


def _dashboard(environ: Mapping[str, str], api_url: str) -> str:
    """Return the URL of the dashboard: the official command's variable, or that of the default API."""
    given = environ.get("CLOUD_URL", "").strip().rstrip("/")
    if _PLAIN_URL.fullmatch(given):
        return given
    return _DASHBOARD if api_url == DEFAULT_URL else ""


def _asks(given: Given, environ: Mapping[str, str]) -> bool:
    """Return whether to ask the person at the terminal first, who sees the plan."""
    unseen = given.flag("yes") or given.flag("json") or given.flag("quiet")
    return not unseen and person_at_terminal(environ)


def _attesting(mode: str, given: Given, api_url: str) -> Attesting | None:
    """Return what to attest, or None if attest is off, so that nothing of it is loaded."""
    asked = given.choice("attest") != "off"
    if not asked and not given.text("attestation-root"):
        for name in _OF_ATTESTATION if mode != "verify" else (*_OF_ATTESTATION, "compose-hash"):
            if given.text(name):
                raise InputError(
                    f"{name} is set, but has no effect because attest is off",
                    hint="set attest: require, or leave it out",
                )
        return None
    from phala_secrets.inputs.attest import read_attesting

    attesting = read_attesting(given, api_url)
    if asked and mode == "update" and not given.flag("wait"):
        raise InputError(
            "attest needs wait: true, because only a running CVM can attest",
            hint="leave out `wait: false`, or `attest`",
        )
    return attesting if asked else None


def _target(given: Given, project: Project) -> tuple[tuple[CvmRef, ...], str | None]:
    app = given.text("app")
    named = given.lines("cvm")
    if app and named:
        raise InputError("both cvm and app are set", hint="pass `cvm`, or `app` for every CVM of the app")
    if app:
        return (), parse_app_id(app, "app")
    if not named:
        default = project.first("id", "uuid", "app_id", "instance_id", "name")
        if not default:
            raise InputError(
                "no CVM specified", hint="pass `cvm` or `app`, or add a phala.toml to the working folder"
            )
        named = (default,)
    return tuple(dict.fromkeys(parse_cvm(text) for text in named)), None


def _default_files(given: Given, environ: Mapping[str, str], project: Project) -> tuple[str, ...]:
    """Return ``env_file`` of ``phala.toml``, where it counts.

    An unset secret must not turn into a file of the checkout, for a CVM that was named elsewhere,
    unless a person is there to see it.
    """
    named = bool(given.text("cvm") or given.text("app"))
    files = project.texts("env_file") if not named or person_at_terminal(environ) else ()
    if not files:
        hint = "pass `env-file`, `env`, `files`, `secrets` or `secrets-json`"
        if given.text("compose-file"):
            hint += "; keep-secrets: true leaves the environment unchanged"
        raise InputError("no source specified", hint=hint)
    return files


def _sources(given: Given, environ: Mapping[str, str], login: Login) -> Sources:
    return Sources(
        env_files=given.lines("env-file"),
        env=given.text("env"),
        files=given.lines("files"),
        secrets_json=given.text("secrets-json"),
        secrets_include=given.lines("secrets-include"),
        secrets=given.lines("secrets"),
        base64=given.lines("base64"),
        allow_empty=given.flag("allow-empty"),
        allow_none=given.choice("allow-removal") == "all",
        azure=on_azure(environ),
        own_key=login if isinstance(login, ApiKey) else None,
        withheld=tuple(sorted(given.withheld)),
    )


def _policy(given: Given, cvms: tuple[CvmRef, ...], app: str | None) -> trust.Policy:
    app_ids = tuple(dict.fromkeys(map(parse_app_id, given.lines("app-id"))))
    for named in {ref.app_id for ref in cvms} | {app}:
        if app_ids and named and named not in app_ids:
            raise InputError(
                f"app-id is {', '.join(app_ids)}, but the CVM is named by the app id {named}",
                hint="correct one of them",
            )
    app_ids = app_ids or ((app,) if app else ())
    rpc_url = given.text("rpc-url")
    contract = given.text("kms-contract")
    return trust.Policy(
        signers=tuple(_signers(given)),
        rpc_url=parse_url(rpc_url, "rpc-url") if rpc_url else None,
        rpc_given="rpc-url" in given.explicit,
        kms_contract="0x" + parse_app_id(contract, "kms-contract") if contract else None,
        require=cast("trust.Level", given.choice("require-trust")) or None,
        app_id=app_ids[0] if len(app_ids) == 1 else None,
        app_ids=app_ids,
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
