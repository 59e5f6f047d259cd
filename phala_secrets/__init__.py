"""Secrets for confidential VMs on Phala Cloud, encrypted to a key that is proven to be the VM's.

::

    from phala_secrets import create_client

    with create_client() as client:  # the key from PHALA_CLOUD_API_KEY
        done = client.update_cvm_envs("my-app", envs={"API_SECRET": "s3cr3t"}, wait=True)
        print("it runs" if done.status == "in_progress" else f"first approve {done.compose_hash}")

Everything in ``__all__`` is public. It loads on first use, so that the command and
``import phala_secrets`` cost nothing. ``docs/library.md`` is the reference.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

__version__ = "0.1.0"

__all__ = [
    "AnswerError",
    "ApiError",
    "AppCertificate",
    "AppCompose",
    "ApprovalRefusedError",
    "ApprovalRequiredError",
    "AsyncClient",
    "Attestation",
    "AttestationError",
    "AuthError",
    "BootError",
    "CancelledError",
    "Client",
    "ConflictError",
    "CvmAttestation",
    "CvmContainer",
    "CvmInfo",
    "CvmKmsInfo",
    "CvmNode",
    "CvmOperation",
    "CvmProgress",
    "CvmState",
    "CvmStateEvent",
    "DeliveryError",
    "EnvEncryptPublicKey",
    "EvidenceError",
    "Finding",
    "GetAppEnvEncryptPubKeyResponse",
    "GetCvmContainersResponse",
    "GetCvmListResponse",
    "GetCvmOperationsResponse",
    "GetKmsListResponse",
    "GetKmsOnChainDetailResponse",
    "InputError",
    "KmsContract",
    "KmsInfo",
    "KmsNode",
    "Link",
    "ListKmsContractNodesResponse",
    "ListKmsContractsResponse",
    "NextAppId",
    "NextAppIdsResponse",
    "NotFoundError",
    "OnChainDevice",
    "OnChainKmsContract",
    "OnChainOsImage",
    "PatchCvmInProgress",
    "PatchCvmPreconditionRequired",
    "PatchResult",
    "PhalaSecretsError",
    "ProofError",
    "RateLimitError",
    "ServerError",
    "TcbEvent",
    "TcbInfo",
    "TransportError",
    "UpdateCvmEnvsInProgress",
    "UpdateCvmEnvsPreconditionRequired",
    "UpdateResult",
    "WaitTimeoutError",
    "create_async_client",
    "create_client",
    "encrypt_env_vars",
    "get_compose_hash",
    "verify_attestation",
    "verify_env_encrypt_public_key",
]

if TYPE_CHECKING:
    from phala_secrets.cloud.async_client import AsyncClient, create_async_client
    from phala_secrets.cloud.attest import verify_attestation
    from phala_secrets.cloud.client import Client, create_client
    from phala_secrets.cloud.models import (
        AppCertificate,
        AppCompose,
        CvmAttestation,
        CvmContainer,
        CvmInfo,
        CvmKmsInfo,
        CvmNode,
        CvmOperation,
        CvmProgress,
        CvmState,
        CvmStateEvent,
        GetAppEnvEncryptPubKeyResponse,
        GetCvmContainersResponse,
        GetCvmListResponse,
        GetCvmOperationsResponse,
        GetKmsListResponse,
        GetKmsOnChainDetailResponse,
        KmsContract,
        KmsInfo,
        KmsNode,
        ListKmsContractNodesResponse,
        ListKmsContractsResponse,
        NextAppId,
        NextAppIdsResponse,
        OnChainDevice,
        OnChainKmsContract,
        OnChainOsImage,
        PatchCvmInProgress,
        PatchCvmPreconditionRequired,
        PatchResult,
        TcbEvent,
        TcbInfo,
        UpdateCvmEnvsInProgress,
        UpdateCvmEnvsPreconditionRequired,
        UpdateResult,
    )
    from phala_secrets.dstack.attestation import Attestation, Link
    from phala_secrets.dstack.compose_hash import get_compose_hash
    from phala_secrets.dstack.env_vars import encrypt_env_vars
    from phala_secrets.dstack.key_proof import EnvEncryptPublicKey, verify_env_encrypt_public_key
    from phala_secrets.errors import (
        AnswerError,
        ApiError,
        ApprovalRefusedError,
        ApprovalRequiredError,
        AttestationError,
        AuthError,
        BootError,
        CancelledError,
        ConflictError,
        DeliveryError,
        EvidenceError,
        Finding,
        InputError,
        NotFoundError,
        PhalaSecretsError,
        ProofError,
        RateLimitError,
        ServerError,
        TransportError,
        WaitTimeoutError,
    )
else:  # a type checker that saw this would take any name
    _HOMES = {
        "AsyncClient": "cloud.async_client",
        "Attestation": "dstack.attestation",
        "Client": "cloud.client",
        "EnvEncryptPublicKey": "dstack.key_proof",
        "Finding": "errors",
        "Link": "dstack.attestation",
        "create_async_client": "cloud.async_client",
        "create_client": "cloud.client",
        "encrypt_env_vars": "dstack.env_vars",
        "get_compose_hash": "dstack.compose_hash",
        "verify_attestation": "cloud.attest",
        "verify_env_encrypt_public_key": "dstack.key_proof",
    }

    def __getattr__(name):
        """Return a public name from its module (PEP 562)."""
        if name not in __all__:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        from importlib import import_module

        home = _HOMES.get(name) or ("errors" if name.endswith("Error") else "cloud.models")
        module, signatures = (import_module(f"{__name__}.{one}") for one in (home, "cloud.signatures"))
        return globals().setdefault(name, getattr(signatures.made_legible(module), name))

    def __dir__():
        return sorted({*globals(), *__all__})
