import re
import subprocess
import sys

import keras
import pytest

import keras_greedylr
from keras_greedylr.cli import main
from keras_greedylr.from_spec import FromSpec


def test_version_names_what_a_bug_report_needs(capsys):
    with pytest.raises(SystemExit) as stop:
        main(["--version"])
    assert stop.value.code == 0
    assert capsys.readouterr().out == (
        f"keras-greedylr {keras_greedylr.__version__}, "
        f"Keras {keras.__version__} on {keras.backend.backend()}\n"
    )


def test_alone_it_shows_its_help(capsys):
    assert main([]) == 0
    shown = capsys.readouterr().out
    assert shown.startswith("usage: keras-greedylr")
    assert "--version" in shown


def test_help_does_without_the_extra(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "keras_greedylr.compare.contestants", None)
    with pytest.raises(SystemExit) as stop:
        main(["compare", "--help"])
    assert stop.value.code == 0
    assert "--schedules" in capsys.readouterr().out


def test_an_unknown_argument_is_refused(capsys):
    with pytest.raises(SystemExit) as stop:
        main(["--no-such-thing"])
    assert stop.value.code == 2
    assert "--no-such-thing" in capsys.readouterr().err


MINE = """
import json


def parse(text):
    return json.loads(text)
"""
FAILING = {  # a file, what it is called with, what is said
    "import": ("import nothing_such", (), "cannot be loaded: ModuleNotFoundError: No module named"),
    "syntax": ("def f(:", (), "cannot be loaded: SyntaxError: invalid syntax (mine.py, line 1)"),
    "in the file": ("x = 1\n{}['a']", (), "cannot be loaded: KeyError: 'a' (mine.py, line 2)"),
    "arguments": (MINE, (), "mine.py:parse() failed: TypeError: parse() missing 1 required"),
    "too many": (MINE, (1, "a"), "mine.py:parse(int, str) failed: TypeError: parse() takes 1 pos"),
    "a model": ("import keras\nparse = keras.Sequential()", (), "mine.py:parse' must be a "
                "function, for --model one that returns a compiled model. Received: <class 'keras"),
    "within": (MINE, ("{",), "mine.py:parse(str) failed: JSONDecodeError: Expecting property name "
               "enclosed in double quotes: line 1 column 2 (char 1) (mine.py, line 6)"),
}  # fmt: skip


@pytest.mark.parametrize("case", FAILING)
def test_what_fails_in_a_function_of_the_users_is_told_with_its_place(case, tmp_path):
    text, arguments, told = FAILING[case]
    (tmp_path / "mine.py").write_text(text)
    with pytest.raises(ValueError, match=re.escape(told)):
        FromSpec(f"{tmp_path}/mine.py:parse")(*arguments)


def test_a_file_may_import_what_lies_beside_it(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "path", [*sys.path])
    (tmp_path / "beside_mine.py").write_text(MINE)
    (tmp_path / "mine.py").write_text("from beside_mine import parse")
    assert FromSpec(f"{tmp_path}/mine.py:parse")("[1]") == [1]


WITHOUT = """
import sys
sys.modules[sys.argv.pop()] = None
from keras_greedylr_agents.cli import main
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.parametrize("module", ["tf_agents", "tensorflow", "rich"])
def test_train_agent_says_what_it_lacks(module):
    """As on Python 3.12: no module of the command may ask for it before `main` does."""
    command = [sys.executable, "-c", WITHOUT, "--help", module]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 2 and len(done.stderr.splitlines()) == 1
    assert module in done.stderr and 'pip install "keras-greedylr[agents]"' in done.stderr
