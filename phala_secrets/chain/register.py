"""Approving a compose hash, and a device that was named, as the owner of the app's contract."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from phala_secrets import flow
from phala_secrets.chain import rpc
from phala_secrets.chain.abi import address
from phala_secrets.chain.handover import calldata_add_compose_hash, calldata_add_device
from phala_secrets.chain.networks import chain_name
from phala_secrets.chain.transaction import FAILURES, ContractCall, Offer, price, transact
from phala_secrets.dstack.ids import parse_hash
from phala_secrets.errors import AnswerError, ApprovalRequiredError, InputError
from phala_secrets.flow import Flow, Pause, ask

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from phala_secrets.chain.owner import Sender

ALREADY_REGISTERED: Final = "already-registered"
"""What the service takes for the transaction hash of an approval that was there before."""


@dataclass(frozen=True, slots=True)
class Approvals:
    """What the app's contract allows today: the compose hash or not, and which devices it does not."""

    compose_hash: bool
    missing_devices: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Sent:
    """A transaction of ours that succeeded: ``addDevice`` or ``addComposeHash``, and its hash (``0x``)."""

    call: str
    transaction_hash: str


@dataclass(frozen=True, slots=True)
class Registered:
    """The compose hash is approved: by this transaction (``0x``), or ``already-registered``."""

    transaction_hash: str
    sent: tuple[Sent, ...]


def approvals(*, chain_id: int, app: str, compose_hash: str, devices: Sequence[str] = ()) -> Flow[Approvals]:
    """What is approved already; it takes no key to ask.

    Raises ``InputError`` if the RPC is for another chain, ``AnswerError`` for garbage.
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
    """Approve ``compose_hash`` for the contract ``app``, and each of ``devices`` that ``allow_device`` names.

    Nothing is sent that is approved already, nor while earlier transactions of this key wait. With
    ``again`` the compose hash is, for a service that wants a transaction: the call is idempotent.
    ``patience`` (seconds) limits each of the waits.

    Raises ``InputError`` if the RPC is for another chain, or the key is not the owner's.
    ``ApprovalRequiredError`` if the owner is a contract, the device is not named, the balance
    or a cap is too low, or a transaction was reverted, replaced or is stuck. ``TransportError``
    and ``AnswerError`` are the RPC's. From the signature on, the message has the hash.
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
                hint="if that machine is to have the app's keys, name it in allow-device",
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
    """What is to be allowed (32 bytes of hex), the call that does it, how to see it, and its event."""

    subject: str
    call: ContractCall
    allowed: Callable[[], Flow[bool]]
    topic: str | None = None


def _compose_hash(app: str, text: str) -> _Approval:
    hash_ = parse_hash(text, "compose hash")
    call = ContractCall("addComposeHash", address(app), calldata_add_compose_hash(hash_))
    return _Approval(hash_, call, lambda: ask(rpc.compose_hash_allowed(app, hash_)), rpc.COMPOSE_HASH_ADDED)


def _device(app: str, text: str) -> _Approval:
    device = parse_hash(text, "device id")

    def allowed() -> Flow[bool]:
        return (yield from ask(rpc.any_device_allowed(app))) or (
            yield from ask(rpc.device_allowed(app, device))
        )

    return _Approval(device, ContractCall("addDevice", address(app), calldata_add_device(device)), allowed)


def _missing(wanted: Sequence[_Approval]) -> Flow[list[_Approval]]:
    missing = []
    for each in wanted:
        if not (yield from each.allowed()):
            missing.append(each)
    return missing


def _check_chain(chain_id: int) -> Flow[None]:
    told = yield from ask(rpc.chain_id())
    if told != chain_id:
        raise InputError(
            f"rpc-url is for {chain_name(told)}, but the app is on {chain_name(chain_id)}",
            hint=f"give an rpc-url for {chain_name(chain_id)}",
        )


def _check_owner(sender: Sender, app: str) -> Flow[None]:
    owner = yield from ask(rpc.owner(app))
    if owner == sender.address:
        return
    if (yield from ask(rpc.code(owner))):
        raise ApprovalRequiredError(
            f"the app's owner {owner} is a contract, such as a Safe: no single key can sign for it",
            hint="use prepare-only: it gives out a file for Safe's Transaction Builder",
        )
    raise InputError(
        f"private-key is the key of {sender.address}, but the app's owner is {owner}",
        hint="give the owner's key, or approve elsewhere (prepare-only)",
    )


def _wait_for_earlier(sender: Sender, patience: float) -> Flow[bool]:
    """Whether there was anything to wait for: one of them may be this very approval, of a run before."""
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
    """The hash of the transaction that did it, or ``None`` if another did meanwhile."""
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
            f"{call.name}: transaction {hash_} succeeded, but the app's contract did not say so in an event",
            hint="is the app id that of a dstack app, and rpc-url one to trust?",
        )
    end = flow.clock.monotonic() + patience
    # An RPC is many nodes, and some are behind.
    while not (yield from approval.allowed()):
        if flow.clock.monotonic() >= end:
            raise AnswerError(
                f"{call.name}: transaction {hash_} succeeded, but the contract does not show it",
                hint="run again later: what is approved by then is not sent again",
            )
        yield Pause(flow.CHAIN_POLL, f"Waiting for the contract to show transaction {hash_}", hash_)
    return hash_
