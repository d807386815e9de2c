"""What a person sees while runs go on: a live table in a terminal, plain lines anywhere else."""

import math
import os
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from math import nan

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from footprint import carbon, spec
from footprint.measure.preflight import columns
from footprint.sweep.runner import Run

STYLE = {"ok": "green", "running": "bold", "waiting": "dim", "skipped": "dim", "oom": "yellow"}
TO_DO = ("waiting", "running")
ROWS = 12  # of the live table; the runs that go on and the last that ended come first


def length(seconds: float) -> str:
    """A time for people: 42 s, 7 min, 3.2 h."""
    if math.isnan(seconds):
        return "?"
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"


def amount(value: float, unit: str) -> str:
    """A number with a unit, three digits; a question mark when it is unknown."""
    return "?" if math.isnan(value) else f"{value:.3g} {unit}"


@dataclass
class State:
    """How far a run is."""

    label: str
    expected_s: float = nan
    status: str = "waiting"
    began: float = 0.0
    seconds: float = nan
    joules: float = nan
    line: str = ""  # the last that it said, or the reason of its end

    def spent_s(self) -> float:
        """Seconds since it began while it runs, else those that it took."""
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
    """Show the state of `runs` while the block runs; yields what `sweep.run` tells its events to.

    seconds: how long each should take (NaN: as long as the others); grid: whose grams are counted.
    """
    console = Console(file=out or sys.stdout)
    places = {(run.key, run.device): index for index, run in enumerate(runs)}
    states = [State(run.label, hope) for run, hope in zip(runs, seconds, strict=True)]

    def tell(event: str, run: Run | None = None, **facts) -> None:
        index = places[run.key, run.device] if run else None
        if run:
            states[index].update(event, facts)
        if not console.is_terminal:
            said = _line(event, states, index, facts)
        elif event == "end" and facts["status"] not in ("ok", "oom"):
            said = f"{run.label}: {facts['status']}. {facts['reason']}"
        elif run:
            return  # the table shows it
        else:
            said = facts["line"]
        console.print(said, markup=False, highlight=False, soft_wrap=not console.is_terminal)

    if not console.is_terminal:
        yield tell
        return
    with Live(console=console, refresh_per_second=2, get_renderable=lambda: _table(states, grid)):
        yield tell


def _line(event: str, states: list[State], index: int | None, facts: dict) -> str:
    """An event as a line: what begins, what it says, how it ended."""
    if event == "start":
        left_s = left(states)
        more = f" (about {length(left_s)} left)" if left_s > 0 else ""
        return f"[{index + 1}/{len(states)}] {states[index].label}{more}"
    if event == "end":
        name = os.path.relpath(facts["file"]) if facts.get("file") else states[index].label
        more = f" ({facts['reason']})" if facts["reason"] else ""
        return f"  {facts['status']}: {name}{more}"
    if event == "retry":
        return f"  to be tried again: {states[index].label} ({facts['reason']})"
    return f"  {facts['line']}"


def left(states: list[State]) -> float:
    """Seconds until all is done: as expected, scaled by how that held; else the mean so far."""
    ended = [state for state in states if state.seconds > 0]
    taken_s = sum(state.seconds for state in ended)
    hoped_s = sum(state.expected_s for state in ended)
    mean_s = taken_s / len(ended) if ended else nan
    scale = taken_s / hoped_s if hoped_s > 0 else 1.0
    total_s = 0.0
    for state in states:
        if state.status in TO_DO:
            whole_s = state.expected_s * scale if state.expected_s > 0 else mean_s
            total_s += max(0.0, whole_s - (state.spent_s() if state.status == "running" else 0.0))
    return total_s


def summary(states: list[State], grid: spec.Grid) -> str:
    """One line on the whole: how many are done, what is left, power, energy and grams so far."""
    count = Counter(state.status for state in states if state.status not in TO_DO)
    said = [f"{count.total()} of {len(states)} done"]
    said += [f"{number} {status}" for status, number in count.items() if status != "ok"]
    text = ", ".join(said)
    if count.total() < len(states):
        text += f"; about {length(left(states))} left"
    known = [state for state in states if not math.isnan(state.joules)]
    if known:
        joules = sum(state.joules for state in known)
        watts = joules / sum(state.seconds for state in known)
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
        seconds = state.spent_s()
        grams = carbon.operational(state.joules, grid.g_per_kwh)
        cells = (length(seconds), amount(state.joules / seconds, "W"), amount(grams, "g"))
        table.add_row(
            Text(state.label),
            Text(state.status, style=STYLE.get(state.status, "red")),
            *["" if cell == "?" else cell for cell in cells],
            Text(state.line, style="dim"),
        )
    return Group(table, Text(summary(states, grid)))


def plan(runs: list[Run], costs: list, grid: spec.Grid) -> str:
    """What would run, as modelled: cost of each run and of all, and the points that cannot fit."""
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


def _total(costs: list, grid: spec.Grid) -> str:
    """The whole plan in one sentence; what is unknown is counted, not taken as nothing."""
    timed = [cost for cost in costs if not math.isnan(cost.seconds)]
    metered = [cost for cost in costs if not math.isnan(cost.energy_J)]
    text = f"{len(costs)} runs, about {length(sum(cost.seconds for cost in timed))}"
    if len(timed) < len(costs):
        text += f" and {len(costs) - len(timed)} of unknown time"
    if metered:
        text += f"; {sum(cost.energy_J for cost in metered) / 3600:.3g} Wh and "
        text += f"{sum(cost.operational_g for cost in metered):.3g} g CO2e of electricity"
        text += f" ({_zone(grid)}), {sum(cost.embodied_g for cost in metered):.3g} g"
        text += " of the GPUs' embodied carbon (5 years, always busy)"
    unknown = len(costs) - len(metered)
    return text + (f"; the energy of {unknown} runs is unknown" if unknown else "")


def verdict(outcomes: list[dict]) -> str:
    """The end of a sweep in words: how many ended how, and a line for each run that is not ok."""
    count = Counter(outcome["status"] for outcome in outcomes)
    ended = ", ".join(f"{number} {status}" for status, number in count.items())
    lines = [f"{ended} of {len(outcomes)} runs"]
    for outcome in outcomes:
        if outcome["status"] != "ok":
            page = f" See {os.path.relpath(outcome['page'])}." if outcome.get("page") else ""
            why = f"{outcome['run'].label}: {outcome['reason']}"
            lines.append(f"{outcome['status']:12} {why}{page}")
    return "\n".join(lines)
