"""What the documents name exists, and every command and option is documented."""

import re
import shlex
import shutil
import subprocess
from argparse import SUPPRESS
from pathlib import Path

import nbformat
import pytest
import yaml

from footprint import __main__

ROOT = Path(__file__).parents[2]
DOCUMENTS = ("README.md", "CONTRIBUTING.md", "book/your-gpu.md", "book/reproduce.md")
CODE = re.compile(r"^```(?!\{)[^\n]*\n(.*?)^```|`([^`\n]+)`", re.DOTALL | re.MULTILINE)
COMMAND = re.compile(r"(?<!from )\bfootprint ([a-z]+)\b([^\n#]*)")
FILE = re.compile(
    r"(?<![\w./<-])(?:[\w.-]+/)*[\w-]*\.?[\w-]+(?:/|\.(?:md|py|toml|csv|ipynb|yml|cff|txt|svg))(?![\w<*/])"
)
MADE = re.compile(r"_build/|out\.ipynb|notebooks/local/|\.sweep/|windows\.csv")  # by commands
OTHERS = {"--extra-index-url"}  # options of other programs
TARGETS = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))


def options(parser) -> set[str]:
    """The options that the help of a parser shows."""
    shown = [action for action in parser._actions if action.help != SUPPRESS]
    return {text for action in shown for text in action.option_strings} - {"-h", "--help"}


TOP = __main__.parser()
COMMANDS = {
    name: options(command) | options(TOP)
    for name, command in TOP._subparsers._group_actions[0].choices.items()
}


def code(name: str) -> list[str]:
    """The code of a document: blocks and spans."""
    return [block or span for block, span in CODE.findall((ROOT / name).read_text("utf-8"))]


@pytest.mark.parametrize("name", DOCUMENTS)
def test_every_command_option_and_target_that_a_document_names_exists(name):
    for text in code(name):
        for command, rest in COMMAND.findall(text):
            given = {word for word in shlex.split(rest) if word.startswith("-")}
            assert given <= COMMANDS[command], (command, given)
        if text.startswith("--") and text not in OTHERS:
            assert any(text.split()[0] in options for options in COMMANDS.values()), text
        assert {*re.findall(r"(?:^|\n)make ([a-z]+)", text)} <= TARGETS, text


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_and_option_is_documented(command):
    texts = "\n".join(text for name in DOCUMENTS for text in code(name))
    assert re.search(rf"\bfootprint {command}\b", texts)
    words = set(re.findall(r"(?<!\S)--?[a-z-]+", texts))
    assert COMMANDS[command] <= words, COMMANDS[command] - words


@pytest.mark.parametrize("name", DOCUMENTS)
def test_every_file_that_a_document_names_exists(name):
    for text in code(name):
        for place in FILE.findall(text):
            there = [
                (folder / place).exists() for folder in (ROOT, ROOT / "lib/footprint", ROOT / "lib")
            ]
            assert any(there) or MADE.match(place), place


def test_the_hooks_lint_and_strip_the_templates(tmp_path):
    config = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())
    hooks = {hook["id"]: hook for hook in config["repos"][0]["hooks"]}
    assert set(hooks) == {"ruff-check", "ruff-format", "codespell", "templates"}
    template = ROOT / "notebooks" / "profile.ipynb"
    assert re.search(hooks["templates"]["files"], "notebooks/profile.ipynb")
    assert not re.search(hooks["templates"]["files"], "notebooks/runs/t4/run.ipynb")
    copy = shutil.copy(template, tmp_path / "profile.ipynb")
    notebook = nbformat.read(copy, as_version=4)
    notebook.cells[-1].outputs = [nbformat.v4.new_output("stream", text="seen")]
    nbformat.write(notebook, copy)
    command = [*shlex.split(hooks["templates"]["entry"]), *hooks["templates"]["args"], str(copy)]
    subprocess.run(command, cwd=ROOT, check=True)
    assert copy.read_bytes() == template.read_bytes()
