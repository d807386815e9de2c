"""The matrix: blocks of a TOML file multiplied into runs, some left out, some changed, every one checked."""

import itertools
import tomllib
from pathlib import Path

from footprint import Refused, workload
from footprint.sweep.runner import LIMIT_S, Run

OWN = (
    "notebook",
    "each",
    "exclude",
    "override",
    "limit_s",
)  # keys of a block that are no parameter


def matrix(path: str | Path, name: str, **changes) -> list[Run]:
    """The runs of one matrix of a TOML file, in its order; `changes` are parameters that hold for all (`device`).

    A block names its `notebook` and its parameters; lists under `each` multiply; `exclude` lists the combinations that
    are left out; `override` lists changes of those that match its `when`; `limit_s` ends a run that takes longer.
    Raises `Refused` for a missing file, an unknown matrix, notebook or parameter, a rule that matches nothing, and for
    two runs that are the same.
    """
    try:
        blocks = tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise Refused(f"There is no sweep file at {path}.") from None
    except (OSError, tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise Refused(f"The sweep file {path} cannot be read as TOML ({error}).") from None
    found = blocks.get(name)
    if not isinstance(found, list) or not all(isinstance(block, dict) for block in found):
        listed = (
            ", ".join(key for key, value in blocks.items() if isinstance(value, list)) or "none"
        )
        raise Refused(f"There is no matrix {name!r} in {path}; there are {listed}.")
    runs = [run for block in found for run in _block(block, name, changes)]
    keys = [(run.key, run.device) for run in runs]
    for run, key in zip(runs, keys, strict=True):
        if keys.count(key) > 1:
            raise Refused(f"The matrix {name!r} holds the same run twice: {run.label}.")
    if not runs:
        raise Refused(f"The matrix {name!r} of {path} holds no run.")
    return runs


def _block(block: dict, name: str, changes: dict) -> list[Run]:
    notebook, each, limit = (
        block.get("notebook"),
        block.get("each", {}),
        block.get("limit_s", LIMIT_S),
    )
    if notebook not in workload.PARAMETERS:
        allowed = " or ".join(workload.PARAMETERS)
        raise Refused(f"The notebook of matrix {name!r} is {notebook!r}; allowed is {allowed}.")
    if not isinstance(each, dict) or not all(
        isinstance(values, list) and values for values in each.values()
    ):
        raise Refused(
            f"`each` of matrix {name!r} is {each!r:.80}; lists of values by parameter are allowed."
        )
    if not isinstance(limit, int | float) or isinstance(limit, bool) or not limit > 0:
        raise Refused(
            f"limit_s of matrix {name!r} is {limit!r}; a number of seconds above 0 is allowed."
        )
    fixed = {key: value for key, value in block.items() if key not in OWN}
    changes = {key: value for key, value in changes.items() if key in workload.PARAMETERS[notebook]}
    asked = [
        {**fixed, **dict(zip(each, values, strict=True))}
        for values in itertools.product(*each.values())
    ]
    asked = [workload.request(notebook, **one) for one in asked]
    rules = [(rule, {}) for rule in _rules(block, "exclude", name)]
    for rule in _rules(block, "override", name):
        if not isinstance(rule.get("when"), dict):
            raise Refused(
                f"An override of matrix {name!r} has no `when`; a table of parameters is allowed."
            )
        rules.append((rule["when"], {key: value for key, value in rule.items() if key != "when"}))
    for when, new in rules:
        hit = [_matches(notebook, when, one) for one in asked]
        if not any(hit):
            raise Refused(f"The rule {when} of matrix {name!r} matches none of its runs.")
        asked = [
            workload.request(notebook, **{**one, **new}) if yes else one
            for one, yes in zip(asked, hit, strict=True)
            if new or not yes
        ]
    return [
        Run(notebook, workload.request(notebook, **{**one, **changes}), float(limit))
        for one in asked
    ]


def _rules(block: dict, what: str, name: str) -> list[dict]:
    rules = block.get(what, [])
    if not isinstance(rules, list) or not all(isinstance(rule, dict) and rule for rule in rules):
        raise Refused(f"`{what}` of matrix {name!r} is {rules!r:.80}; a list of tables is allowed.")
    return rules


def _matches(notebook: str, when: dict, request: dict) -> bool:
    """Whether a request has all the values of a rule; of a list given for a parameter that is no list, any one."""
    for name, value in when.items():
        choice = (
            value
            if isinstance(value, list) and not isinstance(request.get(name), list)
            else [value]
        )
        allowed = [workload.request(notebook, **{name: one})[name] for one in choice]
        if request[name] not in allowed:
            return False
    return True
