"""RLP (Ethereum's encoding of nested lists), as far as a transaction takes it."""

from __future__ import annotations

_STRING, _LIST, _SHORT = 0x80, 0xC0, 55


def items(data: bytes) -> list[bytes]:
    """Return the items of a list; one that is a list itself as its content. Raise ValueError otherwise."""
    start, end = _span(data, 0)
    if data[:1] < bytes([_LIST]) or end != len(data):
        raise ValueError("not an RLP list")
    found = []
    while start < end:
        first, last = _span(data, start)
        found.append(data[first:last])
        start = last
    return found


def _span(data: bytes, at: int) -> tuple[int, int]:
    """Return where the content of the item at ``at`` begins and ends."""
    if at >= len(data):
        raise ValueError("RLP ends too early")
    head = data[at]
    if head < _STRING:
        return at, at + 1
    size = head - (_LIST if head >= _LIST else _STRING)
    first = at + 1
    if size > _SHORT:
        first += size - _SHORT
        size = int.from_bytes(data[at + 1 : first])
    if first + size > len(data):
        raise ValueError("RLP ends too early")
    return first, first + size
