"""What a person sees of a sweep: a live table in a terminal, plain lines anywhere else."""

import math
import os
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from math import nan
from pathlib import Path

import pandas as pd
from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from footprint import Refused, carbon, energy, spec, trace
from footprint.measure.preflight import columns
from footprint.sweep.cost import Cost
from footprint.sweep.runner import Run

STYLE = {"ok": "green", "running": "bold", "waiting": "dim", "skipped": "dim", "oom": "yellow"}
TO_DO = ("waiting", "running")
ROWS = 12  # of the live table
FOUND = {  # columns of `energy.requests` -> heading and scale
    "ttft_s": ("TTFT (ms)", 1e3),
    "tpot_s": ("TPOT (ms)", 1e3),
    "tokens_per_s": ("tokens/s", 1),
    "token_J": ("J a token", 1),
    "token_mg": ("mg CO2e a token", 1),
}


def length(seconds: float) -> str:
    """A duration as text: 42 s, 7 min, 3.2 h."""
    if math.isnan(seconds):
        return "?"
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"


def amount(value: float, unit: str) -> str:
    """A value with three digits and its unit; `?` for NaN."""
    return "?" if math.isnan(value) else f"{value:.3g} {unit}"


@dataclass
class State:
    """State of one run."""

    label: str
    expected_s: float = nan
    status: str = "waiting"
    began: float = 0.0
    seconds: float = nan
    joules: float = nan
    line: str = ""  # its last line of output, or the reason of its end

    def elapsed_s(self) -> float:
        """Seconds since the run began, or of the whole run once it ended."""
        return time.monotonic() - self.began if self.status == "running" else self.seconds

    def update(self, event: str, facts: dict) -> None:
        """Take in an event of `sweep.run`."""
        if event == "start":
            self.status, self.began, self.line = "running", time.monotonic(), ""
        elif event == "line":
            self.line = facts["line"]
        elif event == "retry":
            self.status, self.line = "waiting", f"again: {facts['reason']}"
        elif event == "end":
            self.status, self.line = facts["status"], facts["reason"]
            self.seconds, self.joules = facts["seconds"] or nan, facts.get("joules", nan)


@contextmanager
def showing(runs: list[Run], seconds: list[float], grid: spec.Grid, out=None) -> Iterator[Callable]:
    """Show the state of runs while the block runs; yields the function for events of `sweep.run`.

    seconds: how long each run should take (NaN: as long as the others).
    """
    console = Console(file=out or sys.stdout)
    numbers = {(run.key, run.device): number for number, run in enumerate(runs, 1)}
    states = [State(run.label, expected) for run, expected in zip(runs, seconds, strict=True)]

    def tell(event: str, run: Run | None = None, **facts) -> None:
        label, number = (run.label, numbers[run.key, run.device]) if run else ("", 0)
        if run:
            states[number - 1].update(event, facts)
        if not console.is_terminal:
            text = _line(event, label, number, states, facts)
        elif event == "end" and facts["status"] not in ("ok", "oom"):
            text = f"{label}: {facts['status']}. {facts['reason']}"
        elif run:
            return  # the table shows it
        else:
            text = facts["line"]
        console.print(text, markup=False, highlight=False, soft_wrap=not console.is_terminal)

    if not console.is_terminal:
        yield tell
        return
    with Live(console=console, refresh_per_second=2, get_renderable=lambda: _table(states, grid)):
        yield tell


def _line(event: str, label: str, number: int, states: list[State], facts: dict) -> str:
    """An event as a line of text; label and number (from 1) are those of its run."""
    if event == "start":
        left_s = left(states)
        more = f" (about {length(left_s)} left)" if left_s > 0 else ""
        return f"[{number}/{len(states)}] {label}{more}"
    if event == "end":
        name = os.path.relpath(facts["file"]) if facts.get("file") else label
        more = f" ({facts['reason']})" if facts["reason"] else ""
        return f"  {facts['status']}: {name}{more}"
    if event == "retry":
        return f"  to be tried again: {label} ({facts['reason']})"
    return f"  {facts['line']}"


def left(states: list[State]) -> float:
    """Seconds until all runs end: their expected times, corrected by the runs that ended."""
    ended = [state for state in states if state.seconds > 0]
    taken_s = sum(state.seconds for state in ended)
    expected_s = sum(state.expected_s for state in ended)
    mean_s = taken_s / len(ended) if ended else nan
    scale = taken_s / expected_s if expected_s > 0 else 1.0
    total_s = 0.0
    for state in states:
        if state.status in TO_DO:
            run_s = state.expected_s * scale if state.expected_s > 0 else mean_s
            total_s += max(0.0, run_s - (state.elapsed_s() if state.status == "running" else 0.0))
    return total_s


def summary(states: list[State], grid: spec.Grid) -> str:
    """One line on all runs: how many ended, the time left, and power, energy and grams so far."""
    count = Counter(state.status for state in states if state.status not in TO_DO)
    others = [f", {number} {status}" for status, number in count.items() if status != "ok"]
    text = f"{count.total()} of {len(states)} done{''.join(others)}"
    if count.total() < len(states):
        text += f"; about {length(left(states))} left"
    metered = [state for state in states if not math.isnan(state.joules)]
    if metered:
        joules = sum(state.joules for state in metered)
        watts = joules / sum(state.seconds for state in metered)
        grams = carbon.operational(joules, grid.g_per_kwh)
        text += f"; {amount(watts, 'W')}, {amount(joules / 3600, 'Wh')}"
        text += f", {amount(grams, 'g')} CO2e so far ({_zone(grid)})"
    return text


def _zone(grid: spec.Grid) -> str:
    return f"{grid.zone} {grid.year}: {grid.g_per_kwh:.0f} g/kWh"


def _table(states: list[State], grid: spec.Grid) -> Group:
    table = Table(box=None, pad_edge=False)
    for name in ("run", "status", "time", "power", "grams", ""):
        side = "right" if name in ("time", "power", "grams") else "left"
        table.add_column(name, no_wrap=True, overflow="ellipsis", justify=side)
    running = [state for state in states if state.status == "running"]
    ended = [state for state in states if state.status not in TO_DO][-ROWS // 2 :]
    waiting = [state for state in states if state.status == "waiting"]
    for state in [*running, *ended, *waiting][:ROWS]:
        seconds = state.elapsed_s()
        grams = carbon.operational(state.joules, grid.g_per_kwh)
        cells = (length(seconds), amount(state.joules / seconds, "W"), amount(grams, "g"))
        table.add_row(
            Text(state.label),
            Text(state.status, style=STYLE.get(state.status, "red")),
            *["" if cell == "?" else cell for cell in cells],
            Text(state.line, style="dim"),
        )
    return Group(table, Text(summary(states, grid)))


def plan(runs: list[Run], costs: list[Cost], grid: spec.Grid) -> str:
    """The modelled cost of each run and of all runs, and the points that cannot fit."""
    head = ["run", "time", "memory", "energy", "electricity", "embodied", "points that fit"]
    rows, notes = [], []
    for run, cost in zip(runs, costs, strict=True):
        row = [run.label, length(cost.seconds), amount(cost.memory_GiB, "GiB")]
        row += [amount(cost.energy_J / 3600, "Wh"), amount(cost.operational_g, "g")]
        fit = f"{cost.points - len(cost.misfits)} of {cost.points}" if cost.points else "?"
        rows.append([*row, amount(cost.embodied_g, "g"), fit])
        notes += [f"{run.label}: {cost.note.rstrip('.')}."] if cost.note else []
        notes += [f"{run.label} cannot fit {'; '.join(cost.misfits)}."] if cost.misfits else []
    return "\n".join([columns(head, rows), *notes, f"All is modelled. {_total(costs, grid)}."])


def _total(costs: list[Cost], grid: spec.Grid) -> str:
    """All runs in one sentence; unknown times and energies are counted apart."""
    table = pd.DataFrame(costs, columns=Cost._fields)
    total, unknown = table.sum(numeric_only=True), table.isna().sum()
    text = f"{len(costs)} runs, about {length(total['seconds'])}"
    if unknown["seconds"]:
        text += f" and {unknown['seconds']} of unknown time"
    if unknown["energy_J"] < len(costs):
        text += f"; {total['energy_J'] / 3600:.3g} Wh and {total['operational_g']:.3g} g CO2e"
        text += f" of electricity ({_zone(grid)}), {total['embodied_g']:.3g} g"
        text += " of the GPUs' embodied carbon (5 years, always busy)"
    if unknown["energy_J"]:
        text += f"; the energy of {unknown['energy_J']} runs is unknown"
    return text


def found(files: list[Path], grid: spec.Grid) -> str:
    """What finished runs say of each point, as a table; under it what kind of numbers these are."""
    runs, said = [], []
    for file in files:
        try:
            tree = trace.load(file)
            runs.append(trace.labelled(energy.windows(tree), tree.attrs, file))
        except Refused as damaged:
            said.append(str(damaged))
    rows = energy.requests(energy.points(trace.joined(runs), processors=True))
    if rows.empty:
        return " ".join([*said, "No point was measured."])
    for end in ("", "_low", "_high"):
        rows[f"token_mg{end}"] = 1e3 * carbon.operational(rows[f"token_J{end}"], grid.g_per_kwh)
    several = [name for name in ("model", "gpu", "engine") if rows[name].nunique() > 1]
    shown = rows[[*several, "batch", "prompt", "output"]].astype(str)
    for name, (head, scale) in FOUND.items():
        bounds = rows[[name, f"{name}_low", f"{name}_high"]] * scale
        shown[head] = [_bounded(*row) for row in bounds.itertuples(index=False)]
    shown["evidence"] = rows["evidence"].where(rows["status"] != "oom", "out of memory")
    said += ["In brackets: 90 % intervals."]
    if rows["token_J"].notna().any():
        said += [f"Carbon: of the electricity alone ({_zone(grid)})."]
    unknown = rows.loc[rows["token_J"].isna() & rows["ttft_s"].notna(), "status"].unique()
    said += [f"Energy unknown: {why.replace('_', ' ')}." for why in unknown]
    return "\n".join([columns(list(shown), shown.to_numpy().tolist()), " ".join(said)])


def _bounded(value: float, low: float, high: float) -> str:
    """A value and its interval, each with three digits."""
    if math.isnan(value):
        return "?"
    value, low, high = (f"{n:.3g}" if n < 1000 else f"{n:,.0f}" for n in (value, low, high))
    return f"{value} [{low}, {high}]"


def verdict(outcomes: list[dict]) -> str:
    """How many runs ended how, and a line for each run that is not ok."""
    count = Counter(outcome["status"] for outcome in outcomes)
    ended = ", ".join(f"{number} {status}" for status, number in count.items())
    lines = [f"{ended} of {len(outcomes)} runs"]
    for outcome in outcomes:
        if outcome["status"] != "ok":
            page = f" See {os.path.relpath(outcome['page'])}." if outcome.get("page") else ""
            why = f"{outcome['run'].label}: {outcome['reason']}"
            lines.append(f"{outcome['status']:12} {why}{page}")
    return "\n".join(lines)
