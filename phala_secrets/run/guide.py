"""Which part of docs/troubleshooting.md is about an error: by its kind, the most special one that is here."""

from __future__ import annotations

from typing import TYPE_CHECKING

from phala_secrets import errors

if TYPE_CHECKING:
    from collections.abc import Mapping

_PAGE = "https://github.com/phala-secrets/phala-secrets/blob/main/docs/troubleshooting.md"

ANCHORS: Mapping[type[BaseException], str] = {
    errors.PhalaSecretsError: "an-internal-error",
    errors.InputError: "an-input-is-wrong",
    errors.ProofError: "the-key-is-not-proven",
    errors.DeliveryError: "the-guest-would-not-get-it",
    errors.ApiError: "phala-cloud-refuses",
    errors.AuthError: "the-login-is-refused",
    errors.ConflictError: "the-cvm-is-busy",
    errors.ServerError: "phala-cloud-cannot-be-reached",
    errors.TransportError: "phala-cloud-cannot-be-reached",
    errors.ApprovalRequiredError: "an-approval-is-needed",
    errors.ApprovalRefusedError: "an-approval-is-needed",
    errors.BootError: "the-cvm-does-not-come-up",
    errors.AttestationError: "the-cvm-is-not-attested",
    errors.CancelledError: "it-was-interrupted",
}


def page(error: errors.PhalaSecretsError) -> str:
    """Return the link to what can be done about an error of this kind."""
    kind = next(kind for kind in type(error).__mro__ if kind in ANCHORS)
    return f"{_PAGE}#{ANCHORS[kind]}"
