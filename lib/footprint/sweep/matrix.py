"""The matrix of a sweep: blocks of a TOML file multiplied into runs."""

import itertools
import math
import tomllib
from pathlib import Path

from footprint import Refused, shown, spec, workload
from footprint.sweep.runner import LIMIT_S, Run

MOST_B = 2**20  # of a sweep file
MOST = 10_000  # runs of a block
MOST_POINTS = 10**6  # of all runs of a matrix
OWN = {"notebook", "each", "exclude", "override", "limit_s"}  # keys that are no parameters


def runs(path: str | Path, name: str, /, **changes: object) -> list[Run]:
    """The runs of one matrix of a TOML file, in its order; `changes` apply to all.

    A block has a `notebook` and parameters. Lists under `each` multiply, `exclude` lists what to
    leave out, `override` changes what matches its `when`, `limit_s` ends a longer run. Raises
    `Refused` for a missing file, unknown names, a rule without a match, and two equal runs.
    """
    try:
        matrices = tomllib.loads(spec.content(path, MOST_B).decode())
    except FileNotFoundError:
        raise Refused(f"There is no sweep file at {path}.") from None
    except (OSError, ValueError, RecursionError) as error:
        raise Refused(f"The sweep file {path} cannot be read as TOML ({error}).") from None
    if not _is_list(matrices.get(name), dict):
        names = ", ".join(key for key, value in matrices.items() if isinstance(value, list))
        raise Refused(f"There is no matrix {name!r} in {path}; there are {names or 'none'}.")
    runs = [run for block in matrices[name] for run in _multiply(block, name, changes)]
    if not runs:
        raise Refused(f"The matrix {name!r} of {path} holds no run.")
    known = {key for run in runs for key in run.request}
    if unknown := sorted(set(changes) - known):
        raise Refused(
            f"No run of matrix {name!r} has a parameter {unknown[0]}; there are {', '.join(known)}."
        )
    if any(run.request["out"] for run in runs):
        raise Refused(f"A run of matrix {name!r} has an `out`; a sweep names its files itself.")
    points = sum(workload.points(run.request) for run in runs)
    if points > MOST_POINTS:
        asked = f"The matrix {name!r} has {points:,} points"
        raise Refused(f"{asked}; at most {MOST_POINTS:,} are allowed.")
    seen = set()
    for run in runs:
        if (run.key, run.device) in seen:
            raise Refused(f"The matrix {name!r} holds the same run twice: {run.label}.")
        seen.add((run.key, run.device))
    return runs


def _is_list(values: object, of: type) -> bool:
    return isinstance(values, list) and all(isinstance(value, of) for value in values)


def _multiply(block: dict, name: str, changes: dict) -> list[Run]:
    """The runs of one block."""
    notebook, each = block.get("notebook"), block.get("each", {})
    limit_s = block.get("limit_s", LIMIT_S)
    if not isinstance(notebook, str) or notebook not in workload.PARAMETERS:
        allowed = " or ".join(workload.PARAMETERS)
        said = f"The notebook of matrix {name!r} is {shown(notebook)}"
        raise Refused(f"{said}; allowed is {allowed}.")
    lists = list(each.values()) if isinstance(each, dict) else [each]
    if not _is_list(lists, list) or not all(lists):
        allowed = "lists of values by parameter are allowed"
        raise Refused(f"`each` of matrix {name!r} is {shown(each)}; {allowed}.")
    if math.prod(map(len, lists)) > MOST:
        said = f"`each` of matrix {name!r} makes {math.prod(map(len, lists)):,} runs"
        raise Refused(f"{said}; at most {MOST:,} are allowed.")
    if isinstance(limit_s, bool) or not isinstance(limit_s, int | float) or not 0 < limit_s < 1e9:
        allowed = "a number of seconds above 0 and below 10^9 is allowed"
        raise Refused(f"limit_s of matrix {name!r} is {shown(limit_s)}; {allowed}.")
    fixed = {key: value for key, value in block.items() if key not in OWN}
    requests = [
        workload.request(notebook, **(fixed | dict(zip(each, values, strict=True))))
        for values in itertools.product(*each.values())
    ]
    for when in _tables(block, "exclude", name):
        hits = _matching(notebook, when, requests, name)
        requests = [request for request, hit in zip(requests, hits, strict=True) if not hit]
    for rule in _tables(block, "override", name):
        when, new = rule.get("when"), {key: rule[key] for key in rule if key != "when"}
        if not isinstance(when, dict):
            allowed = "a table of parameters is allowed"
            raise Refused(f"An override of matrix {name!r} has no `when`; {allowed}.")
        hits = _matching(notebook, when, requests, name)
        requests = [
            workload.request(notebook, **(request | new)) if hit else request
            for request, hit in zip(requests, hits, strict=True)
        ]
    parameters = workload.PARAMETERS[notebook]
    changes = {key: value for key, value in changes.items() if key in parameters}
    requests = [workload.request(notebook, **(request | changes)) for request in requests]
    return [Run(notebook, request, float(limit_s)) for request in requests]


def _tables(block: dict, key: str, name: str) -> list[dict]:
    """The rules of a block under this key."""
    rules = block.get(key, [])
    if not _is_list(rules, dict) or not all(rules):
        raise Refused(f"`{key}` of matrix {name!r} is {shown(rules)}; a list of tables is allowed.")
    return rules


def _matching(notebook: str, when: dict, requests: list[dict], name: str) -> list[bool]:
    """Which requests match a rule; a list of values matches any of them."""
    allowed, defaults = {}, workload.request(notebook)
    for key, value in when.items():
        several = isinstance(value, list) and not isinstance(defaults.get(key), list)
        choices = value if several else [value]
        allowed[key] = [workload.request(notebook, **{key: choice})[key] for choice in choices]
    hits = [all(request[key] in allowed[key] for key in allowed) for request in requests]
    if not any(hits):
        raise Refused(f"The rule {shown(when)} of matrix {name!r} matches none of its runs.")
    return hits
