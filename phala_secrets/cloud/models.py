"""The shapes on the wire: frozen, keeping the fields they do not know.

Fields that the API may leave out are optional here, so that one more or one
fewer of them never breaks a run. Sources: Phala's published OpenAPI, and the
official SDKs for what that leaves open (the contract-keyed KMS list, 202, 465).
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, model_validator

from phala_secrets.dstack.key_proof import EnvEncryptPublicKey


class Wire(BaseModel):
    """The base of all answers."""

    model_config = ConfigDict(frozen=True, extra="allow", defer_build=True, protected_namespaces=())


class _Named(Wire):
    @model_validator(mode="before")
    @classmethod
    def _name_from_slug(cls, data: Any) -> Any:
        if isinstance(data, dict) and not data.get("name"):
            return {**data, "name": data.get("slug") or data.get("id")}
        return data


class KmsInfo(_Named):
    """A KMS: one instance, or from API version 2026-06-23 the contract that a group of them shares."""

    id: str
    name: str
    slug: str | None = None
    url: str | None = None
    version: str | None = None
    chain_id: int | None = None
    kms_contract_address: str | None = None
    gateway_app_id: str | None = None


class GetKmsListResponse(Wire):
    """``GET /kms``."""

    items: tuple[KmsInfo, ...]
    total: int | None = None
    page: int | None = None
    page_size: int | None = None
    pages: int | None = None


class KmsContract(_Named):
    """A KMS contract: nodes that share one root key.

    ``contract_address`` is ``"phala"`` and ``chain_id`` 0 for the central KMS;
    ``k256_pubkey`` is the KMS root's secp256k1 public key, SEC1 hex.
    """

    id: str
    name: str
    contract_address: str
    chain_id: int
    slug: str | None = None
    label: str | None = None
    k256_pubkey: str | None = None
    ca_pubkey: str | None = None
    node_count: int | None = None

    @property
    def central(self) -> bool:
        """Whether this is the KMS that Phala runs, with no contract on chain."""
        return self.chain_id == 0 or self.contract_address == "phala"


class ListKmsContractsResponse(Wire):
    """``GET /kms`` from API version 2026-06-23."""

    items: tuple[KmsContract, ...]
    total: int | None = None
    page: int | None = None
    page_size: int | None = None
    pages: int | None = None


class KmsNode(_Named):
    """One node of a KMS contract."""

    id: str
    name: str
    slug: str | None = None
    url: str | None = None
    version: str | None = None
    kms_type: str | None = None


class ListKmsContractNodesResponse(Wire):
    """``GET /kms/{slug}/nodes``."""

    items: tuple[KmsNode, ...]
    total: int | None = None


class OnChainDevice(Wire):
    """A machine, and whether the contract admits it."""

    device_id: str
    node_name: str | None = None
    on_chain_allowed: bool | None = None


class OnChainOsImage(Wire):
    """An image of the guest's OS, and whether the contract admits it."""

    name: str
    version: str
    os_image_hash: str | None = None
    on_chain_allowed: bool | None = None


class OnChainKmsContract(Wire):
    """A KMS contract with the devices and OS images it admits."""

    contract_address: str
    chain_id: int
    chain_name: str | None = None
    k256_pubkey: str | None = None
    devices: tuple[OnChainDevice, ...] = ()
    os_images: tuple[OnChainOsImage, ...] = ()


class GetKmsOnChainDetailResponse(Wire):
    """``GET /kms/on-chain/{chain}``."""

    chain_name: str
    chain_id: int
    contracts: tuple[OnChainKmsContract, ...] = ()


class GetAppEnvEncryptPubKeyResponse(Wire):
    """``GET /kms/{kms}/pubkey/{app_id}``.

    ``app_env_encrypt_pubkey`` is the X25519 key as hex (32 bytes) that carries its
    own proof; it has not been verified yet.
    """

    public_key: str
    app_env_encrypt_pubkey: EnvEncryptPublicKey
    signature: str | None = None
    signature_v1: str | None = None
    timestamp: int | None = None


class NextAppId(Wire):
    """A reserved app id (40 hex digits) and the nonce that made it."""

    app_id: str
    nonce: int | None = None


class NextAppIdsResponse(Wire):
    """``GET /kms/phala/next_app_id``."""

    app_ids: tuple[NextAppId, ...]


class CvmKmsInfo(Wire):
    """What a CVM says of its KMS. ``encrypted_env_pubkey`` is unsigned: never encrypt to it."""

    chain_id: int | None = None
    dstack_kms_address: str | None = None
    dstack_app_address: str | None = None
    deployer_address: str | None = None
    rpc_endpoint: str | None = None
    encrypted_env_pubkey: str | None = None
    k256_pubkey: str | None = None


class CvmProgress(Wire):
    """The operation that a CVM is in."""

    target: str | None = None
    started_at: str | None = None
    correlation_id: str | None = None


class CvmNode(Wire):
    """The machine that a CVM is on."""

    name: str | None = None
    device_id: str | None = None


class CvmInfo(Wire):
    """``GET /cvms/{id}``, and a row of ``GET /apps/{app_id}/cvms``, from API version 2026-01-21."""

    id: str
    name: str
    status: str
    app_id: str | None = None
    vm_uuid: str | None = None
    instance_id: str | None = None
    kms_type: str | None = None
    kms_info: CvmKmsInfo | None = None
    node_info: CvmNode | None = None
    in_progress: bool = False
    progress: CvmProgress | None = None
    compose_hash: str | None = None


class GetCvmListResponse(Wire):
    """``GET /cvms/paginated``, from API version 2026-01-21."""

    items: tuple[CvmInfo, ...]
    total: int | None = None
    page: int | None = None
    page_size: int | None = None
    pages: int | None = None


class CvmState(Wire):
    """``GET /cvms/{id}/state``, and the ``state`` event of its stream."""

    status: str
    id: str | None = None
    name: str | None = None
    instance_id: str | None = None
    uptime: str | None = None
    exited_at: str | None = None
    boot_progress: str | None = None
    boot_error: str | None = None
    shutdown_progress: str | None = None


class CvmStateEvent(Wire):
    """One event of a state stream; ``type`` is ``state``, ``complete``, ``timeout`` or ``error``."""

    type: str
    state: CvmState | None = None
    data: dict[str, Any] = {}


class CvmOperation(Wire):
    """An operation on a CVM; ``status`` ends as ``completed`` or ``failed``."""

    correlation_id: str
    status: str
    operation_type: str | None = None
    target_state: str | None = None
    started_at: str | None = None
    completed_at: str | None = None
    error_message: str | None = None


class GetCvmOperationsResponse(Wire):
    """``GET /cvms/{id}/operations``, newest first."""

    items: tuple[CvmOperation, ...]
    next_cursor: str | None = None
    total: int | None = None


class CvmContainer(Wire):
    """A container as docker describes it; ``status`` is like ``Up 3 minutes (healthy)``."""

    names: tuple[str, ...] = ()
    image: str | None = None
    state: str | None = None
    status: str | None = None


class GetCvmContainersResponse(Wire):
    """``GET /cvms/{id}/composition``; ``containers`` is None where they cannot be seen."""

    is_online: bool = False
    is_public: bool | None = None
    error: str | None = None
    containers: tuple[CvmContainer, ...] | None = None


class UpdateCvmEnvsInProgress(Wire):
    """202: the update was accepted, and the CVM restarts."""

    status: Literal["in_progress"] = "in_progress"
    correlation_id: str
    message: str | None = None
    allowed_envs_changed: bool | None = None


class _PreconditionRequired(Wire):
    status: Literal["precondition_required"] = "precondition_required"
    compose_hash: str
    app_id: str
    device_id: str | None = None
    kms_info: dict[str, Any] | None = None
    message: str | None = None
    encrypted_env: str | None = None
    """What was sent (hex), for the second phase."""


class UpdateCvmEnvsPreconditionRequired(_PreconditionRequired):
    """465: the names changed, and ``compose_hash`` has to be approved on chain first."""


UpdateResult = UpdateCvmEnvsInProgress | UpdateCvmEnvsPreconditionRequired


class AppCertificate(Wire):
    """A certificate of an app's CVM; ``quote`` is a TDX quote in hex, of which nothing is proven yet."""

    quote: str | None = None
    app_id: str | None = None
    cert_usage: str | None = None
    not_before: str | None = None
    not_after: str | None = None
    is_ca: bool = False


class TcbEvent(Wire):
    """One event of a guest's event log."""

    imr: int
    event_type: int
    digest: str
    event: str
    event_payload: str


class TcbInfo(Wire):
    """A guest's measurements (hex) and the event log behind them, as the API gives them."""

    mrtd: str | None = None
    rtmr0: str | None = None
    rtmr1: str | None = None
    rtmr2: str | None = None
    rtmr3: str | None = None
    rootfs_hash: str | None = None
    event_log: tuple[TcbEvent, ...] = ()
    app_compose: str | None = None


class CvmAttestation(Wire):
    """``GET /cvms/{id}/attestation``: evidence, which ``verify_attestation`` verifies."""

    is_online: bool
    is_public: bool = True
    error: str | None = None
    name: str | None = None
    app_certificates: tuple[AppCertificate, ...] | None = None
    tcb_info: TcbInfo | None = None
    compose_file: str | None = None


class PatchCvmInProgress(Wire):
    """202: the change was accepted, and the CVM restarts once."""

    status: Literal["in_progress"] = "in_progress"
    correlation_id: str


class PatchCvmPreconditionRequired(_PreconditionRequired):
    """465: ``compose_hash`` has to be approved on chain first. It has no credentials to commit with."""


PatchResult = PatchCvmInProgress | PatchCvmPreconditionRequired


class AppCompose(Wire):
    """``GET /cvms/{id}/compose_file``: the app-compose, every field kept as the API gave it."""

    name: str | None = None
    allowed_envs: tuple[str, ...] | None = None
    docker_compose_file: str | None = None
    pre_launch_script: str | None = None
    bash_script: str | None = None

    def as_given(self) -> dict[str, Any]:
        """The app-compose exactly as the API gave it, for hashing: nothing added, nothing dropped."""
        return self.model_dump(mode="json", exclude_unset=True)
