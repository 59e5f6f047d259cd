"""What an owner registered last: looked back for through an RPC that takes so many blocks, and no more."""

from __future__ import annotations

import pytest

from phala_secrets.chain import history, rpc
from phala_secrets.errors import AnswerError
from phala_secrets.flow import drive

APP = "0x" + "a1" * 20
HASH, OLDER = "0b" * 32, "0c" * 32


class Ledger:
    """Answers by hand: the head, and logs by block, in ranges of at most ``most`` blocks."""

    def __init__(self, head: int, logs: dict[int, str], most: int) -> None:
        self.head, self.logs, self.most = head, logs, most
        self.asked = 0

    def __call__(self, request: rpc.Rpc[object]) -> object:
        self.asked += 1
        if request.method == "eth_blockNumber":
            return request.parse(hex(self.head))
        first, last = (int(request.params[0][name], 16) for name in ("fromBlock", "toBlock"))
        if last - first >= self.most:
            raise AnswerError("the RPC refused eth_getLogs")
        return request.parse([
            {"address": APP, "topics": [rpc.COMPOSE_HASH_ADDED, f"0x{one}"], "data": "0x",
             "blockNumber": hex(block), "logIndex": "0x0"}
            for block, one in self.logs.items() if first <= block <= last
        ])  # fmt: skip


def newest(ledger: Ledger) -> str | None:
    return drive(history.newest_registered(APP), ledger)


def test_one_request_is_enough_where_the_rpc_takes_all_blocks() -> None:
    ledger = Ledger(40_000_000, {5: OLDER, 39_000_000: HASH}, 10**9)
    assert newest(ledger) == HASH
    assert ledger.asked == 2


@pytest.mark.parametrize("most", [10_000, 2_000, 1_000])
def test_a_range_that_is_refused_is_made_shorter(most: int) -> None:
    assert newest(Ledger(40_000_000, {39_990_000: HASH, 5: OLDER}, most)) == HASH


def test_the_look_back_ends_after_a_hundred_requests() -> None:
    ledger = Ledger(40_000_000, {5: HASH}, 10_000)
    assert newest(ledger) is None
    assert ledger.asked == history.MOST_REQUESTS


def test_an_app_that_registered_nothing_has_no_newest() -> None:
    assert newest(Ledger(100, {}, 10_000)) is None


def test_an_rpc_that_refuses_even_one_block_is_an_error() -> None:
    with pytest.raises(AnswerError):
        newest(Ledger(100, {}, 0))


@pytest.mark.parametrize(
    "change",
    [
        {"address": "0x" + "ee" * 20},
        {"topics": ["0x" + "11" * 32, f"0x{HASH}"]},
        {"topics": [rpc.COMPOSE_HASH_ADDED]},
        {"data": "0x00"},
        {"blockNumber": None},
    ],
)
def test_logs_of_something_else_are_refused(change: dict[str, object]) -> None:
    log = {"address": APP, "topics": [rpc.COMPOSE_HASH_ADDED, f"0x{HASH}"], "data": "0x",
           "blockNumber": "0x1", "logIndex": "0x0", **change}  # fmt: skip
    with pytest.raises(AnswerError):
        rpc.compose_hashes_added(APP, 0, 1).parse([log])
