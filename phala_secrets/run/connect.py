"""The client of a run. Mask its login before any request, and report a login with GitHub's token."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from phala_secrets.cloud.proxies import proxy_for
from phala_secrets.errors import untrusted

if TYPE_CHECKING:
    from phala_secrets.cloud.driver import Driver
    from phala_secrets.cloud.secret import Login, Token
    from phala_secrets.flow import Pause
    from phala_secrets.runners.base import Runner


D = TypeVar("D", bound="Driver")


def connect(login: Login, api_url: str, runner: Runner, timeout: float, kind: type[D]) -> D:
    """Return a client of this kind that asks as ``login``, and shows what it waits for."""
    runner.mask(login.secrets, "GitHub's request token" if login.by_token else "the API key")
    if proxy := proxy_for(api_url):
        runner.mask(proxy.secrets)
    _report_tokens(login, runner)

    shown = ""

    def show(pause: Pause) -> None:
        nonlocal shown
        if pause.transaction and pause.message != shown:
            runner.progress(pause.message)  # whatever was said last: a log keeps each transaction
        else:
            runner.paused(pause.message)
        shown = pause.message

    trace = runner.trace if runner.verbose else None
    return kind(None, api_url, timeout=timeout, trace=trace, show=show, login=login)


def _report_tokens(login: Login, runner: Runner) -> None:
    """Mask each token before it is sent, and report the login with the first one."""
    first = True

    def masked(token: Token) -> None:
        nonlocal first
        runner.mask(token.secrets, "GitHub's token")
        if first:
            first = False
            runner.say(f"logged in with GitHub's token for {untrusted(token.subject[:300])}")

    login.watch(masked)
