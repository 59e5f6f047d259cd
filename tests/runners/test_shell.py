"""A run in a shell: its summary-file, its hints in flags, and what it takes for secret."""

from __future__ import annotations

import io
from pathlib import Path

from phala_secrets.errors import untrusted
from phala_secrets.inputs.table import OUTPUTS
from phala_secrets.runners.base import Runner
from phala_secrets.runners.files import overwrite
from phala_secrets.runners.report import Report, Table

SECRET = "correct horse battery staple"


def shell(log: io.StringIO, summary: Path | None = None, **options: object) -> Runner:
    return Runner(
        {},
        output_names=OUTPUTS,
        summary_file=str(summary) if summary else None,
        no_mask=["PUBLIC_*"],
        in_flags=lambda hint: hint.replace("app-id:", "--app-id"),
        stderr=log,
    )


def test_a_summary_file_has_all_reports_and_no_secret(tmp_path: Path) -> None:
    path = tmp_path / "summary.md"
    runner = shell(io.StringIO(), path)
    runner.check()
    assert path.read_text() == ""
    runner.mask_variables({"TOKEN": (SECRET,)})
    runner.report(Report("First"))
    runner.report(Report("Second", facts=[("said", untrusted(f"bad {SECRET}"))]))
    text = path.read_text()
    assert text.index("First") < text.index("Second")
    assert SECRET not in text


def test_a_summary_file_that_goes_away_only_warns(tmp_path: Path) -> None:
    log = io.StringIO()
    runner = shell(log, tmp_path / "folder" / "summary.md")
    runner.report(Report("Done"))
    assert "summary-file" in log.getvalue()
    assert "cannot be written" in log.getvalue()


def test_a_hint_is_in_flags_but_for_what_is_untrusted() -> None:
    runner = shell(io.StringIO())
    assert (
        runner.spoken(f"add app-id: or ask {untrusted('app-id:')}")
        == f"add --app-id or ask {untrusted('app-id:')}"
    )


def test_a_diff_whose_lines_show_a_secret_together_is_not_shown() -> None:
    runner = shell(io.StringIO())
    runner.mask_variables({"TOKEN": (SECRET,)})
    assert SECRET.split()[0] not in "".join(
        runner.diff_of(Report("Plan", diff=[f"+{word}" for word in SECRET.split()]))
    )
    assert runner.diff_of(Report("Plan", diff=["+ image: web"])) == ["+ image: web"]


def test_a_table_is_aligned_and_shows_no_secret() -> None:
    runner = shell(io.StringIO())
    runner.mask_variables({"TOKEN": (SECRET,)})
    _, first, second = runner.columns(
        Table(["name", "state"], [["web", "up"], ["database", untrusted(SECRET)]])
    )
    assert first.index("up") == len("database") + 2
    assert SECRET not in second


def test_a_setting_has_no_secret_part() -> None:
    runner = shell(io.StringIO())
    assert runner.secret_parts("TOKEN", SECRET) == [SECRET]
    assert runner.secret_parts("PUBLIC_TOKEN", SECRET) == []


def test_a_file_is_replaced_whole_and_everybody_may_read_it(tmp_path: Path) -> None:
    path = tmp_path / "prepared.json"
    path.write_text("longer than what comes")
    overwrite(str(path), "short", "prepared-file")
    assert path.read_text() == "short"
    assert path.stat().st_mode & 0o777 == 0o644
