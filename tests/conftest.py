"""Fixtures of several test files: the scripted GPU."""

import pytest

import fake_nvml as fake


@pytest.fixture(scope="session")
def library(tmp_path_factory):
    """The compiled fake NVML."""
    try:
        return fake.build(tmp_path_factory.mktemp("nvml"))
    except RuntimeError as missing:
        pytest.fail(str(missing), pytrace=False)


@pytest.fixture
def gpu(library, tmp_path, monkeypatch):
    """A function that scripts the fake GPU for this process and those it starts; returns the path of the script."""
    return fake.install(monkeypatch, library, tmp_path / "fake-nvml.txt")
