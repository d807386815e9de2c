"""A finished sweep for others: an RO-Crate around its files, and its windows as a flat table that Croissant describes."""

import hashlib
import importlib.util
import json
import re
from collections.abc import Callable
from pathlib import Path

import pandas as pd

from footprint import Refused, root
from footprint.energy import window as energy
from footprint.sweep import croissant, results
from footprint.sweep import events as ledger
from footprint.trace import file as trace

NEEDED = "A report needs rocrate and mlcroissant: pip install 'footprint[sweep]'."
MOST_MB = 20.0  # all committed runs together
FORMATS = {
    ".csv": "text/csv",
    ".parquet": "application/vnd.apache.parquet",
    ".json": "application/ld+json",
}
PROFILE = "https://w3id.org/ro/wfrun/process/0.5"
SECRET = re.compile(r"(?<![\w.:/~])/(?:home|root|Users|tmp|mnt|data)/[\w.-]+|GPU-[0-9a-f]{8}-")


def write(folder: str | Path, say: Callable[[str], None] = print) -> list[Path]:
    """Write `windows.csv`, `windows.parquet`, `croissant.json` and `ro-crate-metadata.json` into a folder of runs.

    Returns the files. Raises `Refused` when there is no trace, or rocrate or mlcroissant is not installed; without pyarrow
    the Parquet file is left out.
    """
    folder = Path(folder)
    if not all(importlib.util.find_spec(name) for name in ("rocrate", "mlcroissant")):
        raise Refused(NEEDED)
    gathered = energy.gather(folder)
    data = trace.frame(gathered)
    if not len(data):
        raise Refused(f"There is no trace below {folder}.")
    data["file"] = [str(Path(path).relative_to(folder)) for path in data["file"]]
    tables = [folder / "windows.csv"]
    trace.whole(tables[0], lambda path: data.to_csv(path, index=False))
    if importlib.util.find_spec("pyarrow"):
        tables.append(folder / "windows.parquet")
        trace.whole(tables[1], lambda path: data.to_parquet(path, index=False))
    else:
        say("no Parquet: pip install 'footprint[sweep]'")
    said = {str(name): values.attrs for name, values in gathered.variables.items()}
    about, date = _about(data)
    tables.append(
        _json(folder / "croissant.json", croissant.describe(tables[0], data, said, about, date))
    )
    crate = _crate(folder, data, tables)
    return [*tables, _json(folder / "ro-crate-metadata.json", crate.metadata.generate())]


def _json(place: Path, content: dict) -> Path:
    text = json.dumps(content, indent=1, ensure_ascii=False, default=str) + "\n"
    trace.whole(place, lambda path: Path(path).write_text(text, encoding="utf-8"))
    return place


def _about(data: pd.DataFrame) -> tuple[str, str]:
    """What the runs are of in one line, and the last day on which one of them began."""
    runs = data.drop_duplicates("file")
    models, places = (", ".join(sorted(set(runs[column]))) for column in ("model", "device"))
    date = max((text[:10] for text in runs["start_utc"] if text), default="2026-01-01")
    return f"{len(runs)} runs, {len(data)} windows: {models} on {places}", date


def _crate(folder: Path, data: pd.DataFrame, tables: list[Path]):
    """The crate: each run an action with its notebook as the instrument, trace and page as results."""
    from rocrate.rocrate import ROCrate

    crate, runs, notebooks = ROCrate(), data.drop_duplicates("file").set_index("file"), {}
    crate.name = "Runs of The Footprint of a Token"
    crate.description, crate.datePublished = _about(data)
    crate.license = croissant.LICENCE
    facts = {"@type": "CreativeWork", "name": "Process Run Crate", "version": "0.5"}
    crate.root_dataset["conformsTo"] = _entity(crate, PROFILE, facts)
    for file, run in runs.iterrows():
        _action(crate, folder, file, run, notebooks)
    for table in tables:
        _file(
            crate,
            folder,
            table,
            FORMATS[table.suffix],
            "all windows with derived energies, a row each",
        )
    if (folder / ledger.PLACE).exists():
        _file(crate, folder, folder / ledger.PLACE, "application/jsonl", "event log of the sweep")
    return crate


def _action(crate, folder: Path, file: str, run: pd.Series, notebooks: dict) -> None:
    """The run whose trace is `file`, with the notebook that made it."""
    page, made = (
        (folder / file).with_suffix(".ipynb"),
        [_file(crate, folder, folder / file, "application/x-netcdf", "trace")],
    )
    record = {}
    if page.exists():
        record = json.loads(page.read_text("utf-8"))["metadata"].get("footprint", {})
        made.append(_file(crate, folder, page, "application/x-ipynb+json", "executed notebook"))
    kind, digest = (
        "predict" if run["kind"] == "modelled" else "profile",
        record.get("notebook_sha256", "unknown"),
    )
    if (kind, digest) not in notebooks:
        facts = {
            "@type": "SoftwareApplication",
            "name": f"notebooks/{kind}.ipynb",
            "sha256": digest,
        }
        facts["softwareVersion"] = record.get("git_commit") or run["git_commit"] or "unknown"
        facts["softwareRequirements"] = record.get("environment", [])
        notebooks[kind, digest] = _entity(crate, f"#{kind}-{digest[:12]}", facts)
    ending = "Completed" if run["run_status"] in results.FINAL else "Failed"
    facts = {
        "name": f"{run['run_status']}: {run['model']} on {run['device']}, {run['engine']} {run['dtype']}, {run['kind']}",
        "description": run["request"],
        "actionStatus": f"http://schema.org/{ending}ActionStatus",
    }
    facts |= {"startTime": run["start_utc"]} if run["start_utc"] else {}
    crate.add_action(notebooks[kind, digest], f"#{file}", result=made, properties=facts)


def _entity(crate, name: str, facts: dict):
    from rocrate.model import ContextEntity

    return crate.add(ContextEntity(crate, name, facts))


def _file(crate, folder: Path, path: Path, kind: str, about: str):
    facts = {
        "name": path.name,
        "description": about,
        "encodingFormat": kind,
        "contentSize": str(path.stat().st_size),
        "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
    }
    return crate.add_file(path, str(path.relative_to(folder)), properties=facts)


def check(folder: str | Path) -> list[str]:
    """What keeps a folder of runs from being sent to others, a sentence each; nothing when it is fit."""
    folder, faults, size, names = Path(folder), [], 0, trace.names(folder)
    for name in names:
        path, page = folder / name, (folder / name).with_suffix(".ipynb")
        try:
            run = trace.load(path).attrs
        except Refused as error:
            faults.append(str(error))
            continue
        if run["status"] not in results.FINAL:
            faults.append(f"{name} is not finished: {run['status']}. {run['reason']}")
        if not page.exists():
            faults.append(f"{name} has no executed notebook beside it.")
            continue
        size += path.stat().st_size + page.stat().st_size
        said = page.read_text("utf-8") + " ".join(str(value) for value in run.values())
        found = SECRET.search(said) or re.search(re.escape(str(root())) + r"\b", said)
        if found:
            faults.append(
                f"{name} or its page names a place or a serial number of this machine: {found[0]}."
            )
    if size > MOST_MB * 2**20:
        faults.append(
            f"The folder holds {size / 2**20:.0f} MiB; {MOST_MB:.0f} are allowed for all runs together."
        )
    return faults if names else ["There is no trace in it."]
