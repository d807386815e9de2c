"""Print the rows of benchmarks: `python -m benchmarks [overhead efficiency pairs ...]`."""

import sys

import pandas as pd

from benchmarks import carbon, engines, fleet, launches, overhead, predictor, sweeps

BENCHMARKS = {
    "overhead": overhead.rows,
    "efficiency": sweeps.efficiency,
    "pairs": sweeps.pairs,
    "gather": sweeps.gather,
    "launches": launches.rows,
    "engines": engines.rows,
    "predict": predictor.rows,
    "draws": carbon.rows,
    "fleet": fleet.rows,
}


def main(names: list[str]) -> int:
    """Print the rows of each benchmark; the exit code is 1 if a row fails its limit."""
    failed = False
    for name in names or BENCHMARKS:
        table = pd.DataFrame(BENCHMARKS[name]())
        print(f"\n{name}\n{table.to_string(index=False)}", flush=True)
        failed |= "ok" in table and not table["ok"].all()
    return int(failed)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
