"""The log of a sweep: one line of JSON an event, in `.sweep/events.jsonl` beside the results, for people and programs."""

import json
import math
import os
from datetime import UTC, datetime
from pathlib import Path

PLACE = Path(".sweep") / "events.jsonl"


def note(folder: str | Path, event: str, **facts) -> bool:
    """Append one event in one write; numbers that are unknown become null. False when the disk does not take it."""
    known = {
        key: None if isinstance(value, float) and math.isnan(value) else value
        for key, value in facts.items()
    }
    now = datetime.now(UTC).isoformat(timespec="milliseconds")
    line = json.dumps({"utc": now, "event": event, **known}, default=str) + "\n"
    path = Path(folder) / PLACE
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o644)
        try:
            size = os.fstat(handle).st_size
            if size and os.pread(handle, 1, size - 1) != b"\n":
                line = "\n" + line  # the last write was cut off
            return os.write(handle, line.encode()) == len(line.encode())
        finally:
            os.close(handle)
    except OSError:
        return False


def read(folder: str | Path) -> list[dict]:
    """All events in order; a line that was cut off (the machine lost its power) is left out."""
    path = Path(folder) / PLACE
    events = []
    for line in (
        path.read_text(encoding="utf-8", errors="replace").splitlines() if path.exists() else []
    ):
        try:
            events.append(json.loads(line))
        except ValueError:
            continue
    return [event for event in events if isinstance(event, dict)]


def last(folder: str | Path) -> dict[str, dict]:
    """The last `end` event of each run, by the run's key."""
    return {
        event["key"]: event
        for event in read(folder)
        if event.get("event") == "end" and "key" in event
    }
