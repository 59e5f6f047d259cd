"""The endpoints of Phala Cloud, each once: path, parameters, body, version. Ids are checked here.

``records`` and ``models`` are two readers of them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from phala_secrets.cloud.call import Call
from phala_secrets.cloud.ids import parse_cvm, segment
from phala_secrets.dstack.ids import parse_app_id

if TYPE_CHECKING:
    from phala_secrets.chain.rpc import Rpc

T = TypeVar("T")

API_VERSION = "2026-06-23"
NODE_VERSION = "2026-05-22"
"""The last version in which ``/kms`` is about nodes. Both SDKs pin it for those and for an app's key."""

API_VERSIONS = ("2025-10-28", "2026-01-21", NODE_VERSION, API_VERSION)
DEFAULT_URL = "https://cloud-api.phala.com/api/v1"


# -- the KMS ---------------------------------------------------------------------------------------


def kms(kms_id: str) -> Call[Any]:
    """Request one KMS instance."""
    return Call("GET", f"/kms/{segment(kms_id)}", version=NODE_VERSION)


def kms_page(**query: str | None) -> Call[Any]:
    """Request KMS instances. Take ``page``, ``page_size`` and ``is_onchain``."""
    return Call("GET", "/kms", params=_present(query), version=NODE_VERSION)


def contracts(**query: str | None) -> Call[Any]:
    """Request KMS contracts, which the route lists from this version on."""
    return Call("GET", "/kms", params=_present(query), version=API_VERSION)


def contract(slug: str) -> Call[Any]:
    return Call("GET", f"/kms/{segment(slug)}", version=API_VERSION)


def nodes(slug: str) -> Call[Any]:
    return Call("GET", f"/kms/{segment(slug)}/nodes", version=API_VERSION)


def on_chain(chain: str) -> Call[Any]:
    return Call("GET", f"/kms/on-chain/{segment(chain)}")


def key(kms_id: str, app_id: str) -> Call[Any]:
    """Request an app's key, which nodes serve and contracts do not."""
    app = parse_app_id(app_id, "app_id")
    return Call("GET", f"/kms/{segment(kms_id)}/pubkey/{app}", version=NODE_VERSION)


def next_app_ids(counts: str) -> Call[Any]:
    return Call("GET", "/kms/phala/next_app_id", params={"counts": counts})


# -- CVMs ------------------------------------------------------------------------------------------


def cvm(cvm_id: str) -> Call[Any]:
    return Call("GET", _cvm(cvm_id), version=API_VERSION)


def cvms(**query: str | None) -> Call[Any]:
    """Request a page of the workspace's CVMs. Take ``page`` and ``page_size``."""
    return Call("GET", "/cvms/paginated", params=_present(query), version=API_VERSION)


def app_cvms(app_id: str) -> Call[Any]:
    return Call("GET", f"/apps/{parse_app_id(app_id, 'app_id')}/cvms", version=API_VERSION)


def revisions(app_id: str, page_size: str) -> Call[Any]:
    """Request the accepted changes of an app's CVMs, newest first."""
    return Call("GET", f"/apps/{parse_app_id(app_id, 'app_id')}/revisions", params={"page_size": page_size})


def revision(app_id: str, revision_id: str) -> Call[Any]:
    """Request one revision with its ciphertext."""
    return Call("GET", f"/apps/{parse_app_id(app_id, 'app_id')}/revisions/{segment(revision_id)}")


def compose_file(cvm_id: str) -> Call[Any]:
    return Call("GET", f"{_cvm(cvm_id)}/compose_file")


def attestation(cvm_id: str) -> Call[Any]:
    return Call("GET", f"{_cvm(cvm_id)}/attestation")


def app_attestations(app_id: str) -> Call[Any]:
    """Request the evidence of every running CVM of an app. The route needs no key."""
    return Call("GET", f"/apps/{parse_app_id(app_id, 'app_id')}/attestations")


def containers(cvm_id: str) -> Call[Any]:
    return Call("GET", f"{_cvm(cvm_id)}/composition")


def start(cvm_id: str) -> Call[Any]:
    """Start a stopped CVM. Never retried."""
    return Call("POST", f"{_cvm(cvm_id)}/start", version=API_VERSION, repeatable=False, when_busy=False)


def state(cvm_id: str) -> Call[Any]:
    return Call("GET", f"{_cvm(cvm_id)}/state")


def state_stream(cvm_id: str, target: str, interval: int, timeout: int) -> Call[Any]:
    """Request the state as server-sent events until ``target``. Times are in seconds."""
    params = {"target": target, "interval": str(interval), "timeout": str(timeout)}
    return Call("GET", f"{_cvm(cvm_id)}/state", params=params)


def operations(cvm_id: str, limit: str | None = None, cursor: str | None = None) -> Call[Any]:
    """Request a CVM's operations, newest first."""
    return Call("GET", f"{_cvm(cvm_id)}/operations", params=_present({"limit": limit, "cursor": cursor}))


def update_envs(
    cvm_id: str,
    encrypted_env: str,
    env_keys: Sequence[str] | None,
    compose_hash: str | None = None,
    transaction_hash: str | None = None,
) -> Call[Any]:
    """Replace the whole set and restart the CVM. Never retried."""
    body = {
        "encrypted_env": encrypted_env,
        "env_keys": None if env_keys is None else list(env_keys),
        "compose_hash": compose_hash,
        "transaction_hash": transaction_hash,
    }
    return Call("PATCH", f"{_cvm(cvm_id)}/envs", body=_present(body), repeatable=False)


def patch_cvm(
    cvm_id: str,
    *,
    docker_compose_file: str | None = None,
    encrypted_env: str | None = None,
    allowed_envs: Sequence[str] | None = None,
    prepare_only: bool = False,
) -> Call[Any]:
    """Change compose file and environment in one operation with one restart. Never retried.

    ``prepare_only`` announces that the approval happens elsewhere.
    """
    body = {
        "docker_compose_file": docker_compose_file,
        "encrypted_env": encrypted_env,
        "allowed_envs": None if allowed_envs is None else list(allowed_envs),
    }
    headers = {"X-Prepare-Only": "true"} if prepare_only else {}
    return Call("PATCH", _cvm(cvm_id), body=_present(body), headers=headers, repeatable=False)


def commit_patch(cvm_id: str, compose_hash: str, transaction_hash: str) -> Call[Any]:
    """Carry out an approved ``patch_cvm``. Never retried."""
    headers = {"X-Compose-Hash": compose_hash, "X-Transaction-Hash": transaction_hash}
    return Call("PATCH", _cvm(cvm_id), headers=headers, repeatable=False)


def is_allowed(app_id: str, compose_hash: str, device_id: str | None) -> Call[Any]:
    """Ask whether the app's contract allows a compose hash and a device. Changes nothing."""
    body = {"compose_hash": compose_hash, "device_id": device_id}
    return Call("POST", f"/apps/{parse_app_id(app_id, 'app_id')}/is-allowed", body=_present(body))


# -- a chain's RPC ---------------------------------------------------------------------------------


def rpc(url: str, request: Rpc[T], *, repeatable: bool = True) -> Call[T]:
    """Make a JSON-RPC request to a chain."""
    return Call("POST", url, request.read, body=request.payload(), repeatable=repeatable)


def _cvm(cvm_id: str) -> str:
    return f"/cvms/{segment(parse_cvm(cvm_id).id)}"


def _present(values: Mapping[str, T | None]) -> dict[str, T]:
    return {name: value for name, value in values.items() if value is not None}
