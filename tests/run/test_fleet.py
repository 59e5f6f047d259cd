"""Stories of fleets: an app's replicas, one after the other or several at once, and none of them lost."""

from __future__ import annotations

import itertools
import json
import os
import pty
import re
import subprocess
import sys
from pathlib import Path

import pytest

from phala_secrets.cloud import connection
from phala_secrets.inputs.table import RESULT
from phala_secrets.simulator.cloud import Cloud
from phala_secrets.simulator.cvm import Cvm
from phala_secrets.simulator.wire import Answer, Request
from phala_secrets.simulator.world import RateLimit
from tests.support.command import Command, Outcome
from tests.support.faults import Fault
from tests.support.faulty import FaultySimulator as Simulator


def fleet(cloud: Cloud, size: int, name: str = "web") -> list[Cvm]:
    """The replicas of one app."""
    first = cloud.add_cvm(f"{name}-1", environment={"OLD": "1"})
    more = [
        cloud.add_cvm(f"{name}-{number}", app_id=first.app_id, environment={"OLD": "1"})
        for number in range(2, size + 1)
    ]
    return [first, *more]


def update(run: Command, app: str, *arguments: str) -> Outcome:
    run.write(".env", "OLD=2\n")
    return run("update", "--app", app, "--env-file", ".env", "--json", *arguments)


def patches(cloud: Cloud) -> list[Request]:
    return [request for request in cloud.requests if request.method == "PATCH"]


def updated(cloud: Cloud) -> list[str]:
    """The CVMs that an update was sent to, in that order."""
    return [request.path.split("/")[2] for request in patches(cloud)]


def test_every_replica_of_an_app_gets_the_same_ciphertext(run: Command, cloud: Cloud) -> None:
    replicas = fleet(cloud, 3)
    done = update(run, replicas[0].app_id)
    assert done.code == 0, done.printed
    assert [cvm.environment for cvm in replicas] == [{"OLD": "2"}] * 3
    assert len({request.json["encrypted_env"] for request in patches(cloud)}) == 1
    assert sum("/pubkey/" in request.path for request in cloud.requests) == 1


def test_each_replica_has_a_row_in_the_results(run: Command, cloud: Cloud) -> None:
    replicas = fleet(cloud, 3)
    done = update(run, replicas[0].app_id)
    rows = done.json["results"]
    assert {tuple(row) for row in rows} == {(*RESULT, "cvm_id", "correlation_id", "exit_code")}
    assert all(row[name.replace("-", "_")] == row[name] for row in rows for name in RESULT)
    assert [(row["cvm-id"], row["name"]) for row in rows] == [(cvm.id, cvm.name) for cvm in replicas]
    assert [row["correlation-id"] for row in rows] == [cvm.operations[-1].correlation_id for cvm in replicas]
    assert {(row["status"], row["exit-code"], row["error"]) for row in rows} == {("running", 0, "")}
    assert done.json["cvm_id"] == replicas[0].id
    assert done.json["correlation_id"] == rows[0]["correlation-id"]


def test_a_rolling_update_starts_the_next_when_the_one_before_runs(run: Command, cloud: Cloud) -> None:
    cloud.restart_seconds = 20
    replicas = fleet(cloud, 3)
    assert update(run, replicas[0].app_id).code == 0
    spans = [(cvm.operations[-1].begun, cvm.operations[-1].ends) for cvm in replicas]
    assert spans == sorted(spans)
    for (_, ended), (begun, _) in itertools.pairwise(spans):
        assert ended <= begun


def test_several_at_once_are_under_way_together(run: Command, cloud: Cloud) -> None:
    cloud.restart_seconds = 60
    replicas = fleet(cloud, 4)
    assert update(run, replicas[0].app_id, "--max-parallel", "4").code == 0
    begun = [cvm.operations[-1].begun for cvm in replicas]
    assert max(begun) < min(cvm.operations[-1].ends for cvm in replicas)


def test_a_failure_stops_the_rest_which_keep_what_they_had(run: Command, cloud: Cloud) -> None:
    replicas = fleet(cloud, 3)
    replicas[1].boot_fails("no disk")
    done = update(run, replicas[0].app_id)
    assert done.code == 8
    assert updated(cloud) == [cvm.id for cvm in replicas[:2]]
    assert replicas[2].environment == {"OLD": "1"}
    first, second, third = done.json["results"]
    assert (first["status"], first["exit-code"]) == ("running", 0)
    assert (second["status"], second["exit-code"]) == ("failed", 8)
    assert "no disk" in second["error"]
    assert (third["status"], third["correlation-id"], third["error"]) == ("failed", "", "not reached")
    assert third["exit-code"] is third["exit_code"] is None
    assert done.json["status"] == "failed"
    assert done.printed.count("web-3") > 0, "who was not reached is named"


def test_without_fail_fast_all_are_tried_and_every_failure_is_named(run: Command, cloud: Cloud) -> None:
    replicas = fleet(cloud, 4)
    replicas[0].boot_fails("no disk")
    replicas[2].boot_fails("no memory")
    done = update(run, replicas[0].app_id, "--no-fail-fast")
    assert done.code == 8
    assert updated(cloud) == [cvm.id for cvm in replicas]
    assert replicas[3].environment == {"OLD": "2"}
    errors = "\n".join(done.errors)
    assert "web-1" in errors
    assert "no disk" in errors
    assert "web-3" in errors
    assert "no memory" in errors


def test_the_exit_code_is_the_worst_of_theirs(run: Command, simulator: Simulator, cloud: Cloud) -> None:
    replicas = fleet(cloud, 3)
    replicas[0].boot_fails("no disk")
    simulator.faults.add(Fault("status", "PATCH", replicas[1].id, status=403, body={"detail": "Forbidden"}))
    done = update(run, replicas[0].app_id, "--no-fail-fast")
    assert [row["exit-code"] for row in done.json["results"]] == [8, 5, 0]
    assert done.code == 8


def test_cvms_of_two_apps_each_get_what_is_sealed_for_theirs(run: Command, cloud: Cloud) -> None:
    web, mail = fleet(cloud, 2, "web"), fleet(cloud, 2, "mail")
    run.write(".env", "OLD=2\n")
    names = "\n".join([*(cvm.name for cvm in (*web, *mail)), web[0].id, web[1].vm_uuid])
    done = run("update", "--env-file", ".env", "--json", environ={"INPUT_CVM": names})
    assert done.code == 0, done.printed
    assert [cvm.environment for cvm in (*web, *mail)] == [{"OLD": "2"}] * 4
    assert sum("/pubkey/" in request.path for request in cloud.requests) == 2
    assert len({request.json["encrypted_env"] for request in patches(cloud)}) == 2
    assert len(updated(cloud)) == 4, "one that is named twice is updated once"
    assert len(done.json["results"]) == 4


def test_a_replica_that_came_meanwhile_is_named(run: Command, cloud: Cloud) -> None:
    replicas = fleet(cloud, 2)

    def join_late(request: Request, answer: Answer) -> Answer:
        if request.method == "PATCH" and len(cloud.cvms) == 2:
            cloud.add_cvm("web-late", app_id=replicas[0].app_id, environment={"OLD": "1"})
        return answer

    cloud.tamper = join_late
    done = update(run, replicas[0].app_id)
    assert done.code == 0
    assert any(line.startswith("warning: ") and "web-late" in line for line in done.lines)


def test_a_log_has_few_lines_for_each(run: Command, cloud: Cloud) -> None:
    replicas = fleet(cloud, 12)
    done = update(run, replicas[0].app_id, "--max-parallel", "4")
    assert done.code == 0
    progress = done.stderr.partition("12 of 12 CVMs updated")[0]
    for cvm in replicas:
        assert len(re.findall(rf"\b{cvm.name}\b", progress)) == 1


def test_an_app_without_cvms_is_told_so(run: Command, cloud: Cloud) -> None:
    done = update(run, "ab" * 20)
    assert done.code == 5
    assert not patches(cloud)


@pytest.mark.parametrize("retry_after", [True, False], ids=["retry-after", "no-retry-after"])
def test_a_rate_limit_slows_a_fleet_down_and_loses_none(
    run: Command, cloud: Cloud, retry_after: bool
) -> None:
    cloud.restart_seconds = 0
    replicas = fleet(cloud, 16)
    cloud.rate_limit = RateLimit(per_second=40, burst=10, retry_after=retry_after)
    done = update(run, replicas[0].app_id, "--max-parallel", "8")
    assert done.code == 0, done.printed
    assert any(request.status == 429 for request in cloud.requests), "the limit has to have been met"
    assert all(cvm.environment == {"OLD": "2"} for cvm in replicas)


def memory(name: str) -> int:
    """What this process has, in KiB."""
    (line,) = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(name)]
    return int(line.split()[1])


def test_a_hundred_go_through(run: Command, cloud: Cloud) -> None:
    cloud.restart_seconds = 0.02
    replicas = fleet(cloud, 100)
    cloud.rate_limit = RateLimit(per_second=300, burst=50)
    before = memory("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # proc(5): forget the peak so far
    done = update(run, replicas[0].app_id, "--max-parallel", "8")
    peak = memory("VmHWM") - before
    assert done.code == 0, done.printed
    assert all(cvm.environment == {"OLD": "2"} for cvm in replicas)
    assert len(done.json["results"]) == 100
    assert len({request.connection for request in cloud.requests}) <= 16, "one pool, kept"
    assert peak < 64 * 1024, "KiB"


@pytest.mark.parametrize("lags", [True, False])
def test_a_fleet_is_followed_with_few_requests(run: Command, cloud: Cloud, lags: bool) -> None:
    """At most 5 n + 12 k for n CVMs of k apps, however many are under way at once."""
    cloud.restart_seconds, cloud.progress_lags = 3.0, lags
    web, mail = fleet(cloud, 20, "web"), fleet(cloud, 20, "mail")
    run.write(".env", "OLD=2\n")
    names = "\n".join(cvm.name for cvm in (*web, *mail))
    done = run("update", "--env-file", ".env", "--max-parallel", "64", environ={"INPUT_CVM": names})
    assert done.code == 0, done.printed
    assert len(cloud.requests) <= 5 * 40 + 12 * 2
    assert not [request for request in cloud.requests if "target" in request.query], "no stream"


def test_a_fleet_goes_on_where_the_list_of_its_app_cannot_be_read(
    run: Command, simulator: Simulator, cloud: Cloud
) -> None:
    replicas = fleet(cloud, 3)
    simulator.faults.add(Fault("status", path="^/apps/", skip=1, times=None, status=403))
    assert update(run, replicas[0].app_id, "--max-parallel", "3").code == 0


def test_a_pool_of_one_connection_is_enough_for_64(
    run: Command, cloud: Cloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "CONNECTIONS", 1)
    cloud.restart_seconds = 0.5
    replicas = fleet(cloud, 64)
    done = update(run, replicas[0].app_id, "--max-parallel", "64")
    assert done.code == 0, done.printed
    assert len({request.connection for request in cloud.requests}) == 1
    assert all(cvm.environment == {"OLD": "2"} for cvm in replicas)


@pytest.mark.parametrize(
    ("mode", "given"),
    [
        ("encrypt", ("--env-file", ".env")),
        ("plan", ("--encrypted-env", "ab" * 60, "--env-keys", '["OLD"]')),
        ("update", ("--encrypted-env", "ab" * 60, "--env-keys", '["OLD"]')),
    ],
)
def test_a_ciphertext_is_for_one_app(mode: str, given: tuple[str, ...], run: Command, cloud: Cloud) -> None:
    cloud.add_cvm("mine", environment={"OLD": "1"})
    cloud.add_cvm("another", environment={"OLD": "1"})
    run.write(".env", "OLD=2\n")
    done = run(mode, "--cvm", "mine\nanother", *given)
    assert done.code == 2
    assert done.stdout == ""
    assert "for the key of one app, but these CVMs are of 2" in done.errors[0]
    assert not patches(cloud)


def test_a_fleet_of_another_app_is_refused(run: Command, cloud: Cloud) -> None:
    mine, foreign = fleet(cloud, 2), cloud.add_cvm("foreign")

    def slip_in(request: Request, answer: Answer) -> Answer:
        if request.path.startswith("/apps/"):
            body = json.loads(json.dumps(answer.body))
            body[1] |= {"app_id": foreign.app_id, "id": foreign.id, "name": foreign.name}
            return Answer(body)
        return answer

    cloud.tamper = slip_in
    done = update(run, mine[0].app_id)
    assert done.code == 3
    assert foreign.app_id in done.errors[0]
    assert not patches(cloud)


@pytest.mark.usefixtures("time_passes")
def test_a_person_sees_those_under_way_in_a_live_table(run: Command, cloud: Cloud) -> None:
    cloud.restart_seconds, cloud.stale_seconds = 0.5, 0
    replicas = fleet(cloud, 4)
    run.write(".env", "OLD=2\n")
    person, terminal = pty.openpty()
    arguments = ("update", "--app", replicas[0].app_id, "--env-file", ".env", "--max-parallel", "2")
    process = subprocess.Popen(
        [sys.executable, "-m", "phala_secrets", *arguments],
        cwd=run.folder,
        env=run.variables({"TERM": "xterm", "COLUMNS": "80"}),
        stdout=subprocess.DEVNULL,
        stderr=terminal,
    )
    os.close(terminal)
    seen = b""
    while chunk := read(person):
        seen += chunk
    os.close(person)
    assert process.wait(20) == 0
    frames = [frame for frame in seen.decode().split("\x1b[J") if "restarting" in frame]
    assert any("[1/4] web-1  restarting" in frame and "[2/4] web-2  restarting" in frame for frame in frames)
    assert not any("web-3" in frame and "web-1" in frame for frame in frames), "those who are done are gone"
    left = seen.decode().rpartition("\x1b[J")[2]
    assert "4 of 4 CVMs updated" in left
    for number in range(1, 5):
        assert f"web-{number}: running (" in seen.decode()


def read(terminal: int) -> bytes:
    """What a terminal shows next; empty at the end."""
    try:
        return os.read(terminal, 65536)
    except OSError:  # Linux says so when the other end is closed
        return b""


def test_each_of_several_app_ids_is_matched_by_a_cvm_and_no_cvm_is_of_another(
    run: Command, cloud: Cloud
) -> None:
    first, second = (cloud.add_cvm(name, environment={"A": "1"}) for name in ("first", "second"))
    run.write(".env", "A=2\n")

    def update(cvms: str, *apps: str) -> Outcome:
        flags = [part for app in apps for part in ("--app-id", app)]
        return run("update", "--cvm", cvms, "--env-file", ".env", "--no-wait", *flags)

    assert update("first\nsecond", first.app_id, second.app_id).code == 0
    other = update("first\nsecond", first.app_id, "ab" * 20)
    assert other.code == 3
    assert second.app_id in other.errors[0]
    idle = update("first", first.app_id, second.app_id)
    assert idle.code == 3
    assert "none of the CVMs belongs to the app" in idle.errors[0]
