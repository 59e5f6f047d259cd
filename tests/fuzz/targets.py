"""What is fuzzed: each target takes bytes as an outsider could give them, and judges what becomes of them.

Parts of one input stand apart by the byte US (0x1f). Whatever is raised has to be one of the project's
own errors, and no part of a value may be in it.
"""

from __future__ import annotations

import io
import json
import re
import shlex
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import fields, is_dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from urllib.parse import unquote

import httpx
from dotenv import dotenv_values
from pydantic import BaseModel

from phala_secrets.chain import rpc
from phala_secrets.cloud import methods, progress, readers, records, requests
from phala_secrets.cloud.call import Call, Response
from phala_secrets.cloud.client import Client
from phala_secrets.cloud.reading import Hidden
from phala_secrets.cloud.retry import Pace, exchange
from phala_secrets.dstack import compose_hash, compose_refs, guest_check, key_proof
from phala_secrets.dstack.attestation import Expected, check_cvm
from phala_secrets.dstack.collateral import Collateral, crl, signed_object, stored_collateral
from phala_secrets.dstack.environment import Environment, Origin, Variable
from phala_secrets.dstack.event_log import parse_event_log, replay
from phala_secrets.dstack.evidence import of_app, of_cvm
from phala_secrets.dstack.evidence import read as read_evidence
from phala_secrets.dstack.nested import loads
from phala_secrets.dstack.quote import parse_quote, platform_of
from phala_secrets.errors import EvidenceError, Finding, InputError, PhalaSecretsError, ProofError, untrusted
from phala_secrets.flow import Pause
from phala_secrets.inputs.files import Root
from phala_secrets.inputs.sources import Sources, gather
from phala_secrets.inputs.table import OUTPUTS
from phala_secrets.runners import azure, gitlab
from phala_secrets.runners.files import OutputFile, as_json, as_text, in_dotenv, in_shell
from phala_secrets.runners.github import GitHub, heredoc
from phala_secrets.runners.report import Report, Table
from phala_secrets.runners.secrecy import NOT_SHOWN, is_secret
from phala_secrets.simulator.cloud import Cloud
from phala_secrets.simulator.envfile import read_environment
from tests.support.step import command_of, read_outputs

Target = Callable[[bytes], None]

VECTORS = Path(__file__).parents[1] / "vectors"
CANARY = "hunter2/+canary"
"""No name, no path and no glob, so no error may repeat it."""


def parts(data: bytes, count: int) -> list[bytes]:
    found = data.split(b"\x1f", count - 1)
    return found + [b""] * (count - len(found))


def texts(data: bytes, count: int) -> list[str]:
    return [part.decode(errors="replace") for part in parts(data, count)]


def said(error: PhalaSecretsError) -> str:
    """All that an error says, itself and its findings."""
    findings = [finding for item in error.findings for finding in (item.message, item.hint, item.file or "")]
    return "\n".join([str(error), error.hint, error.file or "", repr(error), *findings])


@contextmanager
def only(*kinds: type[PhalaSecretsError]) -> Iterator[None]:
    """Nothing but these errors comes out, and they are silent about the canary."""
    told = "something"
    try:
        yield
    except kinds as error:
        told = said(error)
    assert told, "an error says nothing"
    assert CANARY not in told, "an error tells a value"


class Step:
    """A step on GitHub, as the runner reads its log."""

    def __init__(self) -> None:
        self._log = io.StringIO()
        self.runner = GitHub({}, output_names=OUTPUTS, stdout=self._log, stderr=self._log, verbose=True)

    @property
    def commands(self) -> list[str]:
        lines = re.split(r"[\r\n]", self._log.getvalue())
        return [command.name for line in lines if (command := command_of(line))]

    @property
    def log(self) -> str:
        return self._log.getvalue()


# Sources


def dotenv(data: bytes) -> None:
    """Dotenv text is read as python-dotenv reads it, or refused."""
    data = data.replace(b"\x01", CANARY.encode())
    with only(InputError):
        environment, findings = gather(Sources(env_files=("-",)), environ={}, stdin=lambda: data)
        assert environment.as_dict() == dotenv_values(
            stream=io.TextIOWrapper(io.BytesIO(data), encoding="utf-8"), interpolate=False
        )
        assert CANARY not in repr(findings) + repr(environment)


def sources(data: bytes) -> None:
    """Whatever is in the other sources ends in an environment or a refusal."""
    secrets_json, include, secrets, files, base64, value = texts(data.replace(b"\x01", CANARY.encode()), 6)
    given = Sources(
        secrets_json=secrets_json,
        secrets_include=tuple(include.split()),
        secrets=tuple(secrets.split()),
        files=tuple(files.split()),
        base64=tuple(base64.split()),
        allow_empty="\t" in secrets,
    )
    with only(InputError):
        environment, findings = gather(
            given, environ={"A": value, "B": CANARY}, root=Root(Path(__file__).parent)
        )
        told = [text for finding in findings for text in (finding.message, finding.hint)]
        assert CANARY not in "".join(told)
        for name, text in environment.as_dict().items():
            assert re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name)
            assert "\0" not in text
            text.encode()


# What the guest gets


def guests(data: bytes) -> None:
    """What is predicted of the guest is what the simulator's guest reads, and no finding holds a value."""
    pairs = zip("ABCDEF", texts(data.replace(b"\0", b""), 6), strict=True)
    environment = Environment(tuple(Variable(name, value, Origin("env")) for name, value in pairs))
    values = environment.as_dict()
    file = "".join(f"{name}={written(value)}\n" for name, value in sorted(values.items()))
    if not re.search("[\ufdd0-\ufdef]|[\ufffe\uffff]", file) and not any(
        ord(c) & 0xFFFE == 0xFFFE for c in file
    ):
        assert guest_check.delivered(values) == read_environment(file, systemd=255)
    for finding in guest_check.review(environment):
        for value in values.values():
            assert len(value) < 12 or value not in finding.message + finding.hint
    with only(PhalaSecretsError):
        guest_check.check_limits(environment)


def written(value: str) -> str:
    """A value as the guest writes it into its environment file (dstack, ``parse_env_file.rs``)."""
    if not re.search("[ \t\n|&;<>()$`\\\\\"']", value):
        return value
    return '"' + re.sub(r'(["$`])', r"\\\1", value).replace("\n", "\\n") + '"'


def compose(data: bytes) -> None:
    """A compose file is searched for names, and an app-compose hashed, whatever they are."""
    text, file = texts(data, 2)
    found = compose_refs.references({"docker_compose_file": file, "pre_launch_script": text})
    compose_refs.missing_and_unused(found, ["A"])
    try:
        content = json.loads(text)
    except (ValueError, RecursionError):
        return
    if isinstance(content, dict):
        with only(InputError):
            for form in compose_hash.FORMS:
                compose_hash.serialise(content, form)
            compose_hash.find_form(content, compose_hash.get_compose_hash(content))


# The proof

_SIGNED = [row for row in json.loads((VECTORS / "signatures.json").read_text()) if row["signer"]]
_ROOTS = {
    (row["signer"], row["public_key"].lower(), row["app_id"].lower(), row["timestamp"]) for row in _SIGNED
}


def proofs(data: bytes) -> None:
    """No signer of the recorded signatures comes out of anything that it did not sign."""
    key, app, signature, v1, timestamp = texts(data, 5)
    moment = int(timestamp) if re.fullmatch(r"-?[0-9]{1,12}", timestamp) else None
    with only(ProofError):
        proven = key_proof.prove(
            key, app, signature=signature, signature_v1=v1 or None, timestamp=moment, now=moment
        )
        if proven.signer in {signer for signer, *_ in _ROOTS}:
            signed = (proven.signer, proven.public_key.hex(), proven.app_id.hex(), proven.timestamp)
            assert signed in _ROOTS, "a signer signed what it never saw"
    with only(InputError):
        for signer in key_proof.parse_signers(key):
            assert re.fullmatch(r"0[23][0-9a-f]{64}", signer)


# Answers

_APP = "0x" + "ab" * 20
_WORD = "0x" + "cd" * 32
_CALLS: list[Any] = [
    records.cvm("a"),
    records.app_cvms(_APP),
    records.contracts(),
    records.key("phala", _APP),
    records.compose("a"),
    progress.operations("a"),
    progress.state("a"),
    progress.containers("a"),
    records.update("a", "00", ["A"]),
    records.nodes("phala"),
    records.measured("a"),
    methods.get_kms_info("phala"),
    methods.get_kms_list(),
    methods.get_kms_on_chain_detail("base"),
    methods.get_app_env_encrypt_pub_key(kms="phala", app_id=_APP),
    methods.next_app_ids(),
    methods.list_kms_contracts(),
    methods.get_kms_contract("phala"),
    methods.list_kms_contract_nodes("phala"),
    methods.get_cvm_info("a"),
    methods.get_cvm_compose_file("a"),
    methods.get_cvm_state("a"),
    methods.get_cvm_operations("a"),
    methods.get_app_cvms(_APP),
    requests.update_envs("a", "00", ["A"]).read_by(
        readers.read("UpdateCvmEnvsInProgress"),
        status_465=readers.read_precondition("UpdateCvmEnvsPreconditionRequired"),
    ),
    *(
        requests.rpc("https://rpc.example", request)
        for request in (
            rpc.chain_id(),
            rpc.kms_root(_APP),
            rpc.registered_app(_APP, _APP),
            rpc.owner(_APP),
            rpc.code(_APP),
            rpc.base_fee(),
            rpc.estimate_gas(_APP, _APP, "0x"),
            rpc.send_raw("0x00", _WORD),
            rpc.receipt(_WORD),
            rpc.transaction_known(_WORD),
        )
    ),
]


_STATUSES = (
    *(200, 201, 202, 204, 206, 301, 307, 400, 401, 403, 404, 409, 418, 422, 429, 465, 466, 467, 468),
    *(500, 501, 502, 503, 504, 599),
)


def outcome_of(call: Call[Any], response: Response) -> Any:
    """What one answer to a call comes to: its result, or the pause before another try."""
    asked = exchange(call, Pace(), 30)
    try:
        next(asked)
        return asked.send(response)
    except StopIteration as stop:
        return stop.value
    finally:
        asked.close()


_KEY = "phak_canary/+0123"
_HIDDEN = Hidden([_KEY])
_SPELLED = "".join(f"\\u{ord(character):04x}" for character in _KEY).encode()


def answer(data: bytes) -> None:
    """Any answer to any request is read, retried or refused, forges nothing, and brings no key back."""
    data = data.replace(b"\x01", _KEY.encode()).replace(b"\x02", _SPELLED)
    head, retry_after, kind, body = parts(data, 4)
    index, number = (head + b"\0\0")[:2]
    status = _STATUSES[number % len(_STATUSES)]
    headers = {
        "retry-after": retry_after.decode("latin-1"),
        "content-type": kind.decode("latin-1"),
        "location": kind.decode("latin-1"),
        "x-request-id": kind.decode("latin-1"),
    }
    step, told = Step(), ""
    try:
        for status_now in (200, status):
            outcome = outcome_of(_CALLS[index % len(_CALLS)], Response(status_now, headers, body, _HIDDEN))
            if isinstance(outcome, Pause):
                step.runner.trace(outcome.message)
            else:
                for text in strings(outcome):
                    text.encode()
                    assert _KEY not in text, "a response brings the key back"
                    step.runner.say(text)
    except PhalaSecretsError as error:
        step.runner.fail(error)
        told = "" if b"phak_" in kind else f"{said(error)} {vars(error)}"
    assert step.commands in ([], ["debug"], ["error"], ["debug", "error"]), "an answer forges a command"
    assert _KEY not in told, "an error holds the key"


def strings(value: Any) -> Iterator[str]:
    """Every text in what an answer was read into: it may become an output."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, BaseModel):
        yield from strings(value.model_dump())
    elif isinstance(value, dict):
        yield from strings([*value.keys(), *value.values()])
    elif is_dataclass(value):
        yield from strings([getattr(value, field.name) for field in fields(value)])
    elif isinstance(value, (list, tuple, set, frozenset)):
        for part in value:
            yield from strings(part)


_CLIENT = Client("phak_key", "http://127.0.0.1:9")
_STREAM = requests.state_stream("a", "running", 5, 60)


def events(data: bytes) -> None:
    """A stream of events is read alike however it is cut, up to the first event that is none."""
    assert read_events([data]) == read_events([data[n : n + 3] for n in range(0, len(data), 3)])


def read_events(chunks: list[bytes]) -> list[str]:
    response = httpx.Response(200, headers={"content-type": "text/event-stream"}, content=iter(chunks))
    seen: list[str] = []
    try:
        seen.extend(
            event.model_dump_json() for event in _CLIENT._events(response, _STREAM, time.monotonic(), 60)
        )
    except PhalaSecretsError as error:
        seen.append(type(error).__name__)
    return seen


# Outputs and the log


_FOLDER = TemporaryDirectory()


def outputs(data: bytes) -> None:
    """Outputs are read back exactly, and foreign text forges no command, leaves none and holds no secret."""
    name, value, secret = texts(data, 3)
    both = {"cvm-id": value, "app-id": name}
    assert read_outputs("".join(heredoc(key, text) for key, text in both.items())) == both
    assert json.loads(as_json(both)) == both
    assert command_of(as_json(both)) is None
    assert as_text([value]).isascii()
    assert shlex.split(in_shell(value)) == [value.replace("\0", "")]
    escaped = azure.escape_property(value)
    assert not set(escaped) & set("\r\n];")
    for code, character in {"%5D": "]", "%3B": ";", "%0A": "\n", "%0D": "\r", "%AZP25": "%"}.items():
        escaped = escaped.replace(code, character)
    assert escaped == value
    path = Path(_FOLDER.name, "outputs.env")
    file = OutputFile(str(path), "output-file", limit=5 * 1024)
    file.check()
    file.put("cvm-id", value)
    file.put("app-id", name)
    lines = path.read_text().split("\n")
    assert lines.pop() == ""
    assert [line.partition("=")[0] for line in lines] in (
        [], ["PHALA_CVM_ID"], ["PHALA_APP_ID"], ["PHALA_CVM_ID", "PHALA_APP_ID"]
    )  # fmt: skip
    assert in_dotenv(value).startswith(("[", "{")) or len(shlex.split(f"A={in_dotenv(value)}")) == 1
    assert not re.search(r"[$`]", in_dotenv(value))
    for room in (azure.Azure, gitlab.GitLab, GitHub):
        shown = room({}, output_names=OUTPUTS).clean(value)
        assert "##" not in shown
        assert not re.search(r"section_(start|end):|^ *(::|---|[+]{3}|~~~|\^{3})", shown)
    step = Step()
    step.runner.say(value)
    step.runner.report(
        Report(value, facts=[("a", value)], tables=[Table([value], [[value]])], advice=[(value, value)])
    )
    assert step.commands == [], "text forges a command"
    step.runner.mask_variables({"A": [secret]})
    assert set(step.commands) <= {"add-mask"}
    before, registered = step.log, len(step.commands)
    step.runner.tell(Finding(untrusted(value + json.dumps(secret)), untrusted(secret), file=value, line=1))
    step.runner.trace(untrusted(secret + value))
    with step.runner.group(value):
        step.runner.fail(InputError(untrusted(secret + value), hint=value))
    assert step.commands[registered:] == ["warning", "debug", "group", "error", "endgroup"]
    told = step.log.removeprefix(before)
    for line in re.split(r"\r|\n", secret):
        bare = line.strip()
        if is_secret(bare) and len(bare) >= 12 and bare.isalnum() and bare not in value:
            assert bare not in told.replace(NOT_SHOWN, ""), "a secret is shown"


_TEE = Cloud(seed=b"fuzz").tee
_COLLATERAL: list[Collateral] = []


def evidence(data: bytes) -> None:
    """A quote, a log, a response of a PCCS and a stored file: whatever they are, nothing is attested."""
    quote, log, body, file = parts(data, 4)
    text = log.decode(errors="replace")
    for given in (quote, quote.hex()):
        with only(EvidenceError):
            platform_of(parse_quote(given))
        found = check_cvm(given, text, _collateral(), Expected(root=_TEE.root), now=int(time.time()))
        assert not found.attested
        assert found.as_text()
    with only(EvidenceError):
        replay(parse_event_log(text))
    with only(EvidenceError):
        signed_object(body, "tcbInfo")
    with only(EvidenceError):
        crl(body, "list")
    try:
        content = loads(file)
    except ValueError:
        return
    of_cvm(content)
    of_app(content, "00" * 20)
    with only(EvidenceError):
        read_evidence(content)
    with only(EvidenceError):
        stored_collateral(content)


def _collateral() -> Collateral:
    """What is good for the quotes of one simulated TEE: made once, since it takes signatures."""
    if not _COLLATERAL:
        pck = _TEE.respond("/sgx/certification/v4/pckcrl", {"ca": ["platform"]})
        root = _TEE.respond("/sgx/certification/v4/rootcacrl", {})
        tcb = _TEE.respond("/tdx/certification/v4/tcb", {"fmspc": ["51b0c06f0000"]})
        identity = _TEE.respond("/tdx/certification/v4/qe/identity", {})
        chains = [unquote(next(iter(answer.headers.values()))) for answer in (pck, tcb, identity)]
        signed = signed_object(tcb.body, "tcbInfo"), signed_object(identity.body, "enclaveIdentity")
        lists = crl(root.body, "root"), crl(pck.body, "PCK")
        _COLLATERAL.append(Collateral(chains[0], *lists, chains[1], *signed[0], chains[2], *signed[1]))
    return _COLLATERAL[0]


TARGETS: dict[str, Target] = {
    "evidence": evidence,
    "dotenv": dotenv,
    "sources": sources,
    "guest": guests,
    "compose": compose,
    "proof": proofs,
    "answer": answer,
    "events": events,
    "outputs": outputs,
}
