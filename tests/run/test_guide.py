"""Each kind of error has a part of docs/troubleshooting.md, and a failed run's summary links to it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from phala_secrets import errors
from phala_secrets.run import guide
from phala_secrets.simulator.cvm import Cvm
from tests.support.step import Step

PAGE = (Path(__file__).parents[2] / "docs/troubleshooting.md").read_text()
HEADINGS = {heading.lower().replace(" ", "-") for heading in re.findall(r"^##+ (.*)$", PAGE, re.MULTILINE)}


def kinds(kind: type[errors.PhalaSecretsError]) -> set[type[errors.PhalaSecretsError]]:
    return {kind}.union(*map(kinds, kind.__subclasses__()))


def test_each_anchor_is_a_heading_that_there_is() -> None:
    assert set(guide.ANCHORS.values()) <= HEADINGS


def test_only_an_internal_error_is_explained_as_one() -> None:
    for kind in kinds(errors.PhalaSecretsError) - {errors.PhalaSecretsError}:
        error = kind.__new__(kind)
        internal = kind.exit_code == errors.PhalaSecretsError.exit_code
        assert guide.page(error).endswith("#an-internal-error") == internal, kind


@pytest.mark.parametrize(
    ("inputs", "anchor"),
    [
        ({"cvm": "another"}, "phala-cloud-refuses"),
        ({"env": "NEW=1"}, "the-guest-would-not-get-it"),
        ({"env": "NEW=1", "mode": "plan"}, "the-guest-would-not-get-it"),
        ({"require_trust": "everything"}, "an-input-is-wrong"),
        ({"trusted_signers": "phala-cloud"}, "the-key-is-not-proven"),
    ],
)
def test_the_summary_of_a_failed_run_links_to_its_kind(
    step: Step, cvm: Cvm, inputs: dict[str, str], anchor: str
) -> None:
    given: dict[str, Any] = {"env": "OLD=1", **inputs}
    done = step(**given)
    assert done.code
    assert done.summary.count("[More about errors of this kind](https://github.com/") == 1
    assert f"/docs/troubleshooting.md#{anchor})" in done.summary
