"""An EVM chain, as data in and data out: contract calls, approvals, transactions. Sends nothing.

===============  ================================================================================
``abi``          encoding and decoding, strict to the last byte
``rpc``          what to ask, and how to read the answer: ``Rpc[T]``
``wellknown``    the chains that Phala documents: names, KMS contracts, explorers
``prepared``     what an approval made elsewhere takes: calldata, a file for a Safe, a digest
``flow``         a sequence of requests as a generator, for a sync or an async client to drive
``sender``       the owner's key, and the only import of ``eth-account``
``transaction``  one transaction: priced, capped, sent once, confirmed
``register``     approving a compose hash as the owner
===============  ================================================================================
"""

from phala_secrets.chain.flow import (
    Flow,
    Sleep,
    drive,
)
from phala_secrets.chain.prepared import (
    calldata_add_compose_hash,
    calldata_add_device,
    prepared_digest,
    safe_transaction,
)
from phala_secrets.chain.register import (
    ALREADY_REGISTERED,
    COMPOSE_HASH_ADDED,
    Approvals,
    Registered,
    Sent,
    approvals,
    register,
)
from phala_secrets.chain.rpc import (
    Log,
    Receipt,
    Rpc,
    any_device_allowed,
    balance,
    base_fee,
    chain_id,
    code,
    compose_hash_allowed,
    device_allowed,
    estimate_gas,
    gas_price,
    kms_root,
    nonce,
    owner,
    priority_fee,
    receipt,
    registered_app,
    send_raw,
    transaction_known,
)
from phala_secrets.chain.sender import (
    Sender,
)
from phala_secrets.chain.wellknown import (
    CHAIN_NAMES,
    EXPLORERS,
    WELL_KNOWN_KMS,
    address_link,
    chain_name,
    transaction_link,
)

__all__ = [
    "ALREADY_REGISTERED",
    "CHAIN_NAMES",
    "COMPOSE_HASH_ADDED",
    "EXPLORERS",
    "WELL_KNOWN_KMS",
    "Approvals",
    "Flow",
    "Log",
    "Receipt",
    "Registered",
    "Rpc",
    "Sender",
    "Sent",
    "Sleep",
    "address_link",
    "any_device_allowed",
    "approvals",
    "balance",
    "base_fee",
    "calldata_add_compose_hash",
    "calldata_add_device",
    "chain_id",
    "chain_name",
    "code",
    "compose_hash_allowed",
    "device_allowed",
    "drive",
    "estimate_gas",
    "gas_price",
    "kms_root",
    "nonce",
    "owner",
    "prepared_digest",
    "priority_fee",
    "receipt",
    "register",
    "registered_app",
    "safe_transaction",
    "send_raw",
    "transaction_known",
    "transaction_link",
]
