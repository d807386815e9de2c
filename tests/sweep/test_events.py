"""The event log: whole lines, whatever happens to the machine."""

import math

from footprint.sweep import events as ledger


def test_events_come_back_in_order_and_unknown_numbers_as_null(tmp_path):
    assert ledger.note(tmp_path, "start", key="a")
    assert ledger.note(tmp_path, "end", key="a", status="ok", joules=math.nan)
    assert [event["event"] for event in ledger.read(tmp_path)] == ["start", "end"]
    assert ledger.last(tmp_path)["a"]["joules"] is None


def test_a_line_that_was_cut_off_spoils_no_other(tmp_path):
    ledger.note(tmp_path, "end", key="a", status="ok")
    with open(tmp_path / ledger.PLACE, "a") as file:
        file.write('{"event": "end", "key": "b", "sta')
    ledger.note(tmp_path, "end", key="c", status="oom")
    assert set(ledger.last(tmp_path)) == {"a", "c"}


def test_the_last_word_on_a_run_counts(tmp_path):
    for status in ("failed", "ok"):
        ledger.note(tmp_path, "end", key="a", status=status)
    assert ledger.last(tmp_path)["a"]["status"] == "ok"


def test_a_disk_that_takes_nothing_is_no_error(tmp_path):
    (tmp_path / ".sweep").write_text("in the way")
    assert not ledger.note(tmp_path, "start")
    assert ledger.read(tmp_path / "nowhere") == []
