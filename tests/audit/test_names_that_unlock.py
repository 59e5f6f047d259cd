"""A name that the API chooses must not open the way for a value."""

from __future__ import annotations

from typing import Any

import pytest

from phala_secrets.errors import untrusted
from phala_secrets.runners.secrecy import NOT_SHOWN, Secrets

from .support import Cloud, Cvm, Step, everything_of_step

PASSWORD = "s3cret-of-the-database"
WORD = "hunterpassword"


def boots_with(cvm: Cvm, words: str) -> None:
    """The guest quotes a value when its next boot fails."""
    cvm.boot_fails(words)


@pytest.mark.parametrize("name", ["e", "a", "t", "secret", "s3cret", "of-the"])
@pytest.mark.parametrize("field", ["name", "os_version"])
def test_a_name_that_is_a_part_of_a_value_does_not_show_the_value(
    step: Step, cloud: Cloud, name: str, field: str
) -> None:
    of: dict[str, Any] = {"name": "my-app", "environment": {"OLD": "1"}, field: name}
    cvm = cloud.add_cvm(**of)
    boots_with(cvm, f"cannot connect with {PASSWORD}")
    done = step(cvm=cvm.id, env=f"OLD={PASSWORD}")
    assert done.code == 8, done.log
    assert PASSWORD not in everything_of_step(done)


@pytest.mark.parametrize("shown", [WORD, "s3cret-of-th"])
@pytest.mark.parametrize("name", ["my-app\u2063", "my-\u2063app", "\u2063"])
def test_a_name_with_an_untrusted_mark_is_not_taken_for_one(
    step: Step, cloud: Cloud, name: str, shown: str
) -> None:
    cvm = cloud.add_cvm(name, environment={"OLD": "1"})
    boots_with(cvm, f"failed: {shown}!")
    done = step(cvm=cvm.id, env=f"OLD={WORD}\nNEW={PASSWORD}")
    assert done.code == 8, done.log
    assert shown not in everything_of_step(done)


def test_a_name_of_which_a_value_is_a_part_is_shown_all_the_same() -> None:
    secrets = Secrets()
    secrets.learn("DB", ["database-1"])
    secrets.spare(["prod-database-1", "e"])
    assert secrets.screened("prod-database-1: running") == "prod-database-1: running"
    said: Any = secrets.screened(f"prod-database-1: {untrusted('cannot reach database-1')}")
    assert said == f"prod-database-1: {NOT_SHOWN}"
