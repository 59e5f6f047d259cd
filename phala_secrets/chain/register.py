"""Approving a compose hash and named devices as the owner of the app's contract."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from phala_secrets import flow
from phala_secrets.chain import rpc
from phala_secrets.chain.abi import address
from phala_secrets.chain.calldata import add_compose_hash, add_device
from phala_secrets.chain.networks import chain_name
from phala_secrets.chain.transaction import FAILURES, ContractCall, Offer, price, transact
from phala_secrets.dstack.ids import parse_hash
from phala_secrets.errors import AnswerError, ApprovalRequiredError, InputError
from phala_secrets.flow import Flow, Pause, ask

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from phala_secrets.chain.owner import Sender

ALREADY_REGISTERED: Final = "already-registered"
"""The service accepts this as the transaction hash of an earlier approval."""


@dataclass(frozen=True, slots=True)
class Approvals:
    """Whether the app's contract allows the compose hash today, and which devices it does not allow."""

    compose_hash: bool
    missing_devices: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Sent:
    """A successful transaction of this run. ``call`` is ``addDevice`` or ``addComposeHash``."""

    call: str
    transaction_hash: str


@dataclass(frozen=True, slots=True)
class Registered:
    """The compose hash is approved. ``transaction_hash`` is ``0x`` hex or ``already-registered``."""

    transaction_hash: str
    sent: tuple[Sent, ...]


def approvals(*, chain_id: int, app: str, compose_hash: str, devices: Sequence[str] = ()) -> Flow[Approvals]:
    """Return what is already approved. This needs no key.

    Raise InputError if the RPC is for another chain and AnswerError for a malformed response.
    """
    yield from _check_chain(chain_id)
    allowed = yield from _compose_hash(app, compose_hash).allowed()
    missing = yield from _missing([_device(app, device) for device in devices])
    return Approvals(allowed, tuple(each.subject for each in missing))


def register(
    sender: Sender,
    *,
    chain_id: int,
    app: str,
    compose_hash: str,
    devices: Sequence[str] = (),
    allow_device: Iterable[str] = (),
    patience: float = 600.0,
    again: bool = False,
) -> Flow[Registered]:
    """Approve ``compose_hash`` and those ``devices`` that ``allow_device`` names for the contract ``app``.

    Send nothing that is already approved, and nothing while earlier transactions of this key are
    pending. ``again`` sends the compose hash in any case, for a service that wants a transaction:
    the call is idempotent. ``patience`` (seconds) limits each wait.

    Raises:
        InputError: the RPC is for another chain, or the key is not the owner's.
        ApprovalRequiredError: the owner is a contract, a device is not named, the balance or a cap is
            too low, or a transaction was reverted, replaced or is stuck.
        TransportError: the RPC failed or rejected the transaction; AnswerError if it sent garbage.
            Once a transaction is signed, the message has its hash.
    """
    named = {parse_hash(each, "allow-device") for each in allow_device}
    approval = _compose_hash(app, compose_hash)
    wanted = [*(_device(app, device) for device in devices), *([] if again else [approval])]

    yield from _check_chain(chain_id)
    missing = [*(yield from _missing(wanted)), *([approval] if again else [])]
    if not missing:
        return Registered(ALREADY_REGISTERED, ())
    yield from _check_owner(sender, app)
    for each in missing:
        if each.call.name == "addDevice" and each.subject not in named:
            raise ApprovalRequiredError(
                f"the app may not run on device {each.subject}, and allow-device does not name it",
                hint="name it in allow-device if that machine may have the app's keys",
            )
    if (yield from _wait_for_earlier(sender, patience)):
        missing = [*(yield from _missing(wanted)), *([approval] if again else [])]

    offers = yield from price(sender, chain_id, [each.call for each in missing])
    sent = []
    for each, offer in zip(missing, offers, strict=True):
        if hash_ := (yield from _approve(sender, each, offer, patience)):
            sent.append(Sent(each.call.name, hash_))
    ours = {each.call: each.transaction_hash for each in sent}
    return Registered(ours.get("addComposeHash", ALREADY_REGISTERED), tuple(sent))


@dataclass(frozen=True, slots=True)
class _Approval:
    """What to allow (32 bytes of hex), the call that does it, how to check it, and its event."""

    subject: str
    call: ContractCall
    allowed: Callable[[], Flow[bool]]
    topic: str | None = None


def _compose_hash(app: str, text: str) -> _Approval:
    hash_ = parse_hash(text, "compose hash")
    call = ContractCall("addComposeHash", address(app), add_compose_hash(hash_))
    return _Approval(hash_, call, lambda: ask(rpc.compose_hash_allowed(app, hash_)), rpc.COMPOSE_HASH_ADDED)


def _device(app: str, text: str) -> _Approval:
    device = parse_hash(text, "device id")

    def allowed() -> Flow[bool]:
        return (yield from ask(rpc.any_device_allowed(app))) or (
            yield from ask(rpc.device_allowed(app, device))
        )

    return _Approval(device, ContractCall("addDevice", address(app), add_device(device)), allowed)


def _missing(wanted: Sequence[_Approval]) -> Flow[list[_Approval]]:
    missing = []
    for each in wanted:
        if not (yield from each.allowed()):
            missing.append(each)
    return missing


def _check_chain(chain_id: int) -> Flow[None]:
    actual = yield from ask(rpc.chain_id())
    if actual != chain_id:
        raise InputError(
            f"rpc-url is for {chain_name(actual)}, but the app is on {chain_name(chain_id)}",
            hint=f"use an rpc-url for {chain_name(chain_id)}",
        )


def _check_owner(sender: Sender, app: str) -> Flow[None]:
    owner = yield from ask(rpc.owner(app))
    if owner == sender.address:
        return
    if (yield from ask(rpc.code(owner))):
        raise ApprovalRequiredError(
            f"the app's owner {owner} is a contract, such as a Safe: no single key can sign for it",
            hint="use prepare-only: it writes a file for Safe's Transaction Builder",
        )
    raise InputError(
        f"private-key is the key of {sender.address}, but the app's owner is {owner}",
        hint="use the owner's key, or approve elsewhere (prepare-only)",
    )


def _wait_for_earlier(sender: Sender, patience: float) -> Flow[bool]:
    """Return whether there was anything to wait for: an earlier run may have sent this very approval."""
    end = flow.clock.monotonic() + patience
    waited = False
    while True:
        mined = yield from ask(rpc.nonce(sender.address, "latest"))
        waiting = (yield from ask(rpc.nonce(sender.address, "pending"))) - mined
        if waiting <= 0:
            return waited
        if flow.clock.monotonic() >= end:
            raise ApprovalRequiredError(
                f"{waiting} earlier transaction(s) of {sender.address} are not mined, from nonce {mined} on",
                hint="speed them up or cancel them in a wallet, then run again",
            )
        waited = True
        yield Pause(flow.CHAIN_POLL, f"Waiting for {waiting} earlier transaction(s) of {sender.address}")


def _approve(sender: Sender, approval: _Approval, offer: Offer, patience: float) -> Flow[str | None]:
    """Return the hash of the transaction that did it, or None if another one did it meanwhile."""
    try:
        receipt = yield from transact(sender, offer, patience=patience)
    except (ApprovalRequiredError, *FAILURES):
        with suppress(*FAILURES):
            if (yield from approval.allowed()):
                return None
        raise
    hash_, call = receipt.transaction_hash, approval.call
    if approval.topic and not any(
        log.address == call.to and log.names(approval.topic, approval.subject) for log in receipt.logs
    ):
        raise AnswerError(
            f"{call.name}: transaction {hash_} succeeded, but the app's contract emitted no event for it",
            hint="check that the app id is that of a dstack app and that you trust rpc-url",
        )
    end = flow.clock.monotonic() + patience
    # An RPC is many nodes, and some are behind.
    while not (yield from approval.allowed()):
        if flow.clock.monotonic() >= end:
            raise AnswerError(
                f"{call.name}: transaction {hash_} succeeded, but the contract does not show it",
                hint="run again later: nothing that is approved by then is sent again",
            )
        yield Pause(flow.CHAIN_POLL, f"Waiting for the contract to show transaction {hash_}", hash_)
    return hash_
