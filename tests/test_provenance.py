"""Where a run comes from, without names of people, machines or places."""

import getpass
import json
import platform
from pathlib import Path

from footprint import provenance, workload
from footprint.schema import ATTRS


def test_it_fills_its_attributes_and_names_nobody():
    attrs = provenance.run(workload.request("profile", model="llama-24m"), None)
    assert set(attrs) < set(ATTRS)
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


def test_cards_are_known_by_the_names_they_give_themselves():
    names = {"Tesla T4": "t4", "NVIDIA RTX 6000 Ada Generation": "rtx-6000-ada", "NVIDIA L4": "l4",
             "NVIDIA GeForce RTX 4090": "rtx-4090", "FAKE GPU": "fake-gpu"}  # fmt: skip
    assert {name: provenance.card_id(name) for name in names} == names


def test_the_root_is_the_book(monkeypatch, tmp_path):
    (tmp_path / "_toc.yml").touch()
    (tmp_path / "book").mkdir()
    monkeypatch.chdir(tmp_path / "book")
    assert provenance.root() == tmp_path
    (tmp_path / "_toc.yml").unlink()
    assert provenance.root() == tmp_path / "book"
