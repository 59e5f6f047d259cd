"""Trust in an app's key: its proof, and what vouches for the signer.

Any well-formed signature recovers to some signer. So the signer is compared with a trusted KMS root:
the user's pin, the root in the KMS contract on chain, or the published root of the Cloud KMS. The last
resort is the root that the API publishes, which is only as good as the API.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, NamedTuple, get_args

from phala_secrets.cloud import known, records
from phala_secrets.cloud.chain_root import chain_requests, check_chain, kms_contract
from phala_secrets.dstack.ids import parse_app_id
from phala_secrets.dstack.key_proof import Proof, parse_signer, prove
from phala_secrets.errors import (
    AnswerError,
    Finding,
    InputError,
    NotFoundError,
    PhalaSecretsError,
    ProofError,
    ServerError,
    TransportError,
)
from phala_secrets.flow import Flow, ask

if TYPE_CHECKING:
    from collections.abc import Sequence

    from phala_secrets.cloud.call import Call
    from phala_secrets.cloud.records import Contract, Contracts, Cvm, Key

Level = Literal["api", "known", "chain", "pinned"]
LEVELS: tuple[Level, ...] = get_args(Level)
"""What a proof can rest on, weakest first."""

CENTRAL = "phala"
"""The name of the Cloud KMS: the only contract slug that serves keys itself."""

UNKNOWN_ROOT = "unknown root of the Cloud KMS"
"""The beginning of the warning under ``require-trust: api``."""

_MOST_PAGES = 50


class Policy(NamedTuple):
    """What the user trusts.

    ``signers`` are compressed SEC1 hex. ``rpc_url`` is the RPC for apps on an Onchain KMS. ``rpc_given``
    is whether it was an explicit input: then every app must be on one. ``kms_contract`` replaces the
    well-known contract of the chain. ``app_id`` is the required app, ``app_ids`` are the allowed apps if
    there are multiple. ``kms`` is the slug or id of the KMS that serves the key. ``cloud_root`` is the
    root that the API's Cloud KMS must have (``known.expected_root``), or None.
    """

    signers: tuple[str, ...] = ()
    rpc_url: str | None = None
    rpc_given: bool = False
    kms_contract: str | None = None
    require: Level | None = None
    app_id: str | None = None
    app_ids: tuple[str, ...] = ()
    kms: str | None = None
    cloud_root: str | None = None

    def __repr__(self) -> str:
        return f"Policy(require={self.require}, signers={self.signers})"

    def check(self) -> None:
        """Raise ProofError if ``require`` cannot be met because a pin or an RPC is missing.

        Raise InputError for a contract without an RPC.
        """
        if self.kms_contract and not self.rpc_url:
            raise InputError(
                "kms-contract has no effect without rpc-url",
                hint="check the name of the variable behind rpc-url",
            )
        reachable: Level = "pinned" if self.signers else "chain" if self.rpc_url else "known"
        if self.require and LEVELS.index(reachable) < LEVELS.index(self.require):
            missing = (
                "trusted-signers is" if self.require == "pinned" else "trusted-signers and rpc-url are both"
            )
            raise ProofError(
                f"require-trust is {self.require}, but {missing} empty",
                hint="check the name of the variable behind it",
            )


class ProvenKey(NamedTuple):
    """An app's proven key: its signer matches a trusted one.

    ``app_id`` is 40 hex digits, ``kms`` the slug or id that served the key, ``trust`` what vouches for
    the signer, ``chain_id`` the chain of the KMS contract (None for the Cloud KMS).
    """

    proof: Proof
    app_id: str
    kms: str
    trust: Level
    chain_id: int | None
    kms_contract: str | None
    findings: tuple[Finding, ...] = ()

    @property
    def signer(self) -> str:
        """The KMS root that signed, compressed SEC1 hex without ``0x``."""
        return self.proof.signer

    @property
    def public_key(self) -> bytes:
        """The X25519 key, 32 bytes."""
        return self.proof.public_key


def app_of(cvm: Cvm, expected: str | None) -> str:
    """Return the CVM's app id, 40 hex digits. Raise ProofError if it is not the expected one."""
    if not cvm.app_id:
        raise AnswerError(
            f"Phala Cloud reports no app for the CVM {cvm.name!a}",
            hint="redeploy it: without an app, its KMS serves no key",
        )
    try:
        app_id = parse_app_id(cvm.app_id)
    except InputError:
        raise AnswerError(
            f"Phala Cloud reports an invalid app id: {cvm.app_id[:60]!a}", hint="check api-url"
        ) from None
    if expected and app_id != expected:
        raise ProofError(
            f"the CVM {cvm.name!a} belongs to the app {app_id}, not to {expected}",
            hint="check `cvm` and `app-id`; if both are right, do not trust this API",
        )
    return app_id


def contract_of(cvm: Cvm, contracts: Sequence[Contract]) -> Contract:
    """Return the KMS contract of a CVM by chain and address, never by ``kms_type``."""
    chain_id, address = cvm.chain_id, cvm.kms_address
    if chain_id:
        found = [c for c in contracts if c.chain_id == chain_id and _same(c.address, address)]
    else:
        found = [c for c in contracts if c.central]
        found = [c for c in found if c.slug == "phala"] or found
    if len(found) == 1:
        return found[0]
    where = f"contract {address} on chain {chain_id}" if chain_id else "Cloud KMS"
    count = "lists no" if not found else f"lists {len(found)} times the"
    raise AnswerError(
        f"Phala Cloud {count} KMS for the CVM {cvm.name!a} ({where[:120]!a})",
        hint="set its slug or id as `kms`, with `trusted-signers`",
    )


def _same(a: str, b: str | None) -> bool:
    return b is not None and a.lower() == b.lower()


def all_contracts(first: Contracts) -> Flow[tuple[Contract, ...]]:
    """Return the contracts of the first page and of all further pages."""
    rest: list[Contracts] = []
    if first.pages > 1:
        rest = yield tuple(records.contracts(page) for page in range(2, min(first.pages, _MOST_PAGES) + 1))
    return tuple(contract for page in (first, *rest) for contract in page.items)


def prove_key(cvm: Cvm, contracts: Sequence[Contract], policy: Policy) -> Flow[ProvenKey]:
    """Fetch the app's key and prove it. Raise ProofError if any part of the proof fails.

    The requests to the chain go out together with the one for the key.
    """
    app_id = app_of(cvm, policy.app_id)
    on_chain = cvm.chain_id
    if policy.rpc_given and not on_chain:
        raise ProofError(
            f"rpc-url is set, but Phala Cloud reports no KMS contract for the app {app_id}",
            hint="leave out rpc-url for an app on the Cloud KMS, and pin its root with trusted-signers",
        )
    rpc_url = policy.rpc_url if on_chain else None
    contract = _listed(cvm, contracts, policy)
    beside: list[Call[Any]] = []
    kms_address = None
    if rpc_url and on_chain:
        kms_address = kms_contract(on_chain, policy.kms_contract)
        beside = chain_requests(rpc_url, on_chain, kms_address, app_id)
    names = yield from _servers(policy.kms, contract, contracts)
    try:
        kms, key, from_chain = yield from _fetch(names, app_id, beside)
    except NotFoundError as error:
        raise _unknown(error, policy.kms, contracts) from None
    proof = _prove(key, app_id)
    if policy.signers and proof.signer not in policy.signers:
        raise ProofError(
            f"the key of the app {app_id} is signed by {proof.signer}, which is not in trusted-signers",
            hint="do not send secrets to it unless you know that the KMS root has changed",
        )
    if from_chain:
        check_chain(proof, on_chain, from_chain, kms_address or "")
    is_known = proof.signer == known.published.root
    trust: Level = "pinned" if policy.signers else "chain" if from_chain else "known" if is_known else "api"
    remarks = _remarks(cvm, proof)
    if trust == "api":
        _check_published(proof, contract)
        remarks += _unknown_root(cvm, proof, policy)
    if policy.require and LEVELS.index(trust) < LEVELS.index(policy.require):
        raise ProofError(
            f"require-trust is {policy.require}, but the proof rests on {trust}",
            hint="set trusted-signers, or rpc-url for an app on an Onchain KMS",
        )
    return ProvenKey(
        proof=proof,
        app_id=app_id,
        kms=kms,
        trust=trust,
        chain_id=on_chain,
        kms_contract=kms_address or (contract.address if contract and on_chain else None),
        findings=tuple(remarks),
    )


def _servers(
    given: str | None, contract: Contract | None, contracts: Sequence[Contract]
) -> Flow[tuple[str, ...]]:
    """Return the names that may serve the key: nodes, since the service accepts no contract's slug.

    The Cloud KMS serves keys under its own name. A given KMS may be a contract or a node. The contract's
    own name comes last, in case the service accepts it one day.
    """
    named = next((one for one in contracts if given in (one.slug, one.id)), None) if given else contract
    if named and named.central and named.slug == CENTRAL:
        return (CENTRAL,)
    name = named.name if named else given or ""
    try:
        nodes = yield from ask(records.nodes(name))
    except NotFoundError:
        nodes = ()
    return (*(node for node in nodes if node != name), name)


def _fetch(
    names: Sequence[str], app_id: str, beside: Sequence[Call[Any]]
) -> Flow[tuple[str, Key, list[Any]]]:
    """Return the name that served the key, the key, and the results from the chain.

    Try the next node if one does not respond or does not know the app.
    """
    refusals: list[PhalaSecretsError] = []
    for number, name in enumerate(names, 1):
        last = number == len(names)
        try:
            key, *from_chain = yield (records.key(name, app_id, last=last), *beside)
        except (NotFoundError, ServerError, TransportError) as error:
            refusals.append(error)
            if isinstance(error, AnswerError):
                raise
            if last:
                raise _unserved(refusals, names) from None
        else:
            return name, key, from_chain
    raise AssertionError("no name serves the key")


def _unknown(error: NotFoundError, given: str | None, contracts: Sequence[Contract]) -> NotFoundError:
    """Return the error for an unknown ``kms``, which lists those that exist."""
    if given is None:
        return error
    listed = ", ".join(one.slug or one.id for one in contracts)[:300]
    return error.saying(
        f"unknown kms {given[:60]!a}; Phala Cloud lists {listed!a}: {error.marked}",
        hint="use one of these or one of their nodes: phala-secrets kms nodes lists them",
    )


def _unserved(refusals: Sequence[PhalaSecretsError], names: Sequence[str]) -> PhalaSecretsError:
    """Return the most telling refusal: a node that did not respond before one that knows no such app."""
    if len(names) == 1:
        return refusals[0]
    nodes = refusals[:-1]  # the last one is the contract's own name
    first = next((error for error in nodes if not isinstance(error, NotFoundError)), nodes[0])
    return first.saying(
        f"no node of the KMS served the key ({', '.join(names[:-1])[:300]!a}): {first.marked}"
    )


def _listed(cvm: Cvm, contracts: Sequence[Contract], policy: Policy) -> Contract | None:
    """Return the CVM's contract, or None if neither key nor root must come from it."""
    try:
        return contract_of(cvm, contracts)
    except AnswerError:
        if policy.kms and (policy.signers or policy.rpc_url):
            return None
        raise


def _prove(key: Key, app_id: str) -> Proof:
    return prove(
        key.public_key,
        app_id,
        signature=key.signature,
        signature_v1=key.signature_v1,
        timestamp=key.timestamp,
    )


def _check_published(proof: Proof, contract: Contract | None) -> None:
    published = contract.root if contract else None
    name = contract.name if contract else "of this CVM"
    if not published:
        raise ProofError(
            f"Phala Cloud publishes no root for the KMS {name[:80]!a}, so there is nothing to compare with",
            hint=f"if you know that this is the KMS root, pin it: trusted-signers: 0x{proof.signer}",
        )
    try:
        root = parse_signer(published)
    except InputError as error:
        raise ProofError(
            f"the root that Phala Cloud publishes for the KMS {name[:80]!a}: {error.marked}",
            hint="pin the KMS root with trusted-signers",
        ) from None
    if root != proof.signer:
        raise ProofError(
            f"the key is signed by {proof.signer}, but the KMS {name[:80]!a} has the root {root}",
            hint="do not send secrets to it: this key is not from the app's KMS",
        )


def _unknown_root(cvm: Cvm, proof: Proof, policy: Policy) -> list[Finding]:
    """Refuse a key of the Cloud KMS that another root than the published one signed, or warn.

    Only the API says that an app is on the Cloud KMS. ``require-trust: known`` does not rely on it.
    """
    if cvm.chain_id or policy.cloud_root in (None, proof.signer):
        return []
    what = f"the Cloud KMS signed with {proof.signer}, not with its published root {policy.cloud_root}"
    if policy.require != "api":
        raise ProofError(
            what,
            hint="do not send secrets to it; if Phala announced a new root, pin that",
        )
    return [Finding(f"{UNKNOWN_ROOT}: {what}", hint="pin the new root if Phala announced one")]


def _remarks(cvm: Cvm, proof: Proof) -> list[Finding]:
    unsigned = cvm.unsigned_key
    proven = proof.public_key.hex()
    if unsigned and unsigned.lower().removeprefix("0x") != proven:
        return [
            Finding(
                f"the CVM {cvm.name!a} has the unsigned key {unsigned[:80]!a}; the proven key is {proven}",
                hint="report to Phala's support that the two differ; this run uses the proven key",
            )
        ]
    return []
