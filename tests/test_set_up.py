"""What `make test` does on a bare machine: which browser it takes or gets, and which C compiler."""

import os
import shutil
import subprocess
import sys

import pytest

import browser
import fake_nvml


class Starting:
    """A stand-in for Playwright whose browsers start, or not; notes which program was asked for."""

    def __init__(self, *programs):
        self.programs, self.asked, self.chromium = programs, [], self

    def launch(self, executable_path, args):
        from playwright.sync_api import Error

        self.asked.append(executable_path)
        if executable_path not in self.programs:
            raise Error("it does not start")
        return "a browser"


@pytest.fixture
def programs(tmp_path, monkeypatch):
    """A function that makes programs of these names, the only ones on the path."""
    monkeypatch.setenv("PATH", str(tmp_path))

    def make(*names):
        for name in names:
            (tmp_path / name).write_text("#!/bin/sh\n")
            (tmp_path / name).chmod(0o755)
        return [str(tmp_path / name) for name in names]

    return make


@pytest.mark.parametrize("name", browser.NAMES)
def test_a_browser_of_the_system_is_taken(programs, name):
    (path,) = programs(name)
    assert browser.launched(Starting(path)) == "a browser"


def test_without_one_playwright_s_own_is_taken(programs):
    assert browser.launched(Starting(None)) == "a browser"


def test_a_browser_that_does_not_start_is_said_in_one_sentence(programs):
    programs("chromium")
    with pytest.raises(RuntimeError, match="no browser: install Chromium, Chrome or Edge, or run"):
        browser.launched(Starting(None))


@pytest.mark.parametrize(
    ("user", "apt", "works", "ways"),
    [
        (0, True, "nothing to do", []),
        (0, True, "playwright", ["playwright"]),
        (0, True, "apt", ["playwright", "apt"]),
        (0, True, "neither", ["playwright", "apt"]),
        (1000, True, "neither", ["playwright"]),
        (0, False, "neither", ["playwright"]),
    ],
)
def test_a_browser_is_got_in_this_order(programs, monkeypatch, user, apt, works, ways):
    """Commands are noted, not run: a download cannot be tested without the open internet."""
    programs(*["apt-get"] * apt)
    ran = []

    def run(command, **_):
        ran.append("playwright" if "playwright" in command else "apt")

    monkeypatch.setattr(os, "geteuid", lambda: user)
    monkeypatch.setattr(subprocess, "run", run)
    monkeypatch.setattr(browser, "starts", lambda: works == "nothing to do" or works in ran)
    assert browser.fetch() == (works != "neither") and ran == ways


def test_a_compiler_of_the_system_comes_before_zig(programs, monkeypatch):
    monkeypatch.setattr(fake_nvml.importlib.util, "find_spec", lambda name: name == "ziglang")
    assert fake_nvml.compiler() == [sys.executable, "-m", "ziglang", "cc"]
    (path,) = programs("clang")
    assert fake_nvml.compiler() == [path]
    monkeypatch.setattr(shutil, "which", lambda name: None)
    monkeypatch.setattr(fake_nvml.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(RuntimeError, match="no C compiler for the fake NVML: install gcc or clang"):
        fake_nvml.compiler()
