"""systemd's own parser of environment files, called by ctypes."""

from __future__ import annotations

import ctypes
import os
import re
from itertools import count
from pathlib import Path

_PATTERNS = ("lib*/systemd/libsystemd-shared-*.so", "lib/*/systemd/libsystemd-shared-*.so")
_LIBRARIES = sorted(path for pattern in _PATTERNS for path in Path("/usr").glob(pattern))


def _load() -> tuple[ctypes.CDLL, int]:
    if not _LIBRARIES:
        raise RuntimeError("no libsystemd-shared: apt-get install libsystemd-shared")
    version = re.search(r"-(\d+)", _LIBRARIES[-1].stem)
    assert version is not None
    return ctypes.CDLL(str(_LIBRARIES[-1])), int(version[1])


_SHARED, VERSION = _load()
_SHARED.load_env_file.argtypes = [
    ctypes.c_void_p,
    ctypes.c_char_p,
    ctypes.POINTER(ctypes.POINTER(ctypes.c_char_p)),
]
_SHARED.log_set_max_level(0)  # or it prints each value that it refuses
_FREE = ctypes.CDLL(None).free
_FREE.argtypes = [ctypes.c_void_p]


def load_env_file(content: bytes) -> list[tuple[str, str]]:
    """What systemd reads from a file with this content, in its order; raises OSError where it refuses."""
    descriptor = os.memfd_create("environment")
    try:
        os.write(descriptor, content)
        lines = ctypes.POINTER(ctypes.c_char_p)()
        status = _SHARED.load_env_file(
            None, f"/proc/self/fd/{descriptor}".encode(), ctypes.byref(lines)
        )
    finally:
        os.close(descriptor)
    if status < 0:
        raise OSError(-status, os.strerror(-status))
    return [_pair(line) for line in _take(lines)]


def _pair(line: bytes) -> tuple[str, str]:
    name, _, value = line.decode().partition("=")
    return name, value


def _take(lines: ctypes._Pointer[ctypes.c_char_p]) -> list[bytes]:
    """The strings of a NULL-terminated array, which is freed."""
    if not lines:
        return []
    taken = []
    addresses = ctypes.cast(lines, ctypes.POINTER(ctypes.c_void_p))
    for index in count():
        line = lines[index]
        if line is None:
            break
        taken.append(line)
        _FREE(addresses[index])
    _FREE(lines)
    return taken
