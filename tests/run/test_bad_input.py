"""Bad input, one row each: the exit code, the error, the hint, and how many requests it took."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import pytest

from phala_secrets.simulator.cloud import Cloud
from phala_secrets.simulator.cvm import Cvm
from tests.support.command import Command, Outcome
from tests.support.step import Step

APP = "ab" * 20
HEX = "c0" * 80
TO_FIND = 2
"""Requests, sent together: the CVM, and the KMSes that there are."""
TO_COMPARE = TO_FIND + 2
"""The key with its proof, and today's names, together, too."""


@dataclass(frozen=True)
class Bad:
    """One bad input: its arguments, and the expected error and hint."""

    given: str | tuple[str, ...]
    says: str
    hint: str
    code: int = 2
    requests: int | None = 0
    mode: str = "update"
    cvm: str | None = "my-app"
    environ: Mapping[str, str | None] = field(default_factory=dict)
    files: Mapping[str, str | bytes] = field(default_factory=dict)

    @property
    def arguments(self) -> list[str]:
        given = self.given.split() if isinstance(self.given, str) else self.given
        return [self.mode, *(("--cvm", self.cvm) if self.cvm else ()), *given]


def with_file(content: str | bytes, says: str, hint: str, **more: object) -> Bad:
    """Return a row for a bad dotenv file."""
    return Bad("--env-file app.env", says, hint, files={"app.env": content}, **more)  # type: ignore[arg-type]


def with_json(text: str, include: str, says: str, hint: str) -> Bad:
    environ = {"PHALA_SECRETS_SECRETS_JSON": text, "PHALA_SECRETS_SECRETS_INCLUDE": include}
    return Bad("", says, hint, environ=environ)


ENV = "--env-file .env"
SOURCES = {
    "no source": Bad(
        "",
        "no source specified",
        "pass --env-file, PHALA_SECRETS_ENV, --files, --secrets or PHALA_SECRETS_SECRETS_JSON",
    ),
    "nothing in a file": with_file("# nothing yet\n", "no variables: env-file is empty", "all"),
    "nothing in a file, though names may go": Bad(
        "--env-file app.env --allow-removal",
        "no variables: env-file is empty",
        "--allow-removal=all",
        files={"app.env": "\n"},
    ),
    "no source, though all names may go": Bad(
        "--allow-removal=all",
        "no source specified",
        "pass --env-file, PHALA_SECRETS_ENV, --files, --secrets or PHALA_SECRETS_SECRETS_JSON",
    ),
    "value in secrets": Bad(
        "--secrets DB=postgres://u:hunter2@db", "`secrets`, entry 1 has a value after", "step's env"
    ),
    "still encrypted": with_file(
        "A=ENC[AES256_GCM,data:x]\n", "env-file app.env is still encrypted with SOPS", "run `sops decrypt`"
    ),
    "wrapped base64": with_file(
        f"A={'Ab3/' * 16}\nc2Vj\n", "app.env, line 2 continues the base64 value of line 1", "base64 -w0"
    ),
    "missing file": Bad("--env-file no.env", "env-file no.env does not exist", "working folder"),
    "a file below a file": Bad("--env-file .env/x", "env-file .env/x does not exist", "working folder"),
    "folder": Bad("--env-file .", "env-file . is a directory", "not the content itself"),
    "unreadable file": Bad(
        "--env-file /proc/self/mem", "env-file /proc/self/mem cannot be read (Input/output error)", "path"
    ),
    "device": Bad("--env-file /dev/zero", "env-file /dev/zero is not a regular file", "standard input"),
    "content for a path": Bad(
        ("--env-file", "TOKEN=hunter2\nX=1"), "env-file TOKEN=hunter2"[:8], "not the content itself"
    ),
    "not UTF-8": with_file(b"A=1\nB=\xff\xfe\n", "app.env, line 2 is not UTF-8", "save it as UTF-8"),
    "UTF-16": with_file("A=1\n".encode("utf-16"), "app.env, line 1 is not UTF-8", "save it as UTF-8"),
    "NUL": with_file(b"A=1\n\nB=\0\n", "app.env, line 3 contains a NUL", "UTF-8 text"),
    "no equals sign": with_file("A=1\n# b\nTOKEN\n", "app.env, line 3 is not NAME=value", "write NAME=value"),
    "unclosed quote": with_file(
        "A=1\nB='x\ny\n",
        "app.env, line 2 opens a quote that is never closed",
        "quotes around the whole value",
    ),
    "text after a quote": with_file(
        "B='x'y\n", "app.env, line 1 has text after a closing quote", "quotes around the whole value"
    ),
    "digit in front": with_file("A=1\n1B=x\n", "app.env, line 2: invalid name", "does not begin"),
    "dash in a name": with_file("A-B=x\n", "app.env, line 1: invalid name", "underscores"),
    "too large a file": with_file(b"#" * (1 << 20) + b"\n", "app.env is larger than 1048576 bytes", "in all"),
    "unset secret": Bad("--secrets OLD,TOKNE", "`secrets`: unset or empty", "spelling"),
    "empty secret": Bad(
        "--secrets TOKEN", "empty in this step's environment: TOKEN", "allow-empty", environ={"TOKEN": ""}
    ),
    "bad name in secrets": Bad("--secrets A,B-C", "`secrets`, entry 2: invalid name", "underscores"),
    "files without a path": Bad("--files CERT", "`files`, entry 1 is not NAME=path", "write one NAME=path"),
    "missing file of a variable": Bad(
        "--files CERT=no.pem", "`files`, entry 1: the file does not exist", "working folder"
    ),
    "file that is no text": Bad(
        "--files KEY=key.der",
        "KEY (files KEY=key.der) is not UTF-8 text",
        "base64",
        files={"key.der": b"\xff"},
    ),
    "malformed JSON": with_json("{\n'A': 1}", "A", "`secrets-json` is not JSON (line 2, column 1)", "toJSON"),
    "JSON that is no object": with_json("[1]", "A", "`secrets-json` is not a JSON object", "toJSON"),
    "deep JSON": with_json("[" * 100_000, "A", "`secrets-json`", "toJSON"),
    "number in JSON": with_json('{"A": 1}', "A", "secrets-json A is a number, not a string", "a string"),
    "nothing included": with_json('{"A": "1"}', "", "`secrets-include` is set", "globs"),
    "idle glob": with_json('{"A": "1"}', "A,B_*", "`secrets-include`: B_* matches no name", "spelling"),
}
GUEST = {
    "newline": with_file(
        'A=1\nKEY="a\nb"\n', "a variable would not reach the guest as written", "--guest-check warn", code=4
    ),
    "backslash at the end": with_file(
        "KEY=a\\\n",
        "a variable would not reach the guest",
        "follow the hint of each",
        code=4,
        requests=TO_COMPARE,
    ),
    "name of the launcher": with_file(
        "PATH=/x\n", "a variable would not reach the guest", "follow the hint of each", code=4
    ),
    "too many": with_file(
        "".join(f"A{number}=\n" for number in range(1025)),
        "1025 variables exceed the guest's limit of 1024",
        "fetch them at run time",
        code=4,
    ),
    "too long a value": with_file(
        f"A=1\nB={'x' * 131073}\n", "B (env-file app.env, line 2)", "Split it", code=4
    ),
    "too much in all": with_file(
        "".join(f"A{number}={'x' * 100_000}\n" for number in range(3)),
        "has 300141 bytes; the guest's limit is 262144. The largest variables: A0 (100023 bytes)",
        "Fetch the largest",
        code=4,
    ),
    "dropped variables": with_file(
        "NEW=1\n",
        "the update would drop a variable of 'my-app': OLD",
        "allow-removal",
        code=4,
        requests=TO_COMPARE,
    ),
    "dropped variables, in a plan": with_file(
        "NEW=1\n",
        "the update would drop a variable of 'my-app': OLD",
        "allow-removal",
        code=4,
        requests=TO_COMPARE,
        mode="plan",
    ),
    "newline, in a plan": with_file(
        'OLD="a\nb"\n',
        "a variable would not reach the guest",
        "follow the hint of each",
        code=4,
        requests=TO_COMPARE,
        mode="plan",
    ),
}
CLOUD = {
    "no API key": Bad(ENV, "no API key", "PHALA_CLOUD_API_KEY", environ={"PHALA_CLOUD_API_KEY": None}),
    "blank API key": Bad(ENV, "no API key", "PHALA_CLOUD_API_KEY", environ={"PHALA_CLOUD_API_KEY": " \n"}),
    "two lines of API key": Bad(
        ENV,
        "api-key contains characters that are invalid in an API key",
        "paste it again",
        environ={"PHALA_CLOUD_API_KEY": "phak_a\nphak_b"},
    ),
    "wrong API key": Bad(
        ENV, "Invalid API key", "check the API key", 5, TO_FIND, environ={"PHALA_CLOUD_API_KEY": "phak_wrong"}
    ),
    "missing key file": Bad(f"{ENV} --api-key-file no.key", "api-key-file does not exist", "path"),
    "folder for a key file": Bad(f"{ENV} --api-key-file .", "api-key-file is a directory", "path"),
    "empty key file": Bad(
        f"{ENV} --api-key-file my.key", "api-key-file is empty", "my.key", files={"my.key": "\n"}
    ),
    "key file that is no text": Bad(
        f"{ENV} --api-key-file my.key", "api-key-file is not UTF-8 text", "path", files={"my.key": b"\xff"}
    ),
    "unknown CVM": Bad(ENV, "CVM 'my-ap' not found", "did you mean my-app?", 5, TO_FIND + 1, cvm="my-ap"),
    "ambiguous name": Bad(ENV, "Several CVMs are called 'twin'", "Use the CVM's id", 5, TO_FIND, cvm="twin"),
    "no CVM": Bad(ENV, "no CVM specified", "phala.toml", cvm=None),
    "cvm and app": Bad(f"{ENV} --app {APP}", "both cvm and app are set", "pass --cvm, or --app"),
    "bad app": Bad(f"{ENV} --app my-app", "app: 'my-app' is not an app id", "40 hex digits", cvm=None),
    "unknown app": Bad(f"{ENV} --app {APP}", "App not found", "check the name or id", 5, TO_FIND, cvm=None),
    "bad app-id": Bad(f"{ENV} --app-id 0x12", "app-id: '0x12' is not an app id", "40 hex digits"),
    "two apps": Bad(
        f"{ENV} --app-id {APP}",
        f"app-id is {APP}, but the CVM is named by",
        "correct one of them",
        cvm="cd" * 20,
    ),
    "CVM of another app": Bad(
        f"{ENV} --app-id {APP}", f"not to {APP}", "check --cvm and --app-id", 3, TO_FIND
    ),
    "unknown KMS": Bad(
        f"{ENV} --kms moon", "unknown kms 'moon'; Phala Cloud lists 'phala'", "kms nodes", 5, TO_COMPARE + 1
    ),
    "http": Bad(f"{ENV} --api-url http://example.com", "api-url is not https", "loopback"),
    "ftp": Bad(f"{ENV} --api-url ftp://example.com", "api-url is not https", "use https"),
    "no URL": Bad(f"{ENV} --api-url cloud", "api-url is not a URL", "https://host/path"),
    "URL with a line end": Bad(
        (*ENV.split(), "--api-url", "https://a\n.b"), "api-url is not a URL", "https://host/path"
    ),
    "bad host": Bad(f"{ENV} --api-url https://[x/", "api-url is not a URL", "https://host/path"),
    "wrong path": Bad(
        ENV, "HTTP 404", "check", 5, 0, environ={"PHALA_CLOUD_API_PREFIX": "{origin}/nothing/here"}
    ),
    **{
        f"CVM with {what}": Bad(ENV, "is not a CVM", "from the dashboard", cvm=f"my{character}app")
        for what, character in {
            "a slash": "/",
            "a question mark": "?",
            "a hash": "#",
            "a backslash": "\\",
            "a percent": "%2F",
            "an escape": "\x1b[2J",
            "a tab": "\t",
            "a NUL's picture": "\x01",
        }.items()
    },
    "CVM of dots": Bad(ENV, "'..' is not a CVM", "from the dashboard", cvm=".."),
    "CVM of 300 letters": Bad(ENV, "is not a CVM", "from the dashboard", cvm="a" * 300),
    "CVM with a line end": Bad(
        ENV, "cvm: 'my\\napp' is not a CVM", "dashboard", cvm=None, files={"phala.toml": 'name = "my\\napp"'}
    ),
}
INPUTS = {
    "unknown flag": Bad(f"{ENV} --wiat", "unknown flag '--wiat'", "did you mean --wait?"),
    "flag without a value": Bad("--env-file", "--env-file: expected one argument", "update --help"),
    "stray word": Bad(f"{ENV} stray", "unexpected argument 'stray'", "name the CVM with --cvm"),
    "flag of another mode": Bad(
        ENV, "--env-file is not a flag of", "use it with update, plan", mode="verify"
    ),
    "shortened flag": Bad("--env-fil .env", "unknown flag '--env-fil'", "did you mean --env-file?"),
    "flag like no other": Bad(f"{ENV} --qqqq", "unknown flag '--qqqq'", "phala-secrets update --help"),
    "text as a flag": Bad(
        "--env A=1", "--env is not a flag", "set PHALA_SECRETS_ENV, or pass --env-file FILE"
    ),
    "secret as a flag": Bad(
        f"{ENV} --api-key=x", "--api-key is not a flag, because others", "PHALA_CLOUD_API_KEY"
    ),
    "unknown mode": Bad("", "unknown mode 'updat'", "did you mean update?", mode="updat", cvm=None),
    "mistyped variable": Bad(
        ENV,
        "unknown input 'PHALA_SECRETS_ENVFILE'",
        "did you mean PHALA_SECRETS_ENV_FILE?",
        environ={"PHALA_SECRETS_ENVFILE": ".env"},
    ),
    "variable of nothing": Bad(
        ENV, "unknown input 'PHALA_SECRETS_QQQQ'", "update --help", environ={"PHALA_SECRETS_QQQQ": "x"}
    ),
    "no choice of a removal": Bad(
        f"{ENV} --allow-removal=some", "unknown allow-removal 'some'", "use one of false, true, all"
    ),
    "no digest": Bad(
        f'--encrypted-env {HEX} --env-keys ["A"] --compose-hash {HEX[:64]}',
        "prepared-digest is missing",
        "or none to skip the check",
    ),
    "list of YAML": Bad(ENV, "cvm is a YAML or JSON list", "commas", cvm="[my-app, other]"),
    "neither true nor false": Bad(
        ENV,
        "invalid wait 'yes'",
        "use true or false",
        environ={"PHALA_SECRETS_WAIT": "yes"},
    ),
    "no number": Bad(f"{ENV} --timeout soon", "invalid timeout 'soon'", "use a whole number from 1 to 600"),
    "zero": Bad(f"{ENV} --wait-timeout 0", "invalid wait-timeout '0'", "from 1 to 86400"),
    "negative": Bad(f"{ENV} --max-parallel=-1", "invalid max-parallel '-1'", "from 1 to 64"),
    "fraction": Bad(f"{ENV} --timeout 1.5", "invalid timeout '1.5'", "a whole number from 1"),
    "huge number": Bad(f"{ENV} --timeout 99999999999", "invalid timeout '99999999999'", "to 600"),
    "other digits": Bad(f"{ENV} --timeout ٣", "invalid timeout '\\u0663'", "a whole number"),
    "no choice": Bad(f"{ENV} --guest-check no", "unknown guest-check 'no'", "error, warn, off"),
    "no level": Bad(f"{ENV} --require-trust yes", "unknown require-trust 'yes'", "api, known, chain, pinned"),
    "empty pin": Bad(
        f"{ENV} --require-trust pinned", "require-trust is pinned, but trusted-signers is empty", "name", 3
    ),
    "nothing of the chain": Bad(
        f"{ENV} --require-trust chain", "require-trust is chain, but", "check the name of the variable", 3
    ),
    "bad pin": Bad(f"{ENV} --trusted-signers 02ab", "trusted-signers, line 1", "hex"),
    "bad second pin": Bad(
        (
            *ENV.split(),
            "--trusted-signers",
            "0217610d74cbd39b6143842c6d8bc310d79da1d82cc9d17f8876376221eda0c38f\nx",
        ),
        "trusted-signers, line 2",
        "hex",
    ),
    "another root": Bad(
        f"{ENV} --trusted-signers 0217610d74cbd39b6143842c6d8bc310d79da1d82cc9d17f8876376221eda0c38f",
        "which is not in trusted-signers",
        "do not send secrets to it",
        3,
        TO_COMPARE,
    ),
    "bad RPC": Bad(f"{ENV} --rpc-url http://rpc.example", "rpc-url is not https", "use https"),
    "RPC for the central KMS": Bad(
        f"{ENV} --rpc-url https://rpc.invalid",
        "no KMS contract for the app",
        "leave out --rpc-url",
        3,
        TO_FIND,
    ),
    "bad contract": Bad(f"{ENV} --kms-contract 0x1", "kms-contract: '0x1' is not", "40 hex digits"),
    "bad device": Bad(
        f"{ENV} --allow-device 0x1", "allow-device: '0x1' is not 32 bytes of hex", "64 hex digits"
    ),
    "bad private key": Bad(ENV, "invalid private-key", "64 hex digits", environ={"PRIVATE_KEY": "hunter2"}),
    "missing private key": Bad(f"{ENV} --private-key-file no.key", "private-key-file does not exist", "path"),
    "empty private key": Bad(
        f"{ENV} --private-key-file my.key",
        "private-key-file is empty",
        "my.key",
        files={"my.key": ""},
    ),
    "ciphertext and source": Bad(
        f'{ENV} --encrypted-env {HEX} --env-keys ["A"]',
        "both encrypted-env and a source are set",
        "replaces a source",
    ),
    "no ciphertext": Bad("--encrypted-env xyz", "encrypted-env is not a ciphertext in hex", "unchanged"),
    "short ciphertext": Bad("--encrypted-env c0c0", "encrypted-env is not a ciphertext in hex", "unchanged"),
    "names that no guest takes": Bad(
        f'--encrypted-env {HEX} --env-keys ["\\ud800"]',
        "env-keys is not a JSON list of names",
        "came with the ciphertext",
    ),
    "names missing": Bad(f"--encrypted-env {HEX}", "env-keys is not a JSON list of names", "env-keys"),
    "names with commas": Bad(
        f"--encrypted-env {HEX} --env-keys A,B",
        "env-keys is not a JSON list of names",
        "came with the ciphertext",
    ),
    "names alone": Bad(
        f'{ENV} --env-keys ["A"]', "env-keys is set without encrypted-env", "set both or neither"
    ),
    "digest alone": Bad(
        f"{ENV} --prepared-digest 2:{'ab' * 32}", "prepared-digest is set without encrypted-env", "set both"
    ),
    "transaction alone": Bad(
        f"{ENV} --transaction-hash {'ab' * 32}", "transaction-hash is set without encrypted-env", "set both"
    ),
    "bad digest": Bad(f"{ENV} --prepared-digest x", "invalid prepared-digest 'x'", "64 hex"),
    "bad compose hash": Bad(f"{ENV} --compose-hash x", "compose-hash: 'x' is not 32 bytes", "64 hex digits"),
    "bad transaction": Bad(
        f'--encrypted-env {HEX} --env-keys ["A"] --compose-hash {HEX[:64]} --prepared-digest none '
        "--transaction-hash 0x1",
        "transaction-hash: '0x1'",
        "64 hex",
    ),
    "missing ciphertext": Bad(
        "--encrypted-env-file no.hex", "encrypted-env-file does not exist", "pass a path"
    ),
    "ciphertext twice": Bad(
        f"--encrypted-env {HEX} --encrypted-env-file .env", "both encrypted-env and encrypted-env-file", "one"
    ),
    "broken phala.toml": Bad(
        ENV, "phala.toml is not valid TOML", "fix it", cvm=None, files={"phala.toml": "name = my-app"}
    ),
    "phala.toml without a CVM": Bad(
        ENV, "no CVM specified", "pass --cvm", cvm=None, files={"phala.toml": "env_file = '.env'"}
    ),
    "output file in no folder": Bad(
        f"{ENV} --output-file no/out.env", "output-file 'no/out.env' cannot be written", "the path exists"
    ),
    "output file that is a folder": Bad(
        f"{ENV} --output-file .", "output-file '.' cannot be written", "path"
    ),
    "full disk": Bad(
        f"{ENV} --output-file /dev/full", "No space left on device", "disk is not full", requests=TO_FIND
    ),
}
LOOKUPS = {
    "unknown lookup": Bad(
        "moon", "unknown lookup 'moon'", "use one of list, nodes, info", mode="kms", cvm=None
    ),
    "lookup without its KMS": Bad("info", "required: KMS", "kms info --help", mode="kms", cvm=None),
    "unknown KMS looked up": Bad("info moon", "KMS 'moon' not found", "check", 5, 1, mode="kms", cvm=None),
    "KMS with a dot": Bad("info ..", "invalid id or slug '..'", "id or slug", mode="kms", cvm=None),
    "unknown chain": Bad("on-chain moon", "Unsupported chain: moon", "API", 5, 1, mode="kms", cvm=None),
    "bad app of a key": Bad("pubkey phala x", "'x' is not an app id", "40 hex", mode="kms", cvm=None),
    "too many app ids": Bad("next-app-ids 21", "invalid COUNT '21'", "1 to 20", mode="kms", cvm=None),
    "no number of app ids": Bad("next-app-ids ²", "invalid COUNT '\\xb2'", "1 to 20", mode="kms", cvm=None),
    "bad app to list": Bad("--app x", "app: 'x' is not an app id", "40 hex digits", mode="list", cvm=None),
    "unknown app to list": Bad(f"--app {APP}", "App not found", "check", 5, 1, mode="list", cvm=None),
    "no port": Bad("--port x", "--port: 'x' is not a port", "--help", mode="simulate", cvm=None),
    "port out of range": Bad(
        "--port 99999", "'99999' is not a port from 0 to 65535", "--help", mode="simulate", cvm=None
    ),
}
ROWS = {**SOURCES, **GUEST, **CLOUD, **INPUTS, **LOOKUPS}


@pytest.mark.parametrize("bad", ROWS.values(), ids=ROWS.keys())
def test_bad_input_has_an_error_and_a_hint(bad: Bad, run: Command, cloud: Cloud, cvm: Cvm) -> None:
    for _ in range(2):
        cloud.add_cvm("twin")
    for name, content in {".env": "OLD=2\n", **bad.files}.items():
        run.write(name, content)
    origin = str(run.environ["PHALA_CLOUD_API_PREFIX"]).removesuffix("/api/v1")
    done = run(
        *bad.arguments, environ={n: v and v.replace("{origin}", origin) for n, v in bad.environ.items()}
    )
    assert done.code == bad.code, done.printed
    assert_error(done, bad)
    asked = [(request.method, request.path) for request in cloud.requests]
    assert bad.requests in (None, len(asked)), asked
    assert cvm.environment == {"OLD": "1"}


UPDATES = {name: bad for name, bad in ROWS.items() if bad.mode == "update" and "--help" not in bad.hint}


@pytest.mark.parametrize("bad", UPDATES.values(), ids=UPDATES.keys())
def test_a_plan_ends_as_the_update_would(bad: Bad, run: Command, cloud: Cloud, cvm: Cvm) -> None:
    test_bad_input_has_an_error_and_a_hint(replace(bad, mode="plan", requests=None), run, cloud, cvm)
    assert {request.method for request in cloud.requests} <= {"GET"}


def assert_error(done: Outcome, bad: Bad) -> None:
    assert done.stdout == ""
    lines = done.lines[:-1] if " (exit code " in done.lines[-1] else done.lines
    said, hint = lines[-2:]
    assert said.startswith("error: "), done.printed
    assert bad.says in said, done.printed
    assert hint.startswith("hint: "), done.printed
    assert bad.hint in hint, done.printed
    assert "Traceback" not in done.stderr


def test_each_bad_variable_has_an_error_with_its_line(run: Command, cloud: Cloud, cvm: Cvm) -> None:
    run.write("app.env", 'A="x\ny"\nOLD=fine\nB="z\nz"\nPATH=/opt\n')
    done = run("update", "--cvm", "my-app", "--env-file", "app.env")
    assert done.code == 4
    *each, last = done.errors
    assert [line.split(": ")[1] for line in each] == ["app.env:1", "app.env:4", "app.env:6"]
    assert "3 variables" in last
    assert len(done.hints) == 4
    assert not cloud.requests


def test_a_file_outside_the_workspace_is_refused_on_github(step: Step, cloud: Cloud, cvm: Cvm) -> None:
    outside = step.workspace.parent / "outside.env"
    outside.write_text("OLD=2\n")
    (step.workspace / "link.env").symlink_to(outside)
    for path in ("../outside.env", str(outside), "link.env"):
        done = step(env_file=path)
        (error,) = done.annotations("error")
        assert done.code == 2
        assert f"env-file {path} is outside the workspace" in error.data
        assert error.properties["file"] == path
    assert step(files="CERT=../outside.env").code == 2
    assert not cloud.requests


def test_no_api_key_on_a_pull_request_may_be_that_of_a_fork(step: Step, cloud: Cloud) -> None:
    done = step(api_key=None, env="A=1", environ={"GITHUB_EVENT_NAME": "pull_request"})
    assert done.code == 2
    assert "pull request from a fork" in done.annotations("error")[0].data
    assert "fork" not in step(api_key=None, env="A=1", environ={"GITHUB_EVENT_NAME": "push"}).log


def test_an_api_key_that_belongs_to_the_app_is_said(step: Step, cloud: Cloud) -> None:
    environ = {"PHALA_CLOUD_API_KEY": cloud.api_key}
    done = step(api_key=None, secrets="PHALA_CLOUD_API_KEY", environ=environ)
    assert done.code == 2
    assert "it belongs to the app" in done.annotations("error")[0].data


def test_an_env_file_that_is_not_there_may_be_a_missing_checkout(step: Step) -> None:
    done = step(env_file=".env")
    assert done.code == 2
    assert "actions/checkout" in done.annotations("error")[0].data


def test_standard_input_is_the_commands_alone(step: Step, cloud: Cloud, cvm: Cvm) -> None:
    done = step(env_file="-")
    assert done.code == 2
    assert "env-file - is standard input" in done.annotations("error")[0].data
    assert not cloud.requests


@pytest.mark.parametrize(
    "text", ["", "{", "[]", '{"profiles": {}}', '{"profiles": [], "current_profile": "p"}']
)
def test_a_broken_login_is_named(text: str, run: Command, cloud: Cloud) -> None:
    run.write(".env", "OLD=2\n")
    run.write("cli/credentials.json", text)
    environ = {"PHALA_CLOUD_API_KEY": None, "PHALA_CLOUD_DIR": str(run.folder / "cli")}
    done = run("update", "--cvm", "my-app", "--env-file", ".env", environ=environ, person=True)
    assert done.code == 2
    assert "credentials.json: the official CLI's login cannot be read" in done.errors[0]
    assert "PHALA_CLOUD_API_KEY" in done.hints[0]
    assert not cloud.requests


def test_an_unknown_mode_is_named(step: Step, cloud: Cloud) -> None:
    done = step(mode="deploy", env="A=1")
    assert done.code == 2
    (error,) = done.annotations("error")
    assert error.data.splitlines() == [
        "unknown mode 'deploy'",
        "use one of update, plan, encrypt, verify, status, wait",
    ]
    assert not cloud.requests


def test_with_json_too_standard_output_is_one_document(run: Command, cvm: Cvm) -> None:
    done = run("update", "--cvm", "no-app", "--secrets", "LANG", "--json")
    assert done.code == 5
    outputs = json.loads(done.stdout)
    assert set(outputs) == {"status", "error", "hint", "exit_code", "version"}
    assert (outputs["status"], outputs["exit_code"]) == ("failed", 5)
    assert len(done.errors) == 1
