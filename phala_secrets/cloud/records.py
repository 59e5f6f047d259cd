"""Phala Cloud's responses as a run reads them: plain records, each field checked.

The library returns complete pydantic models. A run needs a handful of fields, and loading pydantic takes
as long as the rest of a step. So a run reads them itself. The requests are those of ``requests``.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any, NamedTuple

from phala_secrets.cloud import requests
from phala_secrets.cloud.fields import Fields, identifier
from phala_secrets.cloud.rows import precondition_fields, rows
from phala_secrets.errors import AnswerError, untrusted

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from phala_secrets.cloud.call import Call
    from phala_secrets.cloud.progress import Revision
    from phala_secrets.dstack.compose_hash import Form

_HASH = re.compile(r"(?:0x)?([0-9a-f]{64})", re.IGNORECASE)
_DEVICES = 64
"""Devices per node: a machine has one, or a few during a replacement."""

_NODES = 16
"""Nodes per KMS contract that a run tries."""

_NAMES = 1024
"""The guest's limit for names."""

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,511}")
"""A valid name: the guest refuses the whole environment for any other."""

_APP_COMPOSE = 512 * 1024
"""Characters of an app-compose: the guest's limit is 256 KB in UTF-8."""

_CONTRACTS = 1000
"""KMS contracts per page: a run requests a hundred."""


class Cvm(NamedTuple):
    """A CVM. ``chain_id`` is None for the Cloud KMS. Never encrypt to ``unsigned_key``.

    ``os_version`` is the guest's (``0.5.8``). ``device_ids`` are the machines that may host the CVM: 32
    bytes of hex each, sorted.
    """

    id: str
    name: str
    status: str
    app_id: str | None
    compose_hash: str | None
    device_ids: tuple[str, ...]
    os_version: str | None
    in_progress: bool
    chain_id: int | None
    kms_address: str | None
    unsigned_key: str | None
    vm_uuid: str | None = None
    instance_id: str | None = None


class Names(NamedTuple):
    """The names of CVMs on one page of the workspace, and the number of pages."""

    names: tuple[str, ...]
    pages: int


class Contract(NamedTuple):
    """A KMS contract and its root's public key (SEC1 hex), as the API publishes them."""

    id: str
    slug: str | None
    address: str
    chain_id: int
    root: str | None

    @property
    def central(self) -> bool:
        """Whether this is the Cloud KMS, which Phala runs without a contract on chain."""
        return self.chain_id == 0 or self.address == "phala"

    @property
    def name(self) -> str:
        """The name by which to request it."""
        return identifier(self.slug or self.id, "KMS contract", "slug or id")


class Contracts(NamedTuple):
    """A page of KMS contracts, and the number of pages."""

    items: tuple[Contract, ...]
    pages: int


class Key(NamedTuple):
    """An app's key with its signatures. Nothing is proven yet."""

    public_key: str
    signature: str | None
    signature_v1: str | None
    timestamp: Any


class Compose(NamedTuple):
    """An app-compose: today's names (None if it has no list) and its content.

    ``form`` is the form that gives the CVM's compose hash. None means that no form does, so this may not
    be what the guest measures.
    """

    allowed_envs: tuple[str, ...] | None
    content: Mapping[str, Any]
    form: Form | None = None


class Accepted(NamedTuple):
    """202: the update is under way.

    ``correlation_id`` is its operation. It may be empty if the response was lost and only a ``revision``
    shows that the update was accepted.
    """

    correlation_id: str
    allowed_envs_changed: bool | None = None
    revision: Revision | None = None


class Precondition(NamedTuple):
    """465: this compose hash must be approved on chain first."""

    compose_hash: str
    app_id: str
    device_id: str | None


def cvm(cvm_id: str) -> Call[Cvm]:
    """Request one CVM."""
    return requests.cvm(cvm_id).read_by(_cvm)


def cvm_names(page: int = 1) -> Call[Names]:
    """Request one page of the names of the workspace's CVMs."""

    def read(body: Any) -> Names:
        names = tuple(Fields(row, "CVM").text("name") for row in rows(body))
        return Names(names, Fields(body, "list of CVMs").optional("pages", int) or 1)

    return requests.cvms(page=str(page), page_size="100").read_by(read)


def app_cvms(app_id: str) -> Call[tuple[Cvm, ...]]:
    """Request every CVM of an app."""
    return requests.app_cvms(app_id).read_by(lambda body: tuple(_cvm(row) for row in rows(body)))


def contracts(page: int = 1) -> Call[Contracts]:
    """Request one page of KMS contracts, as large as the API allows."""
    return requests.contracts(page=str(page) if page > 1 else None, page_size="100").read_by(_contracts)


def nodes(contract: str) -> Call[tuple[str, ...]]:
    """Request the slug or id of each node of a KMS contract."""
    return requests.nodes(contract).read_by(lambda body: tuple(_node(row) for row in rows(body)[:_NODES]))


def key(kms: str, app_id: str, *, last: bool = True) -> Call[Key]:
    """Request an app's key and its signatures. Unless this is the ``last`` node, try once only."""
    return requests.key(kms, app_id).read_by(_key)._replace(repeatable=last)


def measured(cvm_id: str) -> Call[str | None]:
    """Request the exact text of the app-compose that the guest measures, if the API has it."""
    return requests.attestation(cvm_id).read_by(_measured)


def compose(cvm_id: str) -> Call[Compose]:
    """Request a CVM's app-compose."""
    return requests.compose_file(cvm_id).read_by(_compose)


def update(
    cvm_id: str,
    encrypted_env: str,
    names: Sequence[str],
    compose_hash: str | None = None,
    transaction_hash: str | None = None,
) -> Call[Accepted | Precondition]:
    """Update the environment, sent once. A 465 is a result, not an error."""
    return _update(requests.update_envs(cvm_id, encrypted_env, names, compose_hash, transaction_hash))


def patch(
    cvm_id: str,
    compose_file: str,
    encrypted_env: str | None = None,
    names: Sequence[str] | None = None,
    *,
    prepare_only: bool = False,
) -> Call[Accepted | Precondition]:
    """Update the compose file, and the environment if there is one, sent once."""
    return _update(
        requests.patch_cvm(
            cvm_id,
            docker_compose_file=compose_file,
            encrypted_env=encrypted_env,
            allowed_envs=names,
            prepare_only=prepare_only,
        )
    )


def commit(cvm_id: str, compose_hash: str, transaction_hash: str) -> Call[Accepted | Precondition]:
    """Commit a patch after its approval, sent once."""
    return _update(requests.commit_patch(cvm_id, compose_hash, transaction_hash))


def is_allowed(app_id: str, compose_hash: str, device_id: str | None) -> Call[bool | None]:
    """Ask the API whether the app's contract allows a compose hash on a device. None if it cannot tell."""
    return requests.is_allowed(app_id, compose_hash, device_id).read_by(_is_allowed)


def _is_allowed(body: Any) -> bool | None:
    fields = Fields(body, "approval")
    return None if fields.all.get("error") else fields.optional("is_allowed", bool)


def _update(call: Call[Any]) -> Call[Accepted | Precondition]:
    reader: Call[Accepted | Precondition] = call.read_by(_accepted, status_465=_precondition)
    return reader._replace(when_busy=False)


def _cvm(body: Any) -> Cvm:
    fields = Fields(body, "CVM")
    kms, node = fields.part("kms_info"), fields.part("node_info")
    return Cvm(
        id=fields.identifier("id"),
        name=fields.text("name"),
        status=fields.text("status"),
        app_id=fields.optional("app_id", str),
        compose_hash=_compose_hash(fields),
        device_ids=_device_ids(node),
        os_version=fields.part("os").optional("version", str),
        in_progress=bool(fields.optional("in_progress", bool)),
        chain_id=kms.optional("chain_id", int) or None,
        kms_address=kms.optional("dstack_kms_address", str),
        unsigned_key=kms.optional("encrypted_env_pubkey", str),
        vm_uuid=fields.optional("vm_uuid", str),
        instance_id=fields.optional("instance_id", str),
    )


def _compose_hash(fields: Fields) -> str | None:
    """Return a compose hash or None. It becomes an output that a script may read."""
    text = fields.optional("compose_hash", str)
    if text and not _HASH.fullmatch(text):
        raise AnswerError(
            f"Phala Cloud's response is not a valid CVM: invalid compose_hash {untrusted(ascii(text[:60]))}",
            hint="check api-url; if it is right, do not trust this API",
        )
    return text or None


def _device_ids(node: Fields) -> tuple[str, ...]:
    """Return the enabled devices, or the one of the older form. Leave out anything but 32 bytes of hex."""
    listed = node.optional("device_ids", list)
    if listed is None:
        ids = [node.optional("device_id", str)]
    else:
        rows = [Fields(row, "device") for row in listed[:_DEVICES]]
        ids = [row.optional("device_id", str) for row in rows if row.optional("enabled", bool) is not False]
    found = (_HASH.fullmatch(one) for one in ids if one)
    return tuple(sorted({match[1].lower() for match in found if match}))


def _contracts(body: Any) -> Contracts:
    pages = Fields(body, "list of KMS contracts").optional("pages", int)
    listed = rows(body)
    if len(listed) > _CONTRACTS:
        raise AnswerError(f"Phala Cloud lists too many KMS contracts: {len(listed)}", hint="check api-url")
    return Contracts(tuple(_contract(row) for row in listed), pages or 1)


def _contract(body: Any) -> Contract:
    fields = Fields(body, "KMS contract")
    return Contract(
        id=fields.text("id"),
        slug=fields.optional("slug", str),
        address=fields.text("contract_address"),
        chain_id=fields.optional("chain_id", int) or 0,
        root=fields.optional("k256_pubkey", str),
    )


def _node(body: Any) -> str:
    fields = Fields(body, "KMS node")
    return identifier(fields.optional("slug", str) or fields.text("id"), "KMS node", "slug or id")


def _measured(body: Any) -> str | None:
    fields = Fields(body, "attestation")
    texts = (fields.all.get("compose_file"), fields.part("tcb_info").all.get("app_compose"))
    return next((one for one in texts if isinstance(one, str) and one and len(one) <= _APP_COMPOSE), None)


def _key(body: Any) -> Key:
    fields = Fields(body, "app's key")
    return Key(
        public_key=fields.text("public_key"),
        signature=fields.optional("signature", str),
        signature_v1=fields.optional("signature_v1", str),
        timestamp=fields.all.get("timestamp"),
    )


def _compose(body: Any) -> Compose:
    """Read an app-compose for hashing. Refuse one that is too large for any guest."""
    size = len(json.dumps(body, ensure_ascii=False))
    if size > _APP_COMPOSE:
        raise AnswerError(
            f"Phala Cloud's response is not an app-compose: {size} characters exceed the guest's limit",
            hint="check api-url",
        )
    return compose_of(body)


def compose_of(body: Any) -> Compose:
    """Read an app-compose from the API or from an attestation."""
    fields = Fields(body, "app-compose")
    names = fields.optional("allowed_envs", list)
    if names is not None:
        _check_names(names)
    return Compose(None if names is None else tuple(names), fields.all)


def _check_names(names: list[Any]) -> None:
    """Raise AnswerError for too many names or invalid ones."""
    problem = ""
    if len(names) > _NAMES:
        problem = f"{len(names)} names, more than the guest's {_NAMES}"
    elif not all(isinstance(name, str) and _NAME.fullmatch(name) for name in names):
        problem = "an invalid name"
    if problem:
        raise AnswerError(
            f"Phala Cloud's response is not an app-compose: allowed_envs has {problem}",
            hint="check api-url; if it is right, check the CVM's names in the dashboard",
        )


def _accepted(body: Any) -> Accepted:
    fields = Fields(body, "accepted update")
    return Accepted(fields.identifier("correlation_id"), fields.optional("allowed_envs_changed", bool))


def _precondition(body: Any) -> Precondition:
    fields = Fields(precondition_fields(body), "precondition")
    return Precondition(fields.text("compose_hash"), fields.text("app_id"), fields.optional("device_id", str))
