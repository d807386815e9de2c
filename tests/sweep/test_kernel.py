"""The inner process of a run: what an exception of papermill means."""

import os
import tempfile
from pathlib import Path

import pytest

from footprint.sweep import kernel


@pytest.mark.parametrize(
    ("name", "value", "status", "again"),
    [
        ("Refused", "No.", "failed", False),
        ("Absent", "There is no GPU 'cuda:7'.", "failed", False),
        ("Lost", "The GPU 'cuda:0' does not answer: gpu_lost; see nvidia-smi.", "gpu_lost", False),
        ("OutOfMemoryError", "CUDA out of memory. Tried", "oom", False),
        ("RuntimeError", "DefaultCPUAllocator: can't allocate memory", "oom", False),
        ("AcceleratorError", "CUDA error: out of memory", "oom", False),
        ("RuntimeError", "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling", "oom", False),
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


def test_what_killed_runs_left_is_removed_and_nothing_else(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    for name in ("fp-dead", "fp-young", "fp-other"):
        (tmp_path / name).mkdir()
    (tmp_path / "precious").touch()
    for name in ("fp-dead", "fp-young"):
        (tmp_path / name / "lock").touch()
    (tmp_path / "fp-other" / "lock").symlink_to(tmp_path / "precious")
    os.utime(tmp_path / "fp-dead" / "lock", (1, 1))
    with kernel.temporary() as living:
        os.utime(Path(living, "lock"), (1, 1))
        with kernel.temporary():
            assert Path(living, "lock").exists()
    assert sorted(os.listdir(tmp_path)) == ["fp-other", "fp-young", "precious"]


def test_sockets_have_short_paths_wherever_temporary_files_are(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / ("x" * 120)))
    with kernel.temporary() as folder:
        assert len(folder) < kernel.LONGEST
    assert not Path(folder).exists()
