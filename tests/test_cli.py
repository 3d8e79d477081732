import subprocess
import sys

import keras
import pytest

import keras_greedylr
from keras_greedylr.cli import main


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


def test_an_unknown_argument_is_refused(capsys):
    with pytest.raises(SystemExit) as stop:
        main(["--no-such-thing"])
    assert stop.value.code == 2
    assert "--no-such-thing" in capsys.readouterr().err


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
