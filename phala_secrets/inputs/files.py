"""The one reader of files. Paths from the checkout stay inside it, and no file makes a run wait.

The checkout decides where a relative path leads, where a link in it leads, and what ``phala.toml``
names. A pull request can change all three, so in a CI they have to stay inside the root. An absolute
path is the workflow's own.
"""

from __future__ import annotations

import errno
import os
import stat
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from phala_secrets.errors import InputError
from phala_secrets.runners.files import overwrite

if TYPE_CHECKING:
    from phala_secrets.dstack.environment import Origin

MAX_FILE_BYTES = 1024 * 1024
"""The largest file read. The guest takes 262,144 bytes, sealed: the rest is for comments, or for hex."""

_RUNNERS_OWN = ("_runner_*", "_github_*", "git-credentials-*")
"""What GitHub's runner and actions/checkout keep in ``RUNNER_TEMP``: the job's commands, its token."""

_HINT = "pass a path relative to the working folder, not the content itself"
_CHECKOUT_HINT = "check the path from the workspace, and run actions/checkout before this step"
_PIPE_HINT = "to read a pipe, use standard input: env-file `-`"


class Root(NamedTuple):
    """What files have to lie in.

    ``path`` is the checkout. On GitHub (``github``) an absolute path has to lie in it or in ``temp``,
    the runner's folder for temporary files; in another CI it may lie anywhere.
    """

    path: Path
    temp: Path | None = None
    github: bool = False

    def takes(self, path: Path, real: Path, *, by_checkout: bool) -> bool:
        """Return whether a file may be read that was named ``path`` and really lies at ``real``.

        ``path`` is absolute or relative as the user wrote it, ``by_checkout`` whether the checkout
        did. ``real`` has no links.
        """
        if _inside(real, self.path.resolve()):
            return True
        if by_checkout or not path.is_absolute() or self._passes(path):
            return False
        return self._in_temp(path, real) if self.github else True

    def _passes(self, path: Path) -> bool:
        """Return whether a path leads through the checkout, and may so be led out of it by a link."""
        roots = (self.path.absolute(), self.path.resolve())
        return any(_inside(way, root) for way in (path, Path(os.path.normpath(path))) for root in roots)

    def _in_temp(self, path: Path, real: Path) -> bool:
        if self.temp is None or ".." in path.parts:
            return False
        temp = self.temp.resolve()
        if not _inside(real, temp) or not (_inside(path, self.temp) or _inside(path, temp)):
            return False
        parts = real.relative_to(temp).parts
        return not any(fnmatchcase(part, own) for part in (*parts[:1], *parts[-1:]) for own in _RUNNERS_OWN)


class Files(NamedTuple):
    """A reader of regular files of bounded size. If there is a ``root``, it decides which."""

    folder: Path
    root: Root | None = None

    def read(
        self,
        path: str,
        origin: Origin,
        *,
        by_checkout: bool = False,
        hint: str = "",
        most: int = MAX_FILE_BYTES,
    ) -> bytes:
        """Return the bytes of a file, ``most`` of them. Relative paths start from ``folder``.

        Raises:
            InputError: The file cannot or must not be read. The message begins with ``origin``.
        """
        problem, remedy = "", hint or _HINT
        try:
            self._refuse_outside(path, (self.folder / path).resolve(), origin, by_checkout)
            with open(self.folder / path, "rb", opener=_open_at_once) as stream:
                if not stat.S_ISREG(os.fstat(stream.fileno()).st_mode):
                    raise _refusal(f"{origin} is not a regular file", hint or _PIPE_HINT, origin)
                # Only what is open is what is read: a folder on the way may have become a link since.
                self._refuse_outside(path, _real_path(stream.fileno()), origin, by_checkout)
                return bounded(stream.read(most + 1), origin, most)
        except (FileNotFoundError, NotADirectoryError):
            problem = "does not exist"
            if self.root and self.root.github and not hint:
                remedy = _CHECKOUT_HINT
        except IsADirectoryError:
            problem = "is a directory"
        except OSError as error:
            problem = f"cannot be read ({error.strerror})"
        except (RuntimeError, ValueError):
            problem = "cannot be read (invalid path)"
        raise _refusal(f"{origin} {problem}", remedy, origin)

    def write(self, path: str, text: str, origin: Origin) -> None:
        """Write a world-readable file, if one may be read there, and follow no link of the checkout.

        Raises:
            InputError: It cannot be written. The message begins with ``origin``.
        """
        try:
            self._refuse_outside(path, (self.folder / path).resolve(), origin, by_checkout=False)
        except (OSError, RuntimeError, ValueError):
            raise _refusal(f"{origin} cannot be written (invalid path)", _HINT, origin) from None
        overwrite(str(self.folder / path), text, str(origin))

    def _refuse_outside(self, path: str, real: Path, origin: Origin, by_checkout: bool) -> None:
        root = self.root
        if root is None or root.takes(Path(path), real, by_checkout=by_checkout):
            return
        where, hint = "the checkout", "put the file inside it, or use an absolute path"
        if root.github:
            where, hint = "the workspace", "put the file inside it or into `runner.temp`"
        if by_checkout:
            hint = "put the file inside it"
        raise _refusal(f"{origin} is outside {where}", hint, origin)


def bounded(data: bytes, origin: Origin, most: int = MAX_FILE_BYTES) -> bytes:
    """Return ``data``; raise InputError if it has more than ``most`` bytes."""
    if len(data) > most:
        hint = "shorten it: the guest takes 262144 bytes in all" if most == MAX_FILE_BYTES else _HINT
        raise _refusal(f"{origin} is larger than {most} bytes", hint, origin)
    return data


def _inside(path: Path, folder: Path) -> bool:
    return path.is_relative_to(folder)


def _open_at_once(path: str, flags: int) -> int:
    """Open without waiting for the other end of a pipe, and without becoming a device's terminal."""
    return os.open(path, flags | os.O_NONBLOCK | os.O_NOCTTY)


def _real_path(descriptor: int) -> Path:
    """Return where an open file is, as the kernel knows it."""
    try:
        return Path(f"/proc/self/fd/{descriptor}").readlink()
    except OSError:
        return _real_path_on_macos(descriptor)


def _real_path_on_macos(descriptor: int) -> Path:
    import fcntl

    get_path = getattr(fcntl, "F_GETPATH", None)
    if get_path is None:
        raise OSError(errno.ENOSYS, "the system cannot report its path")
    found: bytes = fcntl.fcntl(descriptor, get_path, bytes(1024))
    return Path(os.fsdecode(found.rstrip(b"\0")))


def _refusal(message: str, hint: str, origin: Origin) -> InputError:
    return InputError(message, hint=hint, file=origin.file, line=origin.line)
