"""Values that are not what their owner meant: still encrypted, cut in two, or to be expanded elsewhere."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from phala_secrets.cloud.secret import Secret
from phala_secrets.errors import Finding, InputError
from phala_secrets.inputs.sources import Sources, gather

LINE = "q7Zr0mXH2yTtWc9LkVdBf3uGsaPoE6NnIj8Y1KhRv5CwAxUqDMOzSgleb4iJFp" + "Qt"
"""64 characters of base64, as one line of a wrapped value."""


def findings_of(env: str, **sources: object) -> list[Finding]:
    return gather(Sources(env=env, **sources), environ={})[1]  # type: ignore[arg-type]


def refused(env: str = "", **sources: object) -> InputError:
    with pytest.raises(InputError) as error:
        gather(Sources(env=env, **sources), environ={"X": "$(X)"})  # type: ignore[arg-type]
    return error.value


# -- encrypted -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "place", "tool"),
    [
        ("A=ENC[AES256_GCM,data:a9Zk,iv:x,tag:y,type:str]\nsops_version=3.9.0", "env", "SOPS"),
        ("A=1\nB='ENC[AES256_GCM,data:a9Zk,iv:x,tag:y,type:str]'", "env", "SOPS"),
        (f"A=1\nB=encrypted:{LINE}", "B (env, line 2)", "dotenvx"),
        (f'DOTENV_PUBLIC_KEY="03"\nB="encrypted:{LINE}=="', "B (env, line 2)", "dotenvx"),
        ("$ANSIBLE_VAULT;1.1;AES256\n6231", "env", "ansible-vault"),
    ],
)
def test_dotenv_text_that_nobody_decrypted_is_refused(text: str, place: str, tool: str) -> None:
    error = refused(text)
    assert error.message == f"{place} is still encrypted with {tool}"
    assert error.hint.startswith("run `")


@pytest.mark.parametrize(
    ("content", "tool"),
    [(b"\0GITCRYPT\0\x01\x02\xff", "git-crypt"), (b"$ANSIBLE_VAULT;1.1;AES256\n62", "ansible-vault")],
)
def test_a_file_that_nobody_decrypted_is_refused(
    content: bytes, tool: str, tmp_path: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(str(tmp_path))
    with open("secret", "wb") as file:  # noqa: PTH123
        file.write(content)
    with pytest.raises(InputError, match=f"^env-file secret is still encrypted with {tool}"):
        gather(Sources(env_files=("secret",)), environ={})
    with pytest.raises(InputError, match=rf"^A \(files A=secret\) is still encrypted with {tool}"):
        gather(Sources(files=("A=secret",)), environ={})
    if tool == "git-crypt":
        with pytest.raises(InputError, match=r"^A \(files A=secret\) is still encrypted with git-crypt"):
            gather(Sources(files=("A=secret",), base64=("A",)), environ={})


@pytest.mark.parametrize("value", ["encrypted:no", "ENC[x]", "an encrypted: word", "GITCRYPT"])
def test_a_value_that_only_looks_like_it_is_sent(value: str) -> None:
    assert findings_of(f"A='{value}'") == []


def test_a_reference_to_1password_is_a_warning() -> None:
    (finding,) = findings_of("A=1\nB=op://vault/item/field")
    assert finding.message == "B (env, line 2) is a 1Password reference, and is sent as is"
    assert (finding.severity, finding.line) == ("warning", 2)


# -- to be expanded --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "line",
    ["B=${A}/x", "B=${OTHER}${A}", 'B="${A}"', "B=${A:-x}", 'B="costs \\$5"', "B=`id`", "B=``"],
)
def test_what_another_reader_would_change_is_remarked_on(line: str) -> None:
    (finding,) = findings_of(f"A=1\n{line}\n")
    assert finding.message.startswith("env, line 2 is sent as written: ")
    assert (finding.severity, finding.line) == ("notice", 2)
    assert finding.hint == "write the expanded value if the app needs it"


@pytest.mark.parametrize(
    "line", ["B='${A}'", "B=`", "B=${OTHER}", "B='`id`'", "B=a`b", "B='\\$5'", "B=p4$$w0rd"]
)
def test_what_every_reader_takes_as_written_is_not_remarked_on(line: str) -> None:
    assert findings_of(f"A=1\n{line}\n") == []


def test_there_is_one_remark_however_many_lines_there_are() -> None:
    (finding,) = findings_of("B=${A}\nA=1\nC=`x`\nD=${A}")
    assert finding.message.startswith("env, line 1 is sent as written (the first of 3 such lines)")
    (finding,) = findings_of("B=${A}\nA=1\nC=`x`")
    assert "(the first of 2 such lines)" in finding.message


def test_the_remark_points_into_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path(".env").write_text("A=1\nB=${A}\n")
    _, (finding,) = gather(Sources(env_files=(".env",)), environ={})
    assert (finding.file, finding.line) == (".env", 2)


def test_a_file_that_the_checkout_names_is_called_by_its_key_in_phala_toml() -> None:
    with pytest.raises(InputError, match=r"^env_file /nowhere/\.env "):
        gather(Sources(env_files=("/nowhere/.env",), by_checkout=True), environ={})


def test_a_variable_that_azure_does_not_know_is_unset() -> None:
    """``$(NAME)`` stays as this literal text."""
    error = refused(secrets=("A=X",), azure=True)
    assert str(error) == "`secrets`: unset or empty in this step's environment: A"
    assert "line 2 is an undefined pipeline variable" in str(refused("B=1\nA=$(X)", azure=True))
    assert gather(Sources(secrets=("X",)), environ={"X": "$(X)"})[0].as_dict() == {"X": "$(X)"}
    empty = Sources(secrets=("X",), env="A=$(X)", azure=True, allow_empty=True)
    assert gather(empty, environ={"X": "$(X)"})[0].as_dict() == {"A": "$(X)", "X": ""}


# -- cut in two ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("tail", "line"),
    [("y2iKJa2OhhnTtsy0wURqIg==", 2), ("SGk=", 2), ("abcd", 2), (f"{LINE}\nSGk=", 2), ("a+/=", 2)],
)
def test_a_line_that_continues_base64_is_told_by_its_number(tail: str, line: int) -> None:
    error = refused(f"A={LINE}\n{tail}\n")
    assert str(error) == f"env, line {line} continues the base64 value of line 1"
    assert "base64 -w0" in error.hint
    assert error.line == line


@pytest.mark.parametrize(
    "text",
    [
        f"A='{LINE}'\nSGk=\n",  # the quotes say where it ends
        f"A={LINE}\nNAME=\n",  # no base64 has five characters
        f"A={LINE}\nSGk=x\n",
        f"A={LINE}\n\nSGk=\n",
        f"A={LINE[:56]}\nSGk=\n",
        f"A={'0123456789abcdef' * 4}\nSGk=\n",  # hex is never wrapped there
        f"A={LINE[:62]}==\nSGk=\n",
    ],
)
def test_a_variable_below_a_long_value_is_one(text: str) -> None:
    assert len(gather(Sources(env=text), environ={})[0]) == 2


def test_a_key_without_quotes_is_told_where_it_begins() -> None:
    """The only line of an Ed25519 key in PEM would be a name."""
    error = refused(
        "A=1\nKEY=-----BEGIN PUBLIC KEY-----\nMCowBQYDK2VwAyEAGb9ECWmEzf6FQbrBZ9w7lshQhqowtrbLDFw4rXAxZuE=\n"
    )
    assert str(error) == "env, line 2 begins a PEM block without quotes"
    assert len(gather(Sources(env="KEY='-----BEGIN KEY-----\nMC4=\n-----END KEY-----'"), environ={})[0]) == 1


# -- too much --------------------------------------------------------------------------------------


def test_dotenv_text_has_a_bounded_number_of_assignments() -> None:
    assert len(gather(Sources(env="A=1\n" * 4096), environ={})[0]) == 1
    error = refused("A=1\n" * 4097)
    assert str(error) == "env, line 4097 exceeds 4096 assignments"


def test_comments_are_not_counted() -> None:
    assert len(gather(Sources(env="# a\n" * 100_000 + "A=1"), environ={})[0]) == 1


# -- this run's own ---------------------------------------------------------------------------------


def test_a_glob_that_takes_the_runs_own_api_key_is_a_warning() -> None:
    text = json.dumps({"PHALA_KEY": "phak_own", "A": "1"})
    own = Secret("phak_own")
    _, (finding,) = gather(Sources(secrets_json=text, secrets_include=("*",), own_key=own), environ={})
    assert finding.message == "`secrets-include` also matches PHALA_KEY, this run's own API key"
    assert "phak_own" not in finding.message + finding.hint
    _, none = gather(Sources(secrets_json=text, secrets_include=("PHALA_KEY", "A"), own_key=own), environ={})
    assert none == []


def test_a_fallback_that_belongs_to_the_app_is_said_once() -> None:
    sources = Sources(secrets=("PRIVATE_KEY",), withheld=("private-key",))
    _, (finding,) = gather(sources, environ={"PRIVATE_KEY": "x"})
    assert finding.message == "`secrets` takes PRIVATE_KEY, so the run does not use it as private-key"
    assert finding.severity == "notice"
    assert finding.hint == "set private-key if the run needs it"


def test_names_with_blanks_between_are_explained() -> None:
    error = refused(secrets=("A B C",))
    assert "commas or line breaks" in error.hint
    assert "A B" not in str(error)
