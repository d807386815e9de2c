"""What a person sees while runs go on: a live table in a terminal, plain lines anywhere else."""

import math
import os
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from footprint import spec
from footprint.carbon import equation as carbon
from footprint.sweep.runner import Run

STYLE = {"ok": "green", "running": "bold", "waiting": "dim", "skipped": "dim", "oom": "yellow"}
ROWS = 12  # of the live table; the runs that go on and the last that ended come first


def length(seconds: float) -> str:
    """A time for people: 42 s, 7 min, 3.2 h."""
    if math.isnan(seconds):
        return "?"
    return (
        f"{seconds:.0f} s"
        if seconds < 100
        else f"{seconds / 60:.0f} min"
        if seconds < 6000
        else f"{seconds / 3600:.1f} h"
    )


def amount(value: float, unit: str) -> str:
    """A number with a unit, three digits; a question mark when it is unknown."""
    return "?" if math.isnan(value) else f"{value:.3g} {unit}"


@contextmanager
def showing(runs: list[Run], seconds: list[float], grid: spec.Grid, out=None) -> Iterator[Callable]:
    """Show the state of `runs` while the block runs; yields the function that `sweep.run` tells its events to.

    seconds: how long each is expected to take (NaN: as long as the others); grid: whose grams are counted.
    """
    console = Console(file=out or sys.stdout)
    place = {(run.key, run.device): index for index, run in enumerate(runs)}
    rows = [
        {"label": run.label, "status": "waiting", "s": math.nan, "J": math.nan, "line": ""}
        for run in runs
    ]
    state = {"began": time.monotonic(), "expected": seconds, "grid": grid}
    if not console.is_terminal:
        yield lambda event, run=None, **facts: _plain(
            console, rows, place, state, event, run, facts
        )
        return
    with Live(
        console=console, refresh_per_second=2, get_renderable=lambda: _table(rows, state)
    ) as live:

        def tell(event: str, run: Run | None = None, **facts) -> None:
            _update(rows, place, event, run, facts)
            if event in ("retry", "line") and not run:
                live.console.print(facts.get("line", ""))
            if event == "end" and facts["status"] not in ("ok", "oom"):
                live.console.print(
                    f"{run.label}: {facts['status']}. {facts['reason']}",
                    markup=False,
                    highlight=False,
                )

        yield tell


def _update(rows: list[dict], place: dict, event: str, run: Run | None, facts: dict) -> dict:
    row = rows[place[run.key, run.device]] if run else {}
    if event == "start":
        row.update(status="running", began=time.monotonic(), line="")
    elif event == "line":
        row["line"] = facts["line"]
    elif event == "retry":
        row.update(status="waiting", line=f"again: {facts['reason']}")
    elif event == "end":
        joules = facts.get("joules", math.nan)
        row.update(
            status=facts["status"],
            s=facts.get("seconds") or math.nan,
            J=joules,
            line=facts.get("reason", ""),
        )
    return row


def left(rows: list[dict], state: dict) -> float:
    """Seconds until all is done: what is expected, scaled by how the expectation held so far; else the mean so far."""
    now = time.monotonic()
    expected = [value if value > 0 else math.nan for value in state["expected"]]
    ended = [index for index, row in enumerate(rows) if row["s"] > 0]
    taken = sum(rows[index]["s"] for index in ended)
    hoped = sum(expected[index] for index in ended)
    mean = taken / len(ended) if ended else math.nan
    scale = taken / hoped if ended and hoped > 0 else 1.0
    total = 0.0
    for row, hope in zip(rows, expected, strict=True):
        if row["status"] in ("waiting", "running"):
            whole = mean if math.isnan(hope) else hope * scale
            total += max(0.0, whole - (now - row["began"] if row["status"] == "running" else 0.0))
    return total


def summary(rows: list[dict], state: dict) -> str:
    """One line on the whole: how many are done, what is left, power, energy and grams so far."""
    count = {
        status: sum(row["status"] == status for row in rows)
        for status in dict.fromkeys(row["status"] for row in rows)
    }
    going = count.pop("waiting", 0) + count.pop("running", 0)
    said = [f"{len(rows) - going} of {len(rows)} done"] + [
        f"{n} {status}" for status, n in count.items() if status != "ok"
    ]
    text = ", ".join(said) + (f"; about {length(left(rows, state))} left" if going else "")
    known = [row for row in rows if not math.isnan(row["J"])]
    if known:
        joules, grid = sum(row["J"] for row in known), state["grid"]
        grams = carbon.operational(joules, grid.g_per_kwh)
        watts = joules / sum(row["s"] for row in known)
        text += f"; {amount(watts, 'W')}, {amount(joules / 3600, 'Wh')}, {amount(grams, 'g')} CO2e so far"
        text += f" ({grid.zone} {grid.year}: {grid.g_per_kwh:.0f} g/kWh)"
    return text


def _table(rows: list[dict], state: dict) -> Group:
    table = Table(box=None, pad_edge=False)
    for name in ("run", "status", "time", "power", "grams", ""):
        table.add_column(
            name,
            no_wrap=True,
            overflow="ellipsis",
            justify="right" if name in ("time", "power", "grams") else "left",
        )
    order = {"running": 0, "waiting": 2}
    shown = sorted(rows, key=lambda row: order.get(row["status"], 1))
    ended = [row for row in shown if order.get(row["status"], 1) == 1][-ROWS // 2 :]
    for row in [
        *[r for r in shown if r["status"] == "running"],
        *ended,
        *[r for r in shown if r["status"] == "waiting"],
    ][:ROWS]:
        seconds = time.monotonic() - row["began"] if row["status"] == "running" else row["s"]
        grams = carbon.operational(row["J"], state["grid"].g_per_kwh)
        cells = (length(seconds), amount(row["J"] / seconds, "W"), amount(grams, "g"))
        shy = [Text("" if cell == "?" else cell) for cell in cells]
        style = STYLE.get(row["status"], "red")
        table.add_row(
            Text(row["label"]),
            Text(row["status"], style=style),
            *shy,
            Text(row["line"], style="dim"),
        )
    return Group(table, Text(summary(rows, state)))


def _plain(console: Console, rows, place, state, event: str, run: Run | None, facts: dict) -> None:
    """The same as lines: what begins, what it says, how it ended."""
    row = _update(rows, place, event, run, facts)
    if event == "start":
        index = place[run.key, run.device] + 1
        rest = left(rows, state)
        said = f"[{index}/{len(rows)}] {run.label}" + (
            f" (about {length(rest)} left)" if rest > 0 else ""
        )
    elif event == "end":
        file = facts.get("file")
        said = f"  {row['status']}: {os.path.relpath(file) if file else run.label}"
        said += f" ({row['line']})" if row["line"] else ""
    elif event == "retry":
        said = f"  to be tried again: {run.label} ({facts['reason']})"
    else:
        said = f"  {facts['line']}"
    console.print(said, markup=False, highlight=False, soft_wrap=True)


def columns(head: list[str], rows: list[list[str]]) -> str:
    """A plain table with aligned columns."""
    width = [max(len(row[i]) for row in [head, *rows]) for i in range(len(head))]
    lines = [
        "  ".join(cell.ljust(size) for cell, size in zip(row, width, strict=True)).rstrip()
        for row in [head, *rows]
    ]
    return "\n".join(lines)


def plan(runs: list[Run], costs: list, grid: spec.Grid) -> str:
    """What would run: time, memory, energy and grams of each run and of all, and the points that cannot fit. Modelled."""
    rows, notes = [], []
    for run, cost in zip(runs, costs, strict=True):
        points = f"{cost.points - len(cost.misfits)} of {cost.points}" if cost.points else "?"
        rows.append(
            [
                run.label,
                length(cost.seconds),
                amount(cost.memory_GiB, "GiB"),
                amount(cost.energy_J / 3600, "Wh"),
                amount(cost.operational_g, "g"),
                amount(cost.embodied_g, "g"),
                points,
            ]
        )
        notes += [f"{run.label}: {note}." for note in [cost.note.rstrip(".")] if note]
        notes += [f"{run.label} cannot fit {'; '.join(cost.misfits)}."] if cost.misfits else []
    head = ["run", "time", "memory", "energy", "electricity", "making", "points that fit"]
    return "\n".join([columns(head, rows), *notes, f"All is modelled. {_total(costs, grid)}."])


def _total(costs: list, grid: spec.Grid) -> str:
    """The whole plan in one sentence; what is unknown is counted, not taken as nothing."""
    known = {
        name: [value for cost in costs if not math.isnan(value := getattr(cost, name))]
        for name in ("seconds", "energy_J")
    }
    text = f"{len(costs)} runs, about {length(sum(known['seconds']))}"
    text += (
        f" and {len(costs) - len(known['seconds'])} of unknown time"
        if len(known["seconds"]) < len(costs)
        else ""
    )
    if known["energy_J"]:
        used, made = (
            math.fsum(getattr(cost, name) for cost in costs if not math.isnan(getattr(cost, name)))
            for name in ("operational_g", "embodied_g")
        )
        text += f"; {sum(known['energy_J']) / 3600:.3g} Wh and {used:.3g} g CO2e of electricity"
        text += f" ({grid.zone} {grid.year}: {grid.g_per_kwh:.0f} g/kWh)"
        text += f", {made:.3g} g of the cards' making (5 years, always busy)"
    unknown = len(costs) - len(known["energy_J"])
    return text + (f"; the energy of {unknown} runs is unknown" if unknown else "")


def verdict(outcomes: list[dict]) -> str:
    """The end of a sweep in words: how many ended how, then a line for each run that needs a look."""
    count = Counter(outcome["status"] for outcome in outcomes)
    lines = [
        ", ".join(f"{number} {status}" for status, number in count.items())
        + f" of {len(outcomes)} runs"
    ]
    for outcome in outcomes:
        if outcome["status"] != "ok":
            page = f" See {os.path.relpath(outcome['page'])}." if outcome.get("page") else ""
            lines.append(
                f"{outcome['status']:12} {outcome['run'].label}: {outcome['reason']}{page}"
            )
    return "\n".join(lines)
