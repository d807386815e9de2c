"""The inner process of a run: what an exception of papermill means."""

import pytest

from footprint.sweep import kernel


@pytest.mark.parametrize(
    ("name", "value", "status", "again"),
    [
        ("Refused", "No.", "failed", False),
        ("OutOfMemoryError", "CUDA out of memory. Tried", "oom", False),
        ("RuntimeError", "DefaultCPUAllocator: can't allocate memory", "oom", False),
        ("NVMLError_GpuIsLost", "GPU is lost", "gpu_lost", True),
        ("KeyboardInterrupt", "", "interrupted", False),
        ("OSError", "[Errno 28] No space left on device", "failed", True),
    ],
)
def test_errors_in_the_schema_s_words(name, value, status, again):
    from papermill.exceptions import PapermillExecutionError

    error = PapermillExecutionError(1, 1, "", name, value, [])
    found = kernel.outcome(error)
    assert (found["status"], found["again"]) == (status, again) and found["reason"].endswith(".")


def test_a_kernel_that_does_not_start_is_a_timeout():
    assert kernel.outcome(RuntimeError("Kernel didn't respond in 5 seconds"))["status"] == "timeout"
