"""One transaction, from its price to its receipt: capped, and never sent twice.

No RPC can push the cost above the caps: the value is 0, the chain id was checked, and gas and fees
are limited. The hash is known before anything is sent. After a lost response the same bytes are sent
again under the same nonce.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING

from phala_secrets import flow
from phala_secrets.chain import rpc
from phala_secrets.chain.abi import checksum_address
from phala_secrets.chain.networks import transaction_link
from phala_secrets.errors import AnswerError, ApiError, ApprovalRequiredError, TransportError
from phala_secrets.flow import Flow, Pause, ask

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from phala_secrets.chain.owner import Sender
    from phala_secrets.chain.rpc import Receipt

MAX_GAS = 300_000
"""Gas limit of one transaction: an approval through a proxy takes about 60,000."""

MAX_COST: Mapping[int, int] = MappingProxyType({1: 10**16})
"""Most wei that one transaction may cost, by chain: 0.01 ETH on Ethereum …"""

DEFAULT_MAX_COST = 10**15
"""… and 0.001 ETH anywhere else."""

FAILURES = (TransportError, ApiError)
"""The errors that a driver throws into the flow: ``ApiError`` for an HTTP status of the RPC."""

_DEARER = "try again when fees are lower, use another rpc-url, or approve elsewhere (prepare-only)"


@dataclass(frozen=True, slots=True)
class ContractCall:
    """A contract call: its name for messages, the address and the calldata (both ``0x`` hex)."""

    name: str
    to: str
    calldata: str


@dataclass(frozen=True, slots=True)
class Offer:
    """A call with its price: ``fees`` are transaction fields (wei per gas), ``cost`` the most in wei."""

    call: ContractCall
    chain_id: int
    gas: int
    fees: Mapping[str, int]
    cost: int


def price(sender: Sender, chain_id: int, calls: Sequence[ContractCall]) -> Flow[list[Offer]]:
    """Price the calls, and check that the balance covers them all.

    Raise ApprovalRequiredError if the cost exceeds a cap or the balance, and AnswerError if the RPC
    reports that a call would fail.
    """
    cap = MAX_COST.get(chain_id, DEFAULT_MAX_COST)
    base = yield from ask(rpc.base_fee())
    if base is None:
        now = tip = yield from ask(rpc.gas_price())
    else:
        tip = yield from ask(rpc.priority_fee())
        now = base + tip
    offers = []
    for call in calls:
        estimate = yield from ask(rpc.estimate_gas(sender.address, call.to, call.calldata))
        gas = estimate + estimate // 4
        if gas > MAX_GAS or gas * now > cap:
            raise ApprovalRequiredError(
                f"the RPC prices {call.name} at {eth(gas * now)} for {gas} gas; "
                f"the limits are {eth(cap)} and {MAX_GAS} gas",
                hint=_DEARER,
            )
        # Leave room for a base fee that doubles: the chain charges only what is needed.
        most = now if base is None else min(now + base, cap // gas)
        fees = {"gasPrice": most} if base is None else {"maxFeePerGas": most, "maxPriorityFeePerGas": tip}
        offers.append(Offer(call, chain_id, gas, fees, gas * most))
    needed = sum(offer.cost for offer in offers)
    has = yield from ask(rpc.balance(sender.address))
    if has < needed:
        raise ApprovalRequiredError(
            f"the owner {sender.address} has {eth(has)}, and the approval may cost {eth(needed)}",
            hint="fund that address on the app's chain, or approve elsewhere (prepare-only)",
        )
    return offers


def transact(sender: Sender, offer: Offer, *, patience: float) -> Flow[Receipt]:
    """Sign, send, and wait up to ``patience`` seconds for one confirmation.

    Raise ApprovalRequiredError if the transaction was reverted, replaced or is stuck. Raise
    TransportError if the RPC rejects it or is unreachable. Each message has the hash.
    """
    call = offer.call
    count = yield from ask(rpc.nonce(sender.address, "pending"))
    raw, hash_ = sender.sign(
        {
            "chainId": offer.chain_id,
            "nonce": count,
            "to": checksum_address(call.to),
            "value": 0,
            "data": call.calldata,
            "gas": offer.gas,
            **offer.fees,
        }
    )
    yield Pause(0, f"Sending {call.name} as transaction {hash_}", hash_)
    look = transaction_link(offer.chain_id, hash_) or f"transaction {hash_}"
    go_on = f"look at {look}, then run again: nothing that is approved by then is sent again"
    end = flow.clock.monotonic() + patience
    absent, accepted = True, False
    refusals = sightings = 0
    trouble: TransportError | ApiError | None = None
    while True:
        if absent:
            try:
                yield from ask(rpc.send_raw(raw, hash_))
                absent, accepted = False, True
            except FAILURES as error:
                # Go on: the transaction may have arrived all the same.
                trouble = error
                refusals += isinstance(error, AnswerError | ApiError)
        try:
            receipt = yield from ask(rpc.receipt(hash_))
            if receipt is not None:
                break
            absent = not (yield from ask(rpc.transaction_known(hash_)))
            taken = absent and (yield from ask(rpc.nonce(sender.address, "latest"))) > count
        except FAILURES as error:
            trouble = error
        else:
            accepted = accepted or not absent
            sightings = sightings + 1 if taken else 0
            trouble = None if accepted else trouble
        if sightings >= flow.SIGHTINGS:
            raise ApprovalRequiredError(
                f"{call.name}: another transaction took nonce {count}, which replaced transaction {hash_}",
                hint=go_on,
            )
        if trouble and not accepted and refusals >= flow.REFUSALS and not sightings:
            raise TransportError(f"{call.name}: transaction {hash_} was not accepted: {trouble}", hint=go_on)
        if flow.clock.monotonic() >= end:
            stuck = f"{call.name}: transaction {hash_} is not confirmed after {patience:.0f} s"
            if trouble:
                raise TransportError(f"{stuck}: {trouble}", hint=go_on)
            raise ApprovalRequiredError(stuck, hint=go_on)
        yield Pause(
            flow.CHAIN_POLL, f"Waiting for one confirmation of {call.name}, transaction {hash_}", hash_
        )
    if not receipt.succeeded:
        raise ApprovalRequiredError(f"{call.name}: transaction {hash_} was reverted", hint=go_on)
    return receipt


def eth(wei: int) -> str:
    """Return wei as ETH with at most nine decimals. Anything smaller shows as ``0.000000001``."""
    if 0 < wei < 10**9:
        wei = 10**9
    whole, rest = divmod(wei, 10**18)
    return f"{whole}.{rest // 10**9:09d}".rstrip("0").rstrip(".") + " ETH"
