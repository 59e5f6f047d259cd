"""The clients, sync and async alike: every test here is run with both, against a Phala Cloud on loopback."""

from __future__ import annotations

import asyncio
import inspect
import ssl
import traceback
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Generator, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, cast

import pydantic
import pytest
import trustme

import phala_secrets
from phala_secrets import (
    AnswerError,
    ApiError,
    ApprovalRefusedError,
    AsyncClient,
    AuthError,
    Client,
    ConflictError,
    CvmStateEvent,
    DeliveryError,
    InputError,
    NotFoundError,
    PatchCvmInProgress,
    PatchCvmPreconditionRequired,
    PhalaSecretsError,
    ProofError,
    RateLimitError,
    ServerError,
    TransportError,
    UpdateCvmEnvsInProgress,
    UpdateCvmEnvsPreconditionRequired,
    encrypt_env_vars,
    verify_env_encrypt_public_key,
)
from phala_secrets.cloud.watch import Watch
from phala_secrets.simulator.cloud import Cloud
from phala_secrets.simulator.cvm import Cvm
from phala_secrets.simulator.wire import Answer, Request
from phala_secrets.simulator.world import RateLimit
from tests.support.clock import ManualClock
from tests.support.faults import Fault
from tests.support.faulty import FaultySimulator as Simulator

APP_ID = "a1" * 20
BASE = "0x2f83172A49584C017F2B256F0FB2Dca14126Ba9C"
KEY = "phak_canary_5ec2e7"
COMPOSE = "services:\n  web:\n    image: nginx:1.29\n"
SEALED = {"id": "my-app", "encrypted_env": "ab" * 60, "allowed_envs": ["A"]}

Connect = Callable[..., Client]


class Driven:
    """An AsyncClient as seen from code that does not await: each method is run to its end in one loop."""

    def __init__(self, client: AsyncClient, loop: asyncio.Runner) -> None:
        self._client = client
        self._loop = loop

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._client, name)

        def call(*args: Any, **kwargs: Any) -> Any:
            answer = method(*args, **kwargs)
            return self._iterate(answer) if hasattr(answer, "__anext__") else self._run(answer)

        return call if callable(method) else method

    def _run(self, answer: Awaitable[Any]) -> Any:
        async def wait() -> Any:
            return await answer

        return self._loop.run(wait())

    def _iterate(self, events: AsyncIterator[Any]) -> Iterator[Any]:
        try:
            while (event := self._run(anext(events, None))) is not None:
                yield event
        finally:
            self._run(cast("AsyncGenerator[Any]", events).aclose())

    def __repr__(self) -> str:
        return repr(self._client)


@pytest.fixture
def cloud(simulator: Simulator) -> Cloud:
    simulator.cloud.api_key = KEY
    return simulator.cloud


@pytest.fixture
def cvm(cloud: Cloud) -> Cvm:
    return cloud.add_cvm("my-app", app_id=APP_ID, environment={"OLD": "1"})


@pytest.fixture(params=["sync", "async"])
def connect(request: pytest.FixtureRequest, simulator: Simulator, cloud: Cloud) -> Iterator[Connect]:
    """Makes clients of either kind, which are closed in the end."""
    with asyncio.Runner() as loop:
        made: list[Client] = []

        def connect(api_key: str = KEY, base_url: str = simulator.url, **more: Any) -> Client:
            if request.param == "sync":
                made.append(phala_secrets.create_client(api_key, base_url, **more))
            else:
                client = phala_secrets.create_async_client(api_key, base_url, **more)
                made.append(cast("Client", Driven(client, loop)))
            return made[-1]

        yield connect
        for client in made:
            client.close()


@pytest.fixture
def client(connect: Connect) -> Client:
    return connect()


def told(error: BaseException) -> str:
    """All that an error could show of itself."""
    return "".join(traceback.format_exception(error)) + repr(error) + repr(vars(error))


def sent(cloud: Cloud) -> list[str]:
    """The requests that were made, each as method, path and query."""
    lines = []
    for request in cloud.requests:
        query = "&".join(f"{name}={value}" for name, values in request.query.items() for value in values)
        lines.append(f"{request.method} {request.path}" + (f"?{query}" if query else ""))
    return lines


# Every method


CALLS: list[tuple[str, dict[str, Any], bool, str]] = [
    ("get_kms_info", {"kms_id": "phala"}, True, "GET /kms/phala"),
    (
        "get_kms_list",
        {"page": 1, "page_size": 50, "is_onchain": False},
        False,
        "GET /kms?page=1&page_size=50&is_onchain=false",
    ),
    ("get_kms_on_chain_detail", {"chain": "base"}, True, "GET /kms/on-chain/base"),
    (
        "get_app_env_encrypt_pub_key",
        {"kms": "phala", "app_id": f"0x{APP_ID.upper()}"},
        False,
        f"GET /kms/phala/pubkey/{APP_ID}",
    ),
    ("next_app_ids", {"counts": 3}, False, "GET /kms/phala/next_app_id?counts=3"),
    ("list_kms_contracts", {"page": 1}, False, "GET /kms?page=1"),
    ("get_kms_contract", {"slug": "phala"}, True, "GET /kms/phala"),
    ("list_kms_contract_nodes", {"slug": "phala"}, True, "GET /kms/phala/nodes"),
    ("get_cvm_info", {"id": "my-app"}, True, "GET /cvms/my-app"),
    ("get_cvm_compose_file", {"id": f"0x{APP_ID}"}, True, f"GET /cvms/app_{APP_ID}/compose_file"),
    ("get_cvm_attestation", {"id": "my-app"}, True, "GET /cvms/my-app/attestation"),
    ("get_cvm_state", {"id": "my-app"}, True, "GET /cvms/my-app/state"),
    ("get_cvm_operations", {"id": "my-app", "limit": 5}, False, "GET /cvms/my-app/operations?limit=5"),
    ("get_cvm_list", {"page": 1, "page_size": 50}, False, "GET /cvms/paginated?page=1&page_size=50"),
    ("get_app_cvms", {"app_id": f"app_{APP_ID}"}, True, f"GET /apps/{APP_ID}/cvms"),
]


@pytest.mark.parametrize(("method", "arguments", "single", "made"), CALLS, ids=[row[0] for row in CALLS])
def test_a_mapping_keywords_and_a_single_id_are_the_same_request(
    client: Client,
    cloud: Cloud,
    cvm: Cvm,
    method: str,
    arguments: dict[str, Any],
    single: bool,
    made: str,
) -> None:
    call = getattr(client, method)
    answers = [call(arguments), call(**arguments)] + ([call(*arguments.values())] if single else [])
    assert sent(cloud) == [made] * len(answers)
    if method != "next_app_ids":
        assert answers == [answers[0]] * len(answers)
    headers = cloud.requests[0].headers
    assert headers["user-agent"] == f"phala-secrets/{phala_secrets.__version__}"


def test_what_the_methods_return(client: Client, cloud: Cloud, cvm: Cvm) -> None:
    kms = cvm.kms
    assert client.get_kms_info("phala").id == kms.nodes[0].id
    assert [(item.id, item.slug, item.name) for item in client.get_kms_list().items] == [
        (kms.nodes[0].id, "phala", "phala")
    ]
    (contract,) = client.list_kms_contracts().items
    assert contract == client.get_kms_contract("phala")
    assert (contract.central, contract.k256_pubkey) == (True, kms.root_public_key)
    (node,) = client.list_kms_contract_nodes("phala").items
    assert node.id == kms.nodes[0].id
    (on_chain,) = client.get_kms_on_chain_detail("phala").contracts
    assert [device.device_id for device in on_chain.devices] == [cvm.device_id]
    first, second = client.next_app_ids(counts=2).app_ids
    assert (len(bytes.fromhex(first.app_id)), first.nonce, second.nonce) == (20, 0, 1)
    found = client.get_cvm_info(cvm.vm_uuid)
    assert (found.id, found.app_id, found.status) == (cvm.id, APP_ID, "running")
    assert [row.id for row in client.get_cvm_list().items] == [cvm.id]
    assert [row.id for row in client.get_app_cvms(APP_ID)] == [cvm.id]
    assert client.get_cvm_compose_file("my-app").allowed_envs == ("OLD",)
    assert client.get_cvm_state("my-app").status == "running"
    assert client.get_cvm_operations("my-app").items == ()


def test_every_method_says_what_it_takes() -> None:
    for kind in (Client, AsyncClient):
        for method, arguments, _, _ in CALLS:
            parameters = inspect.signature(getattr(kind, method)).parameters
            assert list(parameters)[:2] == ["self", "request"]
            assert set(arguments) <= set(parameters)
        bound = str(inspect.signature(kind("key").get_kms_info))
        assert bound == "(request: Arguments | str | None = None, /, *, kms_id: str | None = None) -> KmsInfo"


def test_the_key_carries_its_proof_and_serves_as_hex(client: Client, cvm: Cvm, cloud: Cloud) -> None:
    for cloud.v1_signatures in (False, True):
        answer = client.get_app_env_encrypt_pub_key({"kms": "phala", "app_id": APP_ID})
        key = answer.app_env_encrypt_pubkey
        assert verify_env_encrypt_public_key(key) == cvm.kms.root_public_key
        assert f"{key}" == str(key) == answer.public_key == cvm.kms.app_public_key(APP_ID)
        assert answer.model_dump()["app_env_encrypt_pubkey"] == key
        encrypt_env_vars({"A": "1"}, key)
        with pytest.raises(ProofError, match="another app"):
            verify_env_encrypt_public_key(key, app_id="00" * 20)


# Both shapes of the API, and what it may do to them


@pytest.mark.parametrize("version", ["2025-10-28", "2026-01-21", "2026-05-22", "2026-06-23"])
def test_each_version_of_the_api_is_read(connect: Connect, cloud: Cloud, cvm: Cvm, version: str) -> None:
    client = connect(version=version)
    (kms,) = client.get_kms_list().items
    assert (kms.slug, kms.name) == ("phala", "phala")
    assert kms.url, "a node, whatever the version: contracts have methods of their own"
    assert kms == client.get_kms_info(kms.id)
    assert client.list_kms_contracts().items[0].k256_pubkey == cvm.kms.root_public_key
    assert client.get_cvm_info("my-app").id == client.get_app_cvms(APP_ID)[0].id == cvm.id


def test_a_field_that_is_new_is_kept(client: Client, cloud: Cloud, cvm: Cvm) -> None:
    def grown(request: Request, answer: Answer) -> Answer:
        row = answer.body["items"][0] if "items" in answer.body else answer.body
        row["brand_new"] = {"deep": [1]}
        return answer

    cloud.tamper = grown
    info = client.get_kms_info("phala")
    assert info.model_dump()["brand_new"] == cast("Any", info).brand_new == {"deep": [1]}
    assert client.get_kms_list().items[0].model_extra["brand_new"] == {"deep": [1]}  # type: ignore[index]
    assert client.get_cvm_compose_file("my-app").as_given()["brand_new"] == {"deep": [1]}


LEAST: dict[str, Any] = {
    "get_kms_info": {"id": "kms_1"},
    "get_kms_list": {"items": [{"id": "kms_1"}]},
    "get_kms_on_chain_detail": {"chain_name": "base", "chain_id": 8453},
    "get_app_env_encrypt_pub_key": {"public_key": "ab" * 32},
    "next_app_ids": {"app_ids": [{"app_id": APP_ID}]},
    "list_kms_contracts": {"items": [{"id": "1", "contract_address": "phala", "chain_id": 0}]},
    "get_kms_contract": {"id": "1", "contract_address": "phala", "chain_id": 0},
    "list_kms_contract_nodes": {"items": [{"id": "1", "slug": None}]},
    "get_cvm_info": {"id": "cvm_1", "name": "my-app", "status": "running"},
    "get_cvm_compose_file": {},
    "get_cvm_attestation": {"is_online": False},
    "get_cvm_state": {"status": "running"},
    "get_cvm_operations": {"items": [{"correlation_id": "1", "status": "completed"}]},
    "get_cvm_list": {"items": [{"id": "cvm_1", "name": "my-app", "status": "running"}]},
    "get_app_cvms": [{"id": "cvm_1", "name": "my-app", "status": "running", "kms_info": None}],
}


@pytest.mark.parametrize(("method", "arguments"), [row[:2] for row in CALLS], ids=[row[0] for row in CALLS])
def test_missing_fields_are_tolerated_and_invalid_ones_reported(
    client: Client, cloud: Cloud, cvm: Cvm, method: str, arguments: dict[str, Any]
) -> None:
    call = getattr(client, method)
    cloud.tamper = lambda request, answer: Answer(LEAST[method])
    assert call(arguments) is not None
    for nonsense in ("text", 3, None, {"items": "text", "id": {}, "allowed_envs": 3}, [3]):
        answer = Answer(nonsense)
        cloud.tamper = lambda *_, answer=answer: answer
        with pytest.raises(AnswerError):
            call(arguments)


def test_a_kms_is_called_by_its_slug_or_else_by_its_id(client: Client, cloud: Cloud) -> None:
    cloud.tamper = lambda request, answer: Answer({"items": [{"id": "kms_1", "slug": "s"}, {"id": "kms_2"}]})
    assert [kms.name for kms in client.get_kms_list().items] == ["s", "kms_2"]


def test_responses_are_frozen(client: Client, cvm: Cvm) -> None:
    with pytest.raises(pydantic.ValidationError):
        client.get_cvm_info("my-app").status = "exited"


# Arguments


@pytest.mark.parametrize(
    ("method", "arguments", "complaint"),
    [
        ("get_kms_info", {}, "kms_id is missing"),
        ("get_kms_info", {"kms_id": "  "}, "kms_id is missing"),
        ("get_kms_info", {"kms_id": 3}, "kms_id is missing"),
        ("get_kms_info", {"kms_id": ".."}, "invalid id or slug"),
        ("get_kms_info", {"kms": "phala"}, "unknown argument: 'kms'"),
        ("get_kms_list", {"page": 0}, "invalid page"),
        ("get_kms_list", {"page_size": 101}, "invalid page_size"),
        ("get_kms_list", {"is_onchain": "yes"}, "is_onchain is not a bool"),
        ("get_kms_on_chain_detail", {}, "chain is missing"),
        ("get_app_env_encrypt_pub_key", {"kms": "phala"}, "app_id is missing"),
        ("get_app_env_encrypt_pub_key", {"kms": "phala", "app_id": "a1" * 19}, "app_id: .* is not an app id"),
        ("next_app_ids", {"counts": 0}, "invalid counts"),
        ("next_app_ids", {"counts": 21}, "invalid counts"),
        ("next_app_ids", {"counts": True}, "invalid counts"),
        ("next_app_ids", {"counts": "3"}, "invalid counts"),
        ("get_cvm_info", {"id": "a/b"}, "is not a CVM"),
        (
            "get_cvm_operations",
            {"id": "my-app", "limit": 501},
            "invalid limit",
        ),
        ("get_app_cvms", {"app_id": "my-app"}, "is not an app id"),
        (
            "watch_cvm_state",
            {"id": "my-app", "interval": 4},
            "invalid interval",
        ),
        ("watch_cvm_state", {"id": "my-app", "timeout": 601}, "invalid timeout"),
        ("watch_cvm_state", {"target": "running"}, "id is missing"),
        ("watch_cvm_state", {"id": "my-app", "until": "running"}, "unknown argument"),
        ("update_cvm_envs", {"envs": {"A": "1"}}, "id is missing"),
        ("update_cvm_envs", {"id": "my-app"}, "either envs or encrypted_env"),
        ("update_cvm_envs", {"id": "my-app", "envs": {}, "encrypted_env": "ab"}, "either envs or encrypted"),
        ("update_cvm_envs", {"id": "my-app", "envs": {"A": 1}}, "of type int, not str"),
        ("update_cvm_envs", {"id": "my-app", "envs": {"A": "1"}, "env_keys": ["A"]}, "without encrypted_env"),
        ("update_cvm_envs", {"id": "my-app", "envs": {}, "trusted_signers": ""}, "trusted_signers is empty"),
        ("update_cvm_envs", {"id": "my-app", "envs": {}, "trusted_signers": ["02ab"]}, "the signer has 2"),
        ("update_cvm_envs", {"id": "my-app", "encrypted_env": "xy"}, "encrypted_env is not a ciphertext"),
        ("update_cvm_envs", {"id": "my-app", "encrypted_env": ""}, "encrypted_env is not a ciphertext"),
        (
            "update_cvm_envs",
            {"id": "my-app", "encrypted_env": "ab" * 59},
            "encrypted_env is not a ciphertext",
        ),
        ("update_cvm_envs", {"id": "my-app", "encrypted_env": "ab" * 60, "env_keys": "A"}, "list of names"),
        ("update_cvm_envs", {"id": "my-app", "encrypted_env": "ab" * 60, "env_keys": 5}, "list of names"),
        ("update_cvm_envs", {"id": "my-app", "encrypted_env": "ab" * 60, "env_keys": [5]}, "list of names"),
        ("patch_cvm", {"docker_compose_file": COMPOSE}, "id is missing"),
        ("patch_cvm", {"id": "my-app"}, "nothing to change"),
        ("patch_cvm", {"id": "my-app", "docker_compose_file": b"services: {}"}, "not text"),
        ("patch_cvm", {"id": "my-app", "encrypted_env": "ab" * 60}, "belong together"),
        ("patch_cvm", {"id": "my-app", "docker_compose_file": COMPOSE, "allowed_envs": ["A"]}, "belong tog"),
        ("patch_cvm", {"id": "my-app", "encrypted_env": "ab" * 60, "allowed_envs": "A"}, "list of names"),
        ("patch_cvm", {"id": "my-app", "encrypted_env": "xy", "allowed_envs": ["A"]}, "not a ciphertext"),
        ("patch_cvm", {**SEALED, "envs": {"A": "1"}}, "exclude each other"),
        ("patch_cvm", {"id": "my-app", "compose_hash": "ab" * 32}, "belong together"),
        ("patch_cvm", {"id": "my-app", "transaction_hash": "0x12"}, "belong together"),
        (
            "patch_cvm",
            {**SEALED, "compose_hash": "ab" * 32, "transaction_hash": "0x12"},
            "compose_hash excludes",
        ),
        ("patch_cvm", {"id": "my-app", "compose_hash": "ab", "transaction_hash": "0x12"}, "compose_hash"),
        (
            "update_cvm_envs",
            {"id": "my-app", "encrypted_env": "ab" * 60, "compose_hash": "ab"},
            "compose_hash",
        ),
    ],
)
def test_arguments_are_checked_before_anything_is_sent(
    client: Client, cloud: Cloud, cvm: Cvm, method: str, arguments: Mapping[str, Any], complaint: str
) -> None:
    with pytest.raises(InputError, match=complaint):
        getattr(client, method)(arguments)
    assert sent(cloud) == []


def test_a_duplicate_argument_is_an_error(client: Client, cloud: Cloud) -> None:
    with pytest.raises(InputError, match="duplicate argument: kms_id"):
        client.get_kms_info("phala", kms_id="other")
    with pytest.raises(InputError, match="neither a mapping nor an id"):
        client.get_kms_info(cast("Any", 3))
    assert sent(cloud) == []


def test_ids_go_into_paths_quoted(client: Client, cloud: Cloud) -> None:
    with pytest.raises(NotFoundError):
        client.get_kms_info("../cvms?x=1#y z%")
    assert sent(cloud) == ["GET /kms/..%2Fcvms%3Fx%3D1%23y%20z%25"]


# Updates


def test_compose_file_and_plain_values_go_out_in_one_request(client: Client, cvm: Cvm, cloud: Cloud) -> None:
    result = client.patch_cvm("my-app", docker_compose_file=COMPOSE, envs={"NEW": "a b"}, allow_removal=True)
    assert isinstance(result, PatchCvmInProgress)
    assert result.correlation_id == cvm.operations[-1].correlation_id
    assert sent(cloud)[3:] == [f"GET /kms/phala/pubkey/{APP_ID}", "PATCH /cvms/my-app"]
    assert cvm.wait().environment == {"NEW": "a b"}
    assert cvm.app_compose["docker_compose_file"] == COMPOSE


def test_a_patch_waits_for_what_is_in_the_way_and_until_the_cvm_runs(client: Client, cvm: Cvm) -> None:
    cvm.begin_operation("restart", 20.0)
    result = client.patch_cvm("my-app", docker_compose_file=COMPOSE, envs={"OLD": "2"}, wait=True)
    assert result.status == "in_progress"
    assert (cvm.operation, cvm.environment) == (None, {"OLD": "2"})
    cvm.begin_operation("restart", 2000.0)
    with pytest.raises(ConflictError):
        client.patch_cvm("my-app", docker_compose_file=COMPOSE, wait=True, timeout=5)


def test_a_compose_file_alone_leaves_the_environment_as_it_is(client: Client, cvm: Cvm, cloud: Cloud) -> None:
    client.patch_cvm({"id": "my-app", "docker_compose_file": COMPOSE})
    assert sent(cloud) == ["PATCH /cvms/my-app"]
    assert cvm.wait().environment == {"OLD": "1"}
    key = client.get_app_env_encrypt_pub_key(kms="phala", app_id=APP_ID).app_env_encrypt_pubkey
    client.patch_cvm("my-app", encrypted_env=encrypt_env_vars({"B": "2"}, key), allowed_envs=("B",))
    assert cvm.wait().environment == {"B": "2"}
    assert cvm.app_compose["docker_compose_file"] == COMPOSE


def test_an_approved_patch_is_committed_without_a_body(client: Client, cloud: Cloud) -> None:
    cloud.add_kms("kms-base", 8453, BASE)
    cvm = cloud.add_cvm("on-chain", kms="kms-base", environment={"OLD": "1"})
    asked = client.patch_cvm("on-chain", docker_compose_file=COMPOSE, envs={"OLD": "2", "NEW": "1"})
    assert isinstance(asked, PatchCvmPreconditionRequired)
    assert asked.compose_hash == cvm.hash_with(["OLD", "NEW"], docker_compose_file=COMPOSE)
    assert "commit" not in repr(asked)
    approval: dict[str, Any] = {
        "compose_hash": f"0x{asked.compose_hash}",
        "transaction_hash": "0x" + "ab" * 32,
    }
    with pytest.raises(ApprovalRefusedError):
        client.patch_cvm("on-chain", **approval)
    cloud.approved_transactions.add(approval["transaction_hash"])
    assert client.patch_cvm("on-chain", **approval).status == "in_progress"
    assert cloud.requests[-1].body == b""
    assert cvm.wait().environment == {"OLD": "2", "NEW": "1"}


def test_plain_values_are_proven_and_encrypted_on_the_way(client: Client, cvm: Cvm, cloud: Cloud) -> None:
    result = client.update_cvm_envs({"id": "my-app", "envs": {"OLD": "2", "NEW": "a b"}})
    assert isinstance(result, UpdateCvmEnvsInProgress)
    assert (result.status, result.allowed_envs_changed) == ("in_progress", True)
    assert result.correlation_id == cvm.operations[-1].correlation_id
    assert cvm.wait().environment == {"OLD": "2", "NEW": "a b"}
    first = {"GET /cvms/my-app", "GET /cvms/my-app/compose_file", "GET /kms?page_size=100"}
    assert set(sent(cloud)[:3]) == first
    assert sent(cloud)[3:] == [f"GET /kms/phala/pubkey/{APP_ID}", "PATCH /cvms/my-app/envs"]


def test_a_ciphertext_made_before_is_sent_as_it_is(client: Client, cvm: Cvm, cloud: Cloud) -> None:
    key = client.get_app_env_encrypt_pub_key(kms="phala", app_id=APP_ID).app_env_encrypt_pubkey
    sealed = encrypt_env_vars([("OLD", "2")], key)
    client.update_cvm_envs("my-app", encrypted_env=f"0x{sealed}", env_keys=("OLD",))
    assert cloud.requests[-1].json == {"encrypted_env": sealed, "env_keys": ["OLD"]}
    client.update_cvm_envs("my-app", encrypted_env=sealed, env_keys=(name for name in ["OLD"]))
    assert cloud.requests[-1].json["env_keys"] == ["OLD"]
    assert cvm.wait().environment == {"OLD": "2"}


@pytest.mark.parametrize("flat", [False, True], ids=["structured", "older form"])
def test_an_approval_that_is_needed_is_an_answer(client: Client, cloud: Cloud, flat: bool) -> None:
    kms = cloud.add_kms("kms-base", 8453, BASE)
    cvm = cloud.add_cvm("on-chain", kms=kms, environment={"OLD": "1"})
    cloud.flat_preconditions = flat
    envs = [{"key": "OLD", "value": "2"}, {"key": "NEW", "value": "3"}]
    asked = client.update_cvm_envs("on-chain", envs=envs)
    assert isinstance(asked, UpdateCvmEnvsPreconditionRequired)
    assert (asked.status, asked.app_id) == ("precondition_required", cvm.app_id)
    assert (asked.compose_hash, asked.device_id) == (cvm.hash_with(["OLD", "NEW"]), cvm.device_id)
    assert (asked.kms_info or {})["slug"] == "kms-base-1"
    approval: dict[str, Any] = {"compose_hash": asked.compose_hash, "transaction_hash": "0x" + "ab" * 32}
    with pytest.raises(ApprovalRefusedError) as refused:
        client.update_cvm_envs("on-chain", envs=envs, **approval)
    assert refused.value.status_code == 467
    cloud.approved_transactions.add(approval["transaction_hash"])
    assert client.update_cvm_envs("on-chain", envs=envs, **approval).status == "in_progress"
    assert cvm.wait().environment == {"OLD": "2", "NEW": "3"}


def test_a_key_that_is_not_proven_gets_nothing(client: Client, cvm: Cvm, cloud: Cloud) -> None:
    other = cloud.add_kms("other")
    client.update_cvm_envs("my-app", envs={"OLD": "2"}, trusted_signers=cvm.kms.root_public_key)
    cvm.wait()
    with pytest.raises(ProofError, match="not in trusted-signers"):
        client.update_cvm_envs("my-app", envs={"OLD": "3"}, trusted_signers=[other.root_public_key])
    key = other.app_public_key(APP_ID)
    cvm.kms.tamper = lambda answer: {"public_key": key, "signature": other.sign(APP_ID, key)}
    with pytest.raises(ProofError, match="but the KMS 'phala' has the root"):
        client.update_cvm_envs("my-app", envs={"OLD": "3"})
    cvm.kms.tamper = lambda answer: {"public_key": answer["public_key"]}
    with pytest.raises(ProofError, match="has no signature"):
        client.update_cvm_envs("my-app", envs={"OLD": "3"})
    assert sum(line.startswith("PATCH") for line in sent(cloud)) == 1
    assert cvm.environment == {"OLD": "2"}


def test_what_the_guest_would_refuse_is_refused_first(client: Client, cvm: Cvm, cloud: Cloud) -> None:
    with pytest.raises(DeliveryError) as refused:
        client.update_cvm_envs("my-app", envs={"WITH-DASH": KEY})
    assert KEY not in told(refused.value)
    assert sent(cloud) == []


# Errors


@pytest.mark.parametrize(
    ("status", "code", "error"),
    [
        (401, None, AuthError),
        (403, "ERR-01-001", AuthError),
        (404, "ERR-03-001", NotFoundError),
        (409, "ERR-03-002", ConflictError),
        (422, None, ApiError),
        (429, None, RateLimitError),
        (466, "ERR-01-006", ApprovalRefusedError),
        (467, None, ApprovalRefusedError),
        (468, None, ApprovalRefusedError),
        (500, None, ServerError),
        (503, "ERR-00-001", ServerError),
    ],
)
def test_each_refusal_has_its_class_and_all_that_the_api_said(
    client: Client, simulator: Simulator, cvm: Cvm, status: int, code: str | None, error: type[ApiError]
) -> None:
    body = {
        "error_code": code,
        "message": f"no, {KEY}",
        "request_id": "req_1",
        "details": [{"field": "id", "value": 3, "message": "no"}],
        "suggestions": ["try another"],
        "links": [{"url": "https://docs.example"}],
    }
    fault = Fault("status", "PATCH", status=status, body=body, headers={"Retry-After": "3600"}, times=None)
    simulator.faults.add(fault)
    with pytest.raises(error) as refused:
        client.update_cvm_envs("my-app", encrypted_env="ab" * 61, env_keys=["OLD"])
    raised = refused.value
    assert type(raised) is error
    assert (raised.status_code, raised.error_code, raised.request_id) == (status, code, "req_1")
    assert raised.details == ({"field": "id", "value": 3, "message": "no"},)
    assert (raised.suggestions, raised.links) == (("try another",), ({"url": "https://docs.example"},))
    assert raised.retry_after == 3600
    assert "no, ***" in raised.message
    assert raised.hint
    assert KEY not in told(raised)
    assert len(sent(simulator.cloud)) == 1


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"detail": "plain"}, "plain"),
        ({"detail": [{"loc": ["body", "env_keys"], "msg": "wrong", "type": "x"}]}, "body.env_keys: wrong"),
        ({"detail": {"message": "nested", "error_code": "ERR-1"}}, "nested"),
        (b"<html>Bad gateway</html>", "it refused"),
        ([1], "it refused"),
        ({"message": None, "details": 3, "links": {}, "suggestions": [3]}, "it refused"),
    ],
)
def test_every_form_of_refusal_is_read(
    client: Client, simulator: Simulator, cvm: Cvm, body: Any, message: str
) -> None:
    simulator.faults.add(Fault("status", status=422, body=body))
    with pytest.raises(ApiError) as refused:
        client.get_kms_info("phala")
    assert f"Phala Cloud: {message} (" in refused.value.message
    assert refused.value.request_id == (simulator.cloud.requests[-1].request_id)


def test_the_key_is_nowhere_to_be_seen(connect: Connect, cloud: Cloud, cvm: Cvm) -> None:
    lines: list[str] = []
    client = connect(trace=lines.append)
    client.get_cvm_info("my-app")
    cloud.api_key = "another"
    with pytest.raises(AuthError) as refused:
        client.get_cvm_info("my-app")
    assert len(lines) == 2
    for kind in (Client, AsyncClient):
        lines += [repr(kind(KEY)), str(kind(KEY)), repr(vars(kind(KEY)))]
    assert KEY not in told(refused.value) + "".join(lines)


def test_a_redirect_is_not_followed(client: Client, simulator: Simulator) -> None:
    with Simulator(Cloud()) as elsewhere:
        simulator.faults.add(Fault("redirect", location=f"{elsewhere.url}/kms/phala"))
        with pytest.raises(AnswerError, match="redirects to"):
            client.get_kms_info("phala")
        assert sent(elsewhere.cloud) == []


@pytest.mark.parametrize("kind", ["html_200", "not_json", "huge_body", "gzip_bomb"])
def test_an_invalid_response_is_an_error(client: Client, simulator: Simulator, kind: Any) -> None:
    simulator.faults.add(Fault(kind, size=64 * 1024 * 1024))
    with pytest.raises(AnswerError):
        client.get_kms_info("phala")
    assert len(sent(simulator.cloud)) == 1


def test_a_refused_connection_is_a_transport_error(clock: ManualClock) -> None:
    with Simulator() as gone:
        url = gone.url

    async def ask() -> None:
        async with phala_secrets.create_async_client(KEY, url) as client:
            await client.next_app_ids()

    with phala_secrets.create_client(KEY, url) as client, ThreadPoolExecutor() as pool:
        for attempt in (pool.submit(client.next_app_ids), pool.submit(asyncio.run, ask())):
            with pytest.raises(TransportError, match=r"127\.0\.0\.1:\d+ could not be reached") as failed:
                attempt.result()
            assert not failed.value.sent
            assert KEY not in told(failed.value)


# What is tried again, and what is not


@pytest.mark.parametrize(
    "fault",
    [
        Fault("status", status=503),
        Fault("half_body"),
        Fault("stall", seconds=30),
        Fault("drip", seconds=0.1),
    ],
    ids=["503", "half a body", "stall", "drip"],
)
def test_what_may_be_repeated_is(connect: Connect, simulator: Simulator, fault: Fault) -> None:
    fault.times = 1
    simulator.faults.add(fault)
    assert connect(timeout=0.3).get_kms_info("phala").slug == "phala"
    assert len(sent(simulator.cloud)) == 2


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        (Fault("status", status=500), ServerError),
        (Fault("reset_after"), TransportError),
        (Fault("half_body"), TransportError),
        (Fault("stall", seconds=30, where="after"), TransportError),
    ],
    ids=["500", "reset", "half a body", "stall"],
)
def test_an_update_that_may_have_been_read_is_not_repeated(
    connect: Connect, simulator: Simulator, cvm: Cvm, fault: Fault, error: type[PhalaSecretsError]
) -> None:
    fault.times, fault.method = 1, "PATCH"
    simulator.faults.add(fault)
    with pytest.raises(error):
        connect(timeout=0.5).update_cvm_envs("my-app", envs={"OLD": "2"})
    assert sum(line.startswith("PATCH") for line in sent(simulator.cloud)) == 1


def test_an_update_waits_while_another_is_under_way(client: Client, cvm: Cvm, simulator: Simulator) -> None:
    simulator.faults.add(Fault("status", "PATCH", status=409, body={"detail": "in progress"}))
    assert client.update_cvm_envs("my-app", envs={"OLD": "2"}).status == "in_progress"
    assert cvm.wait().environment == {"OLD": "2"}


def test_retry_after_is_honoured(client: Client, simulator: Simulator) -> None:
    simulator.faults.add(Fault("status", status=429, headers={"Retry-After": "1"}))
    client.get_kms_info("phala")
    first, second = simulator.cloud.requests
    assert second.started - first.ended == pytest.approx(1)


def test_after_a_rate_limit_requests_come_slower_and_all_get_through(client: Client, cloud: Cloud) -> None:
    cloud.rate_limit = RateLimit(per_second=10, retry_after=False)
    for _ in range(3):
        client.get_kms_info("phala")
    assert [request.status for request in cloud.requests].count(200) == 3


def test_connections_are_kept(client: Client, cloud: Cloud, cvm: Cvm) -> None:
    for _ in range(3):
        client.get_kms_info("phala")
    with pytest.raises(NotFoundError):
        client.get_cvm_info("nobody")
    client.get_cvm_state("my-app")
    assert len({request.connection for request in cloud.requests}) == 1


def test_a_client_may_be_shared(connect: Connect, simulator: Simulator, cvm: Cvm) -> None:
    simulator.latency = 0.05
    with phala_secrets.create_client(KEY, simulator.url) as client, ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(client.get_cvm_info, ["my-app"] * 16))

    async def all_at_once() -> list[Any]:
        async with phala_secrets.create_async_client(KEY, simulator.url) as client:
            return await asyncio.gather(*(client.get_cvm_info("my-app") for _ in range(16)))

    assert {cvm.id for cvm in answers + asyncio.run(all_at_once())} == {cvm.id}


# Watching


def shown(events: Iterator[CvmStateEvent]) -> list[tuple[str, str | None]]:
    return [(event.type, event.state.status if event.state else None) for event in events]


def test_a_watch_yields_each_state_until_the_target(
    client: Client, cvm: Cvm, cloud: Cloud, clock: ManualClock
) -> None:
    cloud.stale_seconds, cloud.restart_seconds = 0.2, 30.0
    client.update_cvm_envs("my-app", envs={"OLD": "2"})
    events = client.watch_cvm_state("my-app", target="restarting")
    first = next(events)
    clock.advance(1)
    assert shown(iter([first, *events])) == [
        ("state", "running"),
        ("state", "restarting"),
        ("complete", None),
    ]
    assert sent(cloud)[-1] == "GET /cvms/my-app/state?target=restarting&interval=5&timeout=300"
    assert cloud.requests[-1].headers["accept"] == "text/event-stream"


@pytest.mark.parametrize(
    "fault",
    [
        Fault("half_body"),
        Fault("reset_after"),
        Fault("status", status=503),
        Fault("status", status=429, headers={"Retry-After": "0"}),
        Fault("mute"),
    ],
    ids=["ends", "breaks off", "503", "429", "only kept open"],
)
def test_a_watch_takes_a_broken_stream_up_again(
    client: Client, cvm: Cvm, simulator: Simulator, fault: Fault
) -> None:
    fault.times, fault.path = 1, "/state"
    simulator.faults.add(fault)
    *states, last = shown(client.watch_cvm_state({"id": "my-app"}))
    assert (set(states), last) == ({("state", "running")}, ("complete", None))
    assert len(sent(simulator.cloud)) == 2


def test_a_watch_works_where_nothing_is_streamed(client: Client, cvm: Cvm, cloud: Cloud) -> None:
    cloud.streams = False
    assert shown(client.watch_cvm_state("my-app")) == [("state", "running"), ("complete", None)]


def test_a_watch_raises_what_will_not_pass(client: Client, cvm: Cvm) -> None:
    with pytest.raises(NotFoundError):
        next(client.watch_cvm_state("nobody"))


def test_a_watch_that_is_left_gives_its_stream_back(client: Client, cvm: Cvm, cloud: Cloud) -> None:
    events = cast("Generator[CvmStateEvent]", client.watch_cvm_state("my-app", target="exited"))
    assert next(events).type == "state"
    assert cloud.limits.open_streams == 1
    events.close()
    with cloud.changed:
        assert cloud.changed.wait_for(lambda: not cloud.limits.open_streams, 10)


def test_events_that_are_none_are_survived(client: Client, cvm: Cvm, simulator: Simulator) -> None:
    body = b'event: error\ndata: {"message": "node is busy"}\n\nevent: state\ndata: nonsense\n\n'
    headers = {"Content-Type": "text/event-stream; charset=utf-8"}
    simulator.faults.add(Fault("status", path="/state", status=200, headers=headers, body=body))
    watched = shown(client.watch_cvm_state("my-app"))
    assert watched == [("error", None), ("state", "running"), ("complete", None)]


def test_a_watch_whose_time_is_up_says_so(client: Client, cloud: Cloud, clock: ManualClock) -> None:
    watch = Watch("my-app")
    clock.advance(300)
    assert shown(client._watched(watch)) == [("timeout", None)]
    assert sent(cloud) == []


def event(kind: str) -> CvmStateEvent:
    return CvmStateEvent(type=kind)


def test_a_watch_ends_in_time_whatever_the_streams_do(clock: ManualClock) -> None:
    watch = Watch("my-app", target="exited", interval=30, timeout=90)
    assert (watch.call().params["timeout"], watch.silence(), watch.over) == ("90", 60.0, False)
    assert watch.saw(event("state"))
    assert watch.pause() == 30
    clock.advance(75)
    assert (watch.call().params["timeout"], watch.silence()) == ("15", 15.0)
    assert not watch.saw(event("timeout"))
    assert 0 < watch.pause() < 1
    clock.advance(12)
    assert (watch.call().params["timeout"], watch.silence()) == ("10", 3.0)
    watch.broke(TransportError("it broke off"))
    clock.advance(3)
    assert (watch.over, watch.complete, watch.pause()) == (True, False, 0.0)
    assert watch.timed_out().data == {"message": "not exited after 90 s"}


def test_a_watch_gives_up_after_silent_streams(clock: ManualClock) -> None:
    watch = Watch("my-app")
    pauses = []
    for _ in range(3):
        watch.broke(TransportError("it broke off"))
        pauses.append(watch.pause())
    assert pauses == sorted(pauses)
    watch.saw(event("state"))
    for _ in range(3):
        watch.broke(TransportError("it broke off"))
    with pytest.raises(TransportError):
        watch.broke(TransportError("it broke off"))


def test_a_watch_comes_again_when_a_rate_limit_says(clock: ManualClock) -> None:
    watch = Watch("my-app")
    watch.broke(RateLimitError("slow down", status_code=429, retry_after=42))
    assert watch.pause() == 42
    watch.broke(RateLimitError("slow down", status_code=429))
    assert watch.pause() == 5


# Making one


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ({"api_key": ""}, "no API key"),
        ({"api_key": "two words"}, "invalid in an API key"),
        ({"api_key": "k\r\nX-Evil: 1"}, "invalid in an API key"),
        ({"base_url": "http://cloud.example"}, "is not https"),
        ({"base_url": "cloud.example"}, "api-url is not a URL"),
        ({"version": "2020-01-01"}, "unknown API version '2020-01-01'"),
        ({"timeout": 0}, "timeout is not a positive number"),
    ],
)
def test_a_client_that_could_not_work_is_not_made(
    connect: Connect, monkeypatch: pytest.MonkeyPatch, arguments: dict[str, Any], complaint: str
) -> None:
    monkeypatch.delenv("PHALA_CLOUD_API_KEY", raising=False)
    with pytest.raises(InputError, match=complaint):
        connect(**arguments)


def test_certificates_are_verified_against_given_roots(
    connect: Connect, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    authority, context = trustme.CA(), ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    with Simulator(Cloud(KEY), tls=context) as simulator:
        with pytest.raises(AnswerError, match="no trusted TLS connection") as refused:
            connect(base_url=simulator.url).get_kms_info("phala")
        assert "SSL_CERT_FILE" in refused.value.hint
        roots = tmp_path / "roots.pem"
        roots.write_bytes(authority.cert_pem.bytes())
        monkeypatch.setenv("SSL_CERT_FILE", str(roots))
        assert connect(base_url=simulator.url).get_kms_info("phala").slug == "phala"
        roots.write_text("no certificate")
        with pytest.raises(InputError, match="SSL_CERT_FILE"):
            connect(base_url=simulator.url)


def test_the_environment_says_where_and_who(
    simulator: Simulator, cloud: Cloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PHALA_CLOUD_API_KEY", f" {KEY}\n")
    monkeypatch.setenv("PHALA_CLOUD_API_PREFIX", simulator.url)
    with phala_secrets.create_client() as client:
        assert client.get_kms_info("phala").slug == "phala"

    async def awaited() -> str | None:
        async with phala_secrets.create_async_client() as client:
            return (await client.get_kms_info("phala")).slug

    assert asyncio.run(awaited()) == "phala"
