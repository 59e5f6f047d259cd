"""The flags of ``phala-secrets simulate``: what is on the stage, and what is the matter with it."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from phala_secrets.errors import InputError
from phala_secrets.simulator.lies import LIES
from phala_secrets.simulator.stage import SERVICES, Stage

if TYPE_CHECKING:
    from collections.abc import Mapping

_MOST_REPLICAS = 100
_DAY = 86_400


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags to a parser."""
    default = Stage()
    flag = parser.add_argument
    flag("--port", type=_port, default=default.port, help="port on 127.0.0.1; 0 is a free one (%(default)s)")
    flag("--key", default=default.api_key, metavar="KEY", help="the API key that it takes")
    flag("--cvm", action="append", metavar="NAME", help="a CVM that it has; repeatable (my-app)")
    flag("--replicas", type=_replicas, default=1, metavar="N", help="how many CVMs each app has (1)")
    flag(
        "--boot-seconds",
        type=_seconds,
        default=default.boot_seconds,
        metavar="SECONDS",
        help="how long a CVM takes to restart (3)",
    )
    flag("--boot-error", default="", metavar="TEXT", help="the next boot of each CVM fails with this reason")
    flag(
        "--busy",
        type=_seconds,
        default=0.0,
        metavar="SECONDS",
        help="another operation is in the way for so long",
    )
    flag("--stopped", action="store_true", help="the CVMs are stopped")
    flag(
        "--crash",
        action="append",
        default=[],
        choices=SERVICES,
        help="the container of this service crashes; repeatable",
    )
    flag("--on-chain", action="store_true", help="an Onchain KMS, with an RPC on the next port")
    flag("--lie", default="", choices=LIES, metavar="LIE", help=_lies())


def stage_of(values: Mapping[str, object]) -> Stage:
    """Return the stage that the flags describe. Raise InputError for flags that do not go together."""
    named = {name: value for name, value in values.items() if name not in ("help", "key", "cvm", "crash")}
    cvms, crash = values["cvm"], values["crash"]
    stage = Stage(
        **named,  # type: ignore[arg-type]
        api_key=str(values["key"]),
        cvms=tuple(cvms) if isinstance(cvms, list) else Stage().cvms,
        crash=tuple(crash) if isinstance(crash, list) else (),
    )
    if stage.lie and LIES[stage.lie].on_chain and not stage.on_chain:
        raise InputError(f"--lie {stage.lie} takes an app on chain", hint="add --on-chain")
    return stage


def _lies() -> str:
    return "the API lies: " + ", ".join(f"{name} ({lie.what})" for name, lie in LIES.items())


def _port(text: str) -> int:
    return _whole(text, 0, 65_535, "a port")


def _replicas(text: str) -> int:
    return _whole(text, 1, _MOST_REPLICAS, "a number")


def _seconds(text: str) -> float:
    return float(_whole(text, 0, _DAY, "a number of seconds"))


def _whole(text: str, low: int, high: int, what: str) -> int:
    if not (text.isascii() and text.isdigit() and low <= int(text[:9]) <= high):
        raise argparse.ArgumentTypeError(f"{text[:40]!a} is not {what} from {low} to {high}")
    return int(text)
