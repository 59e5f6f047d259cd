"""The app owner's key, which signs and never shows itself. Only this module loads ``eth-account``."""

from __future__ import annotations

import re
import sys
from typing import TYPE_CHECKING, Any

from phala_secrets.errors import InputError, install_extra

if TYPE_CHECKING:
    from collections.abc import Callable

_CURVE_ORDER = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141


def parse_private_key(text: str) -> str:
    """Return the 64 hex digits of a secp256k1 private key, from text with or without ``0x``.

    Raise InputError for anything else. It never quotes the key.
    """
    digits = text.strip().removeprefix("0x")
    if not re.fullmatch(r"[0-9a-fA-F]{64}", digits) or not 0 < int(digits, 16) < _CURVE_ORDER:
        raise InputError(
            "invalid private-key", hint="use the app owner's key: 64 hex digits, with or without 0x"
        )
    return digits


class Sender:
    """Signs transactions for one address (``0x``, lower case)."""

    __slots__ = ("_sign", "address")

    def __init__(self, private_key: str) -> None:
        """Take 32 bytes of hex, with or without ``0x``.

        Raise InputError for anything else. It never quotes the key. Raise InputError too if
        ``eth-account`` (the extra ``chain``) is not installed.
        """
        digits = parse_private_key(private_key)
        limit = sys.getrecursionlimit()
        try:
            from eth_account import Account
        except ImportError:
            raise InputError("signing needs eth-account", hint=install_extra("chain")) from None
        finally:
            # Its dependency py_ecc raises the limit so far that nested JSON overflows the stack.
            sys.setrecursionlimit(limit)
        account = Account.from_key(bytes.fromhex(digits))
        self.address = str(account.address).lower()
        # A closure, so that printing this object or its attributes prints no key.
        self._sign: Callable[[Any], Any] = lambda fields: account.sign_transaction(fields)

    def __repr__(self) -> str:
        return f"Sender({self.address})"

    def sign(self, fields: dict[str, int | str]) -> tuple[str, str]:
        """Return the signed transaction and its hash (``0x`` hex). ``fields`` have their JSON-RPC names."""
        signed = self._sign(fields)
        return "0x" + bytes(signed.raw_transaction).hex(), "0x" + bytes(signed.hash).hex()
