"""One run: what is said of it before it starts."""

from footprint import workload
from footprint.sweep import runner


def test_a_stop_before_the_start_is_said(tmp_path):
    run = runner.Run("profile", workload.request("profile"))
    runner.STOP["asked"] = 1
    try:
        assert runner.attempt(run, tmp_path, print)["status"] == "interrupted"
    finally:
        runner.STOP["asked"] = 0
