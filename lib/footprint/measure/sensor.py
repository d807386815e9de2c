"""The sensor card: how one GPU's power sensor and energy counter behave, measured in a minute."""

import math
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from functools import partial
from io import StringIO
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import xarray as xr

from footprint import Refused, root, trace
from footprint.energy import window as energy
from footprint.measure import provenance, sampler, window
from footprint.measure.instrument import REAL, Clock, Instrument
from footprint.trace.schema import WINDOW_STATUS

VERSION = 1
RATE_HZ, BUSIEST = 200.0, 0.5  # a sensor is read as fast as half a core allows
GAIN_BOUND = 0.05  # largest gain error of a board that nobody calibrated (-6 % to +11 % were seen)
CALLS = 50
QUICK_S = 2.0
STAGES, CALL_NAMES = ("bare", "context", "weights"), ("instant", "average", "counter", "both")
ATTRS = ("schema_version", "device", "device_name", "device_hash", "driver", "start_utc")
ATTRS += ("power_source", "has_counter")
TABLE = """
name | dim | units | long_name | meaning
counter_tick_s | | s | counter tick | period in which the energy counter moves
power_update_s | | s | power update period | median time between changes under a varying load
power_average_s | | s | averaging window | length that a reading averages, by its step response
power_duty | | 1 | duty cycle | share of the time seen: averaging window over update period
gain | | 1 | gain | reading over truth by an external meter; 1 when never calibrated
gain_bound | | 1 | bound of the gain | largest relative error that the gain may have left
residual | | 1 | residual | energy by the counter over the integral, less one, in the square wave
residual_idle | | 1 | residual at idle | the same while nothing ran
idle_W | stage | W | idle power | median power at rest: bare, with a context, with weights in memory
call_s | call | s | cost of a call | median duration of the call; NaN where it is not supported
call_most_s | call | s | dearest call | longest duration of the call
switch_on_s | pulse | s | load on | when a pulse of the square wave began
switch_off_s | pulse | s | load off | when it ended
time_s | sample | s | time | monotonic clock of the sample, from the first on
power_W | sample | W | power | as sampled, square wave and rest
counter_J | sample | J | energy counter | read together with the power
"""
SCHEMA = pd.read_csv(StringIO(TABLE), sep=r"\s*\|\s*", engine="python", keep_default_na=False)
SCHEMA = SCHEMA.set_index("name")  # variables of a sensor card; dim: empty for a single value


class Load(NamedTuple):
    """The load of a sensor card: make a context, fill the memory, keep the GPU busy for seconds."""

    context: Callable[[], object]
    weights: Callable[[], object]
    busy: Callable[[float], object]


# -- measuring -------------------------------------------------------------------------------------


def cost(instrument: Instrument, clock: Clock = REAL) -> dict[str, np.ndarray]:
    """Median and longest duration in s of each of `CALL_NAMES`; NaN where it does not work."""
    durations_s = np.full((len(CALL_NAMES), CALLS), math.nan)
    for row, name in zip(durations_s, CALL_NAMES, strict=True):
        for index in range(CALLS if name in instrument.calls else 0):
            before = clock.now()
            status = instrument.calls[name]()[1]
            row[index] = clock.now() - before if status == "ok" else math.nan
    return {"call_s": np.median(durations_s, axis=1), "call_most_s": durations_s.max(axis=1)}


def measure(
    instrument: Instrument,
    load: Load,
    *,
    pulses: int = 10,
    pulse_s: float = 1.5,
    rest_s: float = 5.0,
) -> xr.Dataset:
    """The sensor card of one GPU, from a minute of rest and square wave.

    Raises `Refused` on a CPU, and where load or readings end before the minute does.
    """
    if not instrument.present:
        allowed = "name a GPU, like cuda:0"
        raise Refused(f"A CPU has no power sensor that this card could describe; {allowed}.")
    if instrument.power == "none":
        raise Refused("This GPU tells no power at all; there is no sensor to describe.")
    try:
        with sampler.sampling(instrument, RATE_HZ, BUSIEST) as recording:
            rests, pulse_ends = _exercise(load, pulses, pulse_s, rest_s)
    except RuntimeError as error:
        words = str(error).partition("\n")[0]
        raise Refused(f"The load of the sensor card gave up ({words}); no card was made.") from None
    samples, (on_s, off_s) = recording.columns, np.array(pulse_ends).T
    if not (samples["time_s"].size and samples["time_s"][-1] >= off_s[-1]):
        status = WINDOW_STATUS[samples["code"][-1]] if samples["code"].size else "no reading"
        raise Refused(f"The readings of the GPU ended early ({status}); no card was made.")
    values = {
        **characteristics(samples, on_s, off_s),
        **cost(instrument),
        **_balance(samples, np.array(rests), on_s, off_s),
        "gain": 1.0,
        "gain_bound": GAIN_BOUND,
    }
    times = {"switch_on_s": on_s, "switch_off_s": off_s, "time_s": samples["time_s"]}
    values |= {name: value - samples["time_s"][0] for name, value in times.items()}
    values |= {name: samples[name] for name in ("power_W", "counter_J")}
    return _labelled(values, instrument)


def _exercise(load: Load, pulses: int, pulse_s: float, rest_s: float) -> tuple[list, list]:
    """Let the GPU rest in three stages, then load it in pulses; start and end of each."""
    rests, pulse_ends = [], []
    for prepare in (lambda: None, load.context, load.weights):
        prepare()
        REAL.sleep(rest_s / 5)
        start = REAL.now()
        REAL.sleep(rest_s)
        rests.append((start, REAL.now()))
    for _ in range(pulses):
        start = REAL.now()
        load.busy(pulse_s)
        pulse_ends.append((start, REAL.now()))
        REAL.sleep(pulse_s)
    return rests, pulse_ends


def _balance(samples: Mapping, rests: np.ndarray, on_s, off_s) -> dict:
    """Idle power of each stage, and the residual between counter and integral."""
    time_s, power_W, counter_J = samples["time_s"], samples["power_W"], samples["counter_J"]
    idle = [np.median(power_W[(time_s >= start) & (time_s <= stop)]) for start, stop in rests]
    starts, stops = np.array([rests[0, 0], on_s[0]]), np.array([rests[0, 1], off_s[-1]])
    counted = energy.slope(time_s, counter_J, starts, stops)[0] * (stops - starts)
    residual = counted / energy.integral(time_s, power_W, starts, stops) - 1
    return {"idle_W": np.array(idle), "residual_idle": residual[0], "residual": residual[1]}


def _labelled(values: Mapping, instrument: Instrument) -> xr.Dataset:
    gpu = instrument.identity()
    variables = {
        name: (dim or (), values[name], {"units": units, "long_name": long_name})
        for name, dim, units, long_name, _ in SCHEMA.itertuples()
    }
    card = xr.Dataset(variables, coords={"stage": list(STAGES), "call": list(CALL_NAMES)})
    return card.assign_attrs(
        schema_version=VERSION,
        device=provenance.gpu_id(gpu.name),
        device_name=gpu.name,
        device_hash=gpu.hash,
        driver=gpu.driver,
        power_source=instrument.power,
        has_counter=int("counter" in instrument.calls),
        start_utc=datetime.now(UTC).isoformat(timespec="seconds"),
    )


# -- what samples of a square wave say -------------------------------------------------------------


def period(time_s, values) -> float:
    """Period in s in which `values`, sampled at `time_s`, change: the mean of gaps near the median.

    NaN for fewer than three changes; a period shorter than two samples is not seen.
    """
    time_s, values = np.asarray(time_s, float), np.asarray(values, float)
    changed = np.flatnonzero(np.diff(values) != 0)
    gaps = np.diff((time_s[changed] + time_s[changed + 1]) / 2)
    if gaps.size < 2:
        return math.nan
    near = gaps[np.abs(gaps / np.median(gaps) - 1) < 0.5]
    return float(near.mean())


def delay(time_s, power_W, on_s, off_s) -> float:
    """Mean delay in s of the power reading behind a load that is on from `on_s` to `off_s`.

    The area between the step of the load and the reading, over the height of the step: half the
    averaging window plus half the update period. NaN where on and off look alike.
    """
    time_s, power_W = np.asarray(time_s, float), np.asarray(power_W, float)
    half_s = np.min(np.concatenate([np.subtract(off_s, on_s), np.subtract(on_s[1:], off_s[:-1])]))

    def level(ends) -> float:
        """Mean power just before these times."""
        near = [(time_s > end - half_s / 4) & (time_s < end) for end in ends]
        return np.mean([np.mean(power_W[mask]) for mask in near])

    high, low = level(off_s[:-1]), level(on_s[1:])
    if not high - low > 0.1 * high:
        return math.nan
    areas = []
    for edges, rising in ((on_s, True), (off_s[:-1], False)):
        for edge in edges:
            grid = np.linspace(edge, edge + half_s, 400)
            step = (np.interp(grid, time_s, power_W) - low) / (high - low)
            areas.append(np.trapezoid(1 - step if rising else step, grid))
    return float(np.mean(areas))


def characteristics(samples: Mapping, on_s, off_s) -> dict[str, float]:
    """Counter tick, update period, averaging window and duty cycle, from samples of a square wave.

    An update period near the length of a pulse is that of the load, so it is NaN.
    """
    time_s, power_W = np.asarray(samples["time_s"]), np.asarray(samples["power_W"])
    wave = (time_s >= on_s[0]) & (time_s <= off_s[-1])
    update = period(time_s[wave], power_W[wave])
    if update > np.min(np.subtract(off_s, on_s)) / 2:
        update = math.nan
    average = float(np.maximum(2 * delay(time_s, power_W, on_s, off_s) - update, 0.0))
    return {
        "counter_tick_s": period(time_s, samples["counter_J"]),
        "power_update_s": update,
        "power_average_s": average,
        "power_duty": float(np.minimum(average / update, 1.0)),
    }


# -- keeping and using it --------------------------------------------------------------------------


def save(card: xr.Dataset, folder: str | Path) -> Path:
    """Write the card whole to `<folder>/<device>/sensor-<hash>.nc4` (not `.nc`: it is no trace)."""
    path = Path(folder) / card.attrs["device"] / f"sensor-{card.attrs['device_hash']}.nc4"
    zipped = {name: {"zlib": True} for name in card.data_vars if card[name].ndim}
    return trace.whole(path, partial(card.to_netcdf, engine="h5netcdf", encoding=zipped))


def load(path: str | Path) -> xr.Dataset:
    """The card in this file; `Refused` where there is none, or one of a newer version."""
    path = Path(path)
    try:
        with xr.open_dataset(path, engine="h5netcdf") as card:
            card = card.load()
    except (OSError, ValueError) as error:
        raise Refused(f"{path.name} is not a sensor card ({str(error).splitlines()[0]}).") from None
    present = {*card.variables, *card.attrs}
    missing = [name for name in (*SCHEMA.index, *ATTRS) if name not in present]
    if missing or card.attrs["schema_version"] > VERSION:
        reason = ", ".join(missing) or "it is newer"
        raise Refused(f"{path.name} is not a sensor card of version {VERSION}: {reason}.")
    return card


def saved(device_hash: str = "*") -> list[Path]:
    """Files of the sensor cards of this board (default: of all boards), local ones first."""
    folders = [root() / "notebooks" / name for name in ("local", "runs")]
    pattern = f"sensor-{device_hash}.nc4"
    return [path for folder in folders for path in sorted(folder.rglob(pattern))]


def values(instrument: Instrument, say: Callable[[str], None] = print) -> dict[str, float]:
    """Characteristics of the sensor: from the board's card, else from two seconds of readings.

    Without a card averaging window and duty cycle are NaN; the error budget assumes the worst.
    """
    if not instrument.present:
        return dict(window.UNKNOWN)
    if cards := saved(instrument.identity().hash):
        card = load(cards[0])
        return {name: float(card[name]) for name in window.UNKNOWN}
    what = "looking at its sensor for two seconds (footprint sensor makes a card)"
    say(f"no sensor card of this board is here; {what}")
    with sampler.sampling(instrument, RATE_HZ, BUSIEST) as recording:
        REAL.sleep(QUICK_S)
    tick_s = period(recording.columns["time_s"], recording.columns["counter_J"])
    return window.UNKNOWN | {"counter_tick_s": tick_s, "gain": 1.0, "gain_bound": GAIN_BOUND}


def table(card: xr.Dataset) -> pd.DataFrame:
    """Every single value of the card, as columns what, value, unit and meaning."""
    rows = []
    for name, dim, units, long_name, meaning in SCHEMA.itertuples():
        if dim in ("", "stage", "call"):
            keys = card[dim].values if dim else [""]
            for key, value in zip(keys, np.atleast_1d(card[name].values), strict=True):
                rows.append((f"{long_name} {key}".strip(), float(value), units, meaning))
    return pd.DataFrame(rows, columns=["what", "value", "unit", "meaning"])
