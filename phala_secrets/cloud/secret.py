"""Values that do not print themselves, and who asks with them: an API key, or a job with its tokens."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, Protocol

from phala_secrets.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Callable

    from phala_secrets.flow import Flow


class Secret:
    """Holds a secret text; only ``reveal()`` gives it out, and no repr, str or format does."""

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
    """An ID token of GitHub, who it says it is, and for how many seconds it is good."""

    text: Secret
    subject: str
    lifetime: float

    @property
    def secrets(self) -> list[str]:
        """What must not be shown: the token, and its signature, without which it is worth nothing."""
        text = self.text.reveal()
        return [text, text.rpartition(".")[2]]


class Login(Protocol):
    """Who asks Phala Cloud: an API key, or a job of GitHub Actions (``cloud.oidc``)."""

    @property
    def by_token(self) -> bool:
        """Whether it has no API key."""

    @property
    def anywhere(self) -> bool:
        """Whether the service picks the workspace."""

    @property
    def secrets(self) -> list[str]:
        """What of it must not be shown."""

    def headers(self) -> dict[str, str]:
        """Return what each request carries."""

    def renewal(self, seconds: float) -> Flow[None] | None:
        """Return the flow to run before a request is sent, or None where none is needed."""

    def watch(self, told: Callable[[Token], None]) -> None:
        """Have ``told`` called with each new token, before anything is sent with it."""


class ApiKey(Secret):
    """A login with an API key, which is good for as long as it is."""

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
        """Return what each request carries."""
        return {"X-API-Key": self._text}

    def renewal(self, seconds: float) -> None:
        """Return nothing: it needs none."""

    def watch(self, told: Callable[[Token], None]) -> None:
        """Do nothing: there are no tokens."""


def parse_api_key(text: str, what: str) -> ApiKey:
    """Return an API key that fits into a header.

    Raises:
        InputError: It does not. The message names ``what``, and never the key.
    """
    if not fits_a_header(text):
        raise InputError(
            f"{what} has characters that no API key has", hint="paste it again, alone on one line"
        )
    return ApiKey(text)


def fits_a_header(text: str) -> bool:
    """Return whether a text is one word of printable ASCII."""
    return text.isascii() and text.isprintable() and " " not in text
