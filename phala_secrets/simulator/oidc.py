"""Keyless login: GitHub, which issues a job's tokens, and the service's checks.

Tokens have the simulator's own key, so they work nowhere else and foreign ones do not work here.
"""

from __future__ import annotations

import base64
import hmac
import json
import re
from functools import cached_property
from typing import TYPE_CHECKING, Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature, encode_dss_signature

from phala_secrets.simulator.authority import p256
from phala_secrets.simulator.wire import Answer, RefusalError, Request

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

TOKEN_PATH = "/_github/token"  # noqa: S105 (a path)
ISSUER = "https://token.actions.githubusercontent.com"

_JWT = re.compile(r"[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+")
_HALF = 32
"""Bytes of each half of a signature over P-256."""


class GitHub:
    """GitHub, with one job that may ask for tokens (``id-token: write``). Every attribute may be changed."""

    def __init__(self, seed: bytes, now: Callable[[], datetime]) -> None:
        self._seed = seed
        self._now = now
        self.repository = "octo-org/octo-app"
        self.ref = "refs/heads/main"
        self.lifetime = 300.0
        """Lifetime of a token in seconds."""
        self.clock_offset = 0.0
        """Seconds by which GitHub's clock is ahead of the service's."""
        self.request_token = hmac.digest(seed, b"request token", "sha256").hex()
        """The job's request token."""
        self.claims: dict[str, Any] = {}
        """Claims that replace a token's own. None leaves one out."""
        self.issued: list[str] = []
        """The issued tokens, oldest first."""

    @cached_property
    def key(self) -> ec.EllipticCurvePrivateKey:
        """The key that signs tokens."""
        return p256(self._seed, "github")

    def respond(self, request: Request) -> Answer:
        """Issue a token for the requested ``audience``. Raise a 401 without the request token."""
        given = request.headers.get("authorization", "").partition(" ")
        if given[0].lower() != "bearer" or not hmac.compare_digest(given[2], self.request_token):
            raise RefusalError(401, "Not authorized")
        audience = request.query.get("audience", [f"https://github.com/{self.repository.split('/')[0]}"])[-1]
        token = self.token(audience)
        self.issued.append(token)
        return Answer({"count": len(token), "value": token})

    def token(self, audience: str, key: ec.EllipticCurvePrivateKey | None = None) -> str:
        """Return a token of the job, signed with another ``key`` if one is given."""
        now = self._now().timestamp() + self.clock_offset
        claims = {
            "iss": ISSUER,
            "aud": audience,
            "sub": f"repo:{self.repository}:ref:{self.ref}",
            "repository": self.repository,
            "ref": self.ref,
            "jti": f"{len(self.issued)}",
            "nbf": int(now),
            "iat": int(now),
            "exp": int(now + self.lifetime),
            **self.claims,
        }
        claims = {name: value for name, value in claims.items() if value is not None}
        signed = f"{_encoded({'alg': 'ES256', 'typ': 'JWT'})}.{_encoded(claims)}"
        halves = decode_dss_signature((key or self.key).sign(signed.encode(), ec.ECDSA(hashes.SHA256())))
        signature = b"".join(half.to_bytes(_HALF, "big") for half in halves)
        return f"{signed}.{_base64(signature)}"


class Tokens:
    """The service's side: the tokens that it accepts, by workspace and route."""

    def __init__(self, github: GitHub, now: Callable[[], datetime]) -> None:
        self._github = github
        self._now = now
        self.audiences: set[str] = set()
        """The URLs of this service, one of which must be a token's audience."""
        self.trusted: dict[str, list[str]] = {github.repository: ["octo"]}
        """The workspaces that trust a repository."""
        self.workspace = "octo"
        """The workspace of the CVMs."""
        self.refused_routes = ""
        """A regular expression for each ``METHOD /path`` that rejects tokens (*inferred*)."""
        self.refusal = 403
        """The status of such a rejection (*inferred*): 401 or 403."""

    def admit(self, request: Request) -> None:
        """Refuse a request whose token is invalid or insufficient."""
        scheme, _, token = request.headers["authorization"].partition(" ")
        if scheme.lower() != "bearer":
            raise RefusalError(401, "Not authenticated")
        claims = self._claims(token)
        asked = f"{request.method} {request.path}"
        if self.refused_routes and re.search(self.refused_routes, asked):
            raise RefusalError(self.refusal, "An API key is required")
        self._admit_to(claims, request.headers.get("x-phala-workspace"))

    def _claims(self, token: str) -> dict[str, Any]:
        """Return the claims of a current token of GitHub for this service. Raise a 401 otherwise."""
        claims = _signed_by(self._github.key.public_key(), token)
        now = self._now().timestamp()
        if claims.get("iss") != ISSUER:
            raise RefusalError(401, "Invalid token: issuer")
        if str(claims.get("aud")) not in self.audiences:
            raise RefusalError(401, "Invalid token: audience")
        moments = [claims.get(name) for name in ("nbf", "iat", "exp")]
        if not all(type(moment) is int for moment in moments):
            raise RefusalError(401, "Invalid token: no expiry")
        if now >= claims["exp"]:
            raise RefusalError(401, "Invalid token: expired")
        if now < int(claims["nbf"]):
            raise RefusalError(401, "Invalid token: not yet valid")
        return claims

    def _admit_to(self, claims: dict[str, Any], workspace: str | None) -> None:
        """Return the requested workspace. Raise a 403 for a foreign repository or an ambiguous request."""
        trusting = self.trusted.get(str(claims.get("repository")), [])
        if not trusting:
            raise RefusalError(403, "Repository is not trusted")
        if workspace is None and len(trusting) > 1:
            raise RefusalError(403, "Several workspaces trust this repository: name one")
        if (workspace or trusting[0]) not in trusting:
            raise RefusalError(403, "The workspace does not trust this repository")
        if (workspace or trusting[0]) != self.workspace:
            raise RefusalError(403, "CVM not in workspace")


def _signed_by(key: ec.EllipticCurvePublicKey, token: str) -> dict[str, Any]:
    if not _JWT.fullmatch(token):
        raise RefusalError(401, "Invalid token")
    signed, _, signature = token.rpartition(".")
    try:
        header, claims = (json.loads(_decoded(part)) for part in signed.split("."))
        raw = _decoded(signature)
        halves = (int.from_bytes(raw[:_HALF], "big"), int.from_bytes(raw[_HALF:], "big"))
        key.verify(encode_dss_signature(*halves), signed.encode(), ec.ECDSA(hashes.SHA256()))
    except (ValueError, InvalidSignature):
        raise RefusalError(401, "Invalid token: signature") from None
    if header.get("alg") != "ES256" or not isinstance(claims, dict) or len(raw) != 2 * _HALF:
        raise RefusalError(401, "Invalid token")
    return claims


def _encoded(content: Any) -> str:
    return _base64(json.dumps(content, separators=(",", ":")).encode())


def _base64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


def _decoded(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
