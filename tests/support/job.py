"""A job of GitHub Actions that may ask for tokens, and has no API key."""

from __future__ import annotations

from phala_secrets.simulator.server import Simulator


def keyless(simulator: Simulator) -> dict[str, str | None]:
    """The variables of a job with ``id-token: write``, on a GitHub that the simulator plays, too."""
    return {
        "GITHUB_ACTIONS": "true",
        "ACTIONS_ID_TOKEN_REQUEST_URL": simulator.token_url,
        "ACTIONS_ID_TOKEN_REQUEST_TOKEN": simulator.cloud.github.request_token,
        "PHALA_CLOUD_API_KEY": None,
    }
