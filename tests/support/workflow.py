"""GitHub's workflows, as far as the examples use them: jobs in order, matrices, steps, and ``${{ … }}``.

The steps really run: a script in bash, our action as the image's entrypoint. What an expression means is
from GitHub's documentation; what is not known here is an error.
"""

from __future__ import annotations

import itertools
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from tests.support.command import ENTRYPOINT, ROOT
from tests.support.step import read_outputs

_EXPRESSION = re.compile(r"\$\{\{(.*?)\}\}")
_ACTION = yaml.safe_load((ROOT / "action.yml").read_text())


class StepFailedError(AssertionError):
    """A step failed. It has its outputs all the same."""

    def __init__(self, log: str, outputs: dict[str, str]) -> None:
        super().__init__(log)
        self.outputs = outputs


class Workflow:
    """One run of a workflow in ``folder``; ``contexts`` has ``secrets``, ``vars``, ``inputs``, ``github``.

    ``base`` is the environment of every script, and what it has of the network every action has too.
    """

    def __init__(
        self, path: Path, folder: Path, base: Mapping[str, str], **contexts: Mapping[str, Any]
    ) -> None:
        self.content: dict[str, Any] = yaml.safe_load(path.read_text())
        self.workspace = folder / "workspace"
        self.workspace.mkdir(parents=True, exist_ok=True)
        self.artifacts = folder / "artifacts"
        self._folder = folder
        self._base = dict(base)
        self._contexts: dict[str, Any] = {"secrets": {}, "vars": {}, "inputs": {}, "needs": {}, **contexts}
        github = {"token": "ghs_token", "ref": "refs/heads/main"}
        self._contexts["github"] = {**github, **self._contexts.get("github", {})}
        self.logs: list[str] = []
        self.outputs: list[dict[str, str]] = []
        """Those of each step of our action."""

    def run(self, **environ: str) -> None:
        """Every job. AssertionError, with the log, for a step that fails; ``environ`` goes over ``env:``."""
        failures: dict[str, AssertionError] = {}
        for name, job in self.content["jobs"].items():
            needed = job.get("needs", [])
            needed = [needed] if isinstance(needed, str) else needed
            condition = self._bare(job.get("if", ""))
            if not failures.keys().isdisjoint(needed) and "always()" not in condition:
                continue
            for other in needed:
                assert other in self._contexts["needs"], "the examples have their jobs in order"
            if condition and not self._evaluate(condition, self._contexts):
                self._contexts["needs"][name] = {"outputs": {}}
                continue
            failed = None
            for matrix in self._matrix(job):
                contexts = {**self._contexts, "matrix": matrix, "steps": {}}
                env = {**self.content.get("env", {}), **job.get("env", {}), **environ}
                contexts["tokens"] = job.get("permissions", {}).get("id-token") == "write"
                contexts["env"] = {key: self._text(value, contexts) for key, value in env.items()}
                try:
                    self._steps(job["steps"], contexts)
                except AssertionError as error:
                    failed = failed or error
                outputs = {key: self._text(text, contexts) for key, text in job.get("outputs", {}).items()}
                self._contexts["needs"][name] = {"outputs": outputs}
                if failed and job.get("strategy", {}).get("fail-fast", True):
                    break
            if failed:
                failures[name] = failed
        if failures:
            raise next(iter(failures.values()))

    def _steps(self, steps: list[dict[str, Any]], contexts: dict[str, Any]) -> None:
        """Every step, after one that failed those that are for that."""
        failed = None
        for step in steps:
            condition = str(step.get("if", ""))
            if (failed is not None) != ("failure()" in condition) and "always()" not in condition:
                continue
            try:
                self._step(step, contexts)
            except AssertionError as error:
                failed = failed or error
        if failed:
            raise failed

    def _matrix(self, job: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
        axes = {
            name: self._value(values, self._contexts)
            for name, values in job.get("strategy", {}).get("matrix", {}).items()
        }
        for combination in itertools.product(*axes.values()):
            yield dict(zip(axes, combination, strict=True))

    def _step(self, step: Mapping[str, Any], contexts: dict[str, Any]) -> None:
        if "if" in step and not self._evaluate(self._bare(step["if"]), contexts):
            return
        try:
            outputs = self._done(step, contexts)
        except StepFailedError as error:
            contexts["steps"][step.get("id")] = {"outputs": error.outputs}
            raise
        contexts["steps"][step.get("id")] = {"outputs": outputs}

    def _done(self, step: Mapping[str, Any], contexts: dict[str, Any]) -> dict[str, str]:
        """Do a step, and return its outputs."""
        env = {**contexts["env"], **{k: self._text(v, contexts) for k, v in step.get("env", {}).items()}}
        given = {name: self._text(value, contexts) for name, value in step.get("with", {}).items()}
        action = step.get("uses", "").partition("@")[0]
        if action == "phala-secrets/phala-secrets":
            tokens = self._token_of_job if contexts["tokens"] else {}
            outputs = self._inject(given, {**env, **tokens})
            self.outputs.append(outputs)
            return outputs
        if action == "actions/upload-artifact":
            self._upload(given["path"].split(), self.artifacts / given["name"])
        elif action == "actions/download-artifact":
            shutil.copytree(self.artifacts / given["name"], self.workspace / given["path"])
        elif action != "actions/checkout":
            assert "run" in step, action
            assert "${{" not in step["run"], "what a script is filled in with is run"
            shell = [step["shell"], "-e"] if "shell" in step else ["bash", "-e"]
            return self._execute([*shell, "-c", step["run"]], {**self._base, **env})
        return {}

    @property
    def _token_of_job(self) -> dict[str, str]:
        """What the runner gives a step of a job with ``id-token: write``."""
        return {name: value for name, value in self._base.items() if name.startswith("ACTIONS_ID_TOKEN_")}

    def _upload(self, paths: list[str], artifact: Path) -> None:
        """A folder as the artifact, or files in it: from the least folder that has them all."""
        if len(paths) == 1 and (self.workspace / paths[0]).is_dir():
            shutil.copytree(self.workspace / paths[0], artifact)
            return
        artifact.mkdir(parents=True)
        for path in paths:
            shutil.copy(self.workspace / path, artifact)

    def _inject(self, given: Mapping[str, str], env: Mapping[str, str]) -> dict[str, str]:
        assert set(given) <= set(_ACTION["inputs"]), set(given) - set(_ACTION["inputs"])
        defaults = {name: entry.get("default", "") for name, entry in _ACTION["inputs"].items()}
        inputs = {f"INPUT_{name.upper()}": value for name, value in {**defaults, **given}.items()}
        summary = self._folder / "summary"
        runner = {
            "CI": "true",
            "GITHUB_ACTIONS": "true",
            "GITHUB_WORKSPACE": str(self.workspace),
            "GITHUB_STEP_SUMMARY": str(summary),
            "PHALA_CLOUD_API_PREFIX": self._base["SIMULATOR"],
        }
        return self._execute([sys.executable, "-IB", str(ENTRYPOINT)], {**env, **inputs, **runner})

    def _execute(self, command: list[str], env: Mapping[str, str]) -> dict[str, str]:
        output = self._folder / "output"
        output.write_text("")
        done = subprocess.run(
            command,
            cwd=self.workspace,
            env={**env, "GITHUB_OUTPUT": str(output)},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=60,
            check=False,
        )
        self.logs.append(done.stdout)
        outputs = read_outputs(output.read_text())
        if done.returncode:
            raise StepFailedError(done.stdout, outputs)
        return outputs

    # -- expressions -----------------------------------------------------------------------------

    def _value(self, value: Any, contexts: Mapping[str, Any]) -> Any:
        """A value of the file, or what the one expression is that it consists of."""
        match = _EXPRESSION.fullmatch(value) if isinstance(value, str) else None
        return self._evaluate(match[1], contexts) if match else value

    def _text(self, value: Any, contexts: Mapping[str, Any]) -> str:
        """Text with its expressions filled in; GitHub spells a boolean as JSON does."""
        if not isinstance(value, str):
            return json.dumps(value)
        return _EXPRESSION.sub(lambda match: str(self._evaluate(match[1], contexts)), value)

    @staticmethod
    def _bare(condition: object) -> str:
        """A condition, with or without the braces around it."""
        text = str(condition).strip()
        match = _EXPRESSION.fullmatch(text)
        return match[1] if match else text

    def _evaluate(self, expression: str, contexts: Mapping[str, Any]) -> Any:
        expression = expression.strip()
        if " && " in expression:
            return all(self._evaluate(part, contexts) for part in expression.split(" && "))
        if expression in ("always()", "failure()"):
            return True  # ``_steps`` goes by them
        if literal := re.fullmatch(r"'([^']*)'", expression):
            return literal[1]
        if comparison := re.fullmatch(r"(\S+) ([!=]=) (\S+)", expression):
            left, right = (self._evaluate(comparison[side], contexts) for side in (1, 3))
            return (left == right) == (comparison[2] == "==")
        if call := re.fullmatch(r"contains\((.*), (.*)\)", expression):
            return self._evaluate(call[2], contexts) in self._evaluate(call[1], contexts)
        if call := re.fullmatch(r"(toJSON|fromJSON)\((.*)\)", expression):
            argument = self._evaluate(call[2], contexts)
            return json.dumps(argument, indent=2) if call[1] == "toJSON" else json.loads(argument)
        first, *names = expression.split(".")
        found: Any = contexts[first]
        for at, name in enumerate(names):
            if name == "*":
                return [self._evaluate(".".join(("it", *names[at + 1 :])), {"it": each}) for each in found]
            # What a context does not have is an empty string.
            found = found.get(name, "") if isinstance(found, Mapping) else ""
        return found
