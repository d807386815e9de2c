"""The command line. Exit code: 0 when all went well, 1 when a run failed, 2 for bad input."""

import argparse
import contextlib
import os
import re
import sys
import warnings

from footprint import Refused, root


def _profile(options) -> int:
    from footprint import sweep, workload

    given = _parameters(options)
    request = workload.request("profile", **given)
    if not options.matrix:
        return _go([sweep.Run("profile", request)], options)
    runs = sweep.runs(root() / "notebooks" / "sweep.toml", options.matrix, **given)
    options.to = options.to or root() / "notebooks" / "runs"
    code = _go([run for run in runs if run.notebook == "profile"], options)
    if options.dry_run:
        return code
    return _check(options.to) or code


def _check(folder) -> int:
    """Print what keeps a folder of runs from being sent; 1 if anything does."""
    from footprint.sweep import report

    faults = report.check(folder)
    print(*faults, sep="\n", end="\n" if faults else "")
    print(f"Checked: {folder} is {'not yet fit' if faults else 'fit'} to be sent.")
    return 1 if faults else 0


def _predict(options) -> int:
    from footprint import sweep, workload

    request = workload.request("predict", **_parameters(options))
    return _go([sweep.Run("predict", request)], options)


def _sweep(options) -> int:
    from footprint import sweep

    return _go(sweep.runs(options.file, options.matrix, **_parameters(options)), options)


def _parameters(options) -> dict[str, str]:
    """Parameters of the notebook that the options name."""
    pairs = [tuple(pair) for pair in options.parameter or []]
    if getattr(options, "device", ""):
        pairs.append(("device", options.device))
    given = dict(pairs)
    for name in given:
        if sum(pair[0] == name for pair in pairs) > 1:
            raise Refused(f"The parameter {name} is named twice; once is allowed.")
    if "out" in given:
        raise Refused("The parameter out is for papermill; --to names the folder of the results.")
    return given


def _go(runs: list, options) -> int:
    """Run them, or say what they would cost; the exit code."""
    from footprint import spec, sweep
    from footprint.sweep import progress, sweeps

    grid = spec.grid(options.grid)
    if options.limit:
        runs = [run._replace(limit_s=options.limit) for run in runs]
    costs = sweep.costs(runs, grid, options.card)
    if options.dry_run:
        print(progress.plan(runs, costs, grid))
        return 0
    folder = options.to or root() / "notebooks" / "local"
    with progress.showing(runs, [cost.seconds for cost in costs], grid) as tell:
        outcomes = sweep.run(runs, folder, tell, options.tries, options.scheduler)
    print(progress.verdict(outcomes))
    files = [outcome["file"] for outcome in outcomes if outcome.get("file")]
    if files and options.command != "sweep":
        print(progress.found(files, grid))
    return 0 if all(outcome["status"] in sweeps.FINE for outcome in outcomes) else 1


def _gather(options) -> int:
    from footprint import energy, trace
    from footprint.sweep import report

    if options.stored:
        raise Refused(
            "--stored is gone with the cache that it read; `footprint gather` reads each trace, "
            "and `footprint report` writes all that is stored as windows.csv."
        )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # said below, a line each
        data = energy.gather(options.folder)
    for sentence in [*data.attrs["rejected"], *data.attrs["twice"]]:
        print(f"footprint: {sentence}", file=sys.stderr)
    if not data.sizes["window"]:
        raise Refused(f"There is no trace below {options.folder}.")
    columns = ["kind", "device", "model", "dtype", "weights", "phase", "batch", "prompt_tokens"]
    columns += ["output_tokens", "time_per_iteration_s", "energy_per_token_J", "status"]
    print(trace.frame(data)[columns].map(report.as_text).to_csv(index=False), end="")
    return 1 if data.attrs["rejected"] else 0


def _sensor(options) -> int:
    from footprint.measure import instrument, locks, probe, sensor

    probe.find(options.device)  # what is missing is said before anybody waits
    pulses = {"pulses": 4, "pulse_s": 0.5, "rest_s": 1.0} if options.quick else {}
    length = "10 s" if options.quick else "a minute"
    print(f"describing the sensor of {options.device}: about {length} ...", flush=True)
    with locks.alone(options.device) as uuid:
        device = uuid or options.device
        card = sensor.measure(instrument.opened(device), probe.exercise(device), **pulses)
    path = sensor.save(card, options.to or root() / "notebooks" / "local")
    print(sensor.table(card).to_string(index=False))
    print(f"The sensor card: {path}")
    return 0


def _report(options) -> int:
    if options.check:
        return _check(options.folder or root() / "notebooks" / "runs")
    from footprint.sweep import report

    print(*report.write(options.folder or "notebooks", mlperf=options.mlperf), sep="\n")
    return 0


def _preflight(options) -> int:
    from footprint.measure import preflight

    return preflight.show()


def _positive(text: str) -> float:
    with contextlib.suppress(ValueError):
        if float(text) > 0:
            return float(text)
    raise argparse.ArgumentTypeError(f"{text!r:.80} is no number above 0")


def _count(text: str) -> int:
    if not re.fullmatch("[1-9][0-9]{0,3}", text):
        raise argparse.ArgumentTypeError(f"{text!r:.80} is no whole number from 1 to 9999")
    return int(text)


def parser() -> argparse.ArgumentParser:
    """The commands and their options."""
    top = argparse.ArgumentParser(prog="footprint", description=__doc__)
    top.add_argument("--debug", action="store_true", help="show the traceback of an error")
    commands = top.add_subparsers(dest="command", required=True)

    debug = argparse.ArgumentParser(add_help=False)
    hidden = {"default": argparse.SUPPRESS, "help": argparse.SUPPRESS}
    debug.add_argument("--debug", action="store_true", **hidden)
    runs = argparse.ArgumentParser(add_help=False)
    pair = {"dest": "parameter", "nargs": 2, "action": "append", "metavar": ("NAME", "VALUE")}
    runs.add_argument("-p", **pair, help="a parameter of the notebook")
    runs.add_argument("--to", help="folder of the results (default: notebooks/local)")
    about = "only say what runs, what it will cost, and what cannot fit"
    runs.add_argument("--dry-run", action="store_true", help=about)
    about = "zone whose carbon intensity counts the grams (default: US)"
    runs.add_argument("--grid", default="US", help=about)
    runs.add_argument("--card", default="", help="for a dry run: id of the GPU to assume")
    about = "how often a run that fails is tried (default: 2)"
    runs.add_argument("--tries", type=_count, default=2, help=about)
    about = "end a run that takes longer (default: 6 hours)"
    runs.add_argument("--limit", type=_positive, metavar="SECONDS", help=about)
    about = "address of a Dask scheduler that spreads the runs"
    runs.add_argument("--scheduler", default="", metavar="tcp://...", help=about)

    def command(function, about: str, *shared: argparse.ArgumentParser):
        """A command under the name of its function; returns what adds its options."""
        name = function.__name__.removeprefix("_")
        parser = commands.add_parser(name, help=about, description=about, parents=[debug, *shared])
        parser.set_defaults(function=function)
        return parser.add_argument

    device = {"default": "", "help": "measure on this device: cpu, cuda, cuda:N"}
    folder = {"nargs": "?", "default": "notebooks", "help": "where to look (default: notebooks)"}
    where = "measure one model on one device: -p model llama-1b -p device cuda:0"
    add = command(_profile, f"{where}; or a matrix on your GPU", runs)
    add("--device", **device)
    about = "a matrix of notebooks/sweep.toml, into notebooks/runs, checked at the end"
    add("--matrix", default="", help=about)
    command(_predict, "model one model on one GPU: -p model llama-7b -p gpu t4", runs)
    add = command(_sweep, "run a matrix of a TOML file; finished runs are not repeated", runs)
    add("--device", **device)
    add("file", help="TOML file with the matrices")
    add("--matrix", default="quick", help="which one (default: quick)")
    about = (
        "describe the power sensor of a GPU, about a minute: its card is used by every later run"
    )
    add = command(_sensor, about)
    add("--device", default="cuda", help="cuda, cuda:N or a GPU-... UUID (default: cuda)")
    add("--to", help="folder of the card (default: notebooks/local)")
    add("--quick", action="store_true", help="about ten seconds, less exact")
    add = command(_gather, "print the windows of all traces below a folder as CSV")
    add("folder", **folder)
    add("--stored", action="store_true", help=argparse.SUPPRESS)
    add = command(_report, "write an RO-Crate and flat tables into a folder of finished runs")
    add("folder", **folder | {"default": ""})
    about = "write the measured points in the field names proposed to MLPerf too"
    add("--mlperf", action="store_true", help=about)
    about = "write nothing; name what keeps a folder (default: notebooks/runs) from being sent"
    add("--check", action="store_true", help=about)
    command(_preflight, "say what this machine has and what is missing")
    return top


class Screen:
    """Standard output that may close or fill up: a sweep of days goes on without it.

    lost: why it takes nothing more; empty while it does, and when its reader has seen enough.
    """

    def __init__(self, stream):
        self._stream, self.lost = stream, ""
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")  # no locale stops a run

    def __getattr__(self, name: str):
        return getattr(self._stream, name)

    def _attempt(self, name: str, *arguments: str) -> None:
        try:
            if self._stream is not None:
                getattr(self._stream, name)(*arguments)
        except OSError as error:
            reader_left = isinstance(error, BrokenPipeError)
            self.lost = "" if reader_left else error.strerror or str(error)
            with contextlib.suppress(OSError):  # what is still to be written goes nowhere
                os.dup2(os.open(os.devnull, os.O_WRONLY), self._stream.fileno())
            self._stream = None

    def write(self, text: str) -> int:
        self._attempt("write", text)
        return len(text)

    def flush(self) -> None:
        self._attempt("flush")


def main(arguments: list[str] | None = None) -> int:
    """Run one command; errors are one sentence on standard error."""
    options = parser().parse_args(arguments)
    screen = Screen(sys.stdout)
    with contextlib.redirect_stdout(screen):
        code = _run(options)
        screen.flush()
    if screen.lost:
        print(f"footprint: the output could not be written ({screen.lost}).", file=sys.stderr)
    return max(code, 1) if screen.lost else code


def _run(options) -> int:
    """Run the command of these options; its exit code."""
    try:
        return options.function(options)
    except (Refused, KeyError, OSError) as error:
        if options.debug:
            raise
        said = error.args[0]
        if isinstance(error, OSError):
            said = f"{error.strerror or error}: {error.filename or 'no file is named'}."
        print(f"footprint: {said}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("footprint: stopped by the keyboard; finished runs are kept.", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
