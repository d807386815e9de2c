"""RAPL counters: wrap-around, missing permission, and counters that never move."""

import math
import os
import subprocess
import sys
import time

import psutil
import pytest

from footprint.measure import journal, rapl

RANGE = 262_143_328_850


def zone(root, folder: str, name: str, microjoules: int, limit: int = RANGE):
    place = root / folder
    place.mkdir()
    for file, value in (("name", name), ("energy_uj", microjoules), ("max_energy_range_uj", limit)):
        (place / file).write_text(f"{value}\n")
    return place / "energy_uj"


@pytest.fixture
def two_sockets(tmp_path):
    return [
        zone(tmp_path, "intel-rapl:0", "package-0", 5_000_000),
        zone(tmp_path, "intel-rapl:1", "package-1", RANGE - 1_000_000),
        zone(tmp_path, "intel-rapl:0:0", "core", 1),
        zone(tmp_path, "intel-rapl:0:1", "dram", 2_000_000),
        zone(tmp_path, "intel-rapl:1:1", "dram", 3_000_000),
        zone(tmp_path, "intel-rapl:2", "psys", 9),
        zone(tmp_path, "intel-rapl-mmio:0", "package-0", 5_000_000),
    ]


def test_packages_and_memory_are_summed_once_and_wrap_around(tmp_path, two_sockets):
    before, status = rapl.zones(tmp_path)
    assert status == "ok"
    assert sorted(before) == ["package-0", "package-0/dram", "package-1", "package-1/dram"]
    for file, value in zip(
        two_sockets[:5], (25_000_000, 4_000_000, 7, 2_500_000, 4_500_000), strict=True
    ):
        file.write_text(f"{value}\n")
    window = rapl.joules(before, rapl.zones(tmp_path)[0], status, 1.0)
    assert window["host_status"] == "ok"
    assert window["package_stop_J"] - window["package_start_J"] == pytest.approx(20 + 5)
    assert window["dram_stop_J"] - window["dram_start_J"] == pytest.approx(0.5 + 1.5)


def test_a_counter_that_never_moves_is_no_zero(tmp_path, two_sockets):
    before, status = rapl.zones(tmp_path)
    window = rapl.joules(before, before, status, 1.0)
    assert window["host_status"] == "counter_stuck" and math.isnan(window["package_stop_J"])
    assert rapl.joules(before, before, status, 0.1)["host_status"] == "ok", "too short to say"


def test_absent_and_forbidden_are_told_apart(tmp_path, monkeypatch):
    assert rapl.zones(tmp_path / "absent") == ({}, "not_supported")
    zone(tmp_path, "intel-rapl:0", "package-0", 1)
    real = type(tmp_path).read_text

    def forbidden(path, *rest, **more):
        if path.name == "energy_uj":
            raise PermissionError(path)
        return real(path, *rest, **more)

    monkeypatch.setattr(type(tmp_path), "read_text", forbidden)
    zones, status = rapl.zones(tmp_path)
    window = rapl.joules(zones, zones, status, 1.0)
    assert status == window["host_status"] == "no_permission"
    assert math.isnan(window["package_start_J"])


def test_garbage_is_not_a_reading(tmp_path):
    zone(tmp_path, "intel-rapl:0", "package-0", 1).write_text("nonsense")
    assert rapl.zones(tmp_path) == ({}, "not_supported")


def test_memory_without_a_package_has_no_status_ok(tmp_path):
    zone(tmp_path, "intel-rapl:0:0", "dram", 1)
    zones, status = rapl.zones(tmp_path)
    assert rapl.joules(zones, zones, status, 1.0)["host_status"] == "not_supported"


def test_own_work_is_not_foreign():
    before, start = rapl.cores(), time.monotonic()
    while time.monotonic() - start < 0.5:
        sum(range(1000))
    shares = rapl.shares(before, rapl.cores(), time.monotonic() - start)
    assert shares["cpu_share"] >= shares["foreign_cpu_share"] >= 0
    assert shares["cpu_share"] - shares["foreign_cpu_share"] <= 1 / len(rapl.usable()) + 0.1


def test_foreign_work_is_what_is_left():
    before, after = rapl.Cores(100.0, {1: 10.0, 2: 5.0}), rapl.Cores(104.0, {1: 12.0, 3: 1.0})
    count = len(rapl.usable())
    assert rapl.shares(before, after, 2.0) == {
        "cpu_share": pytest.approx(2 / count),
        "foreign_cpu_share": pytest.approx(0.5 / count),
    }


BUSY = "import time; end = time.monotonic() + 60\nwhile time.monotonic() < end: pass"


@pytest.mark.parametrize("sibling", [True, False])
def test_a_run_on_another_gpu_of_this_host_is_none_of_the_others(sibling):
    environment = os.environ | ({journal.VARIABLE: "another run"} if sibling else {})
    busy = subprocess.Popen([sys.executable, "-c", BUSY], env=environment)
    try:
        time.sleep(0.3)
        before, began = rapl.cores(), time.monotonic()
        used_s = psutil.Process(busy.pid).cpu_times
        until = used_s().user + 0.4  # of a core that it may have to share
        while used_s().user < until and time.monotonic() < began + 20:
            time.sleep(0.1)
        after, length_s = rapl.cores(), time.monotonic() - began
    finally:
        busy.kill()
        busy.wait()
    ours_s = after.ours_s.get(busy.pid, 0.0) - before.ours_s.get(busy.pid, 0.0)
    assert (ours_s > 0.2) is sibling
    shares, all_s = rapl.shares(before, after, length_s), length_s * len(rapl.usable())
    assert shares["cpu_share"] * all_s > 0.2
    if not sibling:
        assert shares["foreign_cpu_share"] * all_s > 0.2


def test_only_the_cores_that_we_may_use_count(monkeypatch):
    """A job with one core of eight is not disturbed by what runs on the seven others."""
    times = rapl.psutil.cpu_times(percpu=True)[0]
    idle, busy = (type(times)(user, *[0.0] * (len(times) - 1)) for user in (0.0, 9.0))
    monkeypatch.setattr(rapl.psutil, "cpu_times", lambda percpu: [idle, *[busy] * 7])
    monkeypatch.setattr(rapl, "usable", lambda pid=0: {0})
    assert rapl.cores().busy_s == 0
    monkeypatch.setattr(rapl, "usable", lambda pid=0: {99})
    assert rapl.cores().busy_s == 63, "numbers that nobody counts: all cores"
