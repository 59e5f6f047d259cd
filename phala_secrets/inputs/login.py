"""Who runs this: an API key or the job itself, the service, and the app owner's key.

The one place that looks them up.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from phala_secrets.cloud.ids import parse_url
from phala_secrets.cloud.requests import DEFAULT_URL
from phala_secrets.cloud.secret import Login, Secret, parse_api_key
from phala_secrets.dstack.environment import Origin
from phala_secrets.dstack.nested import loads
from phala_secrets.errors import InputError
from phala_secrets.inputs.files import Files
from phala_secrets.inputs.place import person_at_terminal, root_of
from phala_secrets.inputs.project import Project

if TYPE_CHECKING:
    from collections.abc import Mapping

    from phala_secrets.inputs.given import Given

_KEY_HINT = "check the path, which is not shown here"
_NO_KEY = "set api-key"


def log_in(
    given: Given, environ: Mapping[str, str], folder: Path, project: Project | None = None
) -> tuple[Login, str]:
    """Return the login and the URL of the API.

    The login is the first of these that exists: the API key, the official CLI's login for a person at
    the terminal, and on GitHub the job itself.

    Raises:
        InputError: There is no login, or the login, its file or the URL is invalid.
    """
    url = given.text("api-url")
    key = secret_text(given, "api-key", folder)
    if not key and person_at_terminal(environ):
        project = project or Project(Files(folder, root_of(environ, folder)))
        key, prefix = _official(environ, project.first("profile"))
        url = url or prefix
    url = parse_url(url or DEFAULT_URL, "api-url")
    if not key and environ.get("GITHUB_ACTIONS") == "true":
        from phala_secrets.cloud.oidc import login_of_job

        return login_of_job(environ, url, given.text("workspace"), _way_to_a_key(given)), url
    if not key:
        raise InputError("no API key", hint=_way_to_a_key(given))
    return parse_api_key(key, "api-key"), url


def owners_key(given: Given, folder: Path) -> Secret | None:
    """Return the app owner's key, if it is set; raise InputError if it is invalid."""
    text = secret_text(given, "private-key", folder)
    if not text:
        return None
    from phala_secrets.chain.owner import parse_private_key

    return Secret(parse_private_key(text))


def secret_text(given: Given, name: str, folder: Path) -> str:
    """Return a secret input, or the content of the file that ``NAME-file`` names.

    The file may lie anywhere: it is the workflow's or the person's own. Its path is not shown, since it
    may be the key itself.
    """
    path = given.text(f"{name}-file")
    if not path:
        return given.text(name)
    origin = Origin(f"{name}-file")
    try:
        text = Files(folder).read(path, origin, hint=_KEY_HINT).decode().strip()
    except UnicodeDecodeError:
        raise InputError(f"{origin} is not UTF-8 text", hint="check the path") from None
    if not text:
        raise InputError(f"{origin} is empty", hint=f"check {path[:200]!a}", file=path)
    return text


def _way_to_a_key(given: Given) -> str:
    if "api-key" in given.withheld:
        return "set api-key: `secrets` takes PHALA_CLOUD_API_KEY, so it belongs to the app"
    return _NO_KEY


def _official(environ: Mapping[str, str], profile: str) -> tuple[str, str]:
    """Return the token and API prefix of the official CLI's current profile, or nothing."""
    home = environ.get("HOME")
    folder = environ.get("PHALA_CLOUD_DIR") or (f"{home}/.phala-cloud" if home else "")
    path = Path(folder) / "credentials.json"
    if not folder or not path.exists():
        return "", ""
    try:
        content = loads(Files(Path(folder)).read(path.name, Origin(str(path))))
        entry = content["profiles"][profile or content["current_profile"]]
        return str(entry.get("token") or ""), str(entry.get("api_prefix") or "")
    except (InputError, ValueError, LookupError, TypeError, AttributeError):
        raise InputError(
            "the official CLI's login cannot be read",
            hint="log in again with the CLI, or set PHALA_CLOUD_API_KEY",
            file=str(path),
        ) from None
