"""An EVM chain, as data in and data out: contract calls, approvals, transactions. Sends nothing.

=============  =====================================================================================
``abi``        encoding and decoding, strict to the last byte
``rpc``        what to ask, and how to read the answer: ``Rpc[T]``
``wellknown``  the chains that Phala documents: names, KMS contracts, explorers
=============  =====================================================================================
"""

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
from phala_secrets.chain.wellknown import (
    CHAIN_NAMES,
    EXPLORERS,
    WELL_KNOWN_KMS,
    address_link,
    chain_name,
    transaction_link,
)

__all__ = [
    "CHAIN_NAMES",
    "EXPLORERS",
    "WELL_KNOWN_KMS",
    "Log",
    "Receipt",
    "Rpc",
    "address_link",
    "any_device_allowed",
    "balance",
    "base_fee",
    "chain_id",
    "chain_name",
    "code",
    "compose_hash_allowed",
    "device_allowed",
    "estimate_gas",
    "gas_price",
    "kms_root",
    "nonce",
    "owner",
    "priority_fee",
    "receipt",
    "registered_app",
    "send_raw",
    "transaction_known",
    "transaction_link",
]
