"""The plan of the house: which room may import which, and how large things may be."""

import ast
import graphlib
import importlib
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
LIB = HERE.parent / "lib" / "footprint"
ARROWS = {
    "spec": "",
    "trace": "",
    "workload": "spec",
    "energy": "trace",
    "predict": "spec trace",
    "carbon": "spec",
    "measure": "spec workload trace energy",
    "decide": "spec carbon predict",
    "sweep": "spec workload trace measure energy predict carbon",
    "charts": "spec carbon",
    "charts/performance": "spec trace",
    "charts/runpage": "spec carbon trace energy",
    "chapters": "spec trace energy predict carbon decide charts",
}
TORCH = {
    "measure/attention",
    "measure/compiled",
    "measure/eager",
    "measure/probe",
    "measure/weights",
}
MODELS = {"torch", "transformers"}
HEAVY = {*MODELS, "altair", "pandas", "pynvml"}
LINES, PARAMETERS = 350, 7
FILES = {"measure": (3, 17)}  # other rooms hold 3 to 9, besides __init__
CONTRACT = {  # public functions that may have more parameters than others
    "carbon.act",  # its keywords are the settings of `carbon.embodied`
    "carbon.score",
    "carbon.token",
    "decide.break_even",
    "decide.optimum",
    "predict.largest_batch",
    "predict.windows",
}
TREES = {
    str(path.relative_to(LIB).with_suffix("")): ast.parse(path.read_text(encoding="utf-8"))
    for path in LIB.rglob("*.py")
}
ROOMS = sorted({name.partition("/")[0] for name in TREES if "/" in name})


def imported(tree: ast.Module) -> set[str]:
    """Dotted names of all that a module imports, wherever it does so."""
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        if isinstance(node, ast.ImportFrom):
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def room(name: str) -> str:
    return name.partition("/")[0]


def ours(tree: ast.Module) -> set[str]:
    """Modules of ours that a module imports, as `room/module`; a function counts as its room."""
    parts = [name.split(".")[1:3] for name in imported(tree) if name.startswith("footprint.")]
    paths = {"/".join(part) if "/".join(part) in TREES else part[0] for part in parts}
    return {path for path in paths if path in TREES or path in ROOMS}


def crowded(name: str, tree: ast.Module) -> set[str]:
    """Functions of a module that have too many parameters."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            count = len([*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs])
            if count > PARAMETERS and f"{room(name)}.{node.name}" not in CONTRACT:
                found.add(f"{name}.{node.name} has more than {PARAMETERS} parameters")
    return found


def unformatted(path: Path) -> bool:
    """Whether a file keeps lines from the formatter that are no literal table."""
    text = path.read_text(encoding="utf-8")
    kept = {at for at, line in enumerate(text.splitlines(), 1) if "# fmt: " in line}
    for node in ast.walk(ast.parse(text)) if kept else ():
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Dict | ast.List | ast.Tuple):
            kept -= {*range(node.lineno, node.end_lineno + 1)}
    return bool(kept)


def faults() -> set[str]:
    """Everything that breaks a rule, a line each."""
    found = set()
    for name, tree in TREES.items():
        found |= crowded(name, tree)
        if len((LIB / f"{name}.py").read_text(encoding="utf-8").splitlines()) > LINES:
            found.add(f"{name} is longer than {LINES} lines")
        if name in ("__init__", "__main__"):
            continue
        allowed = {room(name), *ARROWS.get(name, ARROWS[room(name)]).split()}
        others = {room(other) for other in ours(tree)}
        if name not in TORCH:
            others |= {other.partition(".")[0] for other in imported(tree)} & MODELS
        found |= {f"{name} imports {other}" for other in others - allowed}
    for name in ROOMS:
        modules = {path.stem for path in (LIB / name).glob("*.py")} - {"__init__", "__main__"}
        least, most = FILES.get(name, (3, 9))
        if not least <= len(modules) <= most:
            found.add(f"{name} has {len(modules)} files")
        public = getattr(importlib.import_module(f"footprint.{name}"), "__all__", ())
        found |= {f"{name} has a module and a function {both}" for both in modules & {*public}}
    for path in [*LIB.rglob("*.py"), *HERE.rglob("*.py")]:
        if path != Path(__file__) and unformatted(path):
            found.add(f"{path.name} keeps lines from the formatter")
    return found


def test_every_rule_holds():
    assert faults() == set()


def test_modules_import_in_one_direction():
    arrows = {name: ours(tree) - {name} for name, tree in TREES.items() if name != "__main__"}
    assert list(graphlib.TopologicalSorter(arrows).static_order())  # raises for a circle


def test_the_package_alone_imports_nothing_heavy():
    code = "import sys, footprint; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not HEAVY & set(done.stdout.split())
