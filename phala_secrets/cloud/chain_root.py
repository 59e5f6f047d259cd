"""The KMS root on chain: the contract's address, its requests, and the comparison with a proven key."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from phala_secrets.cloud import requests
from phala_secrets.errors import ProofError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from phala_secrets.cloud.call import Call
    from phala_secrets.dstack.key_proof import Proof


def kms_contract(chain_id: int, given: str | None) -> str:
    """Return the address of a chain's KMS contract: the given one or Phala's. Raise ProofError."""
    from phala_secrets.chain.networks import WELL_KNOWN_KMS

    address = given or WELL_KNOWN_KMS.get(chain_id)
    if not address:
        raise ProofError(f"unknown KMS contract of chain {chain_id}", hint="add its address as kms-contract")
    return address


def chain_requests(rpc_url: str, chain_id: int, contract: str, app_id: str) -> list[Call[Any]]:
    """Return the requests for ``check_chain``: the RPC's chain, the contract's root, and its app."""
    from phala_secrets.chain import rpc

    asked = requests.rpc(rpc_url, rpc.chain_id())

    def same_chain(body: Any) -> int:
        if (actual := asked.parse(body)) != chain_id:
            raise ProofError(
                f"rpc-url is for chain {actual}, but the app's KMS is on chain {chain_id}",
                hint="use an rpc-url of the app's chain",
            )
        return actual

    about = (rpc.kms_root(contract), rpc.registered_app(contract, app_id))
    return [asked._replace(parse=same_chain), *(requests.rpc(rpc_url, request) for request in about)]


def check_chain(proof: Proof, chain_id: int | None, results: Sequence[Any], contract: str) -> None:
    """Raise ProofError unless the contract knows the app and its root signed the key."""
    _, root, registered = results
    if not registered:
        raise ProofError(
            f"the KMS contract {contract} on chain {chain_id} does not know the app {proof.app_id.hex()}",
            hint="check app-id and kms-contract; if both are right, do not trust this API",
        )
    if root != proof.signer:
        raise ProofError(
            f"the key is signed by {proof.signer}, but the root in the KMS contract {contract} is {root}",
            hint="do not send secrets to it: this key is not from the KMS of the contract",
        )
