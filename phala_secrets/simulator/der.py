"""The little DER that `cryptography` does not write: Intel's extension of a PCK certificate."""

from __future__ import annotations

_SGX = "1.2.840.113741.1.13.1"


def sgx_extension(fmspc: bytes, svns: bytes, pce_svn: int) -> bytes:
    """Return the value of the extension: what the platform is, and how new its firmware.

    ``fmspc`` has 6 bytes, ``svns`` 16. (Intel SGX PCK Certificate and CRL Profile Specification.)
    """
    tcb = [_pair(f"{_SGX}.2.{number}", _integer(svn)) for number, svn in enumerate(svns, 1)]
    tcb += [_pair(f"{_SGX}.2.17", _integer(pce_svn)), _pair(f"{_SGX}.2.18", _value(0x04, svns))]
    flags = [_pair(f"{_SGX}.7.{number}", _value(0x01, b"\xff")) for number in (1, 2, 3)]
    return _sequence(
        _pair(f"{_SGX}.1", _value(0x04, bytes(range(16)))),
        _pair(f"{_SGX}.2", _sequence(*tcb)),
        _pair(f"{_SGX}.3", _value(0x04, bytes(2))),
        _pair(f"{_SGX}.4", _value(0x04, fmspc)),
        _pair(f"{_SGX}.5", _value(0x0A, b"\x01")),
        _pair(f"{_SGX}.6", _value(0x04, bytes(range(16, 32)))),
        _pair(f"{_SGX}.7", _sequence(*flags)),
    )


SGX_OID = _SGX


def _value(tag: int, content: bytes) -> bytes:
    size = len(content)
    if size < 0x80:
        return bytes([tag, size]) + content
    length = size.to_bytes((size.bit_length() + 7) // 8, "big")
    return bytes([tag, 0x80 | len(length)]) + length + content


def _sequence(*parts: bytes) -> bytes:
    return _value(0x30, b"".join(parts))


def _pair(oid: str, value: bytes) -> bytes:
    return _sequence(_value(0x06, _arcs(oid)), value)


def _integer(number: int) -> bytes:
    return _value(0x02, number.to_bytes(number.bit_length() // 8 + 1, "big"))


def _arcs(oid: str) -> bytes:
    first, second, *rest = map(int, oid.split("."))
    encoded = bytes([first * 40 + second])
    for arc in rest:
        digits = [arc & 0x7F]
        while arc := arc >> 7:
            digits.append(arc & 0x7F | 0x80)
        encoded += bytes(reversed(digits))
    return encoded
