"""What an app-compose refers to, and what is missing or idle beside it."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from phala_secrets.dstack.compose_refs import (
    References,
    built_in,
    missing_and_unused,
    mutable_images,
    references,
)

APP = """\
# $COMMENTED and ${COMMENTED_TOO} are not referred to
name: ${PROJECT}
x-environment: &common
  LOG_LEVEL: ${LOG_LEVEL:-info}
  SHARED_KEY:
services:
  web:
    image: "registry/${IMAGE:?which image}:$TAG"
    command: ["sh", "-c", "echo $$NOT_OURS $${NOT_OURS_EITHER} ${FLAG+--flag}"]
    environment:
      <<: *common
      DB_URL: postgres://$DB_USER:${DB_PASSWORD?}@db
      PASSED: null
      GIVEN_HERE: ""
      ALSO: here
    build:
      context: .
      args:
        - BUILD_KEY
        - BUILD_MODE=fast
    secrets: [token]
    labels:
      ${NOT_A_KEY}: "${LABEL}"
      LABEL_WITHOUT_VALUE:
  worker:
    environment:
      - WORKER_KEY
      - WORKER_MODE=${WORKER_MODE-${FALLBACK_MODE:-$LAST_RESORT}}
      - "not a name"
      - 1
secrets:
  token:
    environment: TOKEN
  file:
    file: ./token
configs:
  site:
    environment: SITE_CONFIG
"""


def test_what_a_compose_file_refers_to() -> None:
    refs = references({"docker_compose_file": APP})
    assert refs.required == {
        *("PROJECT", "SHARED_KEY", "IMAGE", "TAG", "DB_USER", "DB_PASSWORD", "PASSED"),
        *("BUILD_KEY", "LABEL", "WORKER_KEY", "TOKEN", "SITE_CONFIG"),
    }
    assert refs.optional == {"LOG_LEVEL", "FLAG", "WORKER_MODE", "FALLBACK_MODE", "LAST_RESORT"}
    assert (refs.mentioned, refs.problem) == (frozenset(), "")


@pytest.mark.parametrize(
    ("value", "required", "optional"),
    [
        ("$X", "X", ""),
        ("${X}", "X", ""),
        ("$Xy-z", "Xy", ""),
        ("${X:?needed} ${Y?needed}", "X Y", ""),
        ("${X:-x} ${Y-y} ${Z:+z} ${W+w}", "", "X Y Z W"),
        ("$$X $${Y}", "", ""),
        ("$$$X", "X", ""),
        ("${A:-${B}} $C", "C", "A B"),
        ("${A:?no $B given} $C", "A C", "B"),
        ("${A:-{$B}} $C} ${D}", "C D", "A B"),
        ("${A:-${B:-${C}}}${D}", "D", "A B C"),
        ("${A} ${A:-again}", "A", ""),
        ("$ ${} $1 ${1} $-", "", ""),
        ("${X", "X", ""),
    ],
)
def test_each_form_of_reference(value: str, required: str, optional: str) -> None:
    refs = references({"docker_compose_file": f"services: {{a: {{image: '{value}'}}}}"})
    assert refs.required == set(required.split())
    assert refs.optional == set(optional.split())


@pytest.mark.parametrize(
    ("text", "required"),
    [
        ("services: {a: {environment: {X: , Y: 1, Z: ~, '': }}}", "X Z"),
        ("services: {a: {environment: {? [X] : }}}", ""),
        ("services: {a: {environment: [X, [Y], Z=1, {W: }]}}", "X"),
        ("services: {a: {environment: X}}", ""),
        ("services: {a: {build: {args: {X: }}}, b: {build: ., args: [Y]}}", "X"),
        ("services: {a: {build: {environment: {X: }}}}", ""),
        ("services: {environment: {X: }}", ""),
        ("services: [X]", ""),
        ("environment: [X]", ""),
        ("secrets: {a: {environment: [X]}, b: {environment: not a name}, c: }", ""),
        ("a: &a {X: }\nb: &b {Y: , <<: *a}\nservices: {s: {environment: {<<: [*b, {Z: }]}}}", "X Y Z"),
        ("x: &x {environment: [X]}\nservices: {s: {<<: *x}, t: *x}", "X"),
        ("services: !reset {a: !override {environment: [X]}}", "X"),
        ("services: {a: &a {<<: *a, environment: &e {X: , <<: *e}}}", "X"),
        ("x: &x [*x, $X]", "X"),
        ("$X", "X"),
        ("", ""),
    ],
)
def test_each_way_to_hand_a_variable_on(text: str, required: str) -> None:
    refs = references({"docker_compose_file": text})
    assert (refs.required, refs.problem) == (frozenset(required.split()), "")


def test_scripts_mention_whatever_they_have_as_a_word() -> None:
    script = "echo $A ${B:-b}; printenv C; python -c 'os.environ[\"D\"]'"
    assert references({"pre_launch_script": script, "docker_compose_file": ""}).mentioned >= set("ABCD")
    refs = references({"bash_script": script, "docker_compose_file": None, "pre_launch_script": 1})
    assert refs.mentioned >= set("ABCD")
    assert refs.problem == ""
    assert missing_and_unused(refs, "ABCD") == []


def deep(levels: int) -> str:
    return "[" * levels + "]" * levels


BOMB = "a: &a [$X]\n" + "".join(
    f"{b}: &{b} [{', '.join([f'*{a}'] * 20)}]\n" for a, b in pairwise("abcdefghi")
)


def test_aliases_multiply_nothing() -> None:
    assert references({"docker_compose_file": BOMB}).required == {"X"}


def test_many_heirs_of_a_large_part_take_linear_time() -> None:
    """Quadratic work would be 10^8 steps and more."""
    fields = ", ".join(f"F{number}: " for number in range(10_000))
    heirs = "\n".join(f"  s{number}: {{<<: *x}}" for number in range(10_000))
    refs = references({"docker_compose_file": f"x: &x {{environment: {{{fields}}}}}\nservices:\n{heirs}\n"})
    assert len(refs.required) == 10_000


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("a: ]", "it is not valid YAML (line 1)"),
        ("a: 1\nb: 'canary", "it is not valid YAML (line 2)"),
        ("a: 1\n---\nb: 2", "it is not valid YAML (line 2)"),
        ("a: *canary", "it is not valid YAML (line 1)"),
        ("a: \a", "it is not valid YAML"),
        ("a: \ud800", "it is not valid YAML"),
        (deep(100_000), "it is not valid YAML (line 1)"),
        ("#" * (1024 * 1024 + 1), "it is too large"),
        (None, "it is missing"),
        (["canary"], "it is missing"),
    ],
)
def test_a_compose_file_that_cannot_be_read_is_a_notice(text: object, problem: str) -> None:
    refs = references({"docker_compose_file": text, "pre_launch_script": "echo $A"})
    assert refs == References(mentioned=frozenset({"echo", "A"}), problem=problem)
    (finding,) = missing_and_unused(refs, ["UNUSED"])
    assert finding.message == f"The CVM's compose file cannot be searched for variables: {problem}"
    assert finding.severity == "notice"


def test_what_is_missing_is_a_warning_and_what_is_unused_a_notice() -> None:
    refs = References(
        required=frozenset({"A", "B", "DSTACK_APP_ID"}),
        optional=frozenset({"C"}),
        mentioned=frozenset({"D"}),
    )
    findings = missing_and_unused(refs, ["B", "C", "D", "E", "DSTACK_DOCKER_PASSWORD", "COMPOSE_PROFILES"])
    assert [(finding.message.rpartition(": ")[2], finding.severity) for finding in findings] == [
        ("A", "warning"),
        ("E", "notice"),
    ]
    assert all(finding.hint for finding in findings)
    assert missing_and_unused(refs, "ABCD") == []


def test_a_long_list_is_cut() -> None:
    refs = References(required=frozenset(f"V{number:02}" for number in range(12)))
    (finding,) = missing_and_unused(refs, [])
    assert finding.message.endswith(": V00, V01, V02, V03, V04, V05, V06, V07, V08, V09 and 2 more")


@pytest.mark.parametrize(
    "name", ["DSTACK_APP_ID", "DSTACK_APP_DOMAIN", "DSTACK_GATEWAY_DOMAIN", "PWD", "PATH"]
)
def test_what_is_there_anyway_is_not_missing(name: str) -> None:
    assert built_in(name)
    assert missing_and_unused(References(required=frozenset({name})), []) == []


@pytest.mark.parametrize("name", ["DSTACK_DOCKER_USERNAME", "DSTACK_APP", "APP_ID", "MY_PATH"])
def test_what_has_to_be_given_is_not_built_in(name: str) -> None:
    assert not built_in(name)


def test_what_compose_does_not_start_without_is_an_error() -> None:
    text = "services: {a: {image: '${A:?} ${B?no b} ${C} ${D:-${E:?}} ${DSTACK_APP_ID:?} ${F:?} ${G?}'}}"
    refs = references({"docker_compose_file": text})
    assert refs.demanded == {"A", "B", "DSTACK_APP_ID", "F", "G"}
    assert refs.filled == {"A", "DSTACK_APP_ID", "F"}
    assert refs.demanded <= refs.required
    fatal, missing = missing_and_unused(refs, ["F", "G", "D"], empty=["F", "G"])
    assert (fatal.severity, missing.severity) == ("error", "warning")
    assert fatal.message == "The CVM's compose file requires variables that are missing: A, B, F"
    assert fatal.hint
    assert missing.message.endswith(": C")
    assert missing_and_unused(refs, "ABCDFG") == []


def test_what_a_script_may_set_is_not_demanded() -> None:
    text = "services: {a: {image: '${A:?}'}}"
    script = 'echo "A=$(derive)" > /dstack/.env'
    refs = references({"docker_compose_file": text, "pre_launch_script": script})
    assert [finding.severity for finding in missing_and_unused(refs, [])] == ["warning"]


@pytest.mark.parametrize(
    "service",
    [
        "volumes: ['/dstack/.host-shared/.decrypted-env.json:/run/env.json:ro']",
        "volumes: [/dstack/.host-shared/.decrypted-env:/env]",
        "volumes: [{type: bind, source: /dstack/.host-shared/.decrypted-env.json, target: /x}]",
        "volumes: ['./.host-shared/.decrypted-env.json:/x']",
        "volumes: [/dstack/.host-shared:/x:ro]",
        "volumes: ['/dstack/:/x']",
        "volumes: ['/:/host:ro']",
        "volumes: ['../dstack/./.host-shared/:/x']",
        "env_file: .host-shared/.decrypted-env",
        "env_file: [/dstack/.host-shared/.decrypted-env]",
        "env_file: [{path: /dstack/.host-shared/.decrypted-env, required: false}]",
        "<<: {volumes: ['/dstack/.host-shared/.decrypted-env.json:/x']}",
    ],
)
def test_a_service_that_gets_all_variables_leaves_none_unused(service: str) -> None:
    refs = references({"docker_compose_file": f"services: {{a: {{{service}}}}}"})
    assert refs.hands_on_all
    assert missing_and_unused(refs, ["UNUSED"]) == []


@pytest.mark.parametrize("kind", ["configs", "secrets"])
def test_a_config_or_secret_may_be_the_file_with_all_variables(kind: str) -> None:
    text = (
        f"services: {{a: {{image: a@b}}}}\n{kind}: {{x: {{file: /dstack/.host-shared/.decrypted-env.json}}}}"
    )
    assert references({"docker_compose_file": text}).hands_on_all


@pytest.mark.parametrize(
    "service",
    [
        "volumes: ['/var/run/dstack.sock:/var/run/dstack.sock', 'data:/dstack/.host-shared']",
        "volumes: ['/dstack/.host-shared/.decrypted-env.json.bak:/x']",
        "volumes: ['/dstack/.host-shared/.sys-config.json:/x']",
        "volumes: ['/dstackx:/x', ./data:/x, {type: volume, source: data, target: /dstack}]",
        "command: cat /dstack/.host-shared/.decrypted-env.json",
        "labels: {file: /dstack/.host-shared/.decrypted-env.json}",
        "volumes: {a: [/dstack/.host-shared]}",
        "env_file: app.env",
    ],
)
def test_other_files_and_mounts_hand_nothing_on(service: str) -> None:
    refs = references({"docker_compose_file": f"services: {{a: {{{service}}}}}"})
    assert not refs.hands_on_all
    assert [finding.severity for finding in missing_and_unused(refs, ["UNUSED"])] == ["notice"]


IMAGES = """
services:
  by_tag: {image: "org/app:1.2"}
  again: {image: "org/app:1.2"}
  latest: {image: redis}
  digest: {image: "org/app:1@sha256:00"}
  registry: {image: "localhost:5000/a:${TAG}"}
  variable: {image: "${IMAGE:-org/a:1}"}
  built: {image: "org/built:1", build: .}
  kept: {image: "org/kept:1", pull_policy: missing}
  always: {image: "org/always:1", pull_policy: always}
  none: {command: sh}
  list: [image]
  map: {image: {a: b}, ? [x] : y}
"""


def test_images_by_tag_are_one_notice_where_each_boot_pulls_them() -> None:
    script = '#!/bin/bash\necho "---"\necho "Running Phala Cloud Pre-Launch Script v0.0.15"\n'
    refs = references({"docker_compose_file": IMAGES, "pre_launch_script": script})
    by_tag = ["${IMAGE:-org/a:1}", "localhost:5000/a:${TAG}", "org/always:1", "org/app:1.2", "redis"]
    assert sorted(refs.by_tag) == by_tag
    (finding,) = mutable_images(refs)
    listed = "localhost:5000/a:${TAG}, org/always:1, org/app:1.2, redis"
    assert finding.message.startswith(f"Each boot pulls images that are named by tag: {listed}.")
    assert "secrets alone can start new code" in finding.message
    assert (finding.severity, finding.hint) == ("notice", "Name them by digest: image@sha256:….")

    older = references({"docker_compose_file": IMAGES, "pre_launch_script": script.replace("15", "14")})
    assert sorted(older.by_tag) == by_tag
    assert mutable_images(older) == []
    long = {"docker_compose_file": f"services: {{a: {{image: {'a' * 999}}}}}", "pre_launch_script": script}
    assert f": {'a' * 80}. " in mutable_images(references(long))[0].message
    pinned = "services: {a: {image: 'a@sha256:00'}}"
    assert mutable_images(references({"docker_compose_file": pinned, "pre_launch_script": script})) == []


pieces = st.one_of(
    st.sampled_from(
        ["services: ", "{", "}", "[", "]", "&a ", "*a", "<<: ", "environment: ", "a: ", "\n", "  ", "- "]
    ),
    st.sampled_from(["$", "${", "}", "$$", ":-", "?", "X", "Y", "!t ", "'", '"', ",", "# ", "~"]),
    st.characters(),
)


@settings(max_examples=150, deadline=None)
@given(st.lists(pieces, max_size=25).map("".join), st.one_of(st.none(), st.text()))
def test_whatever_the_app_compose_holds_it_is_searched_or_a_problem(text: str, script: str | None) -> None:
    refs = references({"docker_compose_file": text, "pre_launch_script": script})
    assert not refs.required & refs.optional
    assert all(name.isidentifier() and name.isascii() for name in refs.required | refs.optional)
    missing_and_unused(refs, ["X"])
    mutable_images(refs)
