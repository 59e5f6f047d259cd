"""systemd's own reader of environment files, out of Debian's ``libsystemd-shared``.

It is the judge of what the guest would read, so nothing stands in for it: without the
library (``apt-get install libsystemd-shared``), importing this fails.
"""

from __future__ import annotations

import ctypes
import os
from pathlib import Path

_Strings = ctypes.POINTER(ctypes.c_char_p)
_FOLDERS = (*Path("/usr/lib").glob("*/systemd"), Path("/usr/lib/systemd"))


def _library() -> tuple[ctypes.CDLL, int]:
    found = sorted(path for folder in _FOLDERS for path in folder.glob("libsystemd-shared-*.so"))
    if not found:
        raise RuntimeError("the judge is missing: apt-get install libsystemd-shared")
    library = ctypes.CDLL(str(found[-1]))
    library.load_env_file.argtypes = [ctypes.c_void_p, ctypes.c_char_p, ctypes.POINTER(_Strings)]
    library.load_env_file.restype = ctypes.c_int
    library.strv_env_clean_with_callback.argtypes = [_Strings, ctypes.c_void_p, ctypes.c_void_p]
    library.strv_env_clean_with_callback.restype = _Strings
    library.strv_free.argtypes = [_Strings]
    library.strv_free.restype = ctypes.c_void_p
    library.log_set_max_level(0)
    return library, int(found[-1].stem.rpartition("-")[2].partition(".")[0])


_LIBRARY, VERSION = _library()


def environment(text: bytes) -> dict[str, str] | None:
    """Return the variables that a service with this ``EnvironmentFile`` has; None if it is refused whole.

    As the service manager does, reads with ``load_env_file`` and then drops invalid names.
    """
    descriptor = os.memfd_create("environment")
    strings = _Strings()
    try:
        os.write(descriptor, text)
        path = f"/proc/self/fd/{descriptor}".encode()
        if _LIBRARY.load_env_file(None, path, ctypes.byref(strings)) < 0:
            return None
        variables = {}
        if strings:
            _LIBRARY.strv_env_clean_with_callback(strings, None, None)
            index = 0
            while (entry := strings[index]) is not None:
                name, _, value = entry.decode().partition("=")
                variables[name] = value
                index += 1
        return variables
    finally:
        _LIBRARY.strv_free(strings)
        os.close(descriptor)
