"""The command line: thin. Exit code 0 when all went well, 1 when a run failed, 2 for bad input (one sentence)."""

import argparse
import sys
import warnings

from footprint import Refused, root


def _profile(options) -> int:
    from footprint import workload
    from footprint.sweep import matrix as plan
    from footprint.sweep import report
    from footprint.sweep import runner as launch

    given = _pairs(options.parameter) | ({"device": options.device} if options.device else {})
    if not options.matrix:
        return _go([launch.Run("profile", workload.request("profile", **given))], options)
    file = root() / "notebooks" / "sweep.toml"
    runs = [run for run in plan.matrix(file, options.matrix, **given) if run.notebook == "profile"]
    options.to = options.to or root() / "notebooks" / "runs"
    code = _go(runs, options)
    if options.dry_run:
        return code
    faults = report.check(options.to)
    print(*faults, sep="\n")
    print(f"Checked: {options.to} is {'not yet fit' if faults else 'fit'} to be sent.")
    return 1 if faults else code


def _predict(options) -> int:
    from footprint import workload
    from footprint.sweep import runner as launch

    return _go(
        [launch.Run("predict", workload.request("predict", **_pairs(options.parameter)))], options
    )


def _sweep(options) -> int:
    from footprint.sweep import matrix as plan

    given = _pairs(options.parameter) | ({"device": options.device} if options.device else {})
    return _go(plan.matrix(options.file, options.matrix, **given), options)


def _go(runs: list, options) -> int:
    """Run them, or say what they would cost; the exit code."""
    from footprint import spec
    from footprint.sweep import cost as forecast
    from footprint.sweep import progress
    from footprint.sweep import sweeps as sweep

    grid = spec.grid(options.grid)
    if options.limit:
        runs = [run._replace(limit_s=options.limit) for run in runs]
    costs = forecast.of(runs, grid, options.card)
    if options.dry_run:
        print(progress.plan(runs, costs, grid))
        return 0
    folder = options.to or root() / "notebooks" / "local"
    with progress.showing(runs, [cost.seconds for cost in costs], grid) as tell:
        outcomes = sweep.run(runs, folder, tell, tries=options.tries, scheduler=options.scheduler)
    print(progress.verdict(outcomes))
    return 0 if all(outcome["status"] in sweep.FINE for outcome in outcomes) else 1


def _gather(options) -> int:
    from footprint.energy import window as energy
    from footprint.trace import file as trace
    from footprint.trace import store

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # said below, a line each
        data = store.gather(options.folder)
        if data.sizes["window"] and not options.stored:
            twice, data = data.attrs["twice"], energy.gather(options.folder)
            data.attrs["twice"] = twice
    for sentence in [*data.attrs["rejected"], *data.attrs["twice"]]:
        print(f"footprint: {sentence}", file=sys.stderr)
    if not data.sizes["window"]:
        raise Refused(f"There is no trace below {options.folder}.")
    columns = [
        "kind",
        "device",
        "model",
        "dtype",
        "weights",
        "phase",
        "batch",
        "prompt_tokens",
        "output_tokens",
        "time_per_iteration_s",
        "energy_per_token_J",
        "status",
    ]
    table = trace.frame(data)
    print((table if options.stored else table[columns]).to_csv(index=False), end="")
    return 1 if data.attrs["rejected"] else 0


def _sensor(options) -> int:
    from footprint.measure import locks as devices
    from footprint.measure import nvml as meter
    from footprint.measure import probe as hardware
    from footprint.measure import sensor

    load = sensor.Load(*hardware.exercise(hardware.find(options.device)))
    length = {"pulses": 4, "pulse_s": 0.5, "rest_s": 1.0} if options.quick else {}
    print(
        f"describing the sensor of {options.device}: about {'10 s' if options.quick else 'a minute'} ...",
        flush=True,
    )
    with devices.alone(options.device):
        card = sensor.measure(meter.instrument(options.device), load, **length)
    path = sensor.save(card, options.to or root() / "notebooks" / "local")
    print(sensor.table(card).to_string(index=False))
    print(f"The sensor card: {path}")
    return 0


def _report(options) -> int:
    from footprint.sweep import report

    for path in report.write(options.folder):
        print(path)
    return 0


def _preflight(options) -> int:
    from footprint.measure import preflight

    return preflight.show()


def _pairs(given: list[list[str]]) -> dict[str, str]:
    return {name: value for name, value in given or []}


def _positive(text: str) -> float:
    if not float(text) > 0:
        raise ValueError
    return float(text)


COMMANDS = (
    (
        "profile",
        _profile,
        "measure one model on one device: -p model llama-1b -p device cuda:0; or a matrix on your GPU",
    ),
    ("predict", _predict, "model one model on one GPU: -p model llama-7b -p gpu t4"),
    ("sweep", _sweep, "run a matrix of a TOML file; finished runs are not repeated"),
    (
        "sensor",
        _sensor,
        "describe the power sensor of a GPU, about a minute: its card is used by every later run",
    ),
    ("gather", _gather, "print the windows of all traces below a folder as CSV"),
    ("report", _report, "write an RO-Crate and flat tables into a folder of finished runs"),
    ("preflight", _preflight, "say what this machine has and what is missing"),
)


def parser() -> argparse.ArgumentParser:
    """The commands and their options."""
    top = argparse.ArgumentParser(prog="footprint", description=__doc__)
    top.add_argument("--debug", action="store_true", help="show the traceback of an error")
    commands = top.add_subparsers(dest="command", required=True)
    for name, function, said in COMMANDS:
        command = commands.add_parser(name, help=said, description=said)
        command.set_defaults(function=function)
        command.add_argument(
            "--debug", action="store_true", default=argparse.SUPPRESS, help=argparse.SUPPRESS
        )
        add = command.add_argument
        if name in ("profile", "predict", "sweep"):
            add(
                "-p",
                dest="parameter",
                nargs=2,
                action="append",
                metavar=("NAME", "VALUE"),
                help="a parameter of the notebook",
            )
            add("--to", help="folder of the results (default: notebooks/local)")
            add(
                "--dry-run",
                action="store_true",
                help="only say what runs, what it will cost, and what cannot fit",
            )
            add(
                "--grid",
                default="US",
                help="zone whose carbon intensity counts the grams (default: US)",
            )
            add("--card", default="", help="for a dry run: id of the card to think of")
            add(
                "--tries",
                type=int,
                default=2,
                help="how often a run that fails is tried (default: 2)",
            )
            add(
                "--limit",
                type=_positive,
                metavar="SECONDS",
                help="end a run that takes longer (default: 6 hours)",
            )
            add(
                "--scheduler",
                default="",
                metavar="tcp://...",
                help="address of a Dask scheduler that spreads the runs",
            )
        if name in ("profile", "sweep"):
            add("--device", default="", help="measure on this device: cpu, cuda, cuda:N")
        if name == "profile":
            add(
                "--matrix",
                default="",
                help="a matrix of notebooks/sweep.toml, into notebooks/runs, checked at the end",
            )
        if name == "sweep":
            add("file", help="TOML file with the matrices")
            add("--matrix", default="quick", help="which one (default: quick)")
        if name in ("gather", "report"):
            add("folder", nargs="?", default="notebooks", help="where to look (default: notebooks)")
        if name == "gather":
            add(
                "--stored",
                action="store_true",
                help="all that is stored, a thousand files a second, nothing derived",
            )
        if name == "sensor":
            add("--device", default="cuda", help="cuda, cuda:N or a GPU-... UUID (default: cuda)")
            add("--to", help="folder of the card (default: notebooks/local)")
            add("--quick", action="store_true", help="about ten seconds, less exact")
    return top


def main(arguments: list[str] | None = None) -> int:
    """Run one command; errors are one sentence on standard error."""
    options = parser().parse_args(arguments)
    try:
        return options.function(options)
    except (Refused, KeyError) as error:
        if options.debug:
            raise
        print(f"footprint: {error.args[0]}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("footprint: stopped by the keyboard; finished runs are kept.", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
