"""The client of a run. Who asks is masked before anything is sent; a job that logs in itself is told of."""

from __future__ import annotations

from typing import TYPE_CHECKING

from phala_secrets.cloud.client import Client
from phala_secrets.cloud.proxies import proxy_for
from phala_secrets.errors import untrusted

if TYPE_CHECKING:
    from phala_secrets.cloud.secret import Login, Token
    from phala_secrets.flow import Pause
    from phala_secrets.runners.base import Runner


def connect(login: Login, api_url: str, runner: Runner, timeout: float) -> Client:
    """Return a client that asks as ``login``, and shows what it waits for."""
    runner.mask(login.secrets, "GitHub's request token" if login.by_token else "the API key")
    if proxy := proxy_for(api_url):
        runner.mask(proxy.secrets)
    _tell_of_tokens(login, runner)

    def show(pause: Pause) -> None:
        runner.paused(pause.message)

    trace = runner.trace if runner.verbose else None
    return Client(None, api_url, timeout=timeout, trace=trace, show=show, login=login)


def _tell_of_tokens(login: Login, runner: Runner) -> None:
    """Mask each token before it is sent, and say with the first one who logged in."""
    first = True

    def told(token: Token) -> None:
        nonlocal first
        runner.mask(token.secrets, "GitHub's token")
        if first:
            first = False
            runner.say(f"logged in with GitHub's token for {untrusted(token.subject[:300])}")

    login.watch(told)
