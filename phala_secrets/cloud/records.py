"""What a run reads of Phala Cloud's answers: plain records, each field checked as it is read.

The library answers with pydantic models, whole. A run acts on a handful of fields, and
loading pydantic takes as long as all the rest of a step, so it reads them itself: the
requests are those of ``requests``.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, NamedTuple

from phala_secrets.cloud import requests
from phala_secrets.cloud.fields import Fields, identifier
from phala_secrets.cloud.rows import precondition_fields, rows
from phala_secrets.errors import AnswerError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from phala_secrets.cloud.call import Call
    from phala_secrets.cloud.progress import Revision
    from phala_secrets.dstack.compose_hash import Form

_HASH = re.compile(r"(?:0x)?([0-9a-f]{64})", re.IGNORECASE)
_DEVICES = 64
"""Devices of one node: a machine has one, or a few while it is replaced."""

_NODES = 16
"""Nodes of one KMS contract: more are not asked."""

_NAMES = 1024
"""Names that a guest takes."""

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,511}")
"""What a name may look like, or the guest refuses the whole environment."""

_CONTRACTS = 1000
"""KMS contracts of one page, which is asked for a hundred."""


class Cvm(NamedTuple):
    """A CVM. ``chain_id`` is None for the central KMS; ``unsigned_key`` is never to be encrypted to.

    ``os_version`` is that of the guest (``0.5.8``). ``device_ids`` are the machines that the CVM may be
    on: 32 bytes of hex each, sorted.
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


class Contract(NamedTuple):
    """A KMS contract and its root's public key (SEC1 hex), as the API publishes them."""

    id: str
    slug: str | None
    address: str
    chain_id: int
    root: str | None

    @property
    def central(self) -> bool:
        """Whether this is the KMS that Phala runs, with no contract on chain."""
        return self.chain_id == 0 or self.address == "phala"

    @property
    def name(self) -> str:
        """What to ask the API for it by."""
        return identifier(self.slug or self.id, "KMS contract", "slug or id")


class Contracts(NamedTuple):
    """A page of KMS contracts, and how many pages there are."""

    items: tuple[Contract, ...]
    pages: int


class Key(NamedTuple):
    """An app's key with its signatures, as given: nothing of it is proven."""

    public_key: str
    signature: str | None
    signature_v1: str | None
    timestamp: Any


class Compose(NamedTuple):
    """An app-compose: today's names, None where it has no list of them, and all of its content.

    ``form`` is how it is written to have the CVM's compose hash. None is one that cannot be shown to
    be what the guest measures.
    """

    allowed_envs: tuple[str, ...] | None
    content: Mapping[str, Any]
    form: Form | None = None


class Accepted(NamedTuple):
    """202: the update is under way.

    ``correlation_id`` is its operation. Where only a ``revision`` says that it was accepted, since the
    response was lost, it may be empty.
    """

    correlation_id: str
    allowed_envs_changed: bool | None = None
    revision: Revision | None = None


class Precondition(NamedTuple):
    """465: this compose hash has to be approved on chain first."""

    compose_hash: str
    app_id: str
    device_id: str | None


def cvm(cvm_id: str) -> Call[Cvm]:
    """One CVM."""
    return requests.cvm(cvm_id).read_by(_cvm)


def app_cvms(app_id: str) -> Call[tuple[Cvm, ...]]:
    """Every CVM of an app."""
    return requests.app_cvms(app_id).read_by(lambda answer: tuple(_cvm(row) for row in rows(answer)))


def contracts(page: int = 1) -> Call[Contracts]:
    """One page of the KMS contracts, as large as the API gives it."""
    return requests.contracts(page=str(page) if page > 1 else None, page_size="100").read_by(_contracts)


def nodes(contract: str) -> Call[tuple[str, ...]]:
    """What to ask the nodes of a KMS contract by: the slug of each, or its id."""
    return requests.nodes(contract).read_by(lambda answer: tuple(_node(row) for row in rows(answer)[:_NODES]))


def key(kms: str, app_id: str, *, last: bool = True) -> Call[Key]:
    """An app's key and what it is signed with. Where there is another node to ask, one try is enough."""
    return requests.key(kms, app_id).read_by(_key)._replace(repeatable=last)


def measured(cvm_id: str) -> Call[str | None]:
    """The exact text of the app-compose that the guest measures, where the API has it."""
    return requests.attestation(cvm_id).read_by(_measured)


def compose(cvm_id: str) -> Call[Compose]:
    """A CVM's app-compose."""
    return requests.compose_file(cvm_id).read_by(compose_of)


def update(
    cvm_id: str,
    encrypted_env: str,
    names: Sequence[str],
    compose_hash: str | None = None,
    transaction_hash: str | None = None,
) -> Call[Accepted | Precondition]:
    """The update itself, sent once. 465 is a result of it, and no error."""
    return _update(requests.update_envs(cvm_id, encrypted_env, names, compose_hash, transaction_hash))


def patch(
    cvm_id: str,
    compose_file: str,
    encrypted_env: str | None = None,
    names: Sequence[str] | None = None,
    *,
    prepare_only: bool = False,
) -> Call[Accepted | Precondition]:
    """The update of a compose file, and of the environment where one is given, sent once."""
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
    """The second half of that, once it is approved, sent once."""
    return _update(requests.commit_patch(cvm_id, compose_hash, transaction_hash))


def is_allowed(app_id: str, compose_hash: str, device_id: str | None) -> Call[bool | None]:
    """Whether the app's contract allows a compose hash on a device: the API's word, None without one."""
    return requests.is_allowed(app_id, compose_hash, device_id).read_by(_is_allowed)


def _is_allowed(answer: Any) -> bool | None:
    fields = Fields(answer, "approval")
    return None if fields.all.get("error") else fields.optional("is_allowed", bool)


def _update(call: Call[Any]) -> Call[Accepted | Precondition]:
    reader: Call[Accepted | Precondition] = call.read_by(_accepted, status_465=_precondition)
    return reader._replace(when_busy=False)


def _cvm(answer: Any) -> Cvm:
    fields = Fields(answer, "CVM")
    kms, node = fields.part("kms_info"), fields.part("node_info")
    return Cvm(
        id=fields.identifier("id"),
        name=fields.text("name"),
        status=fields.text("status"),
        app_id=fields.optional("app_id", str),
        compose_hash=fields.optional("compose_hash", str),
        device_ids=_device_ids(node),
        os_version=fields.part("os").optional("version", str),
        in_progress=bool(fields.optional("in_progress", bool)),
        chain_id=kms.optional("chain_id", int) or None,
        kms_address=kms.optional("dstack_kms_address", str),
        unsigned_key=kms.optional("encrypted_env_pubkey", str),
        vm_uuid=fields.optional("vm_uuid", str),
        instance_id=fields.optional("instance_id", str),
    )


def _device_ids(node: Fields) -> tuple[str, ...]:
    """The enabled devices, or the one of the older form; what is no 32 bytes of hex is left out."""
    listed = node.optional("device_ids", list)
    if listed is None:
        ids = [node.optional("device_id", str)]
    else:
        rows = [Fields(row, "device") for row in listed[:_DEVICES]]
        ids = [row.optional("device_id", str) for row in rows if row.optional("enabled", bool) is not False]
    found = (_HASH.fullmatch(one) for one in ids if one)
    return tuple(sorted({match[1].lower() for match in found if match}))


def _contracts(answer: Any) -> Contracts:
    pages = Fields(answer, "list of KMS contracts").optional("pages", int)
    listed = rows(answer)
    if len(listed) > _CONTRACTS:
        raise AnswerError(f"Phala Cloud's list has {len(listed)} KMS contracts", hint="check api-url")
    return Contracts(tuple(_contract(row) for row in listed), pages or 1)


def _contract(answer: Any) -> Contract:
    fields = Fields(answer, "KMS contract")
    return Contract(
        id=fields.text("id"),
        slug=fields.optional("slug", str),
        address=fields.text("contract_address"),
        chain_id=fields.optional("chain_id", int) or 0,
        root=fields.optional("k256_pubkey", str),
    )


def _node(answer: Any) -> str:
    fields = Fields(answer, "KMS node")
    return identifier(fields.optional("slug", str) or fields.text("id"), "KMS node", "slug or id")


def _measured(answer: Any) -> str | None:
    fields = Fields(answer, "attestation")
    return fields.optional("compose_file", str) or fields.part("tcb_info").optional("app_compose", str)


def _key(answer: Any) -> Key:
    fields = Fields(answer, "app's key")
    return Key(
        public_key=fields.text("public_key"),
        signature=fields.optional("signature", str),
        signature_v1=fields.optional("signature_v1", str),
        timestamp=fields.all.get("timestamp"),
    )


def compose_of(answer: Any) -> Compose:
    """Read an app-compose, as the API or as the attestation has it."""
    fields = Fields(answer, "app-compose")
    names = fields.optional("allowed_envs", list)
    if names is not None:
        _check_names(names)
    return Compose(None if names is None else tuple(names), fields.all)


def _check_names(names: list[Any]) -> None:
    """Raise AnswerError for names that no guest could have: too many, or with what no name has."""
    problem = ""
    if len(names) > _NAMES:
        problem = f"{len(names)} names, and a guest takes {_NAMES}"
    elif not all(isinstance(name, str) and _NAME.fullmatch(name) for name in names):
        problem = "a name that no variable can have"
    if problem:
        raise AnswerError(
            f"Phala Cloud's answer is no app-compose: allowed_envs has {problem}",
            hint="check api-url; if it is right, look at the CVM's names in the dashboard",
        )


def _accepted(answer: Any) -> Accepted:
    fields = Fields(answer, "accepted update")
    return Accepted(fields.identifier("correlation_id"), fields.optional("allowed_envs_changed", bool))


def _precondition(answer: Any) -> Precondition:
    fields = Fields(precondition_fields(answer), "precondition")
    return Precondition(fields.text("compose_hash"), fields.text("app_id"), fields.optional("device_id", str))
