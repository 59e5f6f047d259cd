"""Values that do not print themselves, and the logins that hold them: an API key or a job's tokens."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, Protocol

from phala_secrets.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Callable

    from phala_secrets.flow import Flow


class Secret:
    """A secret text. Only ``reveal()`` returns it: repr, str and format do not."""

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        self._text = text

    def reveal(self) -> str:
        """Return the text itself."""
        return self._text

    def __repr__(self) -> str:
        return "Secret(…)"

    def __bool__(self) -> bool:
        return bool(self._text)


class Token(NamedTuple):
    """An ID token of GitHub, its subject, and its lifetime in seconds."""

    text: Secret
    subject: str
    lifetime: float

    @property
    def secrets(self) -> list[str]:
        """The texts to hide: the token, and its signature, without which it is worthless."""
        text = self.text.reveal()
        return [text, text.rpartition(".")[2]]


class Login(Protocol):
    """A login to Phala Cloud: an API key, or a job of GitHub Actions (``cloud.oidc``)."""

    @property
    def by_token(self) -> bool:
        """Whether it has no API key."""

    @property
    def anywhere(self) -> bool:
        """Whether the service picks the workspace."""

    @property
    def secrets(self) -> list[str]:
        """The texts to hide."""

    def headers(self) -> dict[str, str]:
        """Return the headers of each request."""

    def renewal(self, seconds: float) -> Flow[None] | None:
        """Return the flow to run before a request is sent, or None where none is needed."""

    def watch(self, watcher: Callable[[Token], None]) -> None:
        """Call ``watcher`` with each new token before it is used."""


class ApiKey(Secret):
    """A login with an API key, which needs no renewal."""

    __slots__ = ()

    @property
    def by_token(self) -> bool:
        return False

    @property
    def anywhere(self) -> bool:
        return False

    @property
    def secrets(self) -> list[str]:
        """The key."""
        return [self._text]

    def headers(self) -> dict[str, str]:
        """Return the headers of each request."""
        return {"X-API-Key": self._text}

    def renewal(self, seconds: float) -> None:
        """Return None: a key needs no renewal."""

    def watch(self, watcher: Callable[[Token], None]) -> None:
        """Do nothing: there are no tokens."""


def parse_api_key(text: str, what: str) -> ApiKey:
    """Return an API key that fits into a header.

    Raises:
        InputError: It does not. The message names ``what`` and never the key.
    """
    if not fits_a_header(text):
        raise InputError(
            f"{what} contains characters that are invalid in an API key",
            hint="paste it again on one line of its own",
        )
    return ApiKey(text)


def fits_a_header(text: str) -> bool:
    """Return whether a text is one word of printable ASCII."""
    return text.isascii() and text.isprintable() and " " not in text
