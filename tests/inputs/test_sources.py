"""Sources, from files and variables as users have them to one ordered environment."""

from __future__ import annotations

import base64
import json
import os
import socket
import traceback
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest
from dotenv import dotenv_values
from hypothesis import given, settings
from hypothesis import strategies as st

from phala_secrets.dstack.environment import Environment, Origin, Variable
from phala_secrets.errors import Finding, InputError
from phala_secrets.inputs.files import Root
from phala_secrets.inputs.sources import MAX_FILE_BYTES, Sources, gather

KEY = b"-----BEGIN KEY-----\nMIIEvQ==\n-----END KEY-----\n"


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    folder = tmp_path / "workspace"
    folder.mkdir()
    return folder


class Step:
    """A step of a workflow: a workspace, and the variables that it was given."""

    def __init__(self, workspace: Path) -> None:
        self.workspace = workspace
        self.environ: dict[str, str] = {}
        self.stdin: Callable[[], bytes] | None = None

    def has(self, name: str, content: str | bytes) -> str:
        path = self.workspace / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return name

    def gather(self, **sources: object) -> tuple[Environment, list[Finding]]:
        return gather(
            Sources(**sources),  # type: ignore[arg-type]
            environ=self.environ,
            root=Root(self.workspace, github=True),
            folder=self.workspace,
            stdin=self.stdin,
        )

    def reads(self, **sources: object) -> dict[str, str]:
        environment, findings = self.gather(**sources)
        assert findings == []
        return environment.as_dict()

    def is_refused(self, **sources: object) -> InputError:
        with pytest.raises(InputError) as refusal:
            self.gather(**sources)
        assert refusal.value.exit_code == 2
        assert refusal.value.hint
        assert "\n" not in str(refusal.value) + refusal.value.hint
        return refusal.value


@pytest.fixture
def step(workspace: Path) -> Step:
    return Step(workspace)


# What is read


def test_a_later_source_wins_and_a_name_keeps_its_first_place(step: Step) -> None:
    names = ["A", "B", "C", "D", "E", "F"]
    step.has("one.env", "".join(f"{name}=one.env\n" for name in names))
    step.has("two.env", "".join(f"{name}=two.env\n" for name in names[1:]))
    step.has("file", "files")
    step.environ = {"F": "secrets"}
    environment, findings = step.gather(
        env_files=("one.env", "two.env"),
        env="C=env\nD=env\nE=env\nF=env\nG=env",
        files=("D=file", "E=file", "F=file"),
        secrets_json='{"E": "secrets-json", "F": "secrets-json", "Z": "not taken"}',
        secrets_include=("E", "F"),
        secrets=("F",),
    )
    assert findings == []
    assert list(environment.as_dict().items()) == [
        ("A", "one.env"),
        ("B", "two.env"),
        ("C", "env"),
        ("D", "files"),
        ("E", "secrets-json"),
        ("F", "secrets"),
        ("G", "env"),
    ]
    assert [str(variable.origin) for variable in environment] == [
        "env-file one.env, line 1",
        "env-file two.env, line 1",
        "env, line 1",
        "files D=file",
        "secrets-json E",
        "secrets F",
        "env, line 5",
    ]


def test_nothing_is_ever_expanded(step: Step) -> None:
    step.environ = {"X": "expanded", "HOME": "/home"}
    step.has(".env", "A=p4$$w0rd${X}\nB=\"$HOME\"\nC='`id`'\nD=~\nE=%X%")
    expected = {"A": "p4$$w0rd${X}", "B": "$HOME", "C": "`id`", "D": "~", "E": "%X%"}
    assert step.reads(env_files=(".env",)) == expected


def test_a_file_is_read_as_python_dotenv_reads_it(step: Step) -> None:
    text = (
        "\ufeff# deploy\r\nexport A=1\r\nB=\"two\r\nlines\"\rC='# no comment' # comment\n\nD=\nE = spaced \n"
    )
    name = step.has(".env", text)
    read = step.reads(env_files=(name,))
    assert read == dotenv_values(step.workspace / name, interpolate=False, encoding="utf-8")
    assert read == {"A": "1", "B": "two\nlines", "C": "# no comment", "D": "", "E": "spaced"}
    assert step.reads(env=text) == read


@settings(max_examples=150, deadline=None)
@given(st.dictionaries(st.from_regex(r"[A-Za-z_][A-Za-z0-9_]{0,9}", fullmatch=True), st.text(), max_size=5))
def test_a_quoted_value_comes_back_as_it_was(variables: dict[str, str]) -> None:
    def quoted(value: str) -> str:
        return value.replace("\\", "\\\\").replace("'", "\\'")

    wanted = {name: value.replace("\0", "").replace("\r", "\n") for name, value in variables.items()}
    text = "".join(f"{name}='{quoted(value)}'\n" for name, value in wanted.items()) + "LAST=1"
    environment, _ = gather(Sources(env=text), environ={})
    assert environment.as_dict() == wanted | {"LAST": "1"}


def test_a_file_s_content_is_taken_exactly(step: Step) -> None:
    step.has("certs/key.pem", KEY)
    assert step.reads(files=("TLS_KEY=certs/key.pem",)) == {"TLS_KEY": KEY.decode()}
    step.has("a=b", "x\r\n\ufeff")
    assert step.reads(files=("ODD=a=b",)) == {"ODD": "x\r\n\ufeff"}


def test_a_binary_file_is_fine_in_base64(step: Step) -> None:
    step.has("key.bin", bytes(range(256)))
    assert step.reads(files=("KEY=key.bin",), base64=("KEY",)) == {
        "KEY": base64.b64encode(bytes(range(256))).decode()
    }


def test_base64_takes_the_value_of_the_winner(step: Step) -> None:
    step.environ = {"TLS_KEY": "é\n"}
    environment, _ = step.gather(
        env="TLS_KEY=weaker\nTLS_CERT=x\nTLSX=y", secrets=("TLS_KEY",), base64=("TLS_*",)
    )
    assert environment.as_dict() == {"TLS_KEY": "w6kK", "TLS_CERT": "eA==", "TLSX": "y"}
    assert environment["TLS_KEY"].origin == Origin("secrets TLS_KEY")
    assert set(environment.secrets()) == {"w6kK", "é\n", "eA==", "x", "y"}


def test_secrets_are_taken_from_the_step_s_environment_and_renamed(step: Step) -> None:
    step.environ = {"DB_URL": "postgres://", "PROD_KEY": "k", "OTHER": "x"}
    assert step.reads(secrets=("DB_URL", "API_KEY=PROD_KEY")) == {"DB_URL": "postgres://", "API_KEY": "k"}


def test_an_empty_secret_passes_where_that_is_allowed(step: Step) -> None:
    step.environ = {"EMPTY": ""}
    assert step.reads(secrets=("EMPTY", "X=UNSET"), allow_empty=True) == {"EMPTY": "", "X": ""}


def test_of_all_secrets_only_those_included_are_taken(step: Step) -> None:
    everything = json.dumps({"github_token": "t", "DB_URL": "d", "DB_KEY": "k", "no-name": "n", "NUMBER": 1})
    assert step.reads(secrets_json=everything, secrets_include=("DB_*",)) == {"DB_URL": "d", "DB_KEY": "k"}


def test_the_job_s_own_token_is_taken_by_its_name_and_with_a_warning_by_a_glob(step: Step) -> None:
    everything = json.dumps({"github_token": "t", "A": "a"})
    named = step.reads(secrets_json=everything, secrets_include=("github_token", "*"))
    assert named == {"github_token": "t", "A": "a"}
    _, (finding,) = step.gather(secrets_json=everything, secrets_include=("*",))
    assert "github_token" in finding.message
    assert "glob" in finding.hint
    assert finding.severity == "warning"


def test_standard_input_is_read_where_there_is_one(step: Step) -> None:
    step.stdin = lambda: b"A=1\r\nB=2"
    environment, _ = step.gather(env_files=("-",))
    assert environment.as_dict() == {"A": "1", "B": "2"}
    assert environment["B"].origin == Origin("env-file - (standard input)", None, 2)


def test_without_a_workspace_a_file_may_lie_anywhere(step: Step, tmp_path: Path) -> None:
    (tmp_path / "outside.env").write_text("A=1")
    for path in ("../outside.env", str(tmp_path / "outside.env")):
        environment, _ = gather(Sources(env_files=(path,)), environ={}, folder=step.workspace)
        assert environment["A"].origin == Origin(f"env-file {path}", path, 1)


def test_a_link_inside_the_workspace_is_followed(step: Step) -> None:
    step.has("real.env", "A=1")
    (step.workspace / "link.env").symlink_to("real.env")
    assert step.reads(env_files=("link.env",)) == {"A": "1"}


def test_what_is_no_source_alone_is_not_given() -> None:
    assert not Sources(base64=("A",), secrets_include=("A",), allow_empty=True).given
    for one in ("env_files", "files", "secrets"):
        assert Sources(**{one: ("x",)}).given  # type: ignore[arg-type]
    assert Sources(env="x").given
    assert Sources(secrets_json="{}").given


# What is told


def test_a_name_repeated_within_one_file_is_told_with_both_lines(step: Step) -> None:
    step.has(".env", "A=1\nB=x\n\nA=2\nA=3\n")
    environment, (finding,) = step.gather(env_files=(".env",), env="A=4")
    assert environment.as_dict() == {"A": "4", "B": "x"}
    assert finding == Finding(
        "env-file .env sets A more than once (line 1 and line 5); the last one counts",
        "remove all but one",
        file=".env",
        line=5,
        severity="warning",
    )


def test_a_name_repeated_within_another_source_is_told_too(step: Step) -> None:
    step.has("one", "1")
    step.environ = {"X": "x", "Y": "y"}
    environment, findings = step.gather(
        files=("A=one", "A=one"),
        secrets_json='{"B": "1", "B": "2"}',
        secrets_include=("*",),
        secrets=("C=X", "C=Y"),
    )
    assert environment.as_dict() == {"A": "1", "B": "2", "C": "y"}
    assert [finding.message for finding in findings] == [
        "files A=one sets A more than once; the last one counts",
        "secrets-json B sets B more than once; the last one counts",
        "secrets C sets C more than once; the last one counts",
    ]


def test_a_base64_glob_that_matches_nothing_is_told(step: Step) -> None:
    _, (finding, other) = step.gather(env="A=1", base64=("TLS_*", "A", "two words"))
    assert finding.message == "`base64`: TLS_* matches no variable"
    assert finding.hint == "check its spelling"
    assert "commas" in other.hint
    assert other.message == "`base64`: (not shown) matches no variable"


def test_sources_without_a_variable_are_refused_unless_all_may_be_removed(step: Step) -> None:
    step.has(".env", "# nothing yet\n")
    error = step.is_refused(env_files=(".env",), env="#")
    assert str(error) == "no variables: env-file, env is empty"
    assert "allow-removal: all" in error.hint
    assert step.reads(env_files=(".env",), allow_none=True) == {}


# What is refused


def test_no_source_at_all(step: Step) -> None:
    assert "no source" in str(step.is_refused(base64=("A",)))


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        ("A=1\nsecret-without-a-name\n", 2, "is not NAME=value"),
        ("A=1\n\nB='open\nC=3\nD=4\n", 3, "opens a quote that is never closed"),
        ("A='1' 2\n", 1, "has text after a closing quote"),
        (f"A=1\nB=x{' ' * 257}y\n", 2, "has more than 256 spaces in a row outside quotes"),
        ("A=1\n1BAD=2\n", 2, "invalid name"),
        ("A=1\nBAD-NAME=2\n", 2, "invalid name"),
        ("A=1\nMII/Evg+IB=\n", 2, "invalid name"),
        ("A=1\nÉ=2\n", 2, "invalid name"),
        ("A=1\nB=-----BEGIN EC PRIVATE KEY-----\n", 2, "begins a PEM block without quotes"),
        (b"A=1\r\n\rB=\xff\n", 3, "is not UTF-8"),
        (b"\n\xff", 2, "is not UTF-8"),
        ("A=1\nB=2".encode("utf-16"), 1, "is not UTF-8"),
        ("A=1\nB=2".encode("utf-16-le"), 1, "contains a NUL"),
        ("A=1\nB=x\0y", 2, "contains a NUL"),
    ],
)
def test_a_file_that_cannot_be_read_whole_is_refused_with_the_line(
    step: Step, text: str | bytes, line: int, message: str
) -> None:
    name = step.has(".env", text)
    error = step.is_refused(env_files=(name,))
    assert str(error).startswith(f"env-file .env, line {line}")
    assert str(error).endswith(message)
    assert (error.file, error.line) == (".env", line)


def test_dotenv_text_is_refused_with_its_line_too(step: Step) -> None:
    error = step.is_refused(env="A=1\nB")
    assert str(error) == "env, line 2 is not NAME=value"
    assert (error.file, error.line) == (None, 2)
    assert str(step.is_refused(env="A=1\nB=\udcff")) == "env, line 2 is not UTF-8"


@pytest.fixture
def oddities(step: Step, tmp_path: Path) -> Iterator[Step]:
    """A workspace with everything in it that is not a file to be read."""
    (tmp_path / "outside.env").write_text("A=1")
    (step.workspace / "folder").mkdir()
    (step.workspace / "escape.env").symlink_to(tmp_path / "outside.env")
    (step.workspace / "loop.env").symlink_to("loop.env")
    (step.workspace / "zero.env").symlink_to("/dev/zero")
    os.mkfifo(step.workspace / "pipe.env")
    step.has("plain", "A=1")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(step.workspace / "socket.env"))
        yield step


@pytest.mark.parametrize(
    ("path", "problem"),
    [
        ("missing.env", "does not exist"),
        ("plain/.env", "does not exist"),
        ("folder", "is a directory"),
        ("pipe.env", "is not a regular file"),
        ("socket.env", "cannot be read (No such device or address)"),
        ("loop.env", "cannot be read"),
        ("../outside.env", "is outside the workspace"),
        ("../missing.env", "is outside the workspace"),
        ("/etc/passwd", "is outside the workspace"),
        ("escape.env", "is outside the workspace"),
        ("zero.env", "is outside the workspace"),
        ("x" * 254, "does not exist"),
    ],
)
def test_a_path_that_leads_to_no_file_is_refused_at_once(oddities: Step, path: str, problem: str) -> None:
    error = oddities.is_refused(env_files=(path,))
    assert str(error).startswith(f"env-file {path} {problem}")
    assert error.file == path
    of_files = oddities.is_refused(files=(f"TLS_KEY={path}",))
    assert str(of_files).startswith(f"`files`, entry 1: the file {problem}")


def test_a_file_that_fails_while_it_is_read_is_refused() -> None:
    with pytest.raises(InputError) as refusal:
        gather(Sources(env_files=("/proc/self/mem",)), environ={})
    assert str(refusal.value) == "env-file /proc/self/mem cannot be read (Input/output error)"


def test_a_device_is_refused_without_a_workspace_too(oddities: Step) -> None:
    with pytest.raises(InputError, match="is not a regular file"):
        gather(Sources(env_files=("zero.env",)), environ={}, folder=oddities.workspace)


@pytest.mark.parametrize(
    "path", ["DB_URL=postgres://user:hunter2@db", '{"A": "hunter2"}', "a\0b", "hunter2\n", ""]
)
def test_what_is_no_path_is_not_repeated(step: Step, path: str) -> None:
    error = step.is_refused(env_files=(path,))
    assert str(error).startswith("env-file (a path not shown) ")
    assert error.file is None


def test_a_file_beyond_all_limits_is_not_read_whole(step: Step) -> None:
    name = step.has(".env", "#" * MAX_FILE_BYTES)
    assert step.reads(env_files=(name,), allow_none=True) == {}
    name = step.has(".env", "#" * (MAX_FILE_BYTES + 1))
    assert str(step.is_refused(env_files=(name,))) == "env-file .env is larger than 1048576 bytes"
    step.stdin = lambda: b"#" * (MAX_FILE_BYTES + 1)
    assert "larger" in str(step.is_refused(env_files=("-",)))


def test_standard_input_is_the_command_s_alone(step: Step) -> None:
    assert "standard input" in str(step.is_refused(env_files=("-",)))


@pytest.mark.parametrize("entry", ["TLS_KEY", "TLS_KEY=", "=", ""])
def test_an_entry_of_files_without_a_path_is_refused(step: Step, entry: str) -> None:
    step.has("a", "")
    assert str(step.is_refused(files=("A=a", entry))) == "`files`, entry 2 is not NAME=path"


def test_content_that_no_variable_holds_is_refused_unless_it_goes_as_base64(step: Step) -> None:
    step.has("latin", b"\xe9")
    step.has("nul", b"a\0b")
    error = step.is_refused(files=("A=latin",))
    assert str(error) == "A (files A=latin) is not UTF-8 text"
    assert "base64" in error.hint
    assert error.file == "latin"
    error = step.is_refused(files=("A=nul",))
    assert str(error) == "A (files A=nul) contains a NUL, which no environment can carry"
    assert step.reads(files=("A=latin", "B=nul"), base64=("*",)) == {"A": "6Q==", "B": "YQBi"}


@pytest.mark.parametrize("entry", ["bad-name", "1X=A", "", "=A", "A B", "A,B"])
def test_a_bad_name_is_refused_from_every_source(step: Step, entry: str) -> None:
    step.environ = {entry: "x", "A": "x"}
    step.has("a", "")
    assert str(step.is_refused(secrets=("A", entry))).startswith("`secrets`, entry 2: invalid name")
    name = entry.partition("=")[0]
    assert str(step.is_refused(files=("A=a", f"{name}=a"))).startswith("`files`, entry 2: invalid name")
    text = json.dumps({name: "x"})
    assert (
        str(step.is_refused(secrets_json=text, secrets_include=("*",)))
        == "secrets-json entry 1: invalid name"
    )


def test_unset_and_empty_secrets_are_told_all_at_once(step: Step) -> None:
    """One that is set but empty is known to be a name. One that is unset may be a piece of a value."""
    step.environ = {"EMPTY": "", "SET": "x"}
    error = step.is_refused(secrets=("UNSET", "SET", "EMPTY", "API_KEY=hunter2", "X=EMPTY"))
    assert str(error) == ("`secrets`: unset or empty in this step's environment: entry 1, EMPTY, entry 4, X")


@pytest.mark.parametrize("value", ["postgres://u:hunter2@db/app", "", "hunter2!", "two words"])
def test_a_value_behind_the_equals_sign_of_secrets_is_explained(step: Step, value: str) -> None:
    """``NAME=value`` is how other actions take secrets."""
    error = step.is_refused(secrets=(f"DB={value}",))
    assert "entry 1 has a value after the equals sign" in str(error)
    assert "env" in error.hint
    assert "hunter2" not in str(error) + error.hint


def test_a_variable_that_is_not_text_is_refused(step: Step) -> None:
    step.environ = {"A": "\udcff"}
    assert str(step.is_refused(secrets=("A",))) == "secrets A is not UTF-8 text"
    error = step.is_refused(secrets_json='{"A": "\\ud800"}', secrets_include=("A",), base64=("A",))
    assert str(error) == "secrets-json A is not UTF-8 text"


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("hunter2", "is not JSON (line 1, column 1)"),
        ('{\n  "A": "x",\n  hunter2\n}', "is not JSON (line 3, column 3)"),
        ('{"A": "\\hunter2"}', "is not JSON (line 1, column 8)"),
        ('["hunter2"]', "is not a JSON object"),
        ('"hunter2"', "is not a JSON object"),
        ("[" * 100_000, "is not readable JSON"),
        ('{"A": ' + "1" * 5000 + "}", "is not readable JSON"),
    ],
)
def test_what_is_no_json_object_is_refused_with_its_place(step: Step, text: str, problem: str) -> None:
    error = step.is_refused(secrets_json=text, secrets_include=("*",))
    assert str(error) == f"`secrets-json` {problem}"


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        ("12345", "a number"),
        ("1.5", "a number"),
        ("NaN", "a number"),
        ("null", "null"),
        ("true", "true or false"),
        ('["x"]', "a list"),
        ('{"x": "y"}', "an object"),
    ],
)
def test_a_value_that_is_no_string_is_refused_by_name(step: Step, value: str, kind: str) -> None:
    error = step.is_refused(secrets_json=f'{{"PORT": {value}}}', secrets_include=("PORT",))
    assert str(error) == f"secrets-json PORT is {kind}, not a string"


def test_secrets_json_and_secrets_include_need_each_other(step: Step) -> None:
    assert "only one" in str(step.is_refused(secrets_json='{"A": "x"}'))
    assert "only one" in str(step.is_refused(secrets_include=("A",), env="A=1"))


def test_an_include_that_matches_nothing_is_refused(step: Step) -> None:
    error = step.is_refused(secrets_json='{"DB_URL": "x"}', secrets_include=("DB_*", "db_*", "Y"))
    assert str(error) == "`secrets-include`: db_* matches no name in `secrets-json`"


# What is never shown

CANARIES = [
    "canary-3f9a17c2",
    "canary=3f9a17c2",
    "-----BEGIN CANARY-----\nc4n4ryMIIEvQIBADANBgkq\n-----END CANARY-----",
    "::error::canary 3f9a17c2%0A",
    '{"canary": "3f9a17c2"}',
    "canary\0\udcff3f9a17c2",
    "'canary 3f9a17c2",
    "cänäry🔑3f9a17c2",
]


def spoken(error: BaseException) -> str:
    return "".join(traceback.format_exception(error)) + repr(error) + repr(vars(error))


def attempts(canary: str, folder: Path) -> Iterator[tuple[Sources, Mapping[str, str]]]:
    """The canary in every place where a value may end up by right or by mistake."""
    raw = canary.encode("utf-8", "surrogateescape")
    (folder / "raw").write_bytes(raw)
    (folder / "value.env").write_bytes(b"A='" + raw + b"\nB=1")
    (folder / "bare.env").write_bytes(b"A=1\n" + raw + b"\n")
    (folder / "named.env").write_bytes(b"A=1\n" + raw + b"-=1\n")
    (folder / "nul.env").write_bytes(b"A=\0" + raw)
    (folder / "latin.env").write_bytes(b"A=\xff" + raw)
    (folder / "after.env").write_bytes(b"A='' " + raw)
    (folder / "repeated.env").write_bytes(b"A=" + raw + b"\nA=" + raw)
    for name in ("value", "bare", "named", "nul", "latin", "after", "repeated"):
        yield Sources(env_files=(f"{name}.env",)), {}
        text = (folder / f"{name}.env").read_bytes().decode("utf-8", "surrogateescape")
        yield Sources(env=text), {}
    yield Sources(files=("A=raw",)), {}
    yield Sources(files=("A=raw",), base64=("A",)), {}
    yield Sources(files=(f"A={canary}",)), {}
    yield Sources(secrets=("A", "B")), {"A": canary}
    yield Sources(secrets=(f"A={canary}",)), {}
    yield Sources(secrets_json=json.dumps({"A": canary}), secrets_include=("A",)), {}
    yield Sources(secrets_json=json.dumps({"A": [canary]}), secrets_include=("A",)), {}
    yield Sources(secrets_json=json.dumps({"A": {"A": canary}}), secrets_include=("A",)), {}
    yield Sources(secrets_json=json.dumps({"A": canary})[:-1], secrets_include=("A",)), {}
    yield Sources(secrets_json=f'{{"A": "\\{canary}"}}', secrets_include=("A",)), {}
    yield Sources(secrets_json=canary, secrets_include=("A",)), {}
    yield Sources(secrets_json=json.dumps({"A": canary})), {}
    if not canary.startswith("canary-"):  # which might as well be a name, a glob or a path
        yield Sources(env_files=(canary,)), {}
        yield Sources(files=(canary,)), {}
        yield Sources(secrets=(canary,)), {}
        yield Sources(env="A=1", base64=(canary,)), {}
        yield Sources(secrets_json='{"A": "x"}', secrets_include=(canary,)), {}
        yield Sources(secrets_json=json.dumps({canary: "x"}), secrets_include=("*",)), {}


@pytest.mark.parametrize("canary", CANARIES, ids=range(len(CANARIES)))
def test_no_message_about_sources_has_a_value(canary: str, workspace: Path) -> None:
    said = []
    for sources, environ in attempts(canary, workspace):
        try:
            environment, findings = gather(
                sources, environ=environ, root=Root(workspace, github=True), folder=workspace
            )
            said.append(repr(environment) + repr(environment.variables) + repr(findings))
        except InputError as error:
            said.append(spoken(error))
        said.append(repr(Sources(env=sources.env, secrets_json=sources.secrets_json)))
    text = "".join(said)
    for trace in ("3f9a17c2", "c4n4ry"):
        assert trace not in text


def test_an_environment_shows_names_alone_and_cannot_be_changed() -> None:
    variable = Variable("A", "canary", Origin("env"))
    environment = Environment((variable,))
    assert repr(environment) == "Environment(A)"
    assert "canary" not in repr(variable)
    assert (len(environment), environment["A"], "A" in environment, "B" in environment) == (
        1,
        variable,
        True,
        False,
    )
    assert environment == Environment((variable,)) != Environment()
    assert environment.names == ["A"]
    with pytest.raises(AttributeError):
        environment.variables = ()  # type: ignore[misc]
    with pytest.raises(ValueError, match="twice"):
        Environment((variable, variable))


# Anything at all

anything = st.text(st.one_of(st.sampled_from("A=-*'\"\\#{}[]:,\n\r\0 "), st.characters()), max_size=20)


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_whatever_is_given_ends_in_an_environment_or_a_refusal(data: st.DataObject) -> None:
    several = st.lists(anything, max_size=3).map(tuple)
    sources = Sources(
        env_files=data.draw(several),
        env=data.draw(anything),
        files=data.draw(several),
        secrets_json=data.draw(st.one_of(anything, st.dictionaries(anything, anything).map(json.dumps))),
        secrets_include=data.draw(several),
        secrets=data.draw(several),
        base64=data.draw(several),
        allow_empty=data.draw(st.booleans()),
    )
    stdin = data.draw(st.binary())
    try:
        environment, _ = gather(sources, environ={"A": "a"}, stdin=lambda: stdin)
    except InputError:
        return
    assert all(name.isidentifier() and name.isascii() for name in environment.names)
    assert all("\0" not in value for value in environment.as_dict().values())
    "".join(environment.as_dict().values()).encode()
