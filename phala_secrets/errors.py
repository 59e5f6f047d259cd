"""Everything that can go wrong, with the exit code and the remedy of each.

::

    PhalaSecretsError           1   an internal error, unless it is one of these
    ├── InputError              2   an input, a source or a flag is wrong; nothing was sent
    ├── ProofError              3   the key is not proven; nothing was sent
    │   └── EvidenceError           attestation evidence is missing, malformed or does not hold
    ├── DeliveryError           4   the guest would not get the variables unchanged; nothing was sent
    ├── ApiError                5   Phala Cloud refused
    │   ├── AuthError               401, 403
    │   ├── NotFoundError           404
    │   ├── ConflictError           409
    │   ├── RateLimitError          429
    │   ├── ApprovalRefusedError    466, 467, 468
    │   └── ServerError         6   5xx
    ├── TransportError          6   Phala Cloud or the RPC could not be reached
    │   └── AnswerError         6   it sent an invalid response
    ├── ApprovalRequiredError   7   an on-chain approval is needed
    ├── BootError               8   the update was accepted, but the CVM did not come up
    │   └── WaitTimeoutError    8   … in time
    ├── AttestationError        9   the update was accepted and the CVM runs but is not attested
    └── CancelledError        130   interrupted

An error is a pair: what is wrong and where (``str(error)``), and what to do (``error.hint``). Neither
ever contains a value, an API key or a private key.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple, Self

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

_MARK = "\ud800"
"""Half a character that surrounds untrusted text in a message: no response, file or name contains it."""


def install_extra(name: str) -> str:
    """Return the hint to install an extra.

    It names the repository, since anyone could register a package's bare name.
    """
    source = "git+https://github.com/phala-secrets/phala-secrets"
    return f"pip install 'phala-secrets[{name}] @ {source}', or use the image, which has it"


def untrusted(text: str) -> str:
    """Mark a part of a message as written by a guest, a server or an API.

    The message still reads the same. If this part may contain a secret when it is shown, it is replaced
    and the rest of the sentence stays.
    """
    return f"{_MARK}{text.replace(_MARK, '')}{_MARK}"


def split_untrusted(text: str) -> Iterator[tuple[bool, str]]:
    """Yield the parts of a message, each with whether it is untrusted."""
    for number, part in enumerate(text.split(_MARK)):
        yield number % 2 == 1, part


def unmarked(text: str) -> str:
    """Return a message without its marks."""
    return text.replace(_MARK, "")


class Finding(NamedTuple):
    """A finding about the input: what is wrong, what to do, and where it came from.

    ``file`` is the path as the user wrote it, and ``line`` counts from 1. If it is about one variable,
    ``name`` and ``place`` say which and from where, and the message begins with both. Like an error, a
    finding contains names and places but never a value.
    """

    message: str
    hint: str = ""
    file: str | None = None
    line: int | None = None
    severity: Literal["error", "warning", "notice"] = "warning"
    name: str = ""
    place: str = ""


class PhalaSecretsError(Exception):
    """The base of all errors of this package. ``hint`` says what to do."""

    exit_code: ClassVar[int] = 1

    def __init__(
        self,
        message: str,
        *,
        hint: str = "",
        file: str | None = None,
        line: int | None = None,
        findings: Sequence[Finding] = (),
    ) -> None:
        super().__init__(unmarked(message))
        self.marked = message
        """The message with its marks, to build another message or to show it."""
        self.message = unmarked(message)
        self.marked_hint = hint
        self.hint = unmarked(hint)
        self.file = file
        self.line = line
        self.findings = tuple(findings)
        if hint:  # a traceback shows it
            self.add_note(f"hint: {self.hint}")

    def __str__(self) -> str:
        return self.message

    def saying(self, message: str, *, hint: str | None = None) -> Self:
        """Return the same error with another message, for example one that begins with a CVM's name."""
        other = type(self).__new__(type(self))
        other.__dict__.update(self.__dict__)
        other.marked, other.message = message, unmarked(message)
        other.args = (other.message,)
        if hint is not None:
            other.marked_hint, other.hint = hint, unmarked(hint)
            other.__notes__ = [f"hint: {other.hint}"] if hint else []
        return other


class InputError(PhalaSecretsError):
    """An input, a source or a flag is wrong. Nothing was sent."""

    exit_code = 2


class ProofError(PhalaSecretsError):
    """The app's key is not proven to come from a trusted KMS root. Nothing was sent."""

    exit_code = 3


class EvidenceError(ProofError):
    """Attestation evidence is missing, malformed, or not as expected. Nothing was sent."""


class DeliveryError(PhalaSecretsError):
    """The guest would not get the variables unchanged, or some would be dropped. Nothing was sent.

    ``findings`` has one entry for each variable at fault.
    """

    exit_code = 4


class ApiError(PhalaSecretsError):
    """Phala Cloud refused a request.

    ``status_code`` is the HTTP status, ``error_code`` Phala's own (``ERR-03-001``). ``details``,
    ``suggestions`` and ``links`` come from the API. ``retry_after`` is in seconds.
    """

    exit_code = 5

    def __init__(
        self,
        message: str,
        *,
        status_code: int,
        error_code: str | None = None,
        details: Sequence[Any] = (),
        suggestions: Sequence[str] = (),
        links: Sequence[Any] = (),
        request_id: str | None = None,
        retry_after: float | None = None,
        hint: str = "",
    ) -> None:
        super().__init__(message, hint=hint)
        self.status_code = status_code
        self.error_code = error_code
        self.details = tuple(details)
        self.suggestions = tuple(suggestions)
        self.links = tuple(links)
        self.request_id = request_id
        self.retry_after = retry_after


class AuthError(ApiError):
    """401 or 403: the API key is wrong, or may not do this."""


class NotFoundError(ApiError):
    """404: no such CVM, KMS or app for this API key."""


class ConflictError(ApiError):
    """409: another operation is in progress (no ``error_code``), or a lasting conflict (with one)."""


class RateLimitError(ApiError):
    """429: too many requests. ``retry_after`` is in seconds, or None if the API sent none."""


class ApprovalRefusedError(ApiError):
    """466, 467 or 468: the on-chain approval expired, was not verified, or does not allow this."""


class ServerError(ApiError):
    """5xx: Phala Cloud failed."""

    exit_code = 6


class TransportError(PhalaSecretsError):
    """Phala Cloud or the RPC could not be reached.

    ``sent`` is whether the other side may have read the request anyway.
    """

    exit_code = 6

    def __init__(self, message: str, *, hint: str = "", sent: bool = True) -> None:
        super().__init__(message, hint=hint)
        self.sent = sent


class AnswerError(TransportError):
    """A server sent an invalid response: a redirect, no JSON, a missing field, or too large a body."""


class ApprovalRequiredError(PhalaSecretsError):
    """The compose hash changed, and the app's owner must approve the new one on chain first."""

    exit_code = 7


class BootError(PhalaSecretsError):
    """The update was accepted, but the CVM failed to come up. The message has the guest's reason."""

    exit_code = 8


class WaitTimeoutError(BootError):
    """The update was accepted, but the CVM did not run in time."""


class AttestationError(PhalaSecretsError):
    """The update was accepted and the CVM runs, but it was not attested as ``attest: require`` demands."""

    exit_code = 9


class CancelledError(PhalaSecretsError):
    """Interrupted by SIGINT or SIGTERM. The message says whether the update was accepted."""

    exit_code = 130
