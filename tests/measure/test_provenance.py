"""Where a run comes from, without names of people, machines or places."""

import getpass
import json
import platform
import shutil
import subprocess
from pathlib import Path

import pytest

from footprint import spec, workload
from footprint.measure import provenance
from footprint.measure.instrument import NoInstrument
from footprint.trace.schema import ATTRS, OPTIONAL_ATTRS


def test_it_fills_its_attributes_and_names_nobody():
    attrs = provenance.attributes(
        workload.request("profile", model="llama-24m"), NoInstrument("cpu")
    )
    assert set(attrs) < {*ATTRS, *OPTIONAL_ATTRS}
    assert attrs["host_cpu"] == provenance.processor() == attrs["device_name"]
    assert attrs["energy_source"] == "none" and attrs["device_hash"] == ""
    text = json.dumps(attrs)
    for secret in (platform.node(), str(Path.home())):
        assert secret not in text
    assert getpass.getuser() not in text.split()


def test_what_was_asked_is_the_same_wherever_it_ends_up(tmp_path):
    one = workload.request("profile", model="llama-24m", out="a.nc")
    two = workload.request("profile", model="llama-24m", out="b.nc")
    other = workload.request("profile", model="llama-24m", seed=1)
    assert provenance.asked(one) == provenance.asked(two) != provenance.asked(other)


def test_a_local_folder_is_named_without_its_place(tmp_path):
    folder = tmp_path / "my-model"
    folder.mkdir()
    asked = provenance.asked({"model": str(folder), "out": ""})
    assert json.loads(asked)["model"] == "my-model" and str(tmp_path) not in asked


NVML = {
    "Tesla T4": "t4",
    "NVIDIA RTX 6000 Ada Generation": "rtx-6000-ada",
    "NVIDIA L4": "l4",
    "NVIDIA A10": "a10",
    "NVIDIA A40": "a40",
    "NVIDIA L40S": "l40s",
    "NVIDIA GeForce RTX 3090": "rtx-3090",
    "GeForce RTX 3090": "rtx-3090",
    "NVIDIA GeForce RTX 4090": "rtx-4090",
    "NVIDIA RTX A6000": "rtx-a6000",
    "Tesla V100-SXM2-16GB": "v100-16gb",
    "Tesla V100-SXM2-32GB": "v100-32gb",
    "NVIDIA A100-SXM4-40GB": "a100-40gb-sxm",
    "A100-SXM4-40GB": "a100-40gb-sxm",
    "NVIDIA A100-SXM4-80GB": "a100-80gb-sxm",
    "NVIDIA A100 80GB PCIe": "a100-80gb-pcie",
    "NVIDIA H100 80GB HBM3": "h100-80gb-sxm",
    "NVIDIA H100 PCIe": "h100-80gb-pcie",
    "NVIDIA H100 NVL": "h100-nvl",
    "NVIDIA H200": "h200-sxm",
}


def test_gpus_are_known_by_the_names_they_give_themselves():
    assert {name: provenance.gpu_id(name) for name in NVML} == NVML
    assert set(NVML.values()) == set(spec.gpus()), "every card of the table has a name of its own"


@pytest.mark.parametrize(
    "name",
    [
        "NVIDIA A100-PCIE-40GB",
        "NVIDIA A10G",
        "Tesla V100-PCIE-16GB",
        "NVIDIA H200 NVL",
        "NVIDIA RTX 6000",
        "FAKE GPU",
    ],
)
def test_a_relative_of_a_gpu_is_not_that_gpu(name):
    assert provenance.gpu_id(name) not in spec.gpus()


@pytest.mark.skipif(not shutil.which("git"), reason="there is no git to make a checkout with")
def test_a_commit_is_that_of_this_project_or_of_none(tmp_path, monkeypatch):
    code = tmp_path / "unpacked" / "lib" / "footprint" / "measure" / "provenance.py"
    monkeypatch.setattr(provenance, "__file__", str(code))
    assert provenance.commit() == "", "no checkout at all"
    code.parent.mkdir(parents=True)
    author = ("-c", "user.name=x", "-c", "user.email=x@example.org")
    first = ("commit", "-q", "--allow-empty", "-m", "another project")
    for place, known in ((tmp_path, False), (tmp_path / "unpacked", True)):
        for command in (("init", "-q"), (*author, *first)):
            subprocess.run(["git", *command], cwd=place, check=True)
        assert bool(provenance.commit()) == known
    monkeypatch.setenv("PATH", str(tmp_path))
    assert provenance.commit() == "", "no git"


def test_governors_are_read_and_may_differ(tmp_path):
    assert provenance.governor(tmp_path) == "unknown"
    for number, name in enumerate(("performance", "powersave", "performance")):
        place = tmp_path / f"cpu{number}" / "cpufreq"
        place.mkdir(parents=True)
        (place / "scaling_governor").write_text(f"{name}\n")
    assert provenance.governor(tmp_path) == "performance, powersave"


def test_a_machine_that_tells_little_is_named_by_what_it_tells(monkeypatch):
    monkeypatch.setattr(provenance.importlib.util, "find_spec", lambda name: None)
    assert provenance.cuda_build() == "", "no torch"
    monkeypatch.setattr(Path, "exists", lambda self: False)
    assert provenance.processor() == platform.machine()
