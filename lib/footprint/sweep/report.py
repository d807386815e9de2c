"""A finished sweep for others: its windows as flat tables, and an RO-Crate around all its files.

Croissant 1.0 (https://docs.mlcommons.org/croissant) describes the table; MLPerf inference issue
2558 proposes the field names of `mlperf.json`.
"""

import contextlib
import hashlib
import importlib.util
import json
import re
import warnings
from collections.abc import Callable, Mapping
from functools import partial
from math import isnan, nan
from pathlib import Path

import numpy as np
import pandas as pd

from footprint import Refused, root, spec, trace
from footprint.energy import window as energy
from footprint.sweep import results
from footprint.trace.schema import ATTRS

NEEDED = "A report needs rocrate and mlcroissant: pip install 'footprint[sweep]'."
MOST_MB = 20.0  # all committed runs together
FILES = {
    "windows.csv": ("text/csv", "all windows with derived energies, a row each"),
    "windows.parquet": ("application/vnd.apache.parquet", "the same table"),
    "croissant.json": ("application/ld+json", "the table described in Croissant"),
    "mlperf.json": ("application/json", "measured points in the field names proposed to MLPerf"),
}
PROFILE = "https://w3id.org/ro/wfrun/process/0.5"
PAPER = "https://doi.org/10.1145/3727200.3727220"
CITATION = f"Nguyen et al. 2024, Towards Sustainable Large Language Model Serving, {PAPER}"
LICENCE = "https://www.apache.org/licenses/LICENSE-2.0"
PLACES = "home|root|[Uu]sers|tmp|mnt|data|scratch|gpfs|nfs|Volumes|srv|lustre|work|media|export"
SECRET = re.compile(
    rf"((?<![\w.:/~])|(?<=file://))/({PLACES})/[\w.-]+"
    r"|\b[A-Za-z]:[\\/]+Users[\\/]+[\w.-]+|(GPU|MIG)-[0-9a-f]{8}-"
)
FORMULA = re.compile(r"[=+\-@\t\r]")  # begins what a spreadsheet would compute
POINT = ["batch", "prompt_tokens", "output_tokens"]


def write(
    folder: str | Path, say: Callable[[str], None] = print, mlperf: bool = False
) -> list[Path]:
    """Write tables, their description and an RO-Crate into a folder of runs; returns the files.

    mlperf: write `mlperf.json` too. Raises `Refused` without a trace, rocrate or mlcroissant;
    without pyarrow the Parquet file is left out.
    """
    folder = Path(folder)
    if not all(importlib.util.find_spec(name) for name in ("rocrate", "mlcroissant")):
        raise Refused(NEEDED)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # said below, a line each
        gathered = energy.gather(folder)
    for sentence in gathered.attrs["rejected"]:
        say(sentence)
    data = trace.frame(gathered)
    if data.empty:
        raise Refused(f"There is no trace below {folder}.")
    data["file"] = [str(Path(path).relative_to(folder)) for path in data["file"]]
    told = data.apply(lambda cells: cells if cells.dtype.kind in "biuf" else cells.map(as_text))
    files = [trace.whole(folder / "windows.csv", partial(told.to_csv, index=False))]
    if importlib.util.find_spec("pyarrow"):
        table = folder / "windows.parquet"
        files.append(trace.whole(table, partial(data.to_parquet, index=False)))
    else:
        say("no Parquet: pip install 'footprint[sweep]'")
    attrs = {str(name): values.attrs for name, values in gathered.variables.items()}
    described = croissant(files[0], data, attrs, *_about(data))
    files.append(_json(folder / "croissant.json", described))
    if mlperf:
        files.append(_json(folder / "mlperf.json", records(data)))
    crate = _crate(folder, data, files)
    return [*files, _json(folder / "ro-crate-metadata.json", crate.metadata.generate())]


def as_text(cell: object) -> object:
    """A cell of a table; a text that a spreadsheet would compute gets an apostrophe before it."""
    return f"'{cell}" if isinstance(cell, str) and FORMULA.match(cell) else cell


def _json(place: Path, content: dict | list) -> Path:
    text = json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False, default=str)
    return results.write(place, text + "\n")


def _about(data: pd.DataFrame) -> tuple[str, str]:
    """The runs in one line, and the last day on which one of them began."""
    runs = data.drop_duplicates("file")
    models, places = ", ".join(sorted(set(runs["model"]))), ", ".join(sorted(set(runs["device"])))
    date = max((text[:10] for text in runs["start_utc"] if text), default="2026-01-01")
    return f"{len(runs)} runs, {len(data)} windows: {models} on {places}", date


# -- the crate -------------------------------------------------------------------------------------


def _crate(folder: Path, data: pd.DataFrame, tables: list[Path]):
    """The crate: each run is an action of its notebook, with trace and page as results."""
    from rocrate.model import ContextEntity
    from rocrate.rocrate import ROCrate

    crate = ROCrate()
    crate.name, crate.license = "Runs of The Footprint of a Token", LICENCE
    crate.description, crate.datePublished = _about(data)
    facts = {"@type": "CreativeWork", "name": "Process Run Crate", "version": "0.5"}
    crate.root_dataset["conformsTo"] = crate.add(ContextEntity(crate, PROFILE, facts))
    for file, run in data.drop_duplicates("file").set_index("file").iterrows():
        _action(crate, folder, file, run)
    for table in tables:
        _file(crate, folder, table, *FILES[table.name])
    with contextlib.suppress(Refused):  # there is no log, or none that is read
        _file(crate, folder, folder / results.LOG, "application/jsonl", "event log of the sweep")
    return crate


def _action(crate, folder: Path, file: str, run: pd.Series) -> None:
    """Add the run whose trace is `file`, with the notebook that it executed."""
    from rocrate.model import ContextEntity

    page, record = (folder / file).with_suffix(".ipynb"), {}
    outputs = [_file(crate, folder, folder / file, "application/x-netcdf", "trace")]
    with contextlib.suppress(Refused):  # there is no page, or `check` names its fault
        record = _page(page)["metadata"].get("footprint", {})
        outputs.append(_file(crate, folder, page, "application/x-ipynb+json", "executed notebook"))
    name, digest = trace.notebook(run), record.get("notebook_sha256", "unknown")
    facts = {
        "@type": "SoftwareApplication",
        "name": f"notebooks/{name}.ipynb",
        "sha256": digest,
        "softwareVersion": record.get("git_commit") or run["git_commit"] or "unknown",
        "softwareRequirements": record.get("environment", []),
    }
    label = f"#{name}-{digest[:12]}"
    instrument = crate.dereference(label) or crate.add(ContextEntity(crate, label, facts))
    ending = "Completed" if run["run_status"] in results.FINAL else "Failed"
    what = f"{run['model']} on {run['device']}, {run['engine']} {run['dtype']}, {run['kind']}"
    facts = {
        "name": f"{run['run_status']}: {what}",
        "description": run["request"],
        "actionStatus": f"http://schema.org/{ending}ActionStatus",
    }
    facts |= {"startTime": run["start_utc"]} if run["start_utc"] else {}
    crate.add_action(instrument, f"#{file}", result=outputs, properties=facts)


def _page(path: Path) -> dict:
    """An executed notebook whose provenance is texts and lists of texts; `Refused` otherwise."""
    data = trace.content(path)
    try:
        page = json.loads(data)
        record = page["metadata"].get("footprint", {})
        json.dumps(record, ensure_ascii=False).encode()
        sound = all(isinstance(text, str) for value in record.values() for text in value)
    except (ValueError, LookupError, AttributeError, TypeError, RecursionError):
        sound = False
    if not sound:
        raise Refused(f"{path.name} is damaged: it is no executed notebook.")
    return page


def _texts(page: dict) -> str:
    """Every text in a page, a line each: their JSON would hide where a line begins."""
    texts, left = [], [page]
    while left:
        value = left.pop()
        if isinstance(value, dict):
            left += [*value, *value.values()]
        elif isinstance(value, list):
            left += value
        elif isinstance(value, str):
            texts.append(value)
    return "\n".join(texts)


def _file(crate, folder: Path, path: Path, kind: str, about: str):
    data = trace.content(path)
    facts = {
        "name": path.name,
        "description": about,
        "encodingFormat": kind,
        "contentSize": str(len(data)),
        "sha256": hashlib.sha256(data).hexdigest(),
    }
    return crate.add_file(path, str(path.relative_to(folder)), properties=facts)


# -- tables ----------------------------------------------------------------------------------------


def croissant(
    table: Path, data: pd.DataFrame, attrs: Mapping[str, Mapping[str, str]], about: str, date: str
) -> dict:
    """Croissant JSON-LD of a CSV file: its checksum, and type, meaning and units of each column.

    attrs: `units` and `long_name` by column; the trace's schema describes other columns.
    """
    import mlcroissant as mlc

    types = {"b": "BOOL", "i": "INTEGER", "u": "INTEGER", "f": "FLOAT"}
    fields = [
        mlc.Field(
            id=f"windows/{name}",
            name=name,
            description=_meaning(name, attrs.get(name, {})),
            data_types=[getattr(mlc.DataType, types.get(data[name].dtype.kind, "TEXT"))],
            source=mlc.Source(file_object=table.name, extract=mlc.Extract(column=name)),
        )
        for name in data
    ]
    kind, description = FILES[table.name]
    file = mlc.FileObject(
        id=table.name,
        name=table.name,
        content_url=table.name,
        content_size=f"{table.stat().st_size} B",
        encoding_formats=[kind],
        sha256=hashlib.sha256(table.read_bytes()).hexdigest(),
        description=description,
    )
    return mlc.Metadata(
        name="footprint-of-a-token-windows",
        description=about,
        license=[LICENCE],
        url=PAPER,
        version="1.0.0",
        date_published=date,
        cite_as=CITATION,
        distribution=[file],
        record_sets=[mlc.RecordSet(id="windows", name="windows", fields=fields)],
    ).to_json()


def _meaning(name: str, attrs: Mapping[str, str]) -> str:
    """Meaning and units of a column."""
    text = attrs.get("long_name") or ATTRS.get(name, ("", name.replace("_", " ")))[1]
    return f"{text} [{attrs['units']}]" if attrs.get("units") else text


def records(data: pd.DataFrame) -> list[dict]:
    """MLPerf's proposed record of each point of each measured run.

    Joules are medians over repeats of one iteration of the batch, None where not measured; `reason`
    says why. Generation is the decode phase. Raises `Refused` where all runs are modelled.
    """
    data = data[data["kind"] == "measured"]
    if data.empty:
        raise Refused("Each run there is modelled; MLPerf's fields are for measured runs.")
    rows = data[data["batch"] > 0]
    rows = rows.assign(joules=rows["energy_J"] / rows["iterations"].where(rows["iterations"] > 0))
    return [_record(rows) for _, rows in rows.groupby(["file", *POINT])]


def _record(rows: pd.DataFrame) -> dict:
    joules, first = rows.groupby("phase")["joules"].median(), rows.iloc[0]
    whole = rows[rows["phase"] == "generate"]
    record = {
        "prefill_energy_joules": joules.get("prefill", nan),
        "generation_energy_joules": joules.get("decode", nan),
        "total_energy_joules": joules.get("generate", nan),
        "energy_per_token_joules": {
            "mean": _plain(whole["energy_per_token_J"].mean()),
            "std": _plain(whole["energy_per_token_J"].std()),
        },
        "gpu_power_draw_watts": {"mean": _plain(whole["power_W"].mean())},
        "output_token_count": first["batch"] * first["output_tokens"],
        "batch_size": first["batch"],
        "input_sequence_length": first["prompt_tokens"],
        "output_sequence_length": first["output_tokens"],
        "scenario": "singlestream" if first["batch"] == 1 else "offline",
        "measurement_method": "nvml" if first["energy_source"].startswith("nvml") else None,
        "energy_source": first["energy_source"],
        "sampling_rate_hz": rows["sampling_rate_hz"].median(),
        "thermal_stabilization_seconds": rows["warmup_s"].max(),
        "repeats": rows["repeat"].nunique(),
        "model": first["model"],
        "device": first["device_name"],
        "file": first["file"],
        "reason": ", ".join(sorted(set(rows["energy_status"]) - {"ok"})),
    }
    return {name: _plain(value) for name, value in record.items()}


def _plain(value: object) -> object:
    """A value as JSON has it: NaN is None."""
    value = value.item() if isinstance(value, np.generic) else value
    return None if isinstance(value, float) and isnan(value) else value


# -- before a folder is sent -----------------------------------------------------------------------


def check(folder: str | Path) -> list[str]:
    """The faults that keep a folder of runs from being sent, a sentence each."""
    folder = Path(folder)
    belong, strange = trace.sort_files(folder, spec.table("templates"))
    names = [name for name in trace.names(folder) if name in belong]
    faults = [*strange.values()]
    faults += [fault for name in names for fault in _faults(folder / name, name)]
    size = sum((folder / name).stat().st_size for name in belong)
    if size > MOST_MB * 2**20:
        limit = f"{MOST_MB:.0f} are allowed for all runs together"
        faults.append(f"The folder holds {size / 2**20:.0f} MiB; {limit}.")
    return faults if names else [*faults, "There is no trace in it."]


def _faults(path: Path, name: str) -> list[str]:
    """The faults of a sound trace and its page: unfinished, alone, or naming this machine."""
    run, page, faults = trace.load(path).attrs, path.with_suffix(".ipynb"), []
    if run["status"] not in results.FINAL:
        faults.append(f"{name} is not finished: {run['status']}. {run['reason']}")
    if not page.is_file():
        return [*faults, f"{name} has no executed notebook beside it."]
    text = "\n".join(map(str, run.values()))
    with contextlib.suppress(Refused):  # what is no page is named already
        text += "\n" + _texts(_page(page))
    secret = SECRET.search(text) or re.search(re.escape(str(root())) + r"\b", text)
    if secret:
        what = f"a place or a serial number of this machine: {secret[0]}"
        faults.append(f"{name} or its page names {what}.")
    return faults
