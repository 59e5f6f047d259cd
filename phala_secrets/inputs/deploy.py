"""The compose file to deploy with the secrets."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from phala_secrets.dstack.environment import Origin
from phala_secrets.errors import InputError

if TYPE_CHECKING:
    from phala_secrets.dstack.compose_file import ComposeFile
    from phala_secrets.inputs.files import Files
    from phala_secrets.inputs.given import Given
    from phala_secrets.inputs.prepared import Prepared


class Deploy(NamedTuple):
    """A compose file to deploy.

    ``keeps_secrets`` is whether the environment and its names stay as they are, ``require_digest``
    whether each image has to be named by digest.
    """

    file: ComposeFile
    keeps_secrets: bool
    require_digest: bool


def read_deploy(mode: str, given: Given, files: Files, prepared: Prepared | None) -> Deploy | None:
    """Return the compose file to deploy or that was prepared, unchecked, or None.

    Raises:
        InputError: It cannot be read, or does not go with the other inputs.
    """
    path, keeps, require = (
        given.text("compose-file"),
        given.flag("keep-secrets"),
        given.flag("require-digest"),
    )
    if prepared and path:
        raise InputError(
            "both compose-file and a prepared ciphertext are set",
            hint="leave compose-file out: prepared-file holds the approved one",
        )
    if prepared and prepared.whole and (text := prepared.whole.docker_compose_file) is not None:
        where = f"{given.text('prepared-file')} (docker_compose_file)"
        return _deploy(text, where, keeps=not prepared.encrypted_env, require=require)
    if not path:
        for name, flag in (("keep-secrets", keeps), ("require-digest", require)):
            if flag:
                raise InputError(f"{name} is true without a compose file", hint="pass compose-file")
        return None
    if mode == "encrypt":
        raise InputError(
            "compose-file is set, but encrypt deploys nothing", hint="leave it out, or use mode: update"
        )
    origin = Origin("compose-file", path)
    try:
        text = files.read(path, origin).decode()
    except UnicodeDecodeError:
        raise InputError("compose-file is not UTF-8 text", hint="check the path", file=path) from None
    return _deploy(text, path, keeps=keeps, require=require)


def _deploy(text: str, path: str, *, keeps: bool, require: bool) -> Deploy:
    from phala_secrets.dstack.compose_file import ComposeFile

    return Deploy(ComposeFile(text, path), keeps, require)
