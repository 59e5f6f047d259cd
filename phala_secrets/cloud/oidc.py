"""Keyless login: a job of GitHub Actions proves who it is with an OIDC token, in place of an API key.

GitHub gives a job two variables where its workflow grants ``id-token: write``. With them it asks for a
token that is for one audience and good for minutes. Loaded by nothing that has an API key.
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
"""Characters of a token: servers take no longer header."""

_LONGEST_NAME = 255


class Keyless:
    """A login with tokens of a job. Safe to share between threads, and between the tasks of a loop."""

    def __init__(self, request_url: str, request_token: Secret, audience: str, workspace: str = "") -> None:
        self._url = f"{request_url}{'&' if '?' in request_url else '?'}audience={quote(audience, safe='')}"
        self._request_token = request_token
        self._audience = audience
        self.workspace = workspace
        self._told: list[Callable[[Token], None]] = []
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
        """What is secret before there is a token."""
        return [self._request_token.reveal()]

    def headers(self) -> dict[str, str]:
        """Return what each request carries."""
        text = self._token.text.reveal() if self._token else ""
        workspace = {"X-Phala-Workspace": self.workspace} if self.workspace else {}
        return {"Authorization": f"Bearer {text}", **workspace}

    def watch(self, told: Callable[[Token], None]) -> None:
        """Have ``told`` called with each new token, before anything is sent with it."""
        self._told.append(told)

    def renewal(self, seconds: float) -> Flow[None] | None:
        """Return the flow that gets a token, or None while the one there is good.

        To be run by one thread or task at a time: then those that waited have what came of it, and GitHub
        is asked once. ``seconds`` is how long that may take. Raise TransportError if there is no token;
        nothing was sent to Phala Cloud then.
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
        for told in self._told:
            told(token)
        self._token = token
        self._good_until = asked_at + token.lifetime - min(flow.TOKEN_MARGIN, token.lifetime / 2)


def login_of_job(environ: Mapping[str, str], api_url: str, workspace: str, otherwise: str) -> Keyless:
    """Return the login of the job of GitHub Actions that this is.

    Args:
        environ: The variables of the job.
        api_url: The URL of the API: Phala Cloud's own, or a loopback address.
        workspace: The workspace, or nothing where one alone trusts the repository.
        otherwise: The hint's beginning: how to give an API key.

    Raises:
        InputError: This job cannot log in, and why.
    """
    api = urlsplit(api_url)
    local = is_loopback(api.hostname or "")
    if not local and not _is_phalas_own(api_url):
        hint = f"{otherwise}; GitHub's token is for Phala Cloud's own URL, and api-url is another"
        raise InputError("no API key", hint=hint)
    url, token = (environ.get(name, "").strip() for name in (REQUEST_URL, REQUEST_TOKEN))
    if not url or not token:
        hint = f"{otherwise}; or grant the job the permission id-token: write, to log in without one"
        if environ.get("GITHUB_EVENT_NAME", "").startswith("pull_request"):
            hint += "; a pull request of a fork or of Dependabot gets neither from GitHub"
        raise InputError("no API key", hint=hint)
    url = parse_url(url, REQUEST_URL)
    if urlsplit(url).scheme != "https" and not local:
        raise InputError(
            f"{REQUEST_URL} has to be https: 'http' would show the token to anyone on the way",
            hint=f"{otherwise}; GitHub sets the variable itself",
        )
    if not fits_a_header(token):
        raise InputError(f"invalid {REQUEST_TOKEN}", hint=f"{otherwise}; GitHub sets the variable itself")
    if not fits_a_header(workspace) or len(workspace) > _LONGEST_NAME:
        raise InputError("invalid workspace", hint="give it as the dashboard shows it")
    return Keyless(url, Secret(token), api_url if local else AUDIENCE, workspace)


def _is_phalas_own(url: str) -> bool:
    ours, theirs = urlsplit(url), urlsplit(DEFAULT_URL)
    return (ours.scheme, ours.netloc.lower().removesuffix(":443")) == (theirs.scheme, theirs.netloc)


def _failure(error: ApiError | TransportError) -> TransportError:
    """Return what it means that there is no token. Nothing was sent with it, so it is safe to try again."""
    if isinstance(error, ApiError) and (error.status_code == 429 or error.status_code >= 500):
        hint = "run again once GitHub works, or give api-key"
        return TransportError(f"no token from GitHub: HTTP {error.status_code}", hint=hint, sent=False)
    if isinstance(error, ApiError):
        hint = "check that the job has the permission id-token: write, or give api-key"
        return AnswerError(f"GitHub refused a token: HTTP {error.status_code}", hint=hint, sent=False)
    kind = AnswerError if isinstance(error, AnswerError) else TransportError
    hint = error.marked_hint if kind is TransportError else f"check {REQUEST_URL}, or give api-key"
    return kind(f"no token from GitHub: {error.marked}", hint=hint, sent=False)


def _parsed(body: bytes, audience: str) -> Token:
    """Read GitHub's response. Raise AnswerError unless it is a token for this audience that ends in time.

    Only Phala Cloud can tell whether the token is genuine.
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
