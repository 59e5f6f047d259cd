"""What README.md, action.yml and docs/ say is what the program does."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from phala_secrets import errors
from phala_secrets.simulator.cloud import Cloud
from phala_secrets.simulator.cvm import Cvm
from tests.support.attested import LINKS
from tests.support.command import Command
from tests.support.step import Step

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
TROUBLESHOOTING = (ROOT / "docs/troubleshooting.md").read_text()
APPROVALS = (ROOT / "docs/approvals.md").read_text()
ACTION = yaml.safe_load((ROOT / "action.yml").read_text())
PAGES = [
    path
    for glob in ("*.md", "docs/*.md", "examples/**/*.md", "requirements/*.md")
    for path in ROOT.glob(glob)
]


def blocks(language: str, page: str = README) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)


def steps(page: str = README) -> list[dict[str, Any]]:
    """Every step in a page that uses the action, whole or only its inputs."""
    found = []
    for block in map(yaml.safe_load, blocks("yaml", page)):
        for part in block if isinstance(block, list) else [block]:
            jobs = part.get("jobs", {"": {"steps": [part]}})
            found += [step for job in jobs.values() for step in job["steps"] if "with" in step]
    return found


def step_with(name: str, page: str = README) -> dict[str, Any]:
    return next(step for step in steps(page) if name in step["with"])


def filled(given: Mapping[str, Any], values: Mapping[str, str]) -> dict[str, Any]:
    """As GitHub fills in what stands in ``${{ }}``; a boolean of YAML becomes its text."""
    expression = re.compile(r"\$\{\{ \w+\.([\w-]+) \}\}")
    texts = {name: str(value).lower() if value in (True, False) else value for name, value in given.items()}
    return {name: expression.sub(lambda match: values[match[1]], text) for name, text in texts.items()}


# The action


def test_the_action_has_what_the_marketplace_asks_for() -> None:
    assert ACTION["name"]
    assert len(ACTION["description"]) < 125
    assert set(ACTION["branding"]) == {"icon", "color"}
    assert ACTION["runs"] == {"using": "docker", "image": "Dockerfile"}


# The table of exit codes


def test_the_page_on_what_can_go_wrong_has_every_exit_code() -> None:
    def codes(error: type[errors.PhalaSecretsError]) -> set[int]:
        return {error.exit_code}.union(*map(codes, error.__subclasses__()))

    described = re.findall(r"^\| (\d+) \|", TROUBLESHOOTING, re.MULTILINE)
    assert set(map(int, described)) == {0} | codes(errors.PhalaSecretsError)


# The examples


def test_examples_give_inputs_that_there_are() -> None:
    found = [step for page in (README, TROUBLESHOOTING, APPROVALS) for step in steps(page)]
    assert len(found) >= 4
    for step in found:
        assert set(step["with"]) <= set(ACTION["inputs"]), step


def test_the_workflow_to_copy_works_as_it_stands(step: Step, cloud: Cloud) -> None:
    cvm = cloud.add_cvm("my-app")
    example = steps()[0]
    secrets = {"DATABASE_URL": "postgres://a b", "API_TOKEN": "t0ken", "PHALA_CLOUD_API_KEY": cloud.api_key}
    done = step(environ=filled(example["env"], secrets), **filled(example["with"], secrets))
    assert done.code == 0, done.log
    assert cvm.environment == {"DATABASE_URL": "postgres://a b", "API_TOKEN": "t0ken"}
    assert f"app-id: {cvm.app_id}" in done.summary
    assert "trusted-signers: &#34;0x" in done.summary


def test_pinned_as_the_readme_pins_it_the_proof_rests_on_the_pin(step: Step, cloud: Cloud, cvm: Cvm) -> None:
    values = {
        "PHALA_CLOUD_API_KEY": cloud.api_key,
        "PHALA_APP_ID": cvm.app_id,
        "PHALA_KMS_ROOT": cvm.kms.root_public_key,
    }
    inputs = step_with("require-trust")["with"]
    step.write(".env", "OLD=2\n")
    done = step(**filled(inputs, values))
    assert (done.code, done.outputs["trust"]) == (0, "pinned"), done.log
    done = step(**filled(inputs, values | {"PHALA_KMS_ROOT": ""}))
    assert done.code == errors.ProofError.exit_code, done.log


def test_a_pem_key_arrives_and_is_decoded_as_the_page_says(step: Step, cloud: Cloud) -> None:
    cvm = cloud.add_cvm("my-app")
    pem = "-----BEGIN CERTIFICATE-----\nMIIB$`\"'\\==\n-----END CERTIFICATE-----"
    step.write("certs/key.pem", pem)
    inputs = filled(step_with("base64", TROUBLESHOOTING)["with"], {"PHALA_CLOUD_API_KEY": cloud.api_key})
    assert step(**{**inputs, "base64": None}).code == errors.DeliveryError.exit_code
    assert step(**inputs).code == 0
    (decoding,) = (block for block in blocks("text", TROUBLESHOOTING) if "base64 -d" in block)
    script = f'{decoding}\nprintf %s "$TLS_KEY"'
    shell = subprocess.run(
        ["sh", "-c", script], env=cvm.environment, capture_output=True, text=True, check=True
    )
    assert shell.stdout == pem


def test_an_approval_made_elsewhere_is_committed_as_the_page_says(step: Step, cloud: Cloud) -> None:
    address = "0x2f83172A49584C017F2B256F0FB2Dca14126Ba9C"
    cvm = cloud.add_cvm("my-app", kms=cloud.add_kms("kms-base", 8453, address), environment={"OLD": "1"})
    prepared = step(env="OLD=1\nNEW=2", prepare_only="true", prepared_file="prepared.json")
    assert (prepared.code, prepared.outputs["status"]) == (0, "precondition_required"), prepared.log
    assert set(prepared.outputs) <= set(ACTION["outputs"])
    transaction = "0x" + "ab" * 32
    cloud.approved_transactions.add(transaction)
    values = {
        "PHALA_CLOUD_API_KEY": cloud.api_key,
        "RPC_URL": "",
        "transaction-hash": transaction,
        "prepared-digest": prepared.outputs["prepared-digest"],
    }
    done = step(**filled(step_with("prepared-digest", APPROVALS)["with"], values))
    assert done.code == 0, done.log
    assert cvm.environment == {"OLD": "1", "NEW": "2"}


def test_commands_are_ones_that_the_command_takes(run: Command, cvm: Cvm) -> None:
    (container,) = (block for block in blocks("sh") if "docker run" in block)
    words = container.replace("\\\n", " ").split()
    arguments = words[
        next(i for i, word in enumerate(words) if word.startswith("ghcr.io/")) + 1 : words.index("<")
    ]
    done = run(*arguments, stdin=b"OLD=from standard input", environ={"PHALA_SECRETS_CVM": "my-app"})
    assert done.code == 0, done.printed
    assert cvm.environment == {"OLD": "from standard input"}


def test_the_pictures_are_light_and_have_words() -> None:
    pictures = re.findall(r"^!\[(.*?)\]\((docs/.*?)\)$", README, re.MULTILINE)
    assert len(pictures) == 3
    for words, path in pictures:
        assert len(words) > 20
        assert (ROOT / path).stat().st_size < 100_000, path


def test_the_demo_installs_no_linter_and_says_what_it_installs() -> None:
    rules = (ROOT / "Makefile").read_text()
    (installs,) = re.findall(r"^\.venv-demo/ready: (.*?)\n\n", rules, re.MULTILINE | re.DOTALL)
    assert installs.startswith("requirements/image.txt |")
    assert 'echo "installing' in installs
    assert re.search(r"^demo: \.venv-demo/ready ##", rules, re.MULTILINE)


# All pages


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        if link.startswith("https://"):
            continue
        path, _, anchor = link.partition("#")
        target = page.parent / path if path else page
        assert target.exists(), link
        if anchor:
            headings = re.findall(r"^#+ (.*)$", target.read_text(), re.MULTILINE)
            assert anchor in {
                re.sub(r"[^\w -]", "", heading).lower().replace(" ", "-") for heading in headings
            }


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_what_is_to_be_made_can_be_made(page: Path) -> None:
    targets = set(re.findall(r"^([a-z-]+):.*##", (ROOT / "Makefile").read_text(), re.MULTILINE))
    code = re.findall(r"`([^`\n]+)`|^    (.+)$", page.read_text(), re.MULTILINE)
    named = {
        match for words in code for match in re.findall(r"^make ((?!PYTHON)[a-z-]+)", words[0] or words[1])
    }
    assert named <= targets


def test_each_row_on_trust_names_tests_that_there_are() -> None:
    page = (ROOT / "docs/trust.md").read_text()
    tests = "".join(path.read_text() for path in (ROOT / "tests").rglob("test_*.py"))
    named = re.findall(r"`(test_\w+)`", page)
    assert named
    assert [name for name in named if f"def {name}(" not in tests] == []
    lies = set(re.findall(r"`(?:test_\w+|…)\[([^]`]+)\]`", page))
    assert lies <= {*LINKS, "of before the update"}
    assert len(lies) > 20
