"""What is secret, in which spellings it is found, and what is shown in its place."""

from __future__ import annotations

import base64
import io
import json
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from phala_secrets import flow
from phala_secrets.errors import BootError, Finding, untrusted
from phala_secrets.inputs.table import OUTPUTS
from phala_secrets.runners.azure import Azure
from phala_secrets.runners.base import Runner
from phala_secrets.runners.secrecy import NOT_SHOWN, Secrets, credentials_in, is_secret, secret_lines
from tests.runners.test_text import LINE_ENDS, nasty
from tests.support.clock import ManualClock


def runner_of(**options: object) -> tuple[Runner, io.StringIO]:
    log = io.StringIO()
    return Runner({}, output_names=OUTPUTS, stdout=io.StringIO(), stderr=log, **options), log  # type: ignore[arg-type]


# -- the rule --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "line",
    [
        *("true", "FALSE", "null", "none", "info", "debug", "Warning", "error"),
        *("production", "staging", "development", "test", "localhost", "running", "in_progress"),
        *("", "1", "{", "abc", "  }  ", "8080", "99999", "-1.50", "  5432 "),
    ],
)
def test_configuration_is_not_secret(line: str) -> None:
    assert not is_secret(line)


@pytest.mark.parametrize(
    "line", ["hunter2", "abcd", "123456", "1234.56", "prod-1", "{}[]", "true-ish", "1.25.3", "p@$$"]
)
def test_everything_else_of_four_characters_is_secret(line: str) -> None:
    assert is_secret(line)


def test_a_value_is_secret_line_by_line() -> None:
    pem = "-----BEGIN-----\r\nMIIE\n\nab=\n  }  \n  indented\n-----END-----\n"
    assert secret_lines([pem, "1", "true", "", "MIIE"]) == [
        "-----BEGIN-----",
        "MIIE",
        "indented",
        "-----END-----",
    ]


@given(st.lists(nasty, max_size=4))
def test_no_secret_line_holds_a_line_end(values: list[str]) -> None:
    lines = secret_lines(values)
    assert len(lines) == len(set(lines))
    for line in lines:
        assert not {"\n", "\r"} & set(line)
        assert len(line) >= 4


def test_a_name_that_the_run_knows_is_not_secret() -> None:
    secrets = Secrets()
    secrets.learn("APP_NAME", ["my-app"])
    secrets.learn("COMPANY", ["mycompany"])
    assert secrets.owner_in("my-app: running") == "APP_NAME"
    secrets.spare(["my-app", "mycompany-web"])
    assert secrets.owner_in("my-app: running") is None
    assert secrets.owner_in("mycompany-web: running") is None  # part of a name that the run was given
    assert secrets.owner_in("mycompany") == "COMPANY"


def test_a_credential_is_secret_whatever_it_is_equal_to() -> None:
    secrets = Secrets()
    secrets.learn("the API key", ["test"], credential=True)
    secrets.spare(["test", "a test"])
    assert secrets.owner_in("a test") == "the API key"


def test_a_credential_is_found_whole_and_no_value_with_it() -> None:
    secrets = Secrets()
    secrets.learn("the API key", ["phak_0123456789"], credential=True)
    secrets.learn("PASSWORD", ["hunter-22-of-the-app"])
    assert secrets.credential_in('KEY: "phak_0123456789"') == "the API key"
    for nothing in ("KEY: phak_0123", "hunter-22-of-the-app", ""):
        assert secrets.credential_in(nothing) is None


def test_what_is_secret_of_a_value_is_no_name_that_the_run_knows() -> None:
    secrets = Secrets()
    secrets.spare(["my-app"])
    assert secrets.of_value("my-app\nhttps://me:hunter2@git.example") == [
        "https://me:hunter2@git.example",
        "hunter2",
        "bWU6aHVudGVyMg==",
    ]


@pytest.mark.parametrize(
    ("url", "found"),
    [
        ("https://cloud-api.phala.com/api/v1", []),
        ("https://user:hunter2@rpc.example", ["hunter2", "dXNlcjpodW50ZXIy"]),
        ("https://user:p%40ss@rpc.example", ["p%40ss", "p@ss", "dXNlcjpwQHNz"]),
        ("https://only-a-user@rpc.example", ["only-a-user"]),
        ("https://rpc.example/v2/kxyz456789abcdef", ["kxyz456789abcdef"]),
        ("https://rpc.example/base-mainnet/?apikey=k3y-x", ["k3y-x"]),
        ("https://[half", []),
    ],
)
def test_what_of_a_url_is_a_credential(url: str, found: list[str]) -> None:
    assert credentials_in(url) == found


def test_of_a_url_in_a_value_the_login_is_secret_by_itself() -> None:
    secrets = Secrets()
    lines = secrets.learn("A", ["https://me:hunter2@git.example/my-organisation-name", "https://[half:part"])
    assert "hunter2" in lines
    assert "my-organisation-name" not in lines


# -- spellings -------------------------------------------------------------------------------------

VALUE = 'say "hi" to p$w`d`, \\ümlaut\'s 🔑'
SPELLINGS = {
    "as it is": VALUE,
    "JSON": json.dumps(VALUE, ensure_ascii=False),
    "JSON in ASCII": json.dumps(VALUE),
    "JSON in JSON": json.dumps(json.dumps(VALUE)),
    "Python": repr(VALUE),
    "bytes of Python": repr(VALUE.encode()),
    "a shell": VALUE.replace("$", "\\$").replace("`", "\\`"),
    "a URL": quote(VALUE, safe=""),
    "a URL, twice": quote(quote(VALUE, safe=""), safe=""),
    "base64": base64.b64encode(VALUE.encode()).decode(),
    "base64 within more": base64.b64encode(f"A={VALUE}!".encode()).decode(),
    "base64 for URLs": base64.urlsafe_b64encode(f"xy{VALUE}".encode()).decode(),
    "hex": VALUE.encode().hex().upper(),
    "hex with colons": VALUE.encode().hex(":"),
    "numbers": str(list(VALUE.encode())),
    "braces": "".join(f"\\u{{{ord(character):04x}}}" for character in VALUE),
    "numeric entities": "".join(f"&#{ord(character)};" for character in VALUE),
    "hex with 0x": " ".join(f"0x{byte:02x}" for byte in VALUE.encode()),
    "in colours": "".join(f"\x1b[31m{part}\x1b[0m" for part in VALUE.split(" ")),
    "in colours, as JSON": json.dumps("\x1b[1;31m".join(VALUE)),
    "in another case": VALUE.upper(),
    "spread out": " ".join(VALUE),
    "full width": "".join(chr(ord(c) + 0xFEE0) if "!" <= c <= "~" else c for c in VALUE),
}


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_a_secret_is_found_however_it_is_spelled(spelling: str) -> None:
    secrets = Secrets()
    secrets.learn("A", [VALUE])
    assert secrets.owner_in(f"invalid setting {SPELLINGS[spelling]} of web") == "A"


@pytest.mark.parametrize(
    "text", ["hunter2", "(hunter2)", "A=hunter2", "xhunter2x", "aHVudGVyMg==", "68756e74657232"]
)
def test_a_short_secret_is_found(text: str) -> None:
    secrets = Secrets()
    secrets.learn("A", ["hunter2"])
    assert secrets.owner_in(text) == "A"


def test_a_short_word_is_no_secret_within_another() -> None:
    secrets = Secrets()
    secrets.learn("A", ["beef"])
    assert secrets.owner_in("a beefy machine, 0xdeadbeef") is None
    assert secrets.owner_in("roast beef") == "A"


def test_a_value_that_is_a_plain_word_does_not_hide_our_own_sentences() -> None:
    secrets = Secrets()
    secrets.learn("A", ["ours"])
    assert secrets.screened("taken for ours") == "taken for ours"
    assert secrets.screened(untrusted("taken for ours")) == NOT_SHOWN
    assert secrets.owner_in("ours") == "A"


def test_beginnings_and_ends_are_found_in_untrusted_text_alone() -> None:
    secrets = Secrets()
    secrets.learn("A", ["postgres://user:hunter2@db.example/app"])
    for text in ("bad setting user:hunter", "…2@db.example/app"):
        assert secrets.owner_in(text, strict=True) == "A"
        assert secrets.owner_in(text) is None
    assert secrets.owner_in("postgres: not ready", strict=True) is None


@given(st.text(st.characters(exclude_categories=["Cs"]), min_size=4, max_size=40), nasty)
def test_no_secret_is_left_in_what_is_shown(secret: str, around: str) -> None:
    secrets = Secrets()
    lines = secrets.learn("A", [secret])
    shown = secrets.screened(untrusted(f"{around} {secret} {around}"))
    for line in lines:
        assert line not in shown or line in NOT_SHOWN


@given(nasty, nasty)
def test_no_text_breaks_the_search(text: str, secret: str) -> None:
    secrets = Secrets()
    secrets.learn("A", [secret, LINE_ENDS])
    secrets.screened(untrusted(text) + text)


# -- in its place ----------------------------------------------------------------------------------


def test_only_the_untrusted_part_of_a_sentence_is_refused() -> None:
    runner, log = runner_of()
    runner.mask_variables({"A": ["hunter2"]})
    runner.fail(BootError(f"the CVM failed to boot: {untrusted('bad hunter2')}", hint="look there"))
    assert log.getvalue() == f"error: the CVM failed to boot: {NOT_SHOWN}\nhint: look there\n"


def test_an_error_with_a_secret_shows_only_its_kind() -> None:
    runner, log = runner_of()
    runner.mask_variables({"A": ["hunter2"]})
    runner.fail(BootError("bad hunter2"))
    assert log.getvalue() == f"error: BootError {NOT_SHOWN}\n"


def test_the_marks_of_untrusted_text_are_in_no_message() -> None:
    error = BootError(f"a {untrusted('b')} c", hint=untrusted("d"))
    assert (str(error), error.message, error.hint, error.args) == ("a b c", "a b c", "d", ("a b c",))
    assert error.saying(f"x: {error.marked}").message == "x: a b c"
    runner, log = runner_of()
    runner.tell(Finding(f"a {untrusted('b')} c"))
    runner.say(untrusted("\ud800"))
    assert log.getvalue() == "warning: a b c\n\n"


def test_an_output_that_would_hold_a_secret_is_left_empty() -> None:
    runner, log = runner_of()
    runner.mask_variables({"TOKEN": ["hunter2"]})
    runner.output("results", [{"exit-code": 8, "name": "web", "error": "bad hunter2"}])
    runner.output("keys-added", ["hunter2"])
    runner.output("encrypted-env", "hunter2")  # made here
    runner.output("status", "running")
    assert runner.outputs == {
        "results": "",
        "keys-added": "",
        "encrypted-env": "hunter2",
        "status": "running",
    }
    assert (
        "warning: the output results is empty, because it would contain the value of TOKEN" in log.getvalue()
    )


def test_settings_are_not_masked() -> None:
    runner, log = runner_of(no_mask=["REGION*"])
    runner.mask_variables({"REGION_A": ["eu-west-1"], "B": ["eu-north-1"]})
    runner.say("in eu-west-1")
    runner.say("in eu-north-1")
    assert log.getvalue() == f"in eu-west-1\n{NOT_SHOWN}\n"


def test_a_log_has_few_lines_for_changes_that_come_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = ManualClock()
    monkeypatch.setattr(flow, "clock", clock)
    runner, log = runner_of()
    for number in range(100):
        runner.progress(f"state {number}", change=True)
    assert log.getvalue() == "state 0\n"
    for number in range(1000):
        clock.advance(1.0)
        runner.progress(f"later {number}", change=True)
    lines = log.getvalue().splitlines()
    assert len(lines) == 501
    assert lines[-1] == "further changes are not shown"
    runner.progress("ours")
    assert log.getvalue().endswith("ours\n")


def test_what_is_masked_already_is_not_masked_again() -> None:
    log = io.StringIO()
    runner = Azure({}, output_names=OUTPUTS, stdout=io.StringIO(), stderr=log)
    for _ in range(2):
        runner.mask_variables({"A": ["hunter2", "true"]})
    assert log.getvalue() == "##vso[task.setsecret]hunter2\n"
