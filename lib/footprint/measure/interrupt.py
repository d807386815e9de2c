"""Ctrl-C with manners: once means after the current window, twice means now."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def patient() -> Iterator[Callable[[], None]]:
    """Within the block the first SIGINT is only noted; yields a function that raises it, to be called between windows.

    The second SIGINT raises KeyboardInterrupt at once. In a thread, where no signal arrives, nothing changes.
    """
    pressed = []

    def note(*_) -> None:
        pressed.append(True)
        if len(pressed) > 1:
            raise KeyboardInterrupt

    def between() -> None:
        if pressed:
            raise KeyboardInterrupt

    if threading.current_thread() is not threading.main_thread():
        yield between
        return
    before = signal.signal(signal.SIGINT, note)
    try:
        yield between
    finally:
        signal.signal(signal.SIGINT, before)
