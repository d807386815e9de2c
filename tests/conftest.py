"""Fixtures of several test files. Generated cases have no time limit: machines are noisy."""

import os

import pytest
from hypothesis import settings

import fake_nvml as fake
from browser import MISSING

# As many workers as cores: further threads of torch would spin. It reads this when it starts.
os.environ["OMP_NUM_THREADS"] = "1"
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")


@pytest.fixture(scope="session")
def library(tmp_path_factory):
    """The compiled fake NVML."""
    try:
        return fake.build(tmp_path_factory.mktemp("nvml"))
    except RuntimeError as missing:
        pytest.fail(str(missing), pytrace=False)


@pytest.fixture
def gpu(library, tmp_path, monkeypatch):
    """A function that scripts the fake GPU for this process and its children, into a file."""
    return fake.install(monkeypatch, library, tmp_path / "fake-nvml.txt")


def pytest_terminal_summary(terminalreporter):
    """Say loudly what no browser has tested."""
    skipped = [str(report.longrepr) for report in terminalreporter.stats.get("skipped", [])]
    if count := sum(MISSING in reason for reason in skipped):
        terminalreporter.write_line(f"NOT TESTED in a browser: {count} tests; {MISSING}.", red=True)
