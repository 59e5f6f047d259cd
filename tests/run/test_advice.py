"""What a run advises: it can be pasted, it fits, it comes once, and not where all is pinned."""

from __future__ import annotations

import re
import shlex
from html import unescape
from typing import Any

import yaml

from phala_secrets.simulator.cloud import Cloud
from phala_secrets.simulator.cvm import Cvm
from tests.support.command import Command, Outcome
from tests.support.paper_chain import BASE_KMS
from tests.support.step import Done, Step

ADVICE = "then pin"


def flags(done: Outcome) -> list[str]:
    """The flags that are advised, as a shell reads them."""
    pasted = "\n".join(line[4:] for line in done.lines if line.startswith("    "))
    return shlex.split(pasted.replace("\\\n", ""))  # where a shell goes on in the next line


def inputs(done: Done) -> dict[str, Any]:
    """The inputs that are advised, as YAML has them under ``with:``."""
    (pasted,) = re.findall(r"<pre>(.*?)</pre>", done.summary, re.DOTALL)
    read: dict[str, Any] = yaml.safe_load(unescape(pasted))
    assert all(isinstance(value, str) for value in read.values()), read
    return read


def test_flags_can_be_pasted_behind_the_command(run: Command, cvm: Cvm) -> None:
    done = run("verify", "--cvm", "my-app")
    assert done.stderr.count(ADVICE) == 1
    advised = flags(done)
    assert advised == ["--app-id", cvm.app_id, "--trusted-signers", f"0x{cvm.kms.root_public_key}"]
    pinned = run("verify", "--cvm", "my-app", *advised)
    assert pinned.code == 0
    assert "pinned: the signer is in trusted-signers" in pinned.stderr
    assert ADVICE not in pinned.stderr


def test_on_github_they_are_yaml(step: Step, cvm: Cvm) -> None:
    done = step(mode="verify")
    advised = inputs(done)
    assert set(advised) == {"app-id", "trusted-signers"}
    pinned = step(mode="verify", **advised)
    assert pinned.outputs["trust"] == "pinned"
    assert "<pre>" not in pinned.summary


def test_an_app_id_of_digits_stays_text(step: Step, cloud: Cloud) -> None:
    cloud.add_cvm("digits", app_id="12" * 20)
    assert inputs(step(mode="verify", cvm="digits"))["app-id"] == "12" * 20


def test_several_apps_and_roots_are_a_block_that_fits_all(run: Command, step: Step, cloud: Cloud) -> None:
    first = cloud.add_cvm("first", environment={"A": "1"})
    second = cloud.add_cvm("second", kms=cloud.add_kms("base-1", 8453, BASE_KMS), environment={"A": "1"})
    done = run("verify", "--cvm", "first,second")
    advised = flags(done)
    assert advised.count("--app-id") == advised.count("--trusted-signers") == 2
    assert run("verify", "--cvm", "first,second", *advised).code == 0
    block = inputs(step(mode="verify", cvm="first,second"))
    assert block["app-id"].split() == [first.app_id, second.app_id]
    assert step(mode="verify", cvm="first,second", **block).code == 0


def test_so_many_apps_are_no_advice(run: Command, cloud: Cloud) -> None:
    names = [cloud.add_cvm(f"app-{number}", environment={"A": "1"}).name for number in range(11)]
    done = run("verify", "--cvm", ",".join(names))
    assert "--app-id" not in flags(done)


def test_what_is_pinned_already_is_not_advised(run: Command, cvm: Cvm) -> None:
    root = cvm.kms.root_public_key
    assert flags(run("verify", "--cvm", "my-app", "--app-id", cvm.app_id))[::2] == ["--trusted-signers"]
    assert flags(run("verify", "--cvm", "my-app", "--trusted-signers", root))[::2] == ["--app-id"]
    assert flags(run("verify", "--app", cvm.app_id, "--trusted-signers", root)) == []
