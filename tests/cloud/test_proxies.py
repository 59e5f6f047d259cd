"""HTTPS_PROXY, ALL_PROXY, NO_PROXY and the roots of a proxy: what can be read is read, as curl reads it."""

from __future__ import annotations

import base64
from pathlib import Path

import pytest
import trustme

from phala_secrets import create_client
from phala_secrets.cloud.proxies import proxy_for
from phala_secrets.errors import InputError
from phala_secrets.simulator.cloud import Cloud

CLOUD = "https://cloud.example/api/v1"
PROXY = "http://proxy.example:3128"


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    for name in ("SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):
        monkeypatch.delenv(name, raising=False)


def reached_through(monkeypatch: pytest.MonkeyPatch, url: str = CLOUD, **environ: str) -> str | None:
    """The URL of the proxy, without its login."""
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    proxy = proxy_for(url)
    return proxy and proxy.url


@pytest.mark.parametrize(
    ("environ", "url"),
    [
        ({}, None),
        ({"HTTPS_PROXY": PROXY}, PROXY),
        ({"https_proxy": PROXY}, PROXY),
        ({"ALL_PROXY": PROXY}, PROXY),
        ({"HTTPS_PROXY": PROXY, "ALL_PROXY": "socks5://one.example:1080"}, PROXY),
        ({"HTTPS_PROXY": "proxy.example:3128"}, PROXY),
        ({"HTTPS_PROXY": "http://[fd00::1]:3128/"}, "http://[fd00::1]:3128"),
        ({"HTTP_PROXY": PROXY}, None),
        ({"HTTPS_PROXY": " "}, None),
    ],
)
def test_the_proxy_is_that_of_https_before_that_of_all(
    monkeypatch: pytest.MonkeyPatch, environ: dict[str, str], url: str | None
) -> None:
    assert reached_through(monkeypatch, **environ) == url


@pytest.mark.parametrize(
    ("entries", "past"),
    [
        ("cloud.example", True),
        ("example", True),
        (".example", True),
        ("*.example", True),
        ("other.test, cloud.example", True),
        ("other.test cloud.example", True),
        ("https://cloud.example", True),
        ("cloud.example:443", True),
        ("*", True),
        ("cloud.example:8443", False),
        ("oud.example", False),
        ("::1,fd00::/8,[::1],10.0.0.0/8", False),
    ],
)
def test_no_proxy_names_hosts_and_their_subdomains(
    monkeypatch: pytest.MonkeyPatch, entries: str, past: bool
) -> None:
    assert (reached_through(monkeypatch, HTTPS_PROXY=PROXY, NO_PROXY=entries) is None) == past


@pytest.mark.parametrize(
    ("host", "entries", "past"),
    [
        ("[fd00::7]", "fd00::/8", True),
        ("[fd00::7]", "[fd00::]/8", True),
        ("[fd00::7]", "[fd00::7]:443", True),
        ("[fd00::7]", "fd00::8", False),
        ("10.1.2.3", "10.0.0.0/8", True),
        ("10.1.2.3", "10.1.2.3", True),
        ("10.1.2.3", "11.0.0.0/8", False),
    ],
)
def test_no_proxy_names_networks_of_ipv4_and_ipv6(
    monkeypatch: pytest.MonkeyPatch, host: str, entries: str, past: bool
) -> None:
    """httpx refuses to start with these, whatever it is to talk to."""
    url = reached_through(monkeypatch, f"https://{host}/", HTTPS_PROXY=PROXY, NO_PROXY=entries)
    assert (url is None) == past


@pytest.mark.parametrize("password", ["pa#ss", "pa/ss", "p@ss", "pa?ss:word", "plain-one"])
def test_a_password_of_a_proxy_may_have_characters_that_are_not_escaped(
    monkeypatch: pytest.MonkeyPatch, password: str
) -> None:
    monkeypatch.setenv("HTTPS_PROXY", f"http://me:{password}@proxy.example:3128")
    proxy = proxy_for(CLOUD)
    assert proxy
    assert (proxy.url, proxy.login) == (PROXY, ("me", password))
    assert password not in repr(proxy)
    assert base64.b64encode(f"me:{password}".encode()).decode() in proxy.secrets


def test_an_escaped_password_of_a_proxy_is_the_character(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://me:p%40ss%23@proxy.example:3128")
    proxy = proxy_for(CLOUD)
    assert proxy
    assert proxy.login == ("me", "p@ss#")


@pytest.mark.parametrize(
    ("environ", "named"),
    [
        ({"HTTPS_PROXY": "ftp://me:canary@proxy.example"}, "HTTPS_PROXY"),
        ({"all_proxy": "http://me:canary@"}, "all_proxy"),
        ({"HTTPS_PROXY": "http://me:canary@proxy.example:port"}, "HTTPS_PROXY"),
        ({"HTTPS_PROXY": PROXY, "NO_PROXY": "fd00::/200"}, "fd00::/200"),
        ({"HTTPS_PROXY": PROXY, "NO_PROXY": "cloud.example,[::1"}, "NO_PROXY"),
    ],
)
def test_what_cannot_be_read_is_named_without_a_password(
    monkeypatch: pytest.MonkeyPatch, environ: dict[str, str], named: str
) -> None:
    with pytest.raises(InputError) as refused:
        reached_through(monkeypatch, **environ)
    assert named in str(refused.value)
    assert "canary" not in str(refused.value) + refused.value.hint


def test_a_socks_proxy_that_would_be_used_is_refused_by_its_variable(
    monkeypatch: pytest.MonkeyPatch, cloud: Cloud
) -> None:
    monkeypatch.setenv("ALL_PROXY", "socks5://me:canary@proxy.example:1080")
    with pytest.raises(InputError, match="ALL_PROXY") as refused:
        create_client(cloud.api_key, CLOUD)
    assert "canary" not in str(refused.value)
    monkeypatch.setenv("NO_PROXY", "cloud.example")
    create_client(cloud.api_key, CLOUD).close()


@pytest.mark.parametrize("name", ["REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"])
def test_roots_of_other_tools_count(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, cloud: Cloud, name: str
) -> None:
    """A company's proxy has a root of its own, which the runner names in these."""
    roots = tmp_path / "roots.pem"
    trustme.CA().cert_pem.write_to_path(roots)
    monkeypatch.setenv(name, str(roots))
    create_client(cloud.api_key, CLOUD).close()
    monkeypatch.setenv(name, str(tmp_path))
    create_client(cloud.api_key, CLOUD).close()
    monkeypatch.setenv(name, str(tmp_path / "none.pem"))
    with pytest.raises(InputError, match=name):
        create_client(cloud.api_key, CLOUD)
    monkeypatch.setenv("SSL_CERT_FILE", str(roots))
    create_client(cloud.api_key, CLOUD).close()
