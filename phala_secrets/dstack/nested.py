"""Untrusted JSON: its depth is checked before it is decoded."""

from __future__ import annotations

import json
import re
from typing import Any

DEEPEST = 100
"""Levels of nesting. Python 3.11 decodes by recursion in C. Its stack overflows if the process has a high
recursion limit, which importing eth_account sets."""

_MARKS = re.compile(r'"(?:[^"\\]|\\.)*+"?|[\[{]+|[\]}]+', re.DOTALL)


def loads(text: str | bytes, **options: Any) -> Any:
    """Return decoded JSON, from text or from bytes in UTF-8.

    Raises:
        ValueError: it is not JSON, or more than 100 levels deep.
    """
    if isinstance(text, bytes):
        text = text.decode().removeprefix("\ufeff")
    depth = 0
    for mark in _MARKS.finditer(text):
        first = mark[0][0]
        if first == '"':
            continue
        depth += len(mark[0]) if first in "[{" else -len(mark[0])
        if depth > DEEPEST:
            raise ValueError(f"nested more than {DEEPEST} levels deep")
    return json.loads(text, **options)
