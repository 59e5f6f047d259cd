"""Finding 12: where no person is at the terminal, nothing counts that only a person would mean."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from .support import Cloud, Command, Cvm

UNKNOWN = [
    pytest.param({"JENKINS_URL": "http://j/", "BUILD_NUMBER": "7"}, id="Jenkins"),
    pytest.param({"TEAMCITY_VERSION": "2026.1"}, id="TeamCity"),
    pytest.param({"CODEBUILD_BUILD_ID": "x"}, id="CodeBuild"),
    pytest.param({}, id="docker run without the variable CI"),
]


@pytest.mark.parametrize("environ", UNKNOWN)
def test_an_unset_secret_in_an_unknown_ci_is_no_file_of_the_checkout(
    run: Command, cvm: Cvm, cloud: Cloud, environ: dict[str, str]
) -> None:
    """The secret is not set, so ``env_file`` of the pull request's ``phala.toml`` is sent in its place."""
    run.write("phala.toml", 'name = "x"\nenv_file = "pr.env"\n')
    run.write("pr.env", "OLD=value-of-the-pull-request\n")
    outcome = run.apart(
        *("update", "--cvm", "my-app"), environ={**environ, "INPUT_ENV": "", "PHALA_SECRETS_ENV": ""}
    )
    assert cvm.wait().environment == {"OLD": "1"}
    assert outcome.code == 2, outcome.printed


@pytest.mark.parametrize("environ", UNKNOWN)
def test_a_persons_login_does_not_count_in_an_unknown_ci(
    run: Command, cvm: Cvm, cloud: Cloud, environ: dict[str, str]
) -> None:
    """The run uses the login that the official CLI keeps in the machine's home."""
    home = Path(run.variables()["HOME"]) / ".phala-cloud"
    home.mkdir()
    profile = {"token": cloud.api_key, "api_prefix": run.variables()["PHALA_CLOUD_API_PREFIX"]}
    credentials = {"schema_version": 1, "current_profile": "default", "profiles": {"default": profile}}
    (home / "credentials.json").write_text(json.dumps(credentials))
    outcome = run.apart("verify", "--cvm", "my-app", environ={**environ, "PHALA_CLOUD_API_KEY": None})
    assert outcome.code == 2, outcome.printed
    assert not cloud.requests
