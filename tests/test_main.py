"""The command line: exit codes, one sentence for an error, and what each command prints."""

import csv
import io
import json
import os
import shlex
import subprocess
import sys
from hashlib import sha256

import pytest

import light_project as light
from footprint import __main__, spec, sweep, trace

PYTHON = shlex.quote(sys.executable)
QUICK = '[[m]]\nnotebook = "profile"\ndevice = "cpu"\neach = { seed = [1, 669] }\n'


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A light project, which is the working directory, and locks of its own."""
    monkeypatch.chdir(light.project(tmp_path / "project"))
    monkeypatch.setenv("FOOTPRINT_LOCKS", str(tmp_path / "locks"))
    light.matrix(tmp_path / "project" / "sweep.toml", QUICK)
    light.matrix(tmp_path / "project" / "notebooks" / "sweep.toml", QUICK)
    return tmp_path / "project"


def said(capsys, *arguments):
    code = __main__.main(list(arguments))
    out, err = capsys.readouterr()
    return code, out, err


@pytest.mark.parametrize(
    "command", ["profile", "predict", "sweep", "sensor", "gather", "report", "preflight"]
)
def test_every_command_explains_itself(command, capsys):
    with pytest.raises(SystemExit) as ended:
        __main__.main([command, "--help"])
    assert ended.value.code == 0 and "usage: footprint" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["sweep", "nowhere.toml"], "no sweep file"),
        (["sweep", "sweep.toml", "--matrix", "n"], "no matrix"),
        (["sweep", "sweep.toml", "--matrix", "m", "--grid", "Atlantis"], "Atlantis"),
        (["sweep", "sweep.toml", "--matrix", "m", "--device", "cuda:0"], "no NVIDIA driver"),
        (["profile", "-p", "modell", "x"], "modell"),
        (["profile", "--matrix", "m", "-p", "gpu", "t4"], "no parameter named 'gpu'"),
        (["profile", "-p", "seed", "1", "-p", "seed", "2"], "seed is named twice"),
        (["profile", "-p", "device", "cpu", "--device", "cpu"], "device is named twice"),
        (["profile", "-p", "out", "x.nc"], "--to names the folder"),
        (["profile", "-p", "azure", "10000", "-p", "repeats", "10000"], "100,020,000 points"),
        (["sweep", "sweep.toml", "--matrix", "m", "-p", "batchs", "8"], "batchs"),
        (["sweep", "sweep.toml", "--matrix", "m", "-p", "gpu", "nonsense"], "parameter gpu"),
        (["sweep", "sweep.toml", "--matrix", "m", "-p", "name", "x"], "parameter name"),
        (["sweep", "sweep.toml", "--matrix", "m", "-p", "path", "x"], "parameter path"),
        (["sweep", "sweep.toml", "--matrix", "m", "--scheduler", "nonsense"], "tcp://HOST:8786"),
        (["sweep", "/dev/zero"], "no regular file"),
        (["profile", "-p", "model", "/dev/zero"], "no readable config file"),
        (["predict", "-p", "gpu", "voodoo"], "voodoo"),
        (["gather", "nowhere"], "no trace below nowhere"),
        (["gather", "--stored"], "--stored is gone"),
        (["report", "nowhere"], "no trace below nowhere"),
    ],
)
def test_bad_input_is_one_sentence_and_exit_code_2(place, capsys, arguments, word):
    code, _out, err = said(capsys, *arguments)
    assert code == 2 and err.startswith("footprint: ") and word in err and err.count("\n") == 1
    assert "Traceback" not in err


@pytest.mark.parametrize("option", ["--tries=-5", "--tries=0", "--tries=2.5", "--limit=nan"])
def test_an_option_out_of_bounds_says_what_is_allowed(option, capsys):
    with pytest.raises(SystemExit) as ended:
        __main__.main(["profile", option])
    said = capsys.readouterr().err.splitlines()[-1]
    assert ended.value.code == 2 and "is no " in said and "_" not in said


def test_debug_shows_where_it_came_from(place):
    with pytest.raises(ValueError, match="no sweep file"):
        __main__.main(["--debug", "sweep", "nowhere.toml"])
    with pytest.raises(ValueError, match="no sweep file"):
        __main__.main(["sweep", "nowhere.toml", "--debug"])


def test_a_dry_run_runs_nothing(place, capsys):
    code, out, _ = said(
        capsys,
        "sweep",
        "sweep.toml",
        "--matrix",
        "m",
        "--dry-run",
        "--device",
        "cuda:0",
        "--card",
        "t4",
    )
    assert code == 0 and "All is modelled. 2 runs" in out
    assert "g CO2e of electricity (US 2023: 420 g/kWh)" in out
    assert not (place / "notebooks" / "local").exists()


def test_a_sweep_with_a_failure_ends_with_1_and_names_it(place, capsys):
    code, out, _ = said(
        capsys, "sweep", "sweep.toml", "--matrix", "m", "--to", "out", "--tries", "1"
    )
    assert code == 1 and "1 ok, 1 failed of 2 runs" in out
    assert "ValueError: nonsense. See out/.sweep/failed/" in out
    code, out, err = said(capsys, "gather", "out")
    rows = list(csv.DictReader(io.StringIO(out)))
    assert code == 0 and len(rows) == 4 and {row["phase"] for row in rows} == {"prefill", "decode"}
    assert not err
    (place / "out" / "bad.nc").write_bytes(b"bad")
    code, out, err = said(capsys, "gather", "out")
    assert code == 1 and "time_per_iteration_s" in out
    assert err.startswith("footprint: bad.nc is not a trace")


def test_a_command_that_reads_writes_nothing(place, capsys):
    folder, precious = place / "strange", place / "precious"
    (folder / ".gathered").mkdir(parents=True)
    precious.write_text("precious")
    for name in (".gathered/.gitignore", ".sweep", "windows.csv"):
        (folder / name).symlink_to(precious)
    (place / "seed.h5").rename(folder / "a.nc")
    before = {path: path.lstat().st_mtime_ns for path in [folder, *folder.rglob("*")]}
    assert said(capsys, "gather", str(folder))[0] == 0
    dry = ["sweep", "sweep.toml", "--matrix", "m", "--dry-run", "--to", str(folder)]
    assert said(capsys, *dry)[0] == 0
    assert {path: path.lstat().st_mtime_ns for path in [folder, *folder.rglob("*")]} == before
    assert precious.read_text() == "precious"


def test_one_run_and_a_limit(place, capsys):
    code, out, _ = said(
        capsys, "profile", "-p", "model", "llama-24m", "--device", "cpu", "--to", "out"
    )
    assert code == 0 and len(light.pairs(place / "out")) == 1 and "1 ok of 1 runs" in out
    assert out.splitlines()[-1].startswith("In brackets: 90 % intervals.")
    code, out, _ = said(
        capsys, "profile", "-p", "seed", "667", "--to", "out", "--limit", "2", "--tries", "1"
    )
    assert code == 1 and "timeout" in out and "limit of 2 s" in out


def test_a_matrix_on_your_device_ends_in_a_checked_folder(place, monkeypatch, capsys):
    light.matrix(place / "notebooks" / "sweep.toml", QUICK.replace(", 669", ""))
    template, tables = (place / "notebooks" / "profile.ipynb").read_bytes(), spec.table
    hashes = sha256(template).hexdigest(), trace.hash_sources(json.loads(template))
    known = (dict(zip(("file_sha256", "sources_sha256"), hashes, strict=True)),)
    monkeypatch.setattr(spec, "table", lambda name: known if name == "templates" else tables(name))
    code, out, _ = said(capsys, "profile", "--matrix", "m", "--device", "cpu")
    assert code == 0 and "is fit to be sent" in out
    assert list(light.pairs(place / "notebooks" / "runs")) == ["box/smollm2-135m-eager-auto.nc"]
    page = place / "notebooks" / "runs" / "box" / "smollm2-135m-eager-auto.ipynb"
    page.write_text(page.read_text().replace("doing smollm2", "in /home/ada/secret"))
    code, out, _ = said(capsys, "profile", "--matrix", "m", "--device", "cpu")
    assert code == 1 and "names a place or a serial number of this machine: /home/ada" in out
    assert "not yet fit" in out


def test_predict_leaves_a_modelled_run(place, monkeypatch, capsys):
    asked = []
    monkeypatch.setattr(
        sweep,
        "run",
        lambda runs, *rest, **options: asked.extend(runs) or [{"run": runs[0], "status": "ok"}],
    )
    code, _out, _ = said(capsys, "predict", "-p", "gpu", "l4", "-p", "batches", "[1, 2]")
    assert code == 0 and asked[0] == sweep.Run("predict", asked[0].request)
    assert (asked[0].request["gpu"], asked[0].request["batches"]) == ("l4", [1, 2])


def test_the_keyboard_is_no_error(place, monkeypatch, capsys):
    def pressed(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(trace.folder, "names", pressed)
    code, _, err = said(capsys, "gather", "out")
    assert code == 1 and "stopped by the keyboard" in err


@pytest.mark.parametrize("ending", ["| head -1", "> /dev/full", ">&-"])
@pytest.mark.slow
def test_a_sweep_goes_on_without_a_screen(place, ending):
    light.matrix(place / "sweep.toml", QUICK.replace("669", "2"))
    command = f"{PYTHON} -m footprint sweep sweep.toml --matrix m --to out {ending}"
    done = subprocess.run(["bash", "-o", "pipefail", "-c", command], capture_output=True, text=True)
    assert len(light.pairs(place / "out")) == 2 and "Traceback" not in done.stderr
    full = "footprint: the output could not be written (No space left on device).\n"
    assert (done.returncode, done.stderr) == ((1, full) if "full" in ending else (0, ""))


@pytest.mark.parametrize("command", ["preflight | head -1", "gather . > /dev/full"])
def test_output_that_nobody_takes_is_no_traceback(place, command):
    (place / "seed.h5").rename(place / "seed.nc")
    shell = ["bash", "-c", f"{PYTHON} -m footprint {command}"]
    done = subprocess.run(shell, capture_output=True, text=True)
    full = "footprint: the output could not be written (No space left on device).\n"
    assert (done.returncode, done.stderr) == ((1, full) if "full" in command else (0, ""))


@pytest.mark.skipif(not sys.prefix.isascii(), reason="Python itself cannot name its folder then")
def test_a_locale_without_a_letter_stops_nothing(place):
    light.matrix(place / "ü.toml", QUICK)
    environ = {**os.environ, "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    command = [sys.executable, "-m", "footprint", "sweep", "ü.toml", "--matrix", "ü"]
    done = subprocess.run(command, capture_output=True, text=True, env=environ)
    assert done.returncode == 2 and "Traceback" not in done.stderr and "no matrix" in done.stderr


def test_it_starts_as_a_module():
    done = subprocess.run([sys.executable, "-m", "footprint"], capture_output=True, text=True)
    assert done.returncode == 2 and "usage: footprint" in done.stderr
