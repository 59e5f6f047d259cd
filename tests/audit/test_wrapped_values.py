"""Finding 2: text where values are is never shown as a name, since it may be a piece of a value."""

from __future__ import annotations

import json
from typing import Any

import pytest

from .support import Cloud, Command, Cvm, Step, everything_of_step, in_ci, sent, updates

LINE = "q7Zr0mXH2yTtWc9LkVdBf3uGsaPoE6NnIj8Y1KhRv5CwAxUqDMOzSgleb4iJFp" + "Qt"
"""64 characters of base64, as one line of a wrapped key."""


@pytest.mark.parametrize(
    "tail",
    [
        pytest.param("y2iKJa2OhhnTtsy0wURqIg", id="reads as a name"),
        pytest.param("3Otzlm43dUF0phmZ4rGvNw", id="begins with a digit"),
    ],
)
@pytest.mark.parametrize("where", ["env-file", "env"])
def test_the_end_of_a_wrapped_base64_value_is_not_shown(
    step: Step, cvm: Cvm, cloud: Cloud, tail: str, where: str
) -> None:
    """The end of the key is in the log, in ``keys-added`` and, as a name, on its way to Phala Cloud."""
    text = f"OLD=2\nSIGNING_KEY={LINE}\n{tail}==\n"
    step.write(".env", text)
    given: dict[str, Any] = {"env_file": ".env"} if where == "env-file" else {"env": text}
    done = step(**given, allow_removal="true", wait="false")
    assert tail not in everything_of_step(done)
    assert tail not in sent(cloud)
    assert done.code == 2, done.log
    assert "line 3" in done.log  # the number is all that can be said of such a line
    assert not updates(cloud)


@pytest.mark.parametrize(
    ("inputs", "piece"),
    [
        pytest.param({"secrets": "DB=hunter2,correct.horse.battery"}, "correct.horse", id="secrets, no name"),
        pytest.param({"secrets": "DB=hunter2,correcthorse"}, "correcthorse", id="secrets, an unset name"),
        pytest.param({"secrets": "OLD,DB=a\ncorrect.horse"}, "correct.horse", id="secrets, a second line"),
        pytest.param({"env": "TOKEN=\n9f86d081884c7d65=\n"}, "9f86d081884c7d65", id="env"),
        pytest.param(
            {"secrets_json": json.dumps({"9f86d081884c7d65": "x"}), "secrets_include": "*"},
            "9f86d081884c7d65",
            id="secrets-json",
        ),
        pytest.param({"files": "9f86d081884c7d65=.env"}, "9f86d081884c7d65", id="files"),
    ],
)
def test_a_piece_of_a_value_is_not_shown_as_a_name(
    step: Step, cvm: Cvm, cloud: Cloud, inputs: dict[str, str], piece: str
) -> None:
    """The error quotes the text after a comma or a line end, which the mask of the whole value misses."""
    step.write(".env", "x")
    done = step(**inputs, environ={"OLD": "1"})
    assert done.code == 2, done.log
    assert piece not in everything_of_step(done)
    assert not updates(cloud)


def test_a_wrapped_value_is_not_shown_in_other_cis_either(run: Command, cvm: Cvm, cloud: Cloud) -> None:
    """In GitLab nothing masks the end of the key: the notice about unused names prints it."""
    run.write(".env", f"OLD=2\nSIGNING_KEY={LINE}\ny2iKJa2OhhnTtsy0wURqIg==\n")
    outcome = in_ci(run, "gitlab")("update", "--cvm", "my-app", "--env-file", ".env", "--no-wait", "--json")
    assert "y2iKJa2OhhnTtsy0wURqIg" not in outcome.printed
    assert "y2iKJa2OhhnTtsy0wURqIg" not in sent(cloud)
    assert outcome.code == 2, outcome.printed
