"""The command line: thin. Exit code 0 when all went well, 1 when a run failed, 2 for bad input (one sentence)."""

import argparse
import sys

from footprint import Refused


def _profile(options) -> int:
    from footprint import provenance, sweep, workload

    request = workload.request("profile", **_pairs(options.parameter))
    return _report(sweep.run([("profile", request)], options.to or provenance.root() / "notebooks" / "local"))


def _predict(options) -> int:
    from footprint import provenance, sweep, workload

    request = workload.request("predict", **_pairs(options.parameter))
    return _report(sweep.run([("predict", request)], options.to or provenance.root() / "notebooks" / "local"))


def _sweep(options) -> int:
    from footprint import provenance, sweep

    runs = sweep.plan(options.file, options.matrix)
    return _report(sweep.run(runs, options.to or provenance.root() / "notebooks" / "local"))


def _gather(options) -> int:
    from footprint import energy, trace

    data = energy.gather(options.folder)
    if not data.sizes["window"]:
        raise Refused(f"There is no trace below {options.folder}.")
    columns = ["kind", "device", "model", "dtype", "weights", "phase", "batch", "prompt_tokens", "output_tokens",
               "time_per_iteration_s", "energy_per_token_J", "status"]  # fmt: skip
    print(trace.frame(data)[columns].to_csv(index=False), end="")
    return 1 if data.attrs["rejected"] else 0


def _preflight(options) -> int:
    from footprint import preflight

    return preflight.show()


def _pairs(given: list[list[str]]) -> dict[str, str]:
    return {name: value for name, value in given or []}


def _report(statuses: dict[str, str]) -> int:
    for label, status in statuses.items():
        print(f"{status:12} {label}")
    return 0 if all(status in ("ok", "oom") for status in statuses.values()) else 1


def parser() -> argparse.ArgumentParser:
    """The commands and their options."""
    top = argparse.ArgumentParser(prog="footprint", description=__doc__)
    top.add_argument("--debug", action="store_true", help="show the traceback of an error")
    commands = top.add_subparsers(dest="command", required=True)
    for name, function, said in (
        ("profile", _profile, "measure one model on one device: -p model llama-1b -p device cuda:0"),
        ("predict", _predict, "model one model on one GPU: -p model llama-7b -p gpu t4"),
        ("sweep", _sweep, "run a matrix of a TOML file; finished runs are not repeated"),
        ("gather", _gather, "print the windows of all traces below a folder as CSV"),
        ("preflight", _preflight, "say what this machine has and what is missing"),
    ):
        command = commands.add_parser(name, help=said, description=said)
        command.set_defaults(function=function)
        if name in ("profile", "predict"):
            command.add_argument("-p", dest="parameter", nargs=2, action="append", metavar=("NAME", "VALUE"),
                                 help="a parameter of the notebook")  # fmt: skip
        if name == "sweep":
            command.add_argument("file", help="TOML file with the matrices")
            command.add_argument("--matrix", default="quick", help="which one (default: quick)")
        if name in ("profile", "predict", "sweep"):
            command.add_argument("--to", help="folder of the results (default: notebooks/local)")
        if name == "gather":
            command.add_argument("folder", nargs="?", default="notebooks", help="where to look (default: notebooks)")
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
