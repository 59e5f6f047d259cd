"""``phala-secrets simulate`` as a stage: each flag brings about what the command then meets."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

import httpx
import pytest

from phala_secrets.errors import InputError
from phala_secrets.inputs.command_line import Command as Parsed
from phala_secrets.inputs.command_line import parse
from phala_secrets.inputs.simulate_flags import FLAGS
from phala_secrets.simulator import rlp
from phala_secrets.simulator.lies import LIES
from phala_secrets.simulator.paper_chain import PaperChain
from phala_secrets.simulator.serve import describe
from phala_secrets.simulator.stage import OWNERS_KEY, Scene, Stage, owner
from tests.support.clock import ManualClock
from tests.support.command import ROOT, Command, Outcome


class Play(NamedTuple):
    """A scene, and the command at a terminal where its exports were pasted."""

    scene: Scene
    run: Command

    def update(self, *flags: str, secrets: str = "GREETING", **environ: str) -> Outcome:
        given = {"GREETING": "hello", "DATABASE_URL": "postgres://a", **environ}
        return self.run("update", *shlex.split(self.scene.which), "--secrets", secrets, *flags, environ=given)


Open = Callable[..., Play]


@pytest.fixture
def play(clock: ManualClock, tmp_path: Path) -> Iterator[Open]:
    """``play("--stopped")``: the stage that ``phala-secrets simulate --stopped`` sets."""
    with ExitStack() as stack:

        def opened(*flags: str) -> Play:
            parsed = parse(["simulate", "--port=0", *flags])
            assert isinstance(parsed, Parsed)
            assert parsed.stage
            scene = stack.enter_context(Scene(parsed.stage, clock))
            folder = tmp_path / str(len(list(tmp_path.iterdir())))
            folder.mkdir()
            (root := folder / "root.pem").write_text(scene.cloud.tee.root_pem)
            run = Command(scene.simulator, folder)
            exports = re.findall(r"^export (\w+)=(.*)$", describe(scene, str(root)), re.MULTILINE)
            run.environ |= {name: shlex.split(value)[0] for name, value in exports}
            return Play(scene, run)

        yield opened


def environments(scene: Scene) -> list[dict[str, str] | None]:
    return [cvm.environment for cvm in scene.cloud.cvms]


# What is printed


@pytest.mark.parametrize(
    "flags",
    [
        (),
        ("--replicas=2",),
        ("--cvm=shop", "--cvm=blog"),
        ("--on-chain",),
        ("--cvm=my $(shop)", "--key=it's&mine"),
    ],
)
def test_the_commands_that_it_prints_can_be_pasted(play: Open, flags: tuple[str, ...]) -> None:
    scene, run = play(*flags)
    recipe = describe(scene)
    ((variable, value),) = re.findall(r"^  export (\w+)=(\w+)$", recipe, re.MULTILINE)
    lines = re.findall(r"^  phala-secrets (.+)$", recipe, re.MULTILINE)
    assert [line.split()[0] for line in lines] == ["plan", "update", "status"]
    for line in lines:
        done = run(*shlex.split(line), environ={variable: value})
        assert done.code == 0, done.stderr
        assert "warning:" not in done.stderr
    (guest,) = re.findall(r"^  curl (\S+)$", recipe, re.MULTILINE)
    assert httpx.get(guest).json()["environment"] == {"GREETING": "hello"}


def test_two_variables_are_all_that_a_first_run_needs(play: Open) -> None:
    scene, _ = play("--on-chain")
    first, *rest = re.split(r"^for .*:$", describe(scene, "root.pem"), flags=re.MULTILINE)
    needed = ["PHALA_CLOUD_API_PREFIX", "PHALA_CLOUD_API_KEY"]
    assert re.findall(r"^export (\w+)=", first, re.MULTILINE) == needed
    assert all("\nexport " in part for part in rest)
    assert len(rest) == 3


def test_its_compose_file_hands_on_the_variables_of_the_demo(play: Open) -> None:
    stage = play()
    stage.run.write(".env", (ROOT / "examples/demo/sample.env").read_bytes())
    stage.run.write("tls.key", "-----BEGIN KEY-----\n-----END KEY-----\n")
    sources = ("--env-file=.env", "--files=TLS_KEY=tls.key", "--base64=TLS_KEY")
    done = stage.update(*sources, secrets="API_TOKEN", API_TOKEN="t0ken")
    assert done.code == 0, done.stderr
    assert "refers to" not in done.stderr
    assert "not used" not in done.stderr


def test_the_pins_that_it_prints_hold(play: Open) -> None:
    scene, run = play()
    for name, value in scene.pins.items():
        assert run.environ[name] == value
    pins = ("--app-id", scene.pins["APP_ID"], "--trusted-signers", scene.pins["KMS_ROOT"])
    done = Play(scene, run).update(*pins, "--attest", "require", "--json")
    assert done.code == 0, done.stderr
    assert (done.json["trust"], done.json["attested"]) == ("pinned", True)


def test_each_request_has_its_line(play: Open) -> None:
    scene, run = play()
    lines: list[tuple[str, str, int]] = []
    scene.simulator.trace = lambda method, path, status, _seconds: lines.append((method, path, status))
    assert run("update", "--cvm=none", "--secrets=GREETING", environ={"GREETING": "a"}).code == 5
    assert ("GET", "/api/v1/cvms/none", 404) in lines
    httpx.get(f"{scene.simulator.origin}/_simulator/cvms/my-app")
    assert lines[-1] == ("GET", "/_simulator/cvms/my-app", 200)


# What is the matter with the CVMs


def test_replicas_are_of_one_app(play: Open) -> None:
    scene, run = play("--replicas=3")
    assert [cvm.name for cvm in scene.cloud.cvms] == ["my-app", "my-app-2", "my-app-3"]
    done = Play(scene, run).update()
    assert done.code == 0, done.stderr
    assert environments(scene) == [{"GREETING": "hello"}] * 3


def test_a_slow_boot_takes_longer_than_people_wait(play: Open) -> None:
    done = play("--boot-seconds=60").update("--wait-timeout=30")
    assert done.code == 8, done.stderr


def test_a_boot_that_fails_says_why_and_the_next_one_repairs_it(play: Open) -> None:
    stage = play("--boot-error", "no space left on device")
    done = stage.update()
    assert (done.code, "no space left on device" in done.stderr) == (8, True)
    assert stage.update().code == 0


def test_another_operation_is_waited_for(play: Open, clock: ManualClock) -> None:
    done = play("--busy=40").update()
    assert done.code == 0, done.stderr
    assert "resize by somebody else" in done.stderr
    assert clock.monotonic() > 40


def test_a_stopped_cvm_shows_as_stopped(play: Open) -> None:
    assert "is stopped" in play("--stopped").update().stderr


@pytest.mark.parametrize("service", ["web", "worker"])
def test_a_container_that_crashes_fails_a_run_that_waits_for_containers(play: Open, service: str) -> None:
    stage = play("--crash", service)
    assert stage.update().code == 0
    done = stage.update("--wait-for=containers")
    assert (done.code, f"{service}-1: Restarting (1)" in done.stderr) == (8, True)


# The chain


def test_new_names_need_the_owner_on_chain(play: Open) -> None:
    scene, run = stage = play("--on-chain", "--cvm=my-app", "--cvm=another")
    assert stage.update().code == 0
    done = stage.update(secrets="GREETING,DATABASE_URL")
    assert done.code == 7, done.stderr
    done = stage.update(secrets="GREETING,DATABASE_URL", PRIVATE_KEY=OWNERS_KEY)
    assert done.code == 0, done.stderr
    assert scene.cloud.cvms[0].environment == {"GREETING": "hello", "DATABASE_URL": "postgres://a"}
    done = run("plan", "--cvm=another", "--secrets=GREETING", environ={"GREETING": "a"})
    assert done.code == 0, done.stderr


def test_an_approval_made_elsewhere_goes_through_the_chain(play: Open) -> None:
    scene, run = stage = play("--on-chain")
    prepare = ("--prepare-only", "--prepared-file=prepared.json", "--json")
    prepared = stage.update(*prepare, secrets="GREETING,DATABASE_URL").json
    call = {"to": "0x" + prepared["app_id"], "data": prepared["calldata"], "from": owner()}
    assert scene.chain
    sent = {"jsonrpc": "2.0", "id": 1, "method": "eth_sendTransaction", "params": [call]}
    transaction = httpx.post(scene.chain.url, json=sent).json()["result"]
    digest = ("--prepared-digest", prepared["prepared_digest"], "--transaction-hash", transaction)
    done = run("update", "--cvm=my-app", "--prepared-file=prepared.json", *digest)
    assert done.code == 0, done.stderr
    assert scene.cloud.cvms[0].allowed_envs == ["GREETING", "DATABASE_URL"]


@pytest.mark.parametrize(
    "request_",
    [
        {"method": "eth_call", "params": []},
        {"method": "eth_sendTransaction", "params": [{"to": "0x" + "00" * 20, "data": "0x"}]},
        {"method": "eth_sendRawTransaction", "params": ["0x02"]},
        {"method": "eth_sendRawTransaction", "params": ["0x02c101"]},
        {"params": 3},
    ],
)
def test_the_chain_answers_nonsense_with_an_error(request_: dict[str, object]) -> None:
    with PaperChain() as chain:
        assert httpx.post(chain.url, json=request_).json()["error"]["code"] == -32602
        unknown = httpx.post(chain.url, json={"method": "eth_mine", "params": []}).json()
        assert unknown["error"]["code"] == -32601


@pytest.mark.parametrize("data", ["", "83aabbcc", "c3aabb", "c2b9ff", "c101ff", "f9ffff00"])
def test_rlp_that_is_none_is_an_error(data: str) -> None:
    with pytest.raises(ValueError, match="RLP"):
        rlp.items(bytes.fromhex(data))


def test_rlp_has_items_long_and_short() -> None:
    long = bytes(range(60))
    encoded = b"\x01" + b"\x82\xaa\xbb" + b"\x80" + b"\xb8\x3c" + long + b"\xc1\x05"
    assert rlp.items(b"\xf8" + bytes([len(encoded)]) + encoded) == [b"\x01", b"\xaa\xbb", b"", long, b"\x05"]


# Lies

CAUGHT = {
    "forged-key": (3, "--trusted-signers", "KMS_ROOT"),
    "swapped-key": (3, "", ""),
    "other-app": (3, "--app-id", "APP_ID"),
    "other-code": (3, "", ""),
    "old-evidence": (9, "--attest", "require"),
}
"""The exit code that catches each lie, and the flag that it takes, with a pin or its value."""


@pytest.mark.parametrize("lie", LIES)
def test_each_lie_is_caught(play: Open, lie: str) -> None:
    on_chain = LIES[lie].on_chain
    scene, _ = stage = play("--lie", lie, *(["--on-chain"] if on_chain else []))
    code, flag, value = CAUGHT[lie]
    more = (flag, scene.pins.get(value, value), "--wait-timeout=30") if flag else ()
    names = "GREETING,DATABASE_URL" if on_chain else "GREETING"
    done = stage.update(*more, secrets=names, **({"PRIVATE_KEY": OWNERS_KEY} if on_chain else {}))
    assert done.code == code, done.stderr
    if code == 3:
        assert environments(scene) == [{"GREETING": "hello from before"}]


def test_a_forged_key_needs_a_pin_to_be_caught(play: Open) -> None:
    """The liar publishes the forger's root as well: without a pin the API vouches for itself."""
    assert "update accepted" in play("--lie=forged-key").update().stderr


# Flags that are wrong


@pytest.mark.parametrize(
    ("flags", "complaint"),
    [
        ("--replicas 0", "'0' is not a number from 1 to 100"),
        ("--busy soon", "'soon' is not a number from 0 to 86400"),
        ("--boot-seconds 100000", "from 0 to 86400"),
        ("--crash db", "invalid choice: 'db'"),
        ("--lie white", "invalid choice: 'white'"),
        ("--lie other-code", "needs an Onchain KMS"),
        ("--sleep", "--sleep"),
    ],
)
def test_flags_that_are_wrong(flags: str, complaint: str) -> None:
    with pytest.raises(InputError, match=re.escape(complaint)):
        parse(["simulate", *flags.split()])


def test_the_flags_that_are_left_out_are_as_their_help_says() -> None:
    defaults = [word for row in FLAGS if row.default for word in (f"--{row.name}", row.default)]
    for flags in ([], defaults):
        parsed = parse(["simulate", *flags])
        assert isinstance(parsed, Parsed)
        assert parsed.stage == Stage()
