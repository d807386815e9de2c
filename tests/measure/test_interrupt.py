"""Ctrl-C once between windows, twice at once."""

import os
import signal
import threading

import pytest

from footprint.measure import interrupt


def press():
    os.kill(os.getpid(), signal.SIGINT)


def test_the_first_is_noted_and_raised_between_windows():
    with interrupt.patient() as between:
        between()
        press()
        seen = "the window went on"
        with pytest.raises(KeyboardInterrupt):
            between()
    assert seen


def test_the_second_is_raised_at_once():
    with pytest.raises(KeyboardInterrupt), interrupt.patient():
        press()
        press()


def test_afterwards_all_is_as_before():
    before = signal.getsignal(
        signal.SIGINT
    )  # of a job in the background it is to ignore the signal
    with interrupt.patient():
        assert signal.getsignal(signal.SIGINT) != before
    assert signal.getsignal(signal.SIGINT) == before


def test_a_thread_has_nothing_to_listen_to():
    found = []

    def work():
        with interrupt.patient() as between:
            found.append(between())

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert found == [None]
