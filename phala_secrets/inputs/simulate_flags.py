"""The flags of ``phala-secrets simulate``: what it simulates, and what goes wrong."""

from __future__ import annotations

import argparse
from functools import partial
from typing import TYPE_CHECKING, Any

from phala_secrets.errors import InputError
from phala_secrets.inputs.row import Input
from phala_secrets.simulator.lies import LIES
from phala_secrets.simulator.stage import SERVICES, Stage

if TYPE_CHECKING:
    from collections.abc import Mapping

_DAY = 86_400

FLAGS = (
    Input("port", "the port on 127.0.0.1; 0 picks a free one", "number", "PORT", "8010", high=65_535),
    Input("key", "the API key to accept", metavar="KEY", default="phak_simulator"),
    Input("cvm", "the name of a CVM", "lines", "NAME", "my-app"),
    Input("replicas", "how many CVMs each app has", "number", "N", "1", low=1, high=100),
    Input("boot-seconds", "how long a CVM takes to restart", "number", "SECONDS", "3", high=_DAY),
    Input("boot-error", "fail the next boot of each CVM with this reason", metavar="TEXT"),
    Input("busy", "keep each CVM busy for this long", "number", "SECONDS", "0", high=_DAY),
    Input("stopped", "start with stopped CVMs", "bool"),
    Input("crash", "crash the container of a service", "lines", choices=SERVICES),
    Input("on-chain", "simulate an Onchain KMS, with an RPC on the next port", "bool"),
    Input(
        "lie",
        "make the API lie: " + ", ".join(f"{name} ({lie.what})" for name, lie in LIES.items()),
        "choice",
        "LIE",
        choices=tuple(LIES),
    ),
)


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags to a parser."""
    for row in FLAGS:
        repeatable = "; repeatable" if row.kind == "lines" else ""
        default = f" ({row.default})" if row.default else ""
        options: dict[str, Any] = {"help": f"{row.help}{repeatable}{default}"}
        if row.kind == "bool":
            options["action"] = argparse.BooleanOptionalAction
        else:
            options |= {"metavar": row.metavar or None, "choices": row.choices or None}
            if row.kind == "lines":
                options["action"] = "append"
            if row.kind == "number":
                options["type"] = partial(_number, row)
        parser.add_argument(f"--{row.name}", **options)


def stage_of(values: Mapping[str, Any]) -> Stage:
    """Return the stage that the flags describe. Raise InputError for flags that do not go together."""
    given = {name: value for name, value in values.items() if value is not None and name != "help"}
    given |= {name: tuple(value) for name, value in given.items() if isinstance(value, list)}
    names = {"key": "api_key", "cvm": "cvms"}
    stage = Stage(**{names.get(name, name): value for name, value in given.items()})
    if stage.lie and LIES[stage.lie].on_chain and not stage.on_chain:
        raise InputError(f"--lie {stage.lie} needs an Onchain KMS", hint="add --on-chain")
    return stage


def _number(row: Input, text: str) -> int:
    if not (text.isascii() and text.isdigit() and row.low <= int(text[:9]) <= row.high):
        what = "a port" if row.name == "port" else "a number"
        raise argparse.ArgumentTypeError(f"{text[:40]!a} is not {what} from {row.low} to {row.high}")
    return int(text)
