"""What is wrong with a compose file that is to be deployed: YAML, checkout, digests, variables, secrets."""

from __future__ import annotations

from base64 import b64encode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from phala_secrets.dstack.compose_file import (
    MAX_BYTES,
    ComposeFile,
    check,
    in_plain_text,
    too_large,
    unresolved,
)
from phala_secrets.dstack.environment import Environment, Origin, Variable
from phala_secrets.errors import Finding

DIGEST = "sha256:" + "ab" * 32
GOOD = f"""\
services:
  web:
    image: nginx@{DIGEST}
    environment:
      DB_URL: postgres://app:${{DB_PASSWORD}}@db/${{DB_NAME:-app}}
      HANDED_ON:
    volumes:
      - data:/data
      - /var/run/dstack.sock:/var/run/dstack.sock
      - /dstack/.host-shared/.decrypted-env.json:/secrets.json:ro
      - type: bind
        source: /etc
        target: /etc
      - type: volume
        source: data
        target: /more
volumes:
  data:
"""


def compose(text: str) -> ComposeFile:
    return ComposeFile(text, "docker-compose.yml")


def errors(findings: list[Finding]) -> list[tuple[str, int | None]]:
    assert all(finding.file == "docker-compose.yml" for finding in findings)
    return [(finding.message, finding.line) for finding in findings if finding.severity == "error"]


def service(*lines: str) -> ComposeFile:
    """A compose file whose service has these lines, which begin at line 4."""
    head = ["services:", "  web:", f"    image: nginx@{DIGEST}"]
    return compose("\n".join([*head, *(f"    {line}" for line in lines)]) + "\n")


def test_a_good_file_has_nothing_wrong_with_it() -> None:
    assert check(compose(GOOD), require_digest=True) == []


# -- YAML ------------------------------------------------------------------------------------------

DEEP = "services:\n  web:\n    labels: " + "[" * 70 + "]" * 70 + "\n"
BOMB = (
    "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n"
    + "".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]\n" for i in range(1, 9))
    + "services:\n  web:\n    labels: *a8\n"
)


@pytest.mark.parametrize(
    ("text", "problem", "line"),
    [
        ("", "it is not a mapping", None),
        ("- services\n", "it is not a mapping", 1),
        ("name: x\n", "it has no services", None),
        ("name: x\nservices: {}\n", "it has no services", 2),
        ("services:\n  - web\n", "it has no services", 2),
        ("services:\n  web:\n", "a service is not a mapping", 2),
        ("services:\n  web: {image: ]\n", "it is not valid YAML", 2),
        ("services:\n  web: {image: a}\n---\nservices: {}\n", "it is not valid YAML", 3),
        (
            "services:\n  web:\n    image: !!python/name:os.system x\n",
            "it has an unsupported tag",
            3,
        ),
        ("services:\n  web:\n    ports: !reset []\n", "it has an unsupported tag", 3),
        ("services:\n  web:\n    image: a\n    image: b\n", "a key is duplicate", 4),
        ("services:\n  web:\n    ? [a]\n    : b\n", "a key is not text", 3),
        ("services:\n  web:\n    <<: a\n", "a merged value is not a mapping", 3),
        ("services:\n  web:\n    <<: [{a: b}, c]\n", "a merged value is not a mapping", 3),
        ("services:\n  web: &w\n    labels: *w\n", "an alias is within its own anchor", 2),
        (DEEP, "it is nested too deeply", 3),
        (BOMB, "its aliases make it too large", 5),
        ("#" * 1024 * 1024 + "\n", "it is too large", None),
    ],
)
def test_anything_but_plain_yaml_with_services_is_an_error(text: str, problem: str, line: int | None) -> None:
    assert errors(check(compose(text))) == [(f"the compose file cannot be used: {problem}", line)]


def test_anchors_and_merges_are_plain() -> None:
    text = f"x-base: &base\n  image: nginx@{DIGEST}\nservices:\n  a:\n    <<: *base\n  b:\n    <<: [*base]\n"
    assert check(compose(text), require_digest=True) == []


@given(st.text(alphabet="ab:- &*!{}[]\n\t'\"|>$?#,", max_size=200))
def test_any_text_is_judged_and_none_is_quoted(text: str) -> None:
    for finding in check(compose("services:\n" + text)):
        assert finding.file == "docker-compose.yml"


@pytest.mark.parametrize("script", [None, "", "é" * 10])
def test_file_and_script_have_a_size_in_bytes(script: str | None) -> None:
    beside = len((script or "").encode())
    app = {"pre_launch_script": script}
    assert too_large(compose("é" * ((MAX_BYTES - beside) // 2)), app) == []
    (finding,) = too_large(compose("é" * ((MAX_BYTES - beside) // 2) + "x"), app)
    assert f"{MAX_BYTES + 1} bytes" in finding.message


# -- the checkout ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("lines", "line"),
    [
        (["build: ."], 4),
        (["build: ./app"], 4),
        (["build:", "  context: app"], 5),
        (["build:", "  dockerfile: Dockerfile"], 5),
        (["build: ${PWD}/app"], 4),
        (["build:", "  context: /opt/app", "  additional_contexts: {more: ./more}"], 5),
        (["build:", "  context: /opt/app", "  additional_contexts: [more=../more]"], 5),
    ],
)
def test_an_image_is_not_built_from_the_checkout(lines: list[str], line: int) -> None:
    ((message, where),) = errors(check(service(*lines)))
    assert "builds an image from the checkout" in message
    assert where == line


@pytest.mark.parametrize(
    "lines",
    [
        ["build: https://github.com/o/r.git#main"],
        ["build: git@github.com:o/r.git"],
        ["build: github.com/o/r"],
        ["build: /opt/app"],
        ["build: ${CONTEXT}"],
        ["build:", "  context: /opt/app", "  additional_contexts: {more: service:base}"],
        ["build:", "  context: .", "  dockerfile_inline: FROM scratch"],
    ],
)
def test_an_image_may_be_built_from_what_the_guest_has(lines: list[str]) -> None:
    assert check(service(*lines)) == []


@pytest.mark.parametrize(
    "mount",
    [
        *("./conf:/conf", ".:/app", "..:/up", "../x:/x:ro", "~/x:/x", "~:/home", ".\\\\x:/x"),
        *("${PWD}/x:/x", "$PWD/x:/x", "${HOME}/x:/x", "${DATA:-./data}:/data", "${DATA-.}:/data"),
    ],
)
def test_nothing_of_the_checkout_is_mounted(mount: str) -> None:
    found = errors(check(service("volumes:", "  - data:/d", f'  - "{mount}"')))
    assert found == [("the compose file mounts a path of the checkout, which a CVM does not have", 6)]


@pytest.mark.parametrize(
    ("lines", "line"),
    [
        (["volumes:", "  - type: bind", "    source: conf", "    target: /c"], 5),
        (["volumes:", "  - {type: bind, source: ./conf, target: /c}"], 5),
    ],
)
def test_a_bind_mount_in_full_is_seen_as_well(lines: list[str], line: int) -> None:
    assert [where for _, where in errors(check(service(*lines)))] == [line]


@pytest.mark.parametrize(
    "mount",
    [
        *("/data:/data", "data:/data", "/data", "${DATA}:/data", "${PWDS}:/x", "${DATA:-/data}:/d"),
        *("./.host-shared/.decrypted-env:/e", ".hidden:/x", "...:/x"),
        *("{type: bind, target: /x}", "{type: tmpfs, target: /x}", "{type: bind, source: [a]}"),
    ],
)
def test_what_the_guest_has_may_be_mounted(mount: str) -> None:
    text = mount if mount.startswith("{") else f'"{mount}"'
    assert check(service("volumes:", f"  - {text}")) == []


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("    env_file: app.env\n", 4),
        ("    label_file: ./labels\n", 4),
        ("    env_file: [./app.env]\n", 4),
        ("    env_file:\n      - path: app.env\n", 5),
        ("    extends:\n      file: base.yml\n", 5),
        ("include: [more.yml]\n", 4),
        ("include:\n  - path: [./more.yml]\n", 5),
        ("secrets:\n  token:\n    file: ./token\n", 6),
        ("configs:\n  site:\n    file: ${PWD}/site.conf\n", 6),
        ("volumes:\n  data:\n    driver_opts: {type: none, o: bind, device: ./data}\n", 6),
    ],
)
def test_no_file_of_the_checkout_is_read(text: str, line: int) -> None:
    found = errors(check(compose(f"services:\n  web:\n    image: nginx@{DIGEST}\n{text}")))
    assert [where for _, where in found] == [line]


@pytest.mark.parametrize(
    "text",
    [
        "    env_file: /dstack/app.env\n",
        "    env_file: .host-shared/.decrypted-env\n",
        "    env_file: [{path: app.env, required: false}]\n",
        "    env_file: [{required: true}]\n",
        "    extends: base\n",
        "    extends: {service: base}\n",
        "include: [https://github.com/o/r.git]\n",
        "secrets:\n  token:\n    environment: TOKEN\n",
        "volumes:\n  data:\n    driver_opts: {device: tmpfs}\n  more:\n    driver_opts: {device: [x]}\n",
    ],
)
def test_what_is_no_file_of_the_checkout(text: str) -> None:
    assert check(compose(f"services:\n  web:\n    image: nginx@{DIGEST}\n{text}")) == []


# -- images ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("image", "warned", "hint"),
    [
        ("nginx", True, "name it by digest: nginx@sha256:…"),
        ("ghcr.io/o/app:1.2", True, "name it by digest: ghcr.io/o/app:1.2@sha256:…"),
        ("app@sha256:abc", True, "name it by digest: app@sha256:…"),
        ("app:${TAG}", True, "a variable is not measured"),
        (f"app@{DIGEST}", False, ""),
        ("${IMAGE}", False, "a variable is not measured"),
        ("app@${DIGEST}", True, "a variable is not measured"),
    ],
)
def test_an_image_by_tag_is_a_warning_or_with_require_digest_an_error(
    image: str, warned: bool, hint: str
) -> None:
    file = compose(f'services:\n  web:\n    image: "{image}"\n')
    found = check(file)
    assert [finding.severity for finding in found] == (["warning"] if warned else [])
    demanded = check(file, require_digest=True)
    assert [(one.severity, one.line) for one in demanded] == ([("error", 3)] if hint else [])
    assert all(hint in finding.hint for finding in (*found, *demanded))


def test_an_image_that_is_built_in_the_guest_has_no_digest() -> None:
    file = compose("services:\n  web:\n    image: app\n    build: {dockerfile_inline: FROM scratch}\n")
    assert check(file, require_digest=True) == []


def test_findings_are_in_the_order_of_the_lines() -> None:
    text = "services:\n  a:\n    image: x\n    env_file: a\n  b:\n    image: y\n    build: .\n"
    assert [finding.line for finding in check(compose(text))] == [3, 4, 7]


# -- variables -------------------------------------------------------------------------------------


def test_each_missing_variable_without_a_default_is_an_error() -> None:
    text = (
        "services:\n  web:\n    image: ${IMAGE}\n    command: |\n      echo\n      echo ${MISSING} $$OURS\n"
        "    environment:\n      A: ${MISSING}${DEFAULT:-x}${DSTACK_APP_ID}${SET_BY_SCRIPT}\n"
        "      HANDED_ON:\n"
    )
    app = {"docker_compose_file": "services: {}", "pre_launch_script": "export SET_BY_SCRIPT=1"}
    findings = unresolved(compose(text), app, ["IMAGE", "IDLE"])
    assert errors(findings) == [("the compose file refers to MISSING, which is missing", 6)]
    others = [(finding.severity, finding.message.rsplit(": ", 1)[1]) for finding in findings[1:]]
    assert others == [("warning", "HANDED_ON, SET_BY_SCRIPT"), ("notice", "IDLE")]


def test_a_variable_that_is_demanded_may_not_be_empty() -> None:
    file = compose("services:\n  web:\n    image: ${IMAGE:?}\n")
    assert errors(unresolved(file, {}, ["IMAGE"])) == []
    (finding,) = unresolved(file, {}, ["IMAGE"], ["IMAGE"])
    assert finding.severity == "error"


def test_no_finding_if_nothing_is_missing() -> None:
    assert unresolved(compose(GOOD), {}, ["DB_PASSWORD", "DB_NAME", "HANDED_ON"]) == []


# -- secrets in plain text -------------------------------------------------------------------------


def environment(**values: str) -> Environment:
    return Environment(tuple(Variable(name, value, Origin("env")) for name, value in values.items()))


def of_four_characters(_name: str, value: str) -> list[str]:
    return [line for line in value.splitlines() if len(line) >= 4]


@pytest.mark.parametrize(
    ("value", "written"),
    [
        ("hunter22", "PASSWORD: hunter22"),
        ("hunter22", "URL: postgres://u:hunter22@db"),
        ("hunter22", "# the password is hunter22"),
        ("pa$$word", "PASSWORD: pa$$$$word"),
        ('quo"ted', 'PASSWORD: "quo\\"ted"'),
        ("tab\tbed", 'PASSWORD: "tab\\tbed"'),
        ("hunter22", 'PASSWORD: "\\x68unter22"'),
        ("first line\nsecond line", "KEY: second line"),
        ("hunter22", f"AUTH: {b64encode(b'hunter22').decode()}"),
        ("a-long-value-of-a-token", "TOKEN: xa-long-value-of-a-tokenx"),
        ("==edges==", "TOKEN: a==edges==b"),
        ("hunter22", '"\\x68unter22": 1'),
    ],
)
def test_a_secret_in_plain_text_is_named_by_line_and_variable(value: str, written: str) -> None:
    file = compose(f"services:\n  web:\n    image: a\n    environment:\n      {written}\n")
    (finding,) = in_plain_text(file, environment(OTHER="other-value", PASSWORD=value), of_four_characters)
    assert errors([finding]) == [("the value of PASSWORD is in the compose file, which is public", 5)]
    assert value not in finding.message + finding.hint
    assert "${PASSWORD}" in finding.hint


@pytest.mark.parametrize("value", ["web1", "abc", "", "\n", "somewhere"])
def test_what_is_no_secret_or_only_part_of_a_word_may_stand_there(value: str) -> None:
    file = compose("services:\n  web10:\n    image: abc\n")
    assert in_plain_text(file, environment(NAME=value), of_four_characters) == []
    assert in_plain_text(file, environment(NAME="web10"), lambda _name, _value: []) == []


def test_a_file_that_is_no_yaml_is_searched_all_the_same() -> None:
    (finding,) = in_plain_text(compose("{\nhunter22"), environment(PASSWORD="hunter22"), of_four_characters)
    assert finding.line == 2


@pytest.mark.parametrize(
    "spelled",
    [
        "postgres://app:p%40ss%2Fword%3A1-long@db/app",
        "Basic YXBwOnBAc3Mvd29yZDoxLWxvbmc=",
        "YWRtaW46cEBzcy93b3JkOjEtbG9uZw==",
        "b3BlcmF0b3I6cEBzcy93b3JkOjEtbG9uZw",
    ],
    ids=["URL", "app:…", "admin:…", "operator:…"],
)
def test_a_value_within_a_url_or_a_login_in_base64_is_found(spelled: str) -> None:
    text = f"services:\n  web:\n    image: a\n    environment:\n      URL: {spelled}\n"
    environment = Environment((Variable("TOKEN", "p@ss/word:1-long", Origin("env")),))
    (found,) = in_plain_text(compose(text), environment, lambda _name, value: [value])
    assert (found.line, "TOKEN" in found.message) == (5, True)
