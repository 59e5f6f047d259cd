"""Jenkins, Forgejo, Kubernetes and make: their commands run, in what each of them gives a command."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from textwrap import dedent

import pytest

from phala_secrets.simulator.cvm import Cvm
from tests.recipes.servers import TOOLS
from tests.support.ci import EXAMPLES, VALUES, load, sh
from tests.support.workflow import Workflow

pytestmark = pytest.mark.usefixtures("time_passes")


def test_jenkins(machine: dict[str, str], secrets: dict[str, str], cvm: Cvm, tmp_path: Path) -> None:
    text = (EXAMPLES / "jenkins/Jenkinsfile").read_text()
    bound = dict(re.findall(r"credentialsId: '([\w-]+)', variable: '(\w+)'", text))
    assert {name.upper().replace("-", "_") for name in bound} == set(secrets)
    update, look = re.findall(r"sh '''\n(.*?)'''", text, re.DOTALL)
    assert 'sh "' not in text, "Groovy would fill in the values"
    environ = {**machine, **{variable: secrets[variable] for variable in bound.values()}}
    sh(groovy(update), tmp_path, environ, shell="sh -xe")
    assert cvm.environment == VALUES
    assert json.loads((tmp_path / "outputs.json").read_text())["cvm_id"] == cvm.id
    assert '"status": "running"' in sh(groovy(look), tmp_path, machine, shell="sh -xe")


def groovy(text: str) -> str:
    """What Groovy makes of a text in triple quotes: a backslash joins two lines."""
    assert not re.search(r"\\[^\n]", text), "Groovy would read it as an escape"
    return dedent(text.replace("\\\n", ""))


def test_forgejo(machine: dict[str, str], secrets: dict[str, str], cvm: Cvm, tmp_path: Path) -> None:
    # What the runner of Forgejo and Gitea says that it is, and it is in the image.
    environ = {**machine, "GITHUB_ACTIONS": "true", "GITEA_ACTIONS": "true", "FORGEJO_ACTIONS": "true"}
    environ["GITHUB_WORKSPACE"] = str(tmp_path)
    workflow = Workflow(EXAMPLES / "forgejo/secrets.yml", tmp_path / "run", environ, secrets=secrets)
    workflow.run()
    assert cvm.environment == VALUES
    masked = [line for line in workflow.logs[0].splitlines() if line.startswith("::add-mask::")]
    assert {f"::add-mask::{value.replace('%', '%25')}" for value in secrets.values()} <= set(masked)
    assert f"{cvm.id} is running" in workflow.logs[-1]


def test_a_kubernetes_cron_job(
    machine: dict[str, str], secrets: dict[str, str], cvm: Cvm, tmp_path: Path
) -> None:
    path = EXAMPLES / "kubernetes/cronjob.yaml"
    subprocess.run([TOOLS / "kubernetes-validate", "--strict", path], check=True, capture_output=True)
    pod = load("kubernetes/cronjob.yaml")["spec"]["jobTemplate"]["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    cluster = {
        "phala-cloud": {"api-key": secrets["PHALA_CLOUD_API_KEY"]},
        "my-app": {name: secrets[name] for name in VALUES},
    }
    environ = {name: machine[name] for name in ("PATH", "PHALA_CLOUD_API_PREFIX")}
    environ |= {"KUBERNETES_SERVICE_HOST": "10.0.0.1", "HOSTNAME": "phala-secrets-1", "HOME": "/"}
    for entry in container["env"]:
        reference = entry["valueFrom"]["secretKeyRef"]
        environ[entry["name"]] = cluster[reference["name"]][reference["key"]]

    # A service that is called phala-secrets, which enableServiceLinks is about.
    linked = {**environ, "PHALA_SECRETS_SERVICE_HOST": "10.0.0.2"}
    command = [sys.executable, "-m", "phala_secrets", *container["args"]]
    refused = subprocess.run(command, env=linked, cwd="/", capture_output=True, text=True, check=False)
    assert (refused.returncode, pod["enableServiceLinks"]) == (2, False)
    assert "PHALA_SECRETS_SERVICE_HOST" in refused.stderr

    done = subprocess.run(command, env=environ, cwd="/", capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert cvm.environment == VALUES


def test_make(machine: dict[str, str], secrets: dict[str, str], cvm: Cvm, tmp_path: Path) -> None:
    dotenv = tmp_path / ".env"
    dotenv.write_text("DATABASE_URL='p4$$w0rd'\nAPI_TOKEN=\"two words\"\n")
    key = {"PHALA_CLOUD_API_KEY": secrets["PHALA_CLOUD_API_KEY"]}
    makefile = EXAMPLES / "make/Makefile"
    before = cvm.environment
    sh(f"make -f {makefile} plan", tmp_path, machine, key)
    assert cvm.environment == before
    sh(f"make -f {makefile} secrets", tmp_path, machine, key)
    assert cvm.environment == {"DATABASE_URL": "p4$$w0rd", "API_TOKEN": "two words"}

    # What the plan refuses is not sent.
    dotenv.write_text("DATABASE_URL=new\n")
    with pytest.raises(AssertionError, match="API_TOKEN"):
        sh(f"make -f {makefile} secrets", tmp_path, machine, key)
    assert cvm.environment == {"DATABASE_URL": "p4$$w0rd", "API_TOKEN": "two words"}
