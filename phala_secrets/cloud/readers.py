"""Readers of responses as models. Models are named, not imported: pydantic loads with the first response."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from phala_secrets.cloud.rows import precondition_fields, rows
from phala_secrets.dstack.key_proof import EnvEncryptPublicKey
from phala_secrets.errors import AnswerError

if TYPE_CHECKING:
    from phala_secrets.cloud.models import GetAppEnvEncryptPubKeyResponse


def read(model: str) -> Callable[[Any], Any]:
    """Return the reader of one model."""
    return partial(_validate, model)


def read_list(model: str) -> Callable[[Any], Any]:
    """Return the reader of a list of one model, paged or not."""
    return lambda body: tuple(_validate(model, row) for row in rows(body))


def read_precondition(model: str) -> Callable[[Any], Any]:
    """Return the reader of a 465. It leaves out the commit credentials."""
    return lambda body: _validate(model, precondition_fields(body))


def read_key(app_id: str, body: Any) -> GetAppEnvEncryptPubKeyResponse:
    """Read an app's key, which carries its own proof: the app id and the signatures."""
    fields = body if isinstance(body, dict) else {}
    key = EnvEncryptPublicKey(
        str(fields.get("public_key", "")),
        app_id=app_id,
        signature=fields.get("signature"),
        signature_v1=fields.get("signature_v1"),
        timestamp=fields.get("timestamp"),
    )
    result: GetAppEnvEncryptPubKeyResponse = _validate(
        "GetAppEnvEncryptPubKeyResponse", body, {"app_env_encrypt_pubkey": key}
    )
    return result


def _validate(name: str, body: Any, more: Mapping[str, Any] = MappingProxyType({})) -> Any:
    from pydantic import BaseModel, ValidationError

    from phala_secrets.cloud import models

    model: type[BaseModel] = getattr(models, name)
    try:
        return model.model_validate({**body, **more} if more and isinstance(body, dict) else body)
    except ValidationError as error:
        # The library's own message would quote the response.
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        where = ".".join(str(part) for part in first["loc"]) or "the body"
        raise AnswerError(
            f"Phala Cloud's response is not a valid {name}: {where}: {first['msg']}",
            hint="check api-url; if it is right, report that the API has changed",
        ) from None
