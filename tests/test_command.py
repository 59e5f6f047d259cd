"""Stories of the command: what a person or a script gives it, prints and gets."""

from __future__ import annotations

from command import Command

from phala_secrets.simulator import Cvm


def test_a_file_reaches_the_guest(run: Command, cvm: Cvm) -> None:
    run.write(".env", "OLD=2\nDATABASE_URL='postgres://app:p4$$w0rd${X}@db/app'\n")
    done = run("update", "--cvm", "my-app", "--env-file", ".env")
    assert done.code == 0, done.printed
    assert cvm.environment == {"OLD": "2", "DATABASE_URL": "postgres://app:p4$$w0rd${X}@db/app"}
    assert done.stdout == ""


def test_so_it_does_from_a_shell(run: Command, cvm: Cvm) -> None:
    done = run.apart("update", "--cvm", "my-app", "--env-file", "-", stdin=b"OLD=2\n")
    assert done.code == 0, done.printed
    assert cvm.environment == {"OLD": "2"}
