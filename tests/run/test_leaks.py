"""No value, API key or private key gets anywhere but into the ciphertext, whatever happens on the way.

Canaries of many shapes go through every mode and every way in which a run may end, with all that
there is to say switched on. Then everything that the run left behind is searched for them.
"""

from __future__ import annotations

import base64
import json
import re
import ssl
import subprocess
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from urllib.parse import quote, quote_plus

import pytest
import trustme

from phala_secrets.inputs.given import read
from phala_secrets.inputs.job import read_job
from phala_secrets.run import bugs
from phala_secrets.runners.secrecy import NOT_SHOWN
from phala_secrets.simulator.cloud import Cloud
from phala_secrets.simulator.cvm import Cvm
from phala_secrets.simulator.wire import Answer, Request
from tests.support.clock import ManualClock
from tests.support.command import ENTRYPOINT, Command
from tests.support.faults import Fault
from tests.support.faulty import FaultySimulator as Simulator
from tests.support.step import Step

CANARIES = {
    "PLAIN": "canary-plain-8f3a61",
    "LINES": "canary-first-line\ncanary-second-line\n\n  canary-third-line",
    "CRLF": "canary-crlf-one\r\ncanary-crlf-two\r\n",
    "PEM": "-----BEGIN PRIVATE KEY-----\n"
    "Y2FuYXJ5LXBlbS1ib2R5LTAx\nY2FuYXJ5LXBlbS1ib2R5LTAy\n-----END PRIVATE KEY-----\n",
    "PERCENT": "canary%0A::error::canary%25percent",
    "COLONS": "::set-output name=canary-colons::canary-colons",
    "BRACKETS": "##[add-mask]canary-brackets",
    "UNICODE": "canary-ünïcödé-鍵-🔑",
    "BASE64": base64.b64encode(b"canary-in-base64-already").decode(),
    "JSON": '{"canary": "json-value", "n": [1, 2]}',
    "QUOTES": "canary \"double\" 'single' `back` $HOME \\ end",
    "URL": "postgres://user:canary-pass@host/db?canary=1&b=2",
    "LONG": "canary-long-" * 300,
    "NUMBER": "4711081547110815",
    "HTML": "<b>canary-html</b>|*canary*",
    "SHORT": "hunter2",
}
API_KEY = "phak_canary_api_key_5e1f"
PRIVATE_KEY = "c0ffee" + "00" * 22 + b"canary".hex() + "e1"
FROM = 7
"""Characters: a shorter line of a value is any text's."""


def forms(value: str) -> Iterable[str]:
    """A value as it is, line by line, and as it is commonly written elsewhere."""
    for text in {value, *value.splitlines()}:
        if len(text.strip()) < FROM:
            continue
        data = text.encode()
        yield text
        yield text.strip()
        yield repr(text)[1:-1]
        yield re.sub(r'(["$`])', r"\\\1", text)
        yield json.dumps(text)[1:-1]
        yield json.dumps(text, ensure_ascii=False)[1:-1]
        yield quote(text)
        yield quote(text, safe="")
        yield quote_plus(text)
        yield data.hex()
        yield base64.b64encode(data).decode().rstrip("=")
        yield base64.urlsafe_b64encode(data).decode().rstrip("=")


COMMON = {"-----BEGIN PRIVATE KEY-----", "-----END PRIVATE KEY-----"}
NEEDLES = {
    (name, form)
    for name, value in {**CANARIES, "API_KEY": API_KEY, "PRIVATE_KEY": PRIVATE_KEY}.items()
    for form in forms(value)
} - {("PEM", form) for line in COMMON for form in forms(line)}


def canaries_in(text: str) -> set[str]:
    return {name for name, needle in NEEDLES if needle in text}


def test_the_search_finds_what_it_is_for() -> None:
    assert canaries_in(f"x{CANARIES['PLAIN']}y") == {"PLAIN"}
    assert canaries_in(json.dumps(CANARIES["UNICODE"])) == {"UNICODE"}
    assert canaries_in(quote(CANARIES["URL"], safe="")) == {"URL"}
    assert canaries_in("canary-second-line") == {"LINES"}
    assert canaries_in(base64.b64encode(CANARIES["PEM"].encode()).decode()) == {"PEM"}
    assert not canaries_in("-----BEGIN PRIVATE KEY-----")


@pytest.fixture(autouse=True)
def canary_keys(run: Command, step: Step, cloud: Cloud) -> None:
    cloud.api_key = API_KEY
    run.environ |= {"PHALA_CLOUD_API_KEY": API_KEY, "PRIVATE_KEY": PRIVATE_KEY}
    step.inputs |= {"api-key": API_KEY, "private-key": PRIVATE_KEY}


def assert_requests_are_clean(cloud: Cloud) -> None:
    """The API key is in its header alone; a value is in nothing that was asked."""
    for request in cloud.requests:
        headers = {name: value for name, value in request.headers.items() if name != "x-api-key"}
        seen = f"{request.method} {request.path} {request.query} {headers} {request.body.decode()}"
        assert not canaries_in(seen), request.path
        assert request.headers["x-api-key"] == API_KEY
        assert "authorization" not in request.headers


# -- every mode, every end -------------------------------------------------------------------------


class World:
    """What a story may change before it happens."""

    def __init__(self, simulator: Simulator, cvm: Cvm) -> None:
        self.simulator = simulator
        self.cloud = simulator.cloud
        self.cvm = cvm

    def refuse(self, method: str, status: int, **body: object) -> None:
        """An answer that says all that the API knows, the API key with it."""
        body = {"message": f"no: {API_KEY}", "details": [API_KEY], "suggestions": [f"not {API_KEY}"], **body}
        headers = {"X-Request-ID": API_KEY, "Retry-After": "0"}
        self.simulator.faults.add(Fault("status", method, times=4, status=status, body=body, headers=headers))

    def swap_key(self) -> None:
        self.cvm.kms.tamper = lambda answer: {**answer, "public_key": "ab" * 32}

    def go_on_chain(self) -> None:
        if not self.cvm.kms.is_on_chain:
            self.cvm.kms = self.cloud.add_kms("base-1", 8453, "0x2f83172A49584C017F2B256F0FB2Dca14126Ba9C")

    def echo(self) -> None:
        """A guest whose last words are everything that it was given."""
        self.cvm.boot_fails("cannot start: " + " / ".join(CANARIES.values()))

    def quote(self) -> None:
        """One that quotes it, as JSON, as Python does, and as it stands in its file."""
        values = CANARIES.values()
        escaped = (re.sub(r'(["$`])', r"\\\1", value) for value in values)
        self.cvm.boot_fails(" / ".join([*map(json.dumps, values), *map(repr, values), *escaped]))

    def spell(self) -> None:
        """One that writes it in any way that others write values in."""
        spelled = [form for value in CANARIES.values() for form in forms(value) if len(form) < 1000]
        self.cvm.boot_fails(" / ".join(spelled)[:15_000])

    def cut(self) -> None:
        """One whose last words break off amid a value."""
        self.cvm.boot_fails("cannot start with " + CANARIES["URL"][:-5])

    def repeat(self) -> None:
        """An API that repeats what a guest said, and all that it commits an update with."""
        text = " / ".join(json.dumps(value) for value in CANARIES.values())
        details = [{"field": name, "value": API_KEY} for name in ("commit_token", "commit_url", text)]
        self.refuse("PATCH", 422, message=text, detail=None, details=details, suggestions=[text, text])

    def redirect(self) -> None:
        self.simulator.faults.add(Fault("redirect", "PATCH", location=f"https://x.invalid/?key={API_KEY}"))


ENDS: dict[str, tuple[dict[str, str], Callable[[World], object], int]] = {
    "all goes well": ({}, lambda world: None, 0),
    "plan": ({"mode": "plan"}, lambda world: None, 0),
    "encrypt": ({"mode": "encrypt"}, lambda world: None, 0),
    "verify": ({"mode": "verify"}, lambda world: None, 0),
    "no wait": ({"wait": "false"}, lambda world: None, 0),
    "as base64": ({"base64": "*"}, lambda world: None, 0),
    "the guest would not get it": ({"guest-check": "error"}, lambda world: None, 4),
    "the guest would not get it, in a plan": (
        {"mode": "plan", "guest-check": "error"}, lambda world: None, 4
    ),
    "told that the guest would not get it": ({"guest-check": "warn"}, lambda world: None, 0),
    "variables are dropped": ({"allow-removal": "false"}, lambda world: None, 4),
    "an unknown CVM": ({"cvm": "no-app"}, lambda world: None, 5),
    "another app": ({"app-id": "ab" * 20}, lambda world: None, 3),
    "a swapped key": ({}, World.swap_key, 3),
    "no pin": ({"require-trust": "pinned"}, lambda world: None, 3),
    "a refused look": ({}, lambda world: world.refuse("GET", 403), 5),
    "a KMS that is down": ({}, lambda world: setattr(world.cvm.kms, "online", False), 6),
    "a refused update": ({}, lambda world: world.refuse("PATCH", 403), 5),
    "a lasting conflict": ({}, lambda world: world.refuse("PATCH", 409, error_code="ERR-03-005"), 5),
    "a body that is wrong": ({}, lambda world: world.refuse("PATCH", 422, detail=[{"msg": API_KEY}]), 5),
    "an approval that expired": ({}, lambda world: world.refuse("PATCH", 466), 5),
    "a redirect": ({}, World.redirect, 6),
    "an approval that is needed": ({"private-key": ""}, World.go_on_chain, 7),
    "an approval that is prepared": ({"private-key": "", "prepare-only": "true"}, World.go_on_chain, 0),
    "a failed boot": ({}, lambda world: world.cvm.boot_fails("no space left"), 8),
    "a guest that tells all": ({}, World.echo, 8),
    "a guest that quotes all": ({}, World.quote, 8),
    "a guest that spells all": ({}, World.spell, 8),
    "a guest that is cut short": ({}, World.cut, 8),
    "an API that repeats all": ({}, World.repeat, 5),
    "a wait that is too long": (
        {"wait-timeout": "1"}, lambda world: setattr(world.cvm, "restart_seconds", 60), 8
    ),
}  # fmt: skip


@pytest.mark.parametrize(("inputs", "prepare", "code"), ENDS.values(), ids=ENDS.keys())
def test_a_run_leaves_no_canary_behind(
    inputs: dict[str, str],
    prepare: Callable[[World], object],
    code: int,
    run: Command,
    step: Step,
    simulator: Simulator,
    cvm: Cvm,
) -> None:
    given = {"secrets": ",".join(CANARIES), "guest-check": "off", "allow-removal": "true", **inputs}
    mode = given.pop("mode", "update")
    prepare(World(simulator, cvm))
    # As a step, with debug logging.
    done = step(
        mode=mode,
        environ={**CANARIES, "RUNNER_DEBUG": "1"},
        **{n.replace("-", "_"): v for n, v in given.items()},
    )
    assert done.code == code, done.shown
    unmasked = "\n".join(line for line in done.lines if not line.startswith("::add-mask::"))
    assert not canaries_in(unmasked)
    assert not canaries_in(done.output_file)
    assert not canaries_in(done.summary)
    # As a command, with all that it can say.
    cvm.finish()
    prepare(World(simulator, cvm))
    environ = {f"INPUT_{name.upper()}": value for name, value in {"cvm": "my-app", **given}.items()}
    if given.get("private-key") == "":
        environ["PRIVATE_KEY"] = ""
    told = run(
        mode, "--verbose", "--json", "--output-file", "out.env", environ={**CANARIES, **environ}
    )  # fmt: skip
    assert told.code == code, told.stderr
    assert not canaries_in(told.printed)
    assert not canaries_in((run.folder / "out.env").read_text())
    for form in ("shell", "json"):
        cvm.finish()
        prepare(World(simulator, cvm))
        way = ("--output-file", "out", "--output-format", form)
        assert run(mode, "--quiet", *way, environ={**CANARIES, **environ}).code == code
        assert not canaries_in((run.folder / "out").read_text())
    assert_requests_are_clean(simulator.cloud)


def test_what_a_fleets_guests_tell_is_in_no_output(step: Step, cloud: Cloud, cvm: Cvm) -> None:
    second = cloud.add_cvm("my-app-2", environment={"OLD": "1"})
    for each in (cvm, second):
        each.boot_fails(f"cannot start: {CANARIES['PLAIN']} {CANARIES['LINES']}")
    inputs = {"cvm": "my-app\nmy-app-2", "secrets": "PLAIN,LINES", "guest_check": "off"}
    done = step(environ=CANARIES, fail_fast="false", allow_removal="true", **inputs)
    assert done.code == 8
    assert NOT_SHOWN in json.loads(done.outputs["results"])[0]["error"]
    assert not canaries_in(done.output_file)
    assert not canaries_in(done.summary)


@pytest.mark.parametrize("length", [480, 490, 495, 1990])
def test_not_even_the_beginning_of_a_value_is_left_where_text_is_cut(
    length: int, run: Command, simulator: Simulator, cvm: Cvm
) -> None:
    cvm.boot_fails("x" * length + CANARIES["PLAIN"] + "y" * 100)
    done = run("update", "--cvm", "my-app", "--secrets", "PLAIN", "--allow-removal", environ=CANARIES)
    assert done.code == 8
    assert "xcanary" not in done.printed
    body = {"message": "x" * length + API_KEY + "y" * 100}
    simulator.faults.add(Fault("status", "PATCH", status=403, body=body))
    done = run("update", "--cvm", "my-app", "--secrets", "PLAIN", "--allow-removal", environ=CANARIES)
    assert done.code == 5
    assert "xphak" not in done.printed


@pytest.mark.parametrize("shape", CANARIES)
def test_each_shape_reaches_the_guest_as_base64_and_nobody_else(shape: str, run: Command, cvm: Cvm) -> None:
    done = run(
        "update", "--cvm", "my-app", "--secrets", shape, "--base64", "*", "--allow-removal", environ=CANARIES
    )  # fmt: skip
    assert done.code == 0
    assert cvm.environment is not None
    assert base64.b64decode(cvm.environment[shape]).decode() == CANARIES[shape]


# -- sources that cannot be read -------------------------------------------------------------------

C = CANARIES["PLAIN"]
BROKEN: dict[str, str | bytes] = {
    "no equals sign": f"A=1\n{C}\n",
    "an unclosed quote": f"A='{C}\nmore {C}\n",
    "text after a quote": f"A='{C}' {C}\n",
    "a value for a name": f"{C} {C}=1\n",
    "a quoted value for a name": f"'{C} x'=1\n",
    "no text": f"A={C}\nB=\xff{C}".encode("latin-1"),
    "a NUL": f"A={C}\0{C}\n",
    "a PEM with no quotes": f"KEY={CANARIES['PEM']}",
}
BROKEN_JSON = {
    "not closed": f'{{"A": "{C}"',
    "a value of another kind": f'{{"A": ["{C}"]}}',
    "an object": f'{{"A": {{"{C}": "{C}"}}}}',
    "a string": f'"{C}"',
    "a value for a name": f'{{"{C} {C}": "{C}"}}',
    "no JSON at all": C,
    "a surrogate": f'{{"A": "{C}\\ud800"}}',
}


@pytest.mark.parametrize("content", BROKEN.values(), ids=BROKEN.keys())
def test_a_broken_file_is_told_without_what_is_in_it(content: str | bytes, run: Command, step: Step) -> None:
    for write in (run.write, step.write):
        write("app.env", content)
    told = run("update", "--cvm", "my-app", "--env-file", "app.env", "--verbose")
    assert told.code == 2
    assert not canaries_in(told.printed)
    if isinstance(content, str) and "\0" not in content:
        told = run("update", "--cvm", "my-app", environ={"PHALA_SECRETS_ENV": content})
        assert told.code == 2
        assert not canaries_in(told.printed)
    done = step(env_file="app.env")
    assert done.code == 2
    assert not canaries_in(done.log.replace(API_KEY, "").replace(PRIVATE_KEY, ""))


@pytest.mark.parametrize("text", BROKEN_JSON.values(), ids=BROKEN_JSON.keys())
def test_broken_json_is_told_without_what_is_in_it(text: str, run: Command) -> None:
    environ = {"PHALA_SECRETS_SECRETS_JSON": text, "PHALA_SECRETS_SECRETS_INCLUDE": "*"}
    told = run("update", "--cvm", "my-app", "--verbose", environ=environ)
    assert told.code == 2
    assert not canaries_in(told.printed)


@pytest.mark.parametrize("where", ["--env-file", "--files"])
def test_content_in_place_of_a_path_is_not_told(where: str, run: Command) -> None:
    told = run("update", "--cvm", "my-app", where, f"KEY={CANARIES['URL']}")
    assert told.code == 2
    assert not canaries_in(told.printed)


def test_keys_in_the_wrong_place_are_not_told(run: Command, cloud: Cloud) -> None:
    """A key that is wrong is not shown, nor one that is right where another belongs."""
    for environ in (
        {"PRIVATE_KEY": API_KEY},
        {"PHALA_CLOUD_API_KEY": f"{API_KEY}\n{API_KEY}"},
        {"ETH_RPC_URL": f"http://rpc.example/{API_KEY}"},
        {"PHALA_CLOUD_API_PREFIX": f"http://{API_KEY}@example.com/"},
    ):
        told = run("update", "--cvm", "my-app", "--secrets", "PLAIN", environ={**CANARIES, **environ})
        assert told.code == 2, environ
        assert not canaries_in(told.printed), environ
    assert not cloud.requests


def test_an_internal_error_hides_its_message() -> None:
    with pytest.raises(ValueError, match=C) as caught:
        int(C)
    bug = bugs.as_error(caught.value)
    assert not canaries_in(f"{bug.message} {bug.hint}")
    assert "ValueError at test_leaks.py:" in bug.message


def test_what_holds_secrets_does_not_show_them(tmp_path: Path, run: Command) -> None:
    environ = run.variables(
        {**CANARIES, "INPUT_ENV": f"A={C}", "INPUT_CVM": "my-app", "INPUT_SECRETS": "PLAIN"}
    )
    given = read({}, environ)
    job = read_job("update", given, environ, tmp_path)
    assert not canaries_in(f"{given!r} {job!r} {job.sources!r} {job.login!r} {job} {job.login} {given}")


# -- the process -----------------------------------------------------------------------------------

EVENTS = (
    "subprocess",
    "pty",
    "tempfile",
    "os.exec",
    "os.fork",
    "os.posix_spawn",
    "os.spawn",
    "os.system",
    "os.putenv",
    "os.rename",
    "os.link",
    "os.symlink",
    "os.mkdir",
)
AUDIT = """
import os, sys
written = os.O_WRONLY | os.O_RDWR | os.O_CREAT
log = os.open({log!r}, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
def hook(event, arguments):
    if event.startswith({events!r}):
        os.write(log, f"{{event}} {{arguments}}\\n".encode())
    elif event == "open" and isinstance(arguments[0], str) and arguments[2] & written:
        os.write(log, f"open {{arguments[0]}}\\n".encode())
    elif event == "socket.connect":
        os.write(log, f"connect {{arguments[1]}}\\n".encode())
sys.addaudithook(hook)
from phala_secrets.run.command import main
sys.exit(main())
"""


@pytest.mark.usefixtures("time_passes")
def test_a_run_starts_no_process_writes_no_other_file_and_talks_to_nobody_else(
    step: Step, simulator: Simulator, cvm: Cvm, tmp_path: Path
) -> None:
    log = tmp_path / "audit"
    variables = step.variables(
        {"secrets": ",".join(CANARIES), "guest-check": "off", "allow-removal": "true"}, CANARIES
    )
    done = subprocess.run(
        [sys.executable, "-I", "-B", "-c", AUDIT.format(log=str(log), events=EVENTS)],
        cwd=step.workspace,
        env={**variables, "TMPDIR": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    events = set(log.read_text().splitlines())
    assert events == {
        f"open {step.output}",
        f"open {step.summary}",
        f"connect ('127.0.0.1', {simulator.port})",
    }


@pytest.mark.usefixtures("time_passes")
def test_a_process_has_no_secret_among_its_arguments_no_children_and_no_core(
    step: Step, simulator: Simulator, cvm: Cvm
) -> None:
    cvm.restart_seconds = 60
    variables = step.variables({"secrets": "PLAIN", "allow-removal": "true"}, CANARIES)
    process = subprocess.Popen(
        [sys.executable, "-IB", str(ENTRYPOINT)],
        cwd=step.workspace, env=variables, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    assert process.stdout
    try:
        assert any("update accepted" in line for line in process.stdout)
        proc = Path(f"/proc/{process.pid}")
        assert not canaries_in((proc / "cmdline").read_text())
        assert not "".join(path.read_text() for path in proc.glob("task/*/children"))
        (core,) = [line for line in (proc / "limits").read_text().splitlines() if "core file" in line]
        # 1 keeps a handler at the end of a pipe from getting one, too; nobody may raise it from 0.
        assert core.split()[4:6] in (["1", "1"], ["0", "0"])
    finally:
        process.kill()
        process.communicate()


def test_session_keys_are_logged_nowhere(run: Command, clock: ManualClock, tmp_path: Path) -> None:
    authority = trustme.CA()
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(server)
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    keys = tmp_path / "keys.log"
    with Simulator(Cloud(API_KEY, restart_seconds=0.05, clock=clock), tls=server) as simulator:
        cvm = simulator.cloud.add_cvm("my-app", environment={"OLD": "1"})
        environ = {
            "PHALA_CLOUD_API_PREFIX": simulator.url,
            "SSL_CERT_FILE": str(tmp_path / "ca.pem"),
            "SSLKEYLOGFILE": str(keys),
        }
        done = run("update", "--cvm", "my-app", "--secrets", "OLD=PLAIN", environ={**CANARIES, **environ})
        assert done.code == 0, done.stderr
        assert cvm.environment == {"OLD": C}
        proxy = simulator.url.removesuffix("/api/v1")
        environ |= {"PHALA_CLOUD_API_PREFIX": "https://cloud.invalid/api/v1", "HTTPS_PROXY": proxy}
        done = run("verify", "--cvm", "my-app", environ={**CANARIES, **environ})
        assert done.code == 6, "it is no proxy, but speaks TLS"
        assert "handshake" not in done.stderr
    assert not keys.exists()


POISON = "open({trace!r}, 'w').close()\n"


def test_nothing_in_the_workspace_runs_or_is_used(step: Step, simulator: Simulator, cvm: Cvm) -> None:
    trace = step.workspace / "EXECUTED"
    poison = POISON.format(trace=str(trace))
    modules = [
        "httpx",
        "sitecustomize",
        "usercustomize",
        "ssl",
        "json",
        "entrypoint",
        "certifi",
        "cryptography",
    ]
    for name in modules:
        step.write(f"{name}.py", poison)
    for name in ("phala_secrets/__init__.py", "phala_secrets/run/command.py", "pydantic/__init__.py"):
        step.write(name, poison)
    home = step.write(
        "../home/.netrc", "machine 127.0.0.1 login canary password canary-netrc\ndefault login a password b\n"
    )
    step.write("../home/.pythonrc.py", poison)
    step.write("pyvenv.cfg", f"home = {step.workspace}\n")
    done = step.apart(
        secrets="OLD=PLAIN",
        environ={
            **CANARIES,
            "HOME": str(home.parent),
            "NETRC": str(home),
            "PYTHONPATH": str(step.workspace),
            "PYTHONSTARTUP": str(home.parent / ".pythonrc.py"),
            "PYTHONUSERBASE": str(step.workspace),
            "PYTHONINSPECT": "1",
            "PYTHONBREAKPOINT": "httpx.breakpoint",
        },
    )
    assert done.code == 0, done.log
    assert cvm.environment == {"OLD": C}
    assert not trace.exists()
    assert_requests_are_clean(simulator.cloud)


def test_the_search_of_requests_would_see_a_value(cloud: Cloud, run: Command, cvm: Cvm) -> None:
    """A client that sent a value in the clear would be found out."""
    seen: list[str] = []

    def look(request: Request, answer: Answer) -> Answer:
        seen.append(request.body.decode())
        return answer

    cloud.tamper = look
    run("update", "--cvm", "my-app", "--secrets", "OLD=PLAIN", environ=CANARIES)
    body = next(text for text in seen if "encrypted_env" in text)
    cloud.requests[-1].body = body.replace('"OLD"', json.dumps(C)).encode()
    with pytest.raises(AssertionError):
        assert_requests_are_clean(cloud)
