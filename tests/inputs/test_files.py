"""Files: what the checkout decides stays inside it; an absolute path is the workflow's own."""

from __future__ import annotations

import ctypes
import os
import signal
import stat
from pathlib import Path

import pytest

from phala_secrets.dstack.environment import Origin
from phala_secrets.errors import InputError
from phala_secrets.inputs.files import MAX_FILE_BYTES, Files, Root

FILE = Origin("the file")


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A checkout, beside RUNNER_TEMP and a folder of the machine."""
    for name in ("checkout", "temp/_runner_file_commands", "machine"):
        (tmp_path / name).mkdir(parents=True)
    for name in ("temp/x.env", "temp/git-credentials-1.config", "machine/x.env", "checkout/x.env"):
        (tmp_path / name).write_text(name)
    (tmp_path / "temp/_runner_file_commands/x.env").write_text("commands")
    return tmp_path / "checkout"


def root_of(checkout: Path, ci: str) -> Root:
    return Root(checkout, checkout.parent / "temp", github=True) if ci == "github" else Root(checkout)


def is_read(checkout: Path, path: Path | str, ci: str, *, by_checkout: bool = False) -> bool:
    """Whether the file is read, or refused since it is outside."""
    files = Files(checkout, root_of(checkout, ci))
    try:
        files.read(str(path), FILE, by_checkout=by_checkout)
    except InputError as error:
        if "is outside" not in str(error):
            raise
        return False
    return True


@pytest.mark.parametrize(
    ("path", "github", "elsewhere"),
    [
        ("{checkout}/x.env", True, True),
        ("{checkout}/../checkout/x.env", True, True),
        ("{temp}/x.env", True, True),
        ("{temp}/../machine/x.env", False, True),
        ("{machine}/x.env", False, True),
        ("{temp}/git-credentials-1.config", False, True),
        ("{temp}/_runner_file_commands/x.env", False, True),
        ("{temp}/link-to-commands", False, True),
        ("{checkout}/link-to-temp/x.env", False, False),
        ("{checkout}/link-to-machine/x.env", False, False),
        ("{checkout}/link-to-machine/../machine/x.env", False, False),
        ("link-to-temp/x.env", False, False),
        ("../machine/x.env", False, False),
    ],
)
def test_an_absolute_path_is_read_unless_the_checkout_leads_it_elsewhere(
    checkout: Path, path: str, github: bool, elsewhere: bool
) -> None:
    beside = {name: checkout.parent / name for name in ("checkout", "temp", "machine")}
    (checkout / "link-to-temp").symlink_to(beside["temp"])
    (checkout / "link-to-machine").symlink_to(beside["machine"])
    (beside["temp"] / "link-to-commands").symlink_to("_runner_file_commands/x.env")
    path = path.format(**beside)
    assert is_read(checkout, path, "github") == github
    assert is_read(checkout, path, "another") == elsewhere


@pytest.mark.parametrize("ci", ["github", "another"])
def test_an_absolute_path_that_the_checkout_names_is_its_own(checkout: Path, ci: str) -> None:
    """``env_file`` of ``phala.toml``, which a pull request may change."""
    assert is_read(checkout, checkout / "x.env", ci, by_checkout=True)
    for name in ("temp", "machine"):
        assert not is_read(checkout, checkout.parent / name / "x.env", ci, by_checkout=True)


def test_a_checkout_may_be_reached_through_a_link(checkout: Path) -> None:
    link = checkout.parent / "link"
    link.symlink_to(checkout)
    assert is_read(link, "x.env", "github")
    assert is_read(link, link / "x.env", "github")
    assert is_read(link, checkout / "x.env", "github")
    (checkout / "away").symlink_to(checkout.parent / "machine")
    assert not is_read(link, link / "away/x.env", "another")


def test_without_a_root_a_file_may_lie_anywhere(checkout: Path) -> None:
    assert Files(checkout).read("../machine/x.env", FILE) == b"machine/x.env"


def test_a_folder_that_is_swapped_for_a_link_meanwhile_does_not_lead_out(checkout: Path) -> None:
    """RENAME_EXCHANGE swaps the two while the file is read: what is open is what is checked."""
    folder, link = checkout / "folder", checkout / "link"
    folder.mkdir()
    (folder / "x.env").write_text("inside")
    link.symlink_to(checkout.parent / "machine")
    libc = ctypes.CDLL(None)
    child = os.fork()
    if not child:
        while True:
            libc.renameat2(-100, os.fsencode(folder), -100, os.fsencode(link), 2)
    seen = set()
    try:
        for _ in range(300):
            try:
                seen.add(Files(checkout, Root(checkout)).read("folder/x.env", FILE))
            except InputError:
                seen.add(b"refused")
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    assert seen <= {b"inside", b"refused"}


def test_a_file_is_opened_without_waiting_and_is_no_device(checkout: Path) -> None:
    os.mkfifo(checkout / "pipe")
    assert stat.S_ISFIFO((checkout / "pipe").stat().st_mode)
    for path in ("pipe", "/dev/zero", "/dev/tty"):
        with pytest.raises(InputError):
            Files(checkout).read(path, FILE)


def test_a_file_is_bounded(checkout: Path) -> None:
    (checkout / "x.env").write_bytes(b"#" * (MAX_FILE_BYTES + 1))
    with pytest.raises(InputError, match="larger than 1048576 bytes"):
        Files(checkout).read("x.env", FILE)


def test_a_missing_file_on_github_may_be_a_missing_checkout(checkout: Path) -> None:
    with pytest.raises(InputError) as refused:
        Files(checkout, root_of(checkout, "github")).read(".env", FILE)
    assert "actions/checkout" in refused.value.hint
