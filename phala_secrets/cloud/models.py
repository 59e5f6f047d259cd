"""The shapes on the wire: frozen models that keep unknown fields.

Fields that the API may leave out are optional, so that one more or one fewer never breaks a run.
Sources: Phala's published OpenAPI, and the official SDKs for what it leaves open (the contract-keyed
KMS list, 202, 465).
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, model_validator

from phala_secrets.dstack.key_proof import EnvEncryptPublicKey


class Wire(BaseModel):
    """The base of all responses."""

    model_config = ConfigDict(frozen=True, extra="allow", defer_build=True, protected_namespaces=())


class _Named(Wire):
    @model_validator(mode="before")
    @classmethod
    def _name_from_slug(cls, data: Any) -> Any:
        if isinstance(data, dict) and not data.get("name"):
            return {**data, "name": data.get("slug") or data.get("id")}
        return data


class KmsInfo(_Named):
    """A KMS: one instance, or from API version 2026-06-23 the contract that several share."""

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

    For the Cloud KMS, ``contract_address`` is ``"phala"`` and ``chain_id`` is 0. ``k256_pubkey`` is the
    KMS root's secp256k1 public key, SEC1 hex.
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
        """Whether this is the Cloud KMS, which Phala runs without a contract on chain."""
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
    """A machine, and whether the contract allows it."""

    device_id: str
    node_name: str | None = None
    on_chain_allowed: bool | None = None


class OnChainOsImage(Wire):
    """An image of the guest's OS, and whether the contract allows it."""

    name: str
    version: str
    os_image_hash: str | None = None
    on_chain_allowed: bool | None = None


class OnChainKmsContract(Wire):
    """A KMS contract with its devices and OS images."""

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

    ``app_env_encrypt_pubkey`` is the X25519 key (32 bytes of hex) with its proof. It is NOT VERIFIED yet.
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
    """The KMS of a CVM. ``encrypted_env_pubkey`` is unsigned: never encrypt to it."""

    chain_id: int | None = None
    dstack_kms_address: str | None = None
    dstack_app_address: str | None = None
    deployer_address: str | None = None
    rpc_endpoint: str | None = None
    encrypted_env_pubkey: str | None = None
    k256_pubkey: str | None = None


class CvmProgress(Wire):
    """The current operation of a CVM."""

    target: str | None = None
    started_at: str | None = None
    correlation_id: str | None = None


class CvmNode(Wire):
    """The machine that hosts a CVM."""

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
    """One event of a state stream. ``type`` is ``state``, ``complete``, ``timeout`` or ``error``."""

    type: str
    state: CvmState | None = None
    data: dict[str, Any] = {}


class CvmOperation(Wire):
    """An operation on a CVM. ``status`` ends as ``completed`` or ``failed``."""

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
    """A container as docker describes it. ``status`` looks like ``Up 3 minutes (healthy)``."""

    names: tuple[str, ...] = ()
    image: str | None = None
    state: str | None = None
    status: str | None = None


class GetCvmContainersResponse(Wire):
    """``GET /cvms/{id}/composition``. ``containers`` is None if they are not visible."""

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
    """The ciphertext that was sent (hex), for the second phase."""


class UpdateCvmEnvsPreconditionRequired(_PreconditionRequired):
    """465: the names changed, and ``compose_hash`` must be approved on chain first."""


UpdateResult = UpdateCvmEnvsInProgress | UpdateCvmEnvsPreconditionRequired


class AppCertificate(Wire):
    """A certificate of an app's CVM. ``quote`` is a TDX quote in hex, NOT VERIFIED yet."""

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
    """A guest's measurements (hex) and the event log behind them, from the API."""

    mrtd: str | None = None
    rtmr0: str | None = None
    rtmr1: str | None = None
    rtmr2: str | None = None
    rtmr3: str | None = None
    rootfs_hash: str | None = None
    event_log: tuple[TcbEvent, ...] = ()
    app_compose: str | None = None


class CvmAttestation(Wire):
    """``GET /cvms/{id}/attestation``: evidence for ``verify_attestation``."""

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
    """465: ``compose_hash`` must be approved on chain first. The commit credentials are left out."""


PatchResult = PatchCvmInProgress | PatchCvmPreconditionRequired


class AppCompose(Wire):
    """``GET /cvms/{id}/compose_file``: the app-compose with every field from the API."""

    name: str | None = None
    allowed_envs: tuple[str, ...] | None = None
    docker_compose_file: str | None = None
    pre_launch_script: str | None = None
    bash_script: str | None = None

    def as_given(self) -> dict[str, Any]:
        """Return the app-compose exactly as the API sent it, for hashing."""
        return self.model_dump(mode="json", exclude_unset=True)
