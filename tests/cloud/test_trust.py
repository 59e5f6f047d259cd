"""Stories of trust: whose key it is, who may say so, and what is never sent when that is in doubt."""

from __future__ import annotations

import json
import ssl
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import trustme
from btclib_secp256k1 import keys

from phala_secrets.simulator.cloud import Cloud
from phala_secrets.simulator.cvm import Cvm
from phala_secrets.simulator.kms import Kms
from phala_secrets.simulator.wire import Answer, Request
from tests.support.command import Command, Outcome
from tests.support.faults import Fault
from tests.support.faulty import FaultySimulator as Simulator
from tests.support.proxy import Proxy

ON_CHAIN = "0x2f83172A49584C017F2B256F0FB2Dca14126Ba9C"
Tamper = Callable[[dict[str, Any]], dict[str, Any]]


def update(run: Command, *arguments: str, cvm: str = "my-app", **inputs: str) -> Outcome:
    run.write(".env", "OLD=2\n")
    environ = {f"INPUT_{name.upper()}": value for name, value in inputs.items()}
    return run("update", "--cvm", cvm, "--env-file", ".env", *arguments, environ=environ)


def assert_refused(done: Outcome, cloud: Cloud, code: int, *words: str) -> None:
    """Refused with this exit code, for this reason and with something to do; and nothing was sent."""
    assert done.code == code, done.printed
    assert len(done.errors) == 1
    for word in words:
        assert word in done.errors[0]
    assert done.hints
    assert [request.path for request in cloud.requests if request.method != "GET"] == []


def kms(cloud: Cloud, slug: str = "phala") -> Kms:
    return cloud.find_kms(slug)


def rewrite(cloud: Cloud, path: str, change: Callable[[Any], Any]) -> None:
    """Every answer to a path that ends so is changed before it is sent."""

    def tamper(request: Request, answer: Answer) -> Answer:
        if answer.status == 200 and request.path.endswith(path):
            return Answer(change(json.loads(json.dumps(answer.body))))
        return answer

    cloud.tamper = tamper


# -- pins ---------------------------------------------------------------------------------------


def uncompressed(key: str) -> str:
    return keys.reserialize(bytes.fromhex(key), compressed=False).hex()


SPELLINGS: dict[str, Callable[[str], str]] = {
    "compressed": str,
    "with 0x": lambda key: f"0x{key}",
    "upper case": str.upper,
    "uncompressed": uncompressed,
    "uncompressed with 0x": lambda key: f"0x{uncompressed(key)}",
    "second of two": lambda key: f"{keys.pubkey_from_prvkey(bytes(31) + bytes([7])).hex()}\n{key}",
    "amid blank lines": lambda key: f"\n  {key}  \n\n",
}


@pytest.mark.parametrize("spelling", SPELLINGS.values(), ids=SPELLINGS)
def test_a_root_is_pinned_in_any_usual_spelling(
    run: Command, cloud: Cloud, cvm: Cvm, spelling: Callable[[str], str]
) -> None:
    root = kms(cloud).root_public_key
    done = update(run, "--json", "--no-wait", **{"trusted-signers": spelling(root)})
    assert done.code == 0, done.printed
    assert done.json["trust"] == "pinned"
    assert done.json["kms_signer"] == root


@pytest.mark.parametrize(
    ("pin", "word"),
    [
        ("02" + "zz" * 32, "hex"),
        ("02" + "11" * 31, "32 bytes"),
        ("11" * 65, "begins with 11"),
        ("02" + "ff" * 32, "curve"),
        ("phala", "hex"),
    ],
)
def test_a_malformed_pin_is_an_error_and_is_never_ignored(
    run: Command, cloud: Cloud, cvm: Cvm, pin: str, word: str
) -> None:
    pins = f"{kms(cloud).root_public_key}\n{pin}"
    done = update(run, **{"trusted-signers": pins})
    assert_refused(done, cloud, 2, "trusted-signers, line 2", word)
    assert not cloud.requests


def test_another_root_than_the_pinned_is_refused_though_the_api_vouches_for_it(
    run: Command, cloud: Cloud, cvm: Cvm
) -> None:
    stranger = cloud.add_kms("stranger", 1, "0x" + "ab" * 20).root_public_key
    done = update(run, **{"trusted-signers": stranger})
    assert_refused(done, cloud, 3, kms(cloud).root_public_key, "trusted-signers")


# -- the answer to the key ----------------------------------------------------------------------


def foreign(cloud: Cloud) -> Tamper:
    """The genuine root, which signs keys for an attacker's app as well."""
    return lambda _: kms(cloud).answer("cd" * 20, None)


def swapped(answer: dict[str, Any]) -> dict[str, Any]:
    return {**answer, "public_key": "09" + answer["public_key"][2:-2] + "00"}


def without(*names: str) -> Tamper:
    return lambda answer: {name: value for name, value in answer.items() if name not in names}


def replaced(**fields: Any) -> Tamper:
    return lambda answer: {**answer, **fields}


REFUSED_KEYS: dict[str, tuple[Tamper, str]] = {
    "key swapped under a good signature": (swapped, "signed by"),
    "no signature": (without("signature"), "has no signature"),
    "empty signature": (replaced(signature=""), "has no signature"),
    "64 bytes": (lambda a: {**a, "signature": a["signature"][:-2]}, "64 bytes, not 65"),
    "66 bytes": (lambda a: {**a, "signature": a["signature"] + "00"}, "66 bytes, not 65"),
    "signature not hex": (replaced(signature="zz" * 65), "not hex"),
    "r of zero": (lambda a: {**a, "signature": "00" * 32 + a["signature"][64:]}, "r = 0"),
    "s too large": (lambda a: {**a, "signature": a["signature"][:64] + "ff" * 32 + "00"}, "s at or above"),
    "recovery id": (lambda a: {**a, "signature": a["signature"][:-2] + "04"}, "recovery id 4"),
    "low-order point": (replaced(public_key="00" * 32), "low order"),
    "low-order one": (replaced(public_key="01" + "00" * 31), "low order"),
    "not canonical": (replaced(public_key="ff" * 32), "canonical"),
    "short key": (lambda a: {**a, "public_key": a["public_key"][:-2]}, "31 bytes, not 32"),
    "odd hex": (lambda a: {**a, "public_key": a["public_key"][:-1]}, "not hex"),
    "timestamp without v1": (replaced(timestamp=1), "old"),
    "v1 without timestamp": (lambda a: {**a, "signature_v1": a["signature"]}, "no timestamp"),
}


@pytest.mark.parametrize(("tamper", "word"), REFUSED_KEYS.values(), ids=REFUSED_KEYS)
@pytest.mark.parametrize("pinned", [True, False], ids=["pinned", "api"])
def test_a_key_that_is_not_proven_is_refused(
    run: Command, cloud: Cloud, cvm: Cvm, tamper: Tamper, word: str, pinned: bool
) -> None:
    kms(cloud).tamper = tamper
    pin = {"trusted-signers": kms(cloud).root_public_key} if pinned else {}
    assert_refused(update(run, **pin), cloud, 3, word)


def test_the_key_of_another_app_is_refused(run: Command, cloud: Cloud, cvm: Cvm) -> None:
    answer = kms(cloud).answer("cd" * 20, None)
    kms(cloud).tamper = lambda _: answer
    done = update(run, **{"trusted-signers": kms(cloud).root_public_key})
    assert_refused(done, cloud, 3, "signed by")


@pytest.mark.parametrize("base", [0, 27])
def test_recovery_ids_count_from_0_or_from_27(run: Command, cloud: Cloud, cvm: Cvm, base: int) -> None:
    kms(cloud).recovery_base = base
    assert update(run, "--no-wait").code == 0


# -- when a signature was made ------------------------------------------------------------------


def v1(cloud: Cloud, cvm: Cvm, moment: float) -> None:
    """Keys are signed with a date, and that date is this one (Unix seconds)."""
    answer = kms(cloud).answer(cvm.app_id, int(moment))
    kms(cloud).tamper = lambda _: answer


@pytest.mark.parametrize("seconds", [-290, 0, 50])
def test_a_dated_signature_is_good_for_a_while(run: Command, cloud: Cloud, cvm: Cvm, seconds: int) -> None:
    v1(cloud, cvm, time.time() + seconds)
    done = update(run, "--no-wait")
    assert done.code == 0, done.printed
    assert "has no date" not in done.printed


@pytest.mark.parametrize(("seconds", "word"), [(-400, "old"), (120, "ahead")])
def test_a_clock_that_is_off_gets_both_times_named(
    run: Command, cloud: Cloud, cvm: Cvm, seconds: int, word: str
) -> None:
    moment = int(time.time() + seconds)
    v1(cloud, cvm, moment)
    there = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(moment))
    done = update(run)
    assert_refused(done, cloud, 3, word, there)
    assert done.errors[0].count("UTC") == 2
    assert "clock" in done.hints[0]


def test_a_v1_that_fails_never_falls_back_to_a_good_legacy_signature(
    run: Command, cloud: Cloud, cvm: Cvm
) -> None:
    cloud.v1_signatures = True
    kms(cloud).tamper = lambda answer: {**answer, "signature_v1": answer["signature"]}
    assert_refused(update(run), cloud, 3, "signed by")


@pytest.mark.parametrize("missing", ["timestamp", "signature_v1"])
def test_a_v1_that_is_there_in_part_never_falls_back(
    run: Command, cloud: Cloud, cvm: Cvm, missing: str
) -> None:
    cloud.v1_signatures = True
    kms(cloud).tamper = without(missing)
    assert_refused(update(run), cloud, 3)


def test_an_undated_signature_is_one_quiet_line(run: Command, cloud: Cloud, cvm: Cvm) -> None:
    done = update(run, "--no-wait")
    assert done.stderr.count("has no date") == 1
    assert "warning: " not in done.stderr


# -- what the API says beside it ----------------------------------------------------------------


def test_the_unsigned_key_of_a_cvm_is_never_used(run: Command, cloud: Cloud, cvm: Cvm) -> None:
    other = "5a" * 32
    rewrite(cloud, "/my-app", lambda b: {**b, "kms_info": {**b["kms_info"], "encrypted_env_pubkey": other}})
    done = update(run)
    assert done.code == 0, done.printed
    assert cvm.environment == {"OLD": "2"}
    warning = next(line for line in done.lines if line.startswith("warning: "))
    assert other in warning
    assert kms(cloud).app_public_key(cvm.app_id) in warning


def test_without_a_pin_the_signer_has_to_be_the_published_root(run: Command, cloud: Cloud, cvm: Cvm) -> None:
    attacker = Kms("phala", b"another seed")
    answer = attacker.answer(cvm.app_id, None)
    kms(cloud).tamper = lambda _: answer
    done = update(run)
    assert_refused(done, cloud, 3, attacker.root_public_key, kms(cloud).root_public_key)


def test_what_rests_on_the_api_alone_is_told_with_the_line_to_paste(
    run: Command, cloud: Cloud, cvm: Cvm
) -> None:
    done = update(run, "--json")
    assert done.json["trust"] == "api"
    assert f"--trusted-signers 0x{kms(cloud).root_public_key}" in done.stderr
    assert f"--app-id {cvm.app_id}" in done.stderr


@pytest.mark.parametrize("published", [None, "", "02" + "ff" * 32])
def test_a_root_that_is_not_published_vouches_for_nothing(
    run: Command, cloud: Cloud, cvm: Cvm, published: str | None
) -> None:
    rewrite(
        cloud, "/kms", lambda b: {**b, "items": [{**row, "k256_pubkey": published} for row in b["items"]]}
    )
    assert_refused(update(run), cloud, 3, "publishes")
    assert update(run, "--no-wait", **{"trusted-signers": kms(cloud).root_public_key}).code == 0


def test_the_kms_is_found_by_its_contract_and_not_by_its_type(run: Command, cloud: Cloud) -> None:
    cloud.add_kms("eu-base-1", 8453, "0x" + "11" * 20)
    cloud.add_kms("us-base-7", 8453, ON_CHAIN)
    cloud.add_kms("us-eth-7", 1, ON_CHAIN)
    cvm = cloud.add_cvm("my-app", kms="us-base-7", environment={"OLD": "1"})
    rewrite(
        cloud,
        "/my-app",
        lambda b: {
            **b,
            "kms_type": "ethereum",
            "kms_info": {**b["kms_info"], "dstack_kms_address": ON_CHAIN.lower()},
        },
    )
    done = update(run, "--json")
    assert done.code == 0, done.printed
    assert done.json["kms"] == "us-base-7-1", "the node that served the key"
    assert cvm.environment == {"OLD": "2"}


def test_the_kms_is_found_on_a_later_page(run: Command, cloud: Cloud) -> None:
    for number in range(230):
        cloud.add_kms(f"kms-{number}", 8453, f"0x{number:040x}")
    cloud.add_kms("the-last", 8453, ON_CHAIN)
    cloud.add_cvm("my-app", kms="the-last", environment={"OLD": "1"})
    done = update(run, "--json", "--no-wait")
    assert done.code == 0, done.printed
    assert done.json["kms"] == "the-last-1"
    assert sum(request.path == "/kms" for request in cloud.requests) == 3


def test_several_central_contracts_leave_the_one_called_phala(run: Command, cloud: Cloud, cvm: Cvm) -> None:
    cloud.add_kms("phala-staging")
    done = update(run, "--json", "--no-wait")
    assert done.code == 0, done.printed
    assert done.json["kms"] == "phala"


def test_several_central_contracts_without_that_are_no_guess(run: Command, cloud: Cloud, cvm: Cvm) -> None:
    kms(cloud).slug = "phala-old"
    cloud.add_kms("phala-new")
    assert_refused(update(run), cloud, 6, "2", "Cloud KMS")


def test_a_kms_that_is_not_listed_is_named_with_the_way_out(run: Command, cloud: Cloud) -> None:
    gone = cloud.add_kms("gone", 8453, ON_CHAIN)
    cloud.add_cvm("my-app", kms=gone, environment={"OLD": "1"})
    rewrite(cloud, "/kms", lambda b: {**b, "items": b["items"][:1]})
    done = update(run)
    assert_refused(done, cloud, 6, ON_CHAIN, "8453")
    assert "trusted-signers" in done.hints[0]
    pinned = update(run, "--kms", "gone-1", "--no-wait", **{"trusted-signers": gone.root_public_key})
    assert pinned.code == 0, pinned.printed


def test_an_unknown_kms_is_refused(run: Command, cloud: Cloud, cvm: Cvm) -> None:
    assert_refused(update(run, "--kms", "nowhere"), cloud, 5, "nowhere")


# -- the right app ------------------------------------------------------------------------------


def test_a_name_that_leads_to_another_app_is_refused(run: Command, cloud: Cloud, cvm: Cvm) -> None:
    done = update(run, "--app-id", "cd" * 20)
    assert_refused(done, cloud, 3, cvm.app_id, "cd" * 20)


def test_an_app_id_holds_against_whatever_cvm_the_api_gives(run: Command, cloud: Cloud, cvm: Cvm) -> None:
    foreign = cloud.add_cvm("foreign", environment={"OLD": "1"})
    rewrite(cloud, f"/app_{cvm.app_id}", lambda b: {**b, "app_id": foreign.app_id, "id": foreign.id})
    done = update(run, cvm=cvm.app_id)
    assert_refused(done, cloud, 3, foreign.app_id, cvm.app_id)


def test_an_app_id_given_twice_has_to_be_the_same(run: Command, cloud: Cloud, cvm: Cvm) -> None:
    done = update(run, "--app-id", "cd" * 20, cvm=f"0x{cvm.app_id}")
    assert_refused(done, cloud, 2, "app-id", cvm.app_id)
    assert not cloud.requests


@pytest.mark.parametrize("answer", [None, "", "not-an-app", "ab" * 19])
def test_a_cvm_without_an_app_is_no_guess(run: Command, cloud: Cloud, cvm: Cvm, answer: str | None) -> None:
    rewrite(cloud, "/my-app", lambda b: {**b, "app_id": answer})
    assert_refused(update(run), cloud, 6, "app")


def test_an_approval_for_another_app_is_refused(run: Command, cloud: Cloud) -> None:
    cloud.add_kms("base", 8453, ON_CHAIN)
    cvm = cloud.add_cvm("my-app", kms="base", environment={"OLD": "1"})

    def ask_for_another(request: Request, answer: Answer) -> Answer:
        if answer.status == 465:
            for row in answer.body["details"]:
                if row["field"] == "app_id":
                    row["value"] = "cd" * 20
        return answer

    cloud.tamper = ask_for_another
    run.write(".env", "OLD=2\nNEW=3\n")
    done = run("update", "--cvm", "my-app", "--env-file", ".env", "--prepare-only")
    assert done.code == 3
    assert "cd" * 20 in done.errors[0]
    assert cvm.environment == {"OLD": "1"}


# -- what the proof has to rest on --------------------------------------------------------------


@pytest.mark.parametrize("level", ["chain", "pinned"])
def test_an_empty_pin_falls_short_of_what_is_required(
    run: Command, cloud: Cloud, cvm: Cvm, level: str
) -> None:
    done = update(run, "--require-trust", level, **{"trusted-signers": ""})
    assert_refused(done, cloud, 3, "require-trust", level)
    assert not cloud.requests


def test_a_pin_meets_every_requirement(run: Command, cloud: Cloud, cvm: Cvm) -> None:
    pin = {"trusted-signers": kms(cloud).root_public_key}
    assert update(run, "--require-trust", "pinned", "--no-wait", **pin).code == 0


def test_a_required_chain_is_not_met_by_a_central_kms(run: Command, cloud: Cloud, cvm: Cvm) -> None:
    done = run(
        "verify",
        "--cvm",
        "my-app",
        "--require-trust",
        "chain",
        environ={"ETH_RPC_URL": "https://rpc.invalid"},
    )
    assert_refused(done, cloud, 3, "require-trust is chain", "api")


def test_a_given_rpc_url_requires_a_contract(run: Command, cloud: Cloud, cvm: Cvm) -> None:
    done = update(run, "--rpc-url", "https://rpc.invalid")
    assert_refused(done, cloud, 3, "rpc-url", cvm.app_id)


# -- verify and plan ----------------------------------------------------------------------------


def test_verify_gives_out_whose_key_it_is(run: Command, cloud: Cloud, cvm: Cvm) -> None:
    done = run("verify", "--cvm", "my-app", "--json")
    assert done.code == 0
    assert done.json["kms_signer"] == kms(cloud).root_public_key
    assert done.json["public_key"] == kms(cloud).app_public_key(cvm.app_id)
    assert done.json["trust"] == "api"
    assert done.json["status"] == "verified"


@pytest.mark.parametrize("mode", ["verify", "plan", "encrypt"])
def test_each_mode_proves_the_key(run: Command, cloud: Cloud, cvm: Cvm, mode: str) -> None:
    kms(cloud).tamper = swapped
    run.write(".env", "OLD=2\n")
    source = [] if mode == "verify" else ["--env-file", ".env"]
    assert_refused(run(mode, "--cvm", "my-app", *source), cloud, 3, "signed by")


# -- on the way ---------------------------------------------------------------------------------

ENDPOINTS = {"the CVM": "^/cvms/my-app$", "the KMS": "^/kms$", "the key": "/pubkey/", "names": "compose_file"}


@pytest.mark.parametrize("path", ENDPOINTS.values(), ids=ENDPOINTS)
def test_no_redirect_is_followed(
    run: Command, simulator: Simulator, cloud: Cloud, cvm: Cvm, path: str
) -> None:
    with Simulator(cloud) as elsewhere:
        location = f"{elsewhere.url}/cvms/my-app"
        simulator.faults.add(Fault("redirect", path=path, location=location, times=None))
        done = update(run)
        assert_refused(done, cloud, 6, "redirects to", location)
        port = elsewhere.port
    assert all(request.headers["host"] != f"127.0.0.1:{port}" for request in cloud.requests)


def test_no_redirect_of_the_update_is_followed(
    run: Command, simulator: Simulator, cloud: Cloud, cvm: Cvm
) -> None:
    simulator.faults.add(Fault("redirect", "PATCH", location="https://evil.invalid/envs"))
    done = update(run)
    assert done.code == 6
    assert "https://evil.invalid/envs" in done.errors[0]
    assert sum(request.method == "PATCH" for request in cloud.requests) == 1
    assert cvm.environment == {"OLD": "1"}


@pytest.fixture
def authority() -> trustme.CA:
    """A certificate authority that nobody else knows."""
    return trustme.CA()


@pytest.fixture
def secure(cloud: Cloud, authority: trustme.CA) -> Iterator[Simulator]:
    """The same cloud over TLS, as 127.0.0.1 and as cloud.invalid."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1", "cloud.invalid").configure_cert(context)
    with Simulator(cloud, tls=context) as running:
        yield running


@pytest.fixture
def roots(authority: trustme.CA, tmp_path: Path) -> str:
    """A file with the authority's certificate."""
    path = tmp_path / "roots.pem"
    authority.cert_pem.write_to_path(str(path))
    return str(path)


@pytest.fixture
def proxy(secure: Simulator) -> Iterator[Proxy]:
    """A proxy that reaches the secure cloud, whatever host it is asked for."""
    with Proxy(secure.port) as running:
        yield running


def test_a_private_authority_is_trusted_when_it_is_named(
    run: Command, secure: Simulator, cvm: Cvm, roots: str
) -> None:
    run.environ |= {"SSL_CERT_FILE": roots, "PHALA_CLOUD_API_PREFIX": secure.url}
    done = update(run)
    assert done.code == 0, done.printed
    assert cvm.environment == {"OLD": "2"}


def test_an_authority_that_nobody_named_is_refused(
    run: Command, secure: Simulator, cloud: Cloud, cvm: Cvm
) -> None:
    run.environ["PHALA_CLOUD_API_PREFIX"] = secure.url
    done = update(run)
    assert_refused(done, cloud, 6, "TLS", "127.0.0.1")
    assert "SSL_CERT_FILE" in done.hints[0]
    assert not cloud.requests


def test_a_certificate_of_another_host_is_refused(
    run: Command, secure: Simulator, cloud: Cloud, cvm: Cvm, roots: str
) -> None:
    url = secure.url.replace("127.0.0.1", "localhost")
    run.environ |= {"SSL_CERT_FILE": roots, "PHALA_CLOUD_API_PREFIX": url}
    assert_refused(update(run), cloud, 6, "TLS", "localhost")
    assert not cloud.requests


@pytest.mark.parametrize("content", [None, "not a certificate\n"], ids=["missing", "no certificate"])
def test_a_file_of_authorities_that_is_none_is_named(
    run: Command, cloud: Cloud, cvm: Cvm, content: str | None
) -> None:
    if content:
        run.write("roots.pem", content)
    run.environ |= {"SSL_CERT_FILE": "roots.pem", "PHALA_CLOUD_API_PREFIX": "https://cloud.invalid"}
    assert_refused(update(run), cloud, 2, "SSL_CERT_FILE")


def test_a_proxy_is_used(run: Command, proxy: Proxy, cvm: Cvm, roots: str) -> None:
    run.environ |= {
        "SSL_CERT_FILE": roots,
        "PHALA_CLOUD_API_PREFIX": "https://cloud.invalid/api/v1",
        "HTTPS_PROXY": proxy.url,
    }
    done = update(run)
    assert done.code == 0, done.printed
    assert cvm.environment == {"OLD": "2"}
    assert set(proxy.asked) == {"cloud.invalid:443"}


def test_a_proxy_sees_no_key(run: Command, proxy: Proxy, cvm: Cvm, roots: str, cloud: Cloud) -> None:
    run.environ |= {
        "SSL_CERT_FILE": roots,
        "PHALA_CLOUD_API_PREFIX": "https://cloud.invalid/api/v1",
        "HTTPS_PROXY": proxy.url,
    }
    assert update(run, "--no-wait").code == 0
    assert proxy.heads
    assert not any(cloud.api_key.encode() in head for head in proxy.heads)


def test_a_proxy_that_reads_along_is_refused(run: Command, cloud: Cloud, proxy: Proxy, cvm: Cvm) -> None:
    run.environ |= {"PHALA_CLOUD_API_PREFIX": "https://cloud.invalid/api/v1", "HTTPS_PROXY": proxy.url}
    assert_refused(update(run), cloud, 6, "TLS", "cloud.invalid")
    assert not cloud.requests


def test_what_no_proxy_names_goes_past_it(run: Command, cloud: Cloud, proxy: Proxy, cvm: Cvm) -> None:
    run.environ |= {
        "PHALA_CLOUD_API_PREFIX": "https://cloud.invalid/api/v1",
        "HTTPS_PROXY": proxy.url,
        "NO_PROXY": "cloud.invalid",
    }
    assert_refused(update(run), cloud, 6, "cloud.invalid")
    assert not proxy.asked


@pytest.mark.parametrize("variable", ["HTTPS_PROXY", "HTTP_PROXY", "ALL_PROXY", "https_proxy"])
def test_no_proxy_comes_between_this_machine_and_itself(
    run: Command, secure: Simulator, proxy: Proxy, cvm: Cvm, roots: str, variable: str
) -> None:
    run.environ |= {"SSL_CERT_FILE": roots, "PHALA_CLOUD_API_PREFIX": secure.url, variable: proxy.url}
    assert update(run, "--no-wait").code == 0
    assert not proxy.asked


def test_a_proxy_that_refuses_is_named(run: Command, cloud: Cloud, proxy: Proxy, cvm: Cvm) -> None:
    proxy.refuses = True
    run.environ |= {"PHALA_CLOUD_API_PREFIX": "https://cloud.invalid/api/v1", "HTTPS_PROXY": proxy.url}
    done = update(run)
    assert_refused(done, cloud, 6, "cloud.invalid")
    assert "HTTPS_PROXY" in done.hints[0]
