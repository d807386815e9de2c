"""The sensor card of a scripted GPU, measured in real time.

`python tests/scripted_gpu.py` writes the example of the book's page on sensors (about a minute).
"""

import tempfile
import time
from pathlib import Path

import pytest
import xarray as xr

import fake_nvml as fake
from footprint import trace
from footprint.measure import instrument, sensor

EXAMPLE = Path(__file__).parents[1] / "book/assets/sensor-example.nc4"


def measured(folder: Path, library: Path, done: list, **length) -> xr.Dataset:
    """The sensor card of a GPU with pulses from 60 to 300 W; `done` gets the steps of the load."""
    pulse = length.get("pulse_s", 1.5)
    with pytest.MonkeyPatch.context() as patch:
        write = fake.install(patch, library, folder / "script")
        write(fake.square(60, 300, 2 * pulse), epoch=time.monotonic(), noise=0.5)
        load = sensor.Load(
            lambda: done.append("context"), lambda: done.append("weights"), time.sleep
        )
        return sensor.measure(instrument.opened("cuda:0"), load, **length)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as place:
        card = measured(Path(place), fake.build(Path(place)), [])
    packed = {name: {"zlib": True} for name in card.data_vars if card[name].ndim}
    trace.whole(EXAMPLE, lambda path: card.to_netcdf(path, engine="h5netcdf", encoding=packed))
