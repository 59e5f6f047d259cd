"""Keyless login: a job of GitHub Actions identifies itself with an OIDC token instead of an API key.

GitHub gives a job two variables if its workflow grants ``id-token: write``. With them the job requests a
token that has one audience and lasts minutes. A run with an API key does not load this module.
"""

from __future__ import annotations

import base64
import re
from typing import TYPE_CHECKING
from urllib.parse import quote, urlsplit

from phala_secrets import flow
from phala_secrets.cloud.call import Attempt, Call, Response, read
from phala_secrets.cloud.ids import is_loopback, parse_url
from phala_secrets.cloud.requests import DEFAULT_URL
from phala_secrets.cloud.secret import Secret, Token, fits_a_header
from phala_secrets.dstack.nested import loads
from phala_secrets.errors import AnswerError, ApiError, InputError, TransportError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from phala_secrets.flow import Flow

AUDIENCE = "https://cloud.phala.com"
REQUEST_URL = "ACTIONS_ID_TOKEN_REQUEST_URL"
REQUEST_TOKEN = "ACTIONS_ID_TOKEN_REQUEST_TOKEN"  # noqa: S105 (the variable's name)

_TOKEN = re.compile(r"[A-Za-z0-9_-]+\.([A-Za-z0-9_-]+)\.[A-Za-z0-9_-]+")
_LONGEST = 16 * 1024
"""Characters of a token: servers accept no longer header."""

_LONGEST_NAME = 255


class Keyless:
    """A login with a job's tokens. It is safe to share between threads and between tasks."""

    def __init__(self, request_url: str, request_token: Secret, audience: str, workspace: str = "") -> None:
        self._url = f"{request_url}{'&' if '?' in request_url else '?'}audience={quote(audience, safe='')}"
        self._request_token = request_token
        self._audience = audience
        self.workspace = workspace
        self._watchers: list[Callable[[Token], None]] = []
        self._token: Token | None = None
        self._good_until = 0.0
        self._failures = 0
        self._failure: TransportError | None = None

    def __repr__(self) -> str:
        return "Keyless(…)"

    @property
    def by_token(self) -> bool:
        return True

    @property
    def anywhere(self) -> bool:
        return not self.workspace

    @property
    def secrets(self) -> list[str]:
        """The secrets before there is a token."""
        return [self._request_token.reveal()]

    def headers(self) -> dict[str, str]:
        """Return the headers of each request."""
        text = self._token.text.reveal() if self._token else ""
        workspace = {"X-Phala-Workspace": self.workspace} if self.workspace else {}
        return {"Authorization": f"Bearer {text}", **workspace}

    def watch(self, watcher: Callable[[Token], None]) -> None:
        """Call ``watcher`` with each new token before it is used."""
        self._watchers.append(watcher)

    def renewal(self, seconds: float) -> Flow[None] | None:
        """Return the flow that gets a token, or None while the current one is valid.

        Run it in one thread or task at a time: the others then share its outcome, and GitHub gets one
        request. It may take ``seconds``. It raises TransportError if it gets no token. Nothing was sent to
        Phala Cloud then.
        """
        return None if self._is_good() else self._renewed(seconds, self._failures)

    def _is_good(self) -> bool:
        return self._token is not None and flow.clock.monotonic() < self._good_until

    def _renewed(self, seconds: float, failures: int) -> Flow[None]:
        if self._failure and self._failures > failures:
            raise self._failure.saying(self._failure.marked)
        if not self._is_good():
            asked_at = flow.clock.monotonic()
            self._take((yield from self._asked(seconds)), asked_at)

    def _asked(self, seconds: float) -> Flow[Token]:
        headers = {"Authorization": f"bearer {self._request_token.reveal()}"}
        call = Call("GET", self._url, self._read, headers=headers, given_by=REQUEST_URL, whole=True)
        try:
            response: Response = yield Attempt(call, seconds)
            return read(call, response)
        except (ApiError, TransportError) as error:
            self._failures += 1
            self._failure = _failure(error)
            raise self._failure from None

    def _read(self, response: Response) -> Token:
        return _parsed(response.body, self._audience)

    def _take(self, token: Token, asked_at: float) -> None:
        for watcher in self._watchers:
            watcher(token)
        self._token = token
        self._good_until = asked_at + token.lifetime - min(flow.TOKEN_MARGIN, token.lifetime / 2)


def login_of_job(environ: Mapping[str, str], api_url: str, workspace: str, otherwise: str) -> Keyless:
    """Return the login of this GitHub Actions job.

    Args:
        environ: The variables of the job.
        api_url: The URL of the API: Phala Cloud's own, or a loopback address.
        workspace: The workspace, or empty if only one trusts the repository.
        otherwise: The beginning of the hint: how to pass an API key.

    Raises:
        InputError: This job cannot log in. The hint says why.
    """
    api = urlsplit(api_url)
    local = is_loopback(api.hostname or "")
    if not local and not _is_phalas_own(api_url):
        hint = f"{otherwise}; GitHub's token works only with Phala Cloud's own URL, not with this api-url"
        raise InputError("no API key", hint=hint)
    url, token = (environ.get(name, "").strip() for name in (REQUEST_URL, REQUEST_TOKEN))
    if not url or not token:
        hint = f"{otherwise}; or grant the job the permission id-token: write, to log in without one"
        if environ.get("GITHUB_EVENT_NAME", "").startswith("pull_request"):
            hint += "; GitHub gives a pull request from a fork or Dependabot neither"
        raise InputError("no API key", hint=hint)
    url = parse_url(url, REQUEST_URL)
    if urlsplit(url).scheme != "https" and not local:
        raise InputError(
            f"{REQUEST_URL} is not https: 'http' would expose the token on the network",
            hint=f"{otherwise}; GitHub sets the variable itself",
        )
    if not fits_a_header(token):
        raise InputError(f"invalid {REQUEST_TOKEN}", hint=f"{otherwise}; GitHub sets the variable itself")
    if not fits_a_header(workspace) or len(workspace) > _LONGEST_NAME:
        raise InputError("invalid workspace", hint="use the name from the dashboard")
    return Keyless(url, Secret(token), api_url if local else AUDIENCE, workspace)


def _is_phalas_own(url: str) -> bool:
    ours, theirs = urlsplit(url), urlsplit(DEFAULT_URL)
    return (ours.scheme, ours.netloc.lower().removesuffix(":443")) == (theirs.scheme, theirs.netloc)


def _failure(error: ApiError | TransportError) -> TransportError:
    """Return the error for a missing token. Nothing was sent with it, so a retry is safe."""
    if isinstance(error, ApiError) and (error.status_code == 429 or error.status_code >= 500):
        hint = "run again once GitHub works, or set api-key"
        return TransportError(f"no token from GitHub: HTTP {error.status_code}", hint=hint, sent=False)
    if isinstance(error, ApiError):
        hint = "check that the job has the permission id-token: write, or set api-key"
        return AnswerError(f"GitHub refused a token: HTTP {error.status_code}", hint=hint, sent=False)
    kind = AnswerError if isinstance(error, AnswerError) else TransportError
    hint = error.marked_hint if kind is TransportError else f"check {REQUEST_URL}, or set api-key"
    return kind(f"no token from GitHub: {error.marked}", hint=hint, sent=False)


def _parsed(body: bytes, audience: str) -> Token:
    """Read GitHub's response. Raise AnswerError unless it is a token for this audience that ends in time.

    Only Phala Cloud can verify that the token is genuine.
    """
    try:
        text = loads(body)["value"]
        parts = _TOKEN.fullmatch(text) if len(text) <= _LONGEST else None
        claims = loads(base64.urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4))) if parts else {}
        lifetime = float(claims["exp"] - claims["iat"])
        subject, meant = str(claims.get("sub") or claims["repository"]), claims["aud"]
    except (ValueError, LookupError, TypeError, AttributeError, OverflowError):
        raise AnswerError("the token is malformed") from None
    if meant != audience:
        raise AnswerError("the token is for another audience")
    if not 0 < lifetime <= flow.TOKEN_LONGEST:
        raise AnswerError("the token's lifetime is invalid")
    return Token(Secret(text), subject, lifetime)
