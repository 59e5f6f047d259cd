"""What the guest accepts and reads, judged by systemd's own parser, by bash and by the kernel."""

from __future__ import annotations

import errno
import os
import random
import re
import subprocess
import sys
import traceback

import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from hypothesis import given, settings
from hypothesis import strategies as st

from phala_secrets.dstack.encryption import entry_size, seal, sealed_size
from phala_secrets.dstack.env_file import EVERY_ESCAPE, NO_BACKSLASH, Handover
from phala_secrets.dstack.environment import Environment, Origin, Variable
from phala_secrets.dstack.generations import CERTAIN, STRICTEST, Generation, generation_of
from phala_secrets.dstack.guest_check import (
    EXACT_FILE,
    Fallen,
    check_limits,
    check_sealed,
    delivered,
    fallen,
    review,
)
from phala_secrets.errors import DeliveryError
from tests.support import systemd

NASTY = '\\\\\\""\'$`#;= \t\n\r'
PLAIN = "ABab1\x0b\x1b\x7f\x85é\u2028\ufeff漢🔑"
REFUSED = "\0\ufffe\uffff\ufdd0\ufdef\U0001ffff\U0010fffe"
"""What makes systemd refuse a whole file: a NUL, and Unicode's noncharacters."""

NAMES = [*"ABCDEF", "A1", "_", "a", "AB", "BA"]


def environment(variables: dict[str, str]) -> Environment:
    return Environment(
        tuple(
            Variable(name, value, Origin("env-file .env", ".env", line))
            for line, (name, value) in enumerate(variables.items(), 1)
        )
    )


WAYS = (Handover(NO_BACKSLASH, systemd.VERSION), Handover(EVERY_ESCAPE, systemd.VERSION))
GENERATION = STRICTEST._replace(handovers=WAYS)
"""Both writers, before the reader that is at hand."""


def written(variables: dict[str, str], escaped: str = '"$`', quoted: str = "") -> bytes:
    """The guest's file, written as simply as the rule is told."""
    lines = []
    for name in sorted(variables):
        value = variables[name]
        quote = '"' if set(value) & set(" \t|&;<>()$`\\\"'\n" + quoted) else ""
        text = "".join("\\n" if c == "\n" else "\\" + c if c in escaped else c for c in value)
        lines.append(f"{name}={quote}{text}{quote}\n")
    return "".join(lines).encode()


def judged(variables: dict[str, str]) -> dict[str, str]:
    return systemd.environment(written(variables)) or {}


def judged_newer(variables: dict[str, str]) -> dict[str, str]:
    return systemd.environment(written(variables, escaped='"$`\\', quoted="\r\v\f")) or {}


def told(casualties: list[Fallen]) -> list[str]:
    return sorted(name for one in casualties for name in (one.variable.name, *one.neighbours))


def holds(variables: dict[str, str]) -> None:
    """The prediction is the judge's, and what is said to fall is exactly what falls."""
    lost: set[str] = set()
    for way, judge in zip(WAYS, (judged, judged_newer), strict=True):
        arrived = judge(variables)
        assert way.delivered(variables) == arrived
        mine = {name for name in variables if arrived.get(name) != variables[name]}
        assert told(fallen(environment(variables), GENERATION._replace(handovers=(way,)))) == sorted(mine)
        lost |= mine

    casualties = fallen(environment(variables), GENERATION)
    assert told(casualties) == sorted(lost)
    sound = {n: v for n, v in variables.items() if n not in {one.variable.name for one in casualties}}
    assert judged(sound) == judged_newer(sound) == sound, "without the culprits the others arrive"

    findings = review(environment(variables), GENERATION)
    findings = [finding for finding in findings if "read another value" in finding.message]
    assert len(findings) == len(casualties)
    assert all(finding.severity == "error" and finding.hint and finding.line for finding in findings)
    for one, finding in zip(casualties, findings, strict=True):
        if EXACT_FILE in finding.hint:  # then no neighbour suffers, whatever it is
            name = one.variable.name
            beside = {name: one.variable.value, "A": "left", "a": "right"} | {name: one.variable.value}
            assert judged(beside).items() >= {n: v for n, v in beside.items() if n != name}.items()


values = st.text(
    st.one_of(
        st.sampled_from(NASTY),
        st.sampled_from(NASTY),
        st.sampled_from(PLAIN),
        st.characters(exclude_categories=["Cs"]),
    ),
    max_size=12,
)


@settings(max_examples=150, deadline=None)
@given(st.dictionaries(st.sampled_from(NAMES), values, max_size=6))
def test_the_prediction_is_what_systemd_reads(variables: dict[str, str]) -> None:
    holds(variables)


def test_the_prediction_is_what_systemd_reads_of_many_environments() -> None:
    dice = random.Random(20260801)
    for _ in range(1500):
        alphabet = NASTY + PLAIN + (REFUSED if dice.random() < 0.05 else "")
        holds(
            {
                name: "".join(dice.choice(alphabet) for _ in range(dice.choice((0, 1, 2, 3, 5, 9))))
                for name in dice.sample(NAMES, dice.randint(1, 6))
            }
        )


@pytest.mark.parametrize("character", NASTY + PLAIN + REFUSED)
@pytest.mark.parametrize(
    "shape", ["{}", "{}x", "x{}", "x{}y", "{0}{0}", " {}", "{} ", "\\{}", "{}\\", '"{}"']
)
def test_every_odd_character_everywhere_in_a_value(character: str, shape: str) -> None:
    holds({"A": shape.format(character), "B": "neighbour", "C": "next but one"})


@pytest.mark.parametrize(
    ("value", "reason", "hint"),
    [
        (
            "-----BEGIN KEY-----\nMII\n-----END KEY-----\n",
            "contains a newline",
            'export B="$(printf %s "$B" |',
        ),
        ("token\n", "ends in a newline", "Remove the line ending"),
        ("token\r\n", "ends in a newline", "Remove the line ending"),
        ("token\\\n", "ends in a newline", "dd B to `base64`"),
        ("token\r", "ends in a carriage return", "Remove the line ending"),
        ("one\rtwo", "contains a carriage return", "dd B to `base64`"),
        ("C:\\", "ends in a backslash", "dd B to `base64`"),
        ('{"a": "\\"b\\""}', 'contains a backslash before "', "dd B to `base64`"),
        ("\\\\server\\share", "contains two backslashes in a row", "dd B to `base64`"),
        ("a\0b", "contains a NUL", "base64 -d > b.bin"),
        ("a\uffffb", "contains a Unicode noncharacter", "dd B to `base64`"),
    ],
)
def test_each_way_to_be_mangled_has_its_reason_and_its_remedy(value: str, reason: str, hint: str) -> None:
    (finding,) = review(environment({"A": "fine", "B": value}))
    assert finding.message.startswith(f"B (env-file .env, line 2) {reason}: ")
    assert hint in finding.hint
    assert (finding.file, finding.line, finding.severity) == (".env", 2, "error")
    assert value not in finding.message + finding.hint


def test_the_decoding_line_brings_the_value_back() -> None:
    value = '-----BEGIN KEY-----\n"$HOME" \\ `x`\n-----END KEY-----'
    (finding,) = review(environment({"TLS_KEY": value}))
    line = finding.hint.rpartition(": ")[2]
    encoded = subprocess.run(["base64", "-w0"], input=value.encode(), capture_output=True, check=True).stdout
    assert judged({"TLS_KEY": encoded.decode()}) == {"TLS_KEY": encoded.decode()}
    script = f'{line}\nprintf %s "$TLS_KEY"'
    run = subprocess.run(
        ["sh", "-c", script], env={"TLS_KEY": encoded.decode(), "PATH": "/usr/bin:/bin"}, capture_output=True
    )
    assert run.stdout.decode() == value


def test_a_value_that_swallows_its_neighbours_is_blamed_for_them() -> None:
    variables = {"PATTERN": "\\d+\\", "Q1": "a b", "Q2": "sound", "Z": "sound"}
    (casualty,) = fallen(environment(variables))
    assert casualty.variable.name == "PATTERN"
    assert casualty.neighbours == ("Q1",)
    (finding,) = review(environment(variables))
    assert finding.message.endswith(
        "ends in a backslash: the guest would read another value, and would lose Q1 with it"
    )


def test_a_value_that_writes_over_another_is_blamed_for_it() -> None:
    casualties = fallen(environment({"B": "sound", "A": "new\nline", "Z": "x\rB=forged"}))
    assert [(one.variable.name, one.neighbours) for one in casualties] == [("A", ()), ("Z", ("B",))]


def test_of_two_that_swallow_the_first_is_blamed_for_what_follows_it() -> None:
    variables = {"A": "\\", "B": "", "C": "\\", "D": ""}
    holds(variables)
    casualties = fallen(environment(variables))
    assert [(one.variable.name, one.neighbours) for one in casualties] == [("A", ("B",)), ("C", ())]


@pytest.mark.parametrize(
    "variables",
    [
        {"A": "\\", "C": "''"},
        {"D": "\rA\x0b="},
        {"A": "\\", "B": '"A\rC\t=', "C": "\x0b\\\x0b"},
    ],
    ids=["empty quotes", "a key with a vertical tab", "a key with a tab"],
)
def test_what_breaks_out_of_its_line_is_read_as_systemd_reads_it(variables: dict[str, str]) -> None:
    holds(variables)


def test_one_that_spoils_the_whole_file_is_blamed_for_all() -> None:
    variables = dict.fromkeys("BCDEFGHI", "sound") | {"A": "new\nline", "Z": "\uffff"}
    first, last = review(environment(variables))
    assert "lose" not in first.message
    assert last.message.endswith("and would lose B, C, D, E, F and 3 more with it")


@pytest.mark.parametrize(("others", "listed"), [("BCDEF", "E, F with"), ("BCDEFG", "F and 1 more with")])
def test_of_many_that_are_lost_five_are_named(others: str, listed: str) -> None:
    (finding,) = review(environment(dict.fromkeys(others, "sound") | {"Z": "\uffff"}))
    assert f"{listed} it" in finding.message


def test_only_line_ends_count_as_pasted_along() -> None:
    (finding,) = review(environment({"A": "X\n"}))
    assert finding.hint.startswith("Remove the line ending")
    findings = review(environment({"A": "one\n ", "B": "nul\0 ", "C": "one\nX"}))
    assert all("line ending" not in finding.hint for finding in findings)


def test_a_nul_spoils_the_file_wherever_it_lands() -> None:
    hidden = {
        "A": '\\"\r#\0',
        "B": "sound",
    }  # A breaks out of its quotes and its line: the NUL is in a comment
    holds(hidden)
    (finding,) = review(environment(hidden))
    assert finding.message.endswith("and would lose B with it")


def test_an_empty_environment_has_nothing_wrong() -> None:
    assert delivered({}) == {}
    assert review(Environment()) == []
    check_limits(Environment())


@pytest.mark.parametrize(
    "spoil", ["", "\n", "x\ny", "\r", "\r=x", "\\", '\\"', "\\\\", "\0", "\uffff", "x" * 131072]
)
@pytest.mark.parametrize("canary", ["canary-3f9a17c2", "3f9a17c2=x", "::error::3f9a17c2%0A", "'\"3f9a17c2"])
def test_no_value_is_ever_spoken_of(canary: str, spoil: str) -> None:
    given = environment({"A": canary + spoil, "B": canary, "PATH": canary, "1": canary, "N" * 256: canary})
    with pytest.raises(DeliveryError) as refusal:
        check_limits(given)
    said = "".join(traceback.format_exception(refusal.value)) + repr(vars(refusal.value))
    said += repr(review(given)) + repr(fallen(given))
    assert "3f9a17c2" not in said


# Limits


KEY = X25519PrivateKey.generate().public_key().public_bytes_raw()


def sealed(variables: dict[str, str]) -> int:
    return len(seal(variables.items(), KEY))


def at_the_limits() -> dict[str, str]:
    """1,024 variables of 262,144 bytes once sealed; one name has 255, one value 131,072."""
    variables = {f"V{number:04}": "x" * 90 for number in range(1022)}
    variables["N" * 255] = ""
    variables["LARGEST"] = "é" * 65536
    variables["V0000"] += "x" * (262144 - sealed(variables))
    return variables


def test_what_is_just_within_the_limits_passes() -> None:
    variables = at_the_limits()
    assert len(variables) == 1024
    assert sealed(variables) == 262144
    check_limits(environment(variables))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"LARGEST": "é" * 65536 + "x", "V0001": ""}, "LARGEST (env-file .env, line 1024) has 131073 bytes"),
        ({"N" * 256: ""}, "A name from env-file .env, line 1025 has 256 bytes"),
        ({"ONE": ""}, "1025 variables exceed"),
        ({"V0001": "x" * 91}, "The sealed environment has 262145 bytes; the guest's limit is 262144."),
        ({"V0001": "é" + "x" * 89}, "The sealed environment has 262145 bytes; the guest's limit is 262144."),
        ({"V0001": '"' + "x" * 89}, "The sealed environment has 262145 bytes; the guest's limit is 262144."),
        ({"1BAD": ""}, "A name from env-file .env, line 1025 is invalid for the guest"),
        ({"BAD\n": ""}, "A name from env-file .env, line 1025 is invalid for the guest"),
        ({"É": ""}, "A name from env-file .env, line 1025 is invalid for the guest"),
    ],
)
def test_what_is_just_beyond_a_limit_is_refused(change: dict[str, str], message: str) -> None:
    with pytest.raises(DeliveryError) as refusal:
        check_limits(environment(at_the_limits() | change))
    assert any(finding.message.startswith(message) for finding in refusal.value.findings)
    assert refusal.value.exit_code == 4
    assert all(finding.severity == "error" and finding.hint for finding in refusal.value.findings)
    for finding in refusal.value.findings:
        if line := re.search(r", line (\d+)", finding.message):
            assert (finding.file, finding.line) == (".env", int(line[1]))


def test_a_refusal_names_the_first_and_counts_the_rest() -> None:
    with pytest.raises(DeliveryError) as refusal:
        check_limits(environment({"A": "x" * 131073, "B": "y" * 131073, "C": ""}))
    assert str(refusal.value) == (
        "A (env-file .env, line 1) has 131073 bytes; the guest's limit is 131072 (and 2 more)"
    )
    assert (refusal.value.file, refusal.value.line, len(refusal.value.findings)) == (".env", 1, 3)
    assert refusal.value.hint == refusal.value.findings[0].hint
    with pytest.raises(DeliveryError, match=r"(?m)131072$"):
        check_limits(environment({"A": "x" * 131073}))


def test_the_largest_variables_are_named_beyond_262144_bytes() -> None:
    """Three values of 100 KB pass every other limit, and the CVM would not boot again."""
    given = {name: f"canary-{name}" + name * 100_000 for name in "ABC"} | {"1canary": "z" * 131000}
    given |= {"QUOTES": '"' * 60_000, "SMALL": "s"}
    with pytest.raises(DeliveryError) as refusal:
        check_limits(environment(given))
    assert refusal.value.exit_code == 4
    finding = refusal.value.findings[-1]
    listed = "QUOTES (120027 bytes), A (100030 bytes), B (100030 bytes)"
    assert finding.message == (
        f"The sealed environment has {sealed(given)} bytes; the guest's limit is 262144. "
        f"The largest variables: {listed}"
    )
    assert "run time" in finding.hint
    assert "canary" not in finding.message + finding.hint


@given(st.dictionaries(st.text(max_size=5), st.text(st.characters(exclude_categories=["Cs"]), max_size=40)))
def test_the_sealed_size_is_known_before_it_is_sealed(variables: dict[str, str]) -> None:
    assert sealed_size(variables.items()) == sealed(variables)
    entries = sum(entry_size(*item) for item in variables.items())
    assert sealed_size(variables.items()) == sealed({}) + entries + max(0, len(variables) - 1)


def test_the_size_of_half_a_character_is_known_too() -> None:
    assert sealed_size([("A", "\ud800")]) == sealed_size([("A", "123")])
    with pytest.raises(DeliveryError, match="262144"):
        check_limits(environment(dict.fromkeys("ABC", "\ud800" * 40_000)))


def test_an_environment_that_was_sealed_before_has_the_same_limit() -> None:
    check_sealed("ab" * 262144)
    with pytest.raises(DeliveryError, match="has 262145 bytes; the guest's limit is 262144") as refusal:
        check_sealed("ab" * 262145)
    assert refusal.value.hint


def test_linux_passes_on_a_little_less_than_the_guest_takes() -> None:
    def run(variables: dict[str, str]) -> str:
        code = "import os; print(len(os.environ['LARGE']))"
        return subprocess.run(
            [sys.executable, "-Sc", code], env=variables, capture_output=True, text=True
        ).stdout

    longest = {"LARGE": "x" * (131071 - len("LARGE="))}
    assert run(longest) == f"{131071 - len('LARGE=')}\n"
    assert review(environment(longest)) == []

    too_long = {"LARGE": longest["LARGE"] + "x"}
    with pytest.raises(OSError) as refusal:  # noqa: PT011 - the number says which
        run(too_long)
    assert refusal.value.errno == errno.E2BIG
    check_limits(environment(too_long))
    (finding,) = review(environment(too_long))
    assert finding.message == "LARGE (env-file .env, line 1) has 131072 bytes with its name"
    assert "131071" in finding.hint
    assert finding.severity == "error"


# The launcher's names

COMMON = "HOST_SHARED_DIR=/shared SYS_CONFIG_FILE=/shared/config CFG_PCCS_URL=\n"
LAUNCHERS = {
    "0.5.8": COMMON + "RUNNER=docker-compose\nenv -0",
    "0.6.0": COMMON + "ACTION=${1:-start} runner=docker-compose snapshotter=overlayfs\nenv -0",
}
"""What each assigns, and then the environment that it hands on."""
ASSIGNED = {"0.5.8": ["RUNNER"], "0.6.0": ["ACTION", "runner", "snapshotter"]}
ALWAYS = ["HOST_SHARED_DIR", "SYS_CONFIG_FILE", "CFG_PCCS_URL"]
SHELL = [
    *("IFS", "PWD", "OLDPWD", "SHLVL", "_", "UID", "EUID", "PPID", "RANDOM", "SRANDOM", "LINENO", "OPTIND"),
    *("OPTERR", "HISTCMD", "EPOCHSECONDS", "EPOCHREALTIME", "COMP_WORDBREAKS", "PS1", "PS2", "PS4"),
    *("BASH", "BASHOPTS", "BASH_VERSION", "BASHPID", "BASH_ANYTHING"),
]
"""Names that bash(1) has a meaning for."""
OTHERS_OF_BASH = [
    *("COLUMNS", "DIRSTACK", "FUNCNAME", "GROUPS", "HOSTNAME", "HOSTTYPE", "LINES", "MACHTYPE", "MAPFILE"),
    *("OPTARG", "OSTYPE", "PIPESTATUS", "PROMPT_COMMAND", "PS0", "PS3", "REPLY", "SECONDS", "TERM", "TMOUT"),
    *("CDPATH", "COLUMNS", "COPROC", "FIGNORE", "GLOBIGNORE", "HISTFILE", "HISTSIZE", "INPUTRC", "LANG"),
    *("LC_ALL", "MAIL", "MAILPATH", "POSIXLY_CORRECT", "TIMEFORMAT", "TMPDIR", "auto_resume", "histchars"),
]
OWN = ["COMPOSE_FILE", "COMPOSE_PATH_SEPARATOR", "COMPOSE_ENV_FILES", "COMPOSE_PROJECT_NAME"]
ACTING = [
    "PATH",
    "HOME",
    "ENV",
    "BASH_ENV",
    "SHELLOPTS",
    "LD_PRELOAD",
    "LD_LIBRARY_PATH",
    "LD_AUDIT",
    "DOCKER_HOST",
    "DOCKER_CONTEXT",
    "DOCKER_CONFIG",
    "DOCKER_CERT_PATH",
    "DOCKER_TLS_VERIFY",
    "DOCKER_API_VERSION",
]
READ_BY_0_6 = ["APP_COMPOSE_FILE", "NERDCTL_NAMESPACE", "COMPOSE_RUNTIME_FILE"]
KEPT = {"UID", "EUID", "BASH_ANYTHING"} | ({"PS4"} if os.geteuid() else set())
"""Bash hands these on as given. It takes the first two for the user's own id, and calls BASH… its own.

It takes PS4 from anybody but root, who it is in the guest.
"""


def handed_on(launcher: str, name: str) -> bool:
    run = subprocess.run(
        ["bash", "-c", launcher], env={"PATH": "/usr/bin:/bin", name: "mine"}, capture_output=True, check=True
    )
    return f"{name}=mine" in run.stdout.decode().split("\0")


@pytest.mark.parametrize("version", LAUNCHERS)
def test_a_name_that_the_launcher_overwrites_is_refused(version: str) -> None:
    for name in ASSIGNED[version] + ALWAYS + SHELL:
        assert handed_on(LAUNCHERS[version], name) == (name in KEPT), name
        (finding,) = review(environment({name: "mine"}), generation_of(version))
        assert finding.message == f"{name} (env-file .env, line 1) is overwritten by the guest's launcher"
        assert f"`{name}: ${{APP_{name}}}`" in finding.hint
        assert finding.severity == "error"


@pytest.mark.parametrize("version", LAUNCHERS)
def test_the_names_of_another_generation_s_launcher_pass(version: str) -> None:
    others = {name for names in ASSIGNED.values() for name in names} - {*ASSIGNED[version]}
    for name in others:
        assert handed_on(LAUNCHERS[version], name)
        assert review(environment({name: "mine"}), generation_of(version)) == []
        assert review(environment({name: "mine"}), CERTAIN) == []
        assert len(review(environment({name: "mine"}))) == 1, "where the version is not known"


@pytest.mark.parametrize("name", OTHERS_OF_BASH)
def test_bash_hands_on_what_is_not_listed_of_its_names(name: str) -> None:
    assert handed_on("env -0", name)
    assert review(environment({name: "mine"})) == []


@pytest.mark.parametrize("name", ACTING + OWN)
@pytest.mark.parametrize("generation", [STRICTEST, CERTAIN, generation_of("0.5.8"), generation_of("0.6.0")])
def test_a_name_that_acts_on_the_launcher_is_refused(generation: Generation, name: str) -> None:
    (finding,) = review(environment({name: "mine"}), generation)
    assert finding.message == f"{name} (env-file .env, line 1) changes what the guest's launcher does"
    assert (finding.severity, finding.line) == ("error", 1)
    assert ("APP_" in finding.hint) == (name not in OWN), "no renaming helps for what Compose reads itself"
    assert finding.hint.startswith("Leave it out" if name in OWN else "Rename it")


@pytest.mark.parametrize("name", READ_BY_0_6)
def test_a_name_that_the_launcher_of_0_6_reads_is_free_in_0_5(name: str) -> None:
    (finding,) = review(environment({name: "mine"}), generation_of("0.6.1"))
    assert "changes what the guest's launcher does" in finding.message
    assert len(review(environment({name: "mine"}))) == 1
    assert review(environment({name: "mine"}), generation_of("0.5.8")) == []


@pytest.mark.parametrize(
    "name",
    [
        *("DOCKER_PASSWORD", "COMPOSE_PROFILES", "DSTACK_DOCKER_PASSWORD", "Runner", "action", "path"),
        *("MY_PATH", "PATHS", "HOSTNAME", "_X", "A", "NODE_ENV", "REBASH"),
    ],
)
def test_an_app_s_own_names_pass(name: str) -> None:
    assert review(environment({name: "mine"})) == []


# What differs between generations


@pytest.mark.parametrize("value", ["C:\\", '\\"', "\\\\server", "one\rtwo", "token\r"])
def test_the_newest_writer_carries_what_0_5_does_not(value: str) -> None:
    variables = {"A": value, "B": "neighbour"}
    assert judged(variables) != variables
    assert judged_newer(variables) == variables
    assert review(environment(variables), CERTAIN) == []
    for generation in (STRICTEST, generation_of("0.5.8"), generation_of("0.6.0")):
        assert len(review(environment(variables), generation)) == 1


@given(st.dictionaries(st.sampled_from(NAMES), values, max_size=6))
def test_what_is_certain_is_refused_in_every_generation(variables: dict[str, str]) -> None:
    given = environment(variables)
    certain = {one.variable.name for one in fallen(given, CERTAIN)}
    strictest = {one.variable.name for one in fallen(given)}
    for version in LAUNCHERS:
        assert certain <= {one.variable.name for one in fallen(given, generation_of(version))} <= strictest


# The remedies


@pytest.mark.parametrize(
    ("value", "exact"),
    [
        *(("a\nb", True), ("\\\\x", True), ("x\r", True)),
        *(("C:\\", False), ("a\0", False), ("\uffff", False), ("x\rC=forged", False)),
    ],
)
def test_the_exact_file_is_named_where_no_neighbour_suffers(value: str, exact: bool) -> None:
    (finding,) = review(environment({"B": value}))
    assert ("/dstack/.host-shared/.decrypted-env.json" in finding.hint) == exact
    assert ("guest-check: warn" in finding.hint) == exact
    assert "base64" in finding.hint


def test_a_newline_of_dotenv_text_may_have_been_meant_as_two_characters() -> None:
    (finding,) = review(environment({"B": "a\nb"}))
    assert "single quotes" in finding.hint
    assert "\\n as two characters" in finding.hint
    assert "\n" not in finding.hint
    for value, origin in (("a\nb", Origin("secrets B")), ("a\n", Origin("env", None, 1))):
        (finding,) = review(Environment((Variable("B", value, origin),)))
        assert "single quotes" not in finding.hint


def test_every_second_of_a_thousand_variables_is_swallowed_by_the_one_before() -> None:
    variables = {f"V{number:04}": "\\" if number % 2 else "x y" for number in range(1000)}
    casualties = fallen(environment(variables))
    assert sum(len(one.neighbours) for one in casualties) == 499
