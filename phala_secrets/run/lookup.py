"""``phala-secrets kms …`` and ``phala-secrets list``: what the API knows, as a table or as JSON."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from phala_secrets.dstack.ids import parse_app_id
from phala_secrets.errors import AnswerError, InputError
from phala_secrets.inputs.login import log_in
from phala_secrets.run.connect import connect
from phala_secrets.runners.files import as_json
from phala_secrets.runners.report import Table

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from phala_secrets.cloud.client import Client
    from phala_secrets.cloud.models import CvmInfo, KmsContract
    from phala_secrets.inputs.command_line import Command
    from phala_secrets.inputs.given import Given
    from phala_secrets.runners.base import Runner


_MOST_PAGES = 50
_MOST_CONTRACTS = 100
"""KMS contracts whose nodes are asked for, each with a request of its own."""


def run(command: Command, given: Given, environ: Mapping[str, str], runner: Runner) -> None:
    """Send the requests of a lookup, and print the response on standard output."""
    from phala_secrets.cloud.client import Client

    login, url = log_in(given, environ, Path())
    with connect(login, url, runner, given.number("timeout"), Client) as client:
        answer, table = _list(client, given) if command.mode == "list" else _kms(client, command.options)
    if runner.json:
        sys.stdout.write(as_json(answer) + "\n")
        runner.json = False  # the outputs of a job are no part of this
    else:
        for line in runner.columns(table):
            sys.stdout.write(line + "\n")


def _list(client: Client, given: Given) -> tuple[Any, Table]:
    app = given.text("app")
    cvms = client.get_app_cvms(parse_app_id(app, "app")) if app else _all_cvms(client)
    rows = [
        {"id": cvm.id, "name": cvm.name, "app_id": cvm.app_id or "", "status": cvm.status} for cvm in cvms
    ]
    return rows, _table(("id", "name", "app_id", "status"), rows)


def _all_cvms(client: Client) -> Sequence[CvmInfo]:
    first = client.get_cvm_list(page=1, page_size=100)
    pages = range(2, min(first.pages or 1, _MOST_PAGES) + 1)
    rest = [client.get_cvm_list(page=number, page_size=100) for number in pages]
    return [cvm for page in (first, *rest) for cvm in page.items]


def _kms(client: Client, options: Mapping[str, str]) -> tuple[Any, Table]:
    lookup = options["lookup"]
    answer: Any
    if lookup == "list":
        answer = {"items": [kms.model_dump(mode="json") for kms in _contracts(client)]}
        columns = ("id", "slug", "chain_id", "contract_address", "node_count", "k256_pubkey")
        return answer, _table(columns, answer["items"])
    if lookup == "nodes":
        given = options.get("contract")
        slugs = [given] if given else [kms.slug or kms.id for kms in _contracts(client)]
        if len(slugs) > _MOST_CONTRACTS:
            raise AnswerError(
                f"Phala Cloud's answer has {len(slugs)} KMS contracts, too many to ask for the nodes of each",
                hint="name one: phala-secrets kms nodes CONTRACT",
            )
        answer = {"items": [row for slug in slugs for row in _nodes(client, slug)]}
        return answer, _table(("contract", "id", "slug", "version", "url"), answer["items"])
    if lookup == "info":
        answer = client.get_kms_info(options["kms"]).model_dump(mode="json")
    elif lookup == "on-chain":
        answer = client.get_kms_on_chain_detail(options["chain"]).model_dump(mode="json")
    elif lookup == "pubkey":
        key = client.get_app_env_encrypt_pub_key(kms=options["kms"], app_id=options["app_id"])
        answer = key.model_dump(mode="json")
    else:
        count = options.get("count", "1")
        if count not in map(str, range(1, 21)):
            raise InputError(f"invalid COUNT {count[:40]!a}", hint="use a whole number from 1 to 20")
        answer = client.next_app_ids(counts=int(count)).model_dump(mode="json")
        return answer, _table(("app_id", "nonce"), answer["app_ids"])
    return answer, Table(("field", "value"), [(name, _cell(value)) for name, value in answer.items()])


def _contracts(client: Client) -> list[KmsContract]:
    first = client.list_kms_contracts(page_size=100)
    pages = range(2, min(first.pages or 1, _MOST_PAGES) + 1)
    rest = [client.list_kms_contracts(page=number, page_size=100) for number in pages]
    return [kms for page in (first, *rest) for kms in page.items]


def _nodes(client: Client, contract: str) -> list[dict[str, Any]]:
    nodes = client.list_kms_contract_nodes(contract).items
    return [{"contract": contract, **node.model_dump(mode="json")} for node in nodes]


def _table(names: tuple[str, ...], rows: list[dict[str, Any]]) -> Table:
    shown = [name for name in names if any(row.get(name) not in (None, "") for row in rows)] or list(names)
    return Table(shown, [[_cell(row.get(name)) for name in shown] for row in rows])


def _cell(value: Any) -> str:
    if value is None:
        return ""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
