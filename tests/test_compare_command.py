"""`keras-greedylr compare`: the command, and what README says of it."""

import contextlib
import inspect
import re
from pathlib import Path

import pytest

pytest.importorskip("scipy")
pytest.importorskip("rich")
from keras_greedylr.cli import main, make_parser
from keras_greedylr.compare import CONTESTANTS, compare
from keras_greedylr.compare.problems import PROBLEMS


def test_readme_shows_how_to_compare_on_a_model_of_your_own(tmp_path, monkeypatch, capfd):
    """Its snippet, through the command, in a process of its own."""
    pytest.importorskip("sklearn")
    readme = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
    (snippet,) = re.findall(r"```python\n# my_model\.py\n(.*?)```", readme, flags=re.DOTALL)
    assert len(snippet.splitlines()) <= 14
    (tmp_path / "my_model.py").write_text(snippet)
    monkeypatch.chdir(tmp_path)
    command = ["compare", "--model", "my_model.py:build_model", "--data", "my_model.py:load_data",
               "--epochs", "1", "--seeds", "2", "--schedules", "greedy"]  # fmt: skip
    assert main([*command, "--jobs", "2"]) == 0
    said = capfd.readouterr().out
    assert "greedy" in said and "tensorboard --logdir comparison/logs" in said
    kept = (tmp_path / "comparison" / "comparison.csv").read_text()
    assert main(command) == 0  # nothing is left to do, and one process comes to the same
    assert (tmp_path / "comparison" / "comparison.csv").read_text() == kept
    assert main([*command, "--epochs", "2"]) == 2
    assert "epochs was 1 and is 2" in capfd.readouterr().err
    assert main([*command, "--rates", "0.1,1"]) == 0
    said = capfd.readouterr().out
    assert re.search(r"median at +x0\.1 +x1 *\n.*\n *greedy +[\d.]+ +[\d.]+", said)


def test_readme_names_all_there_is():
    readme = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
    assert not [name for name in (*CONTESTANTS, *PROBLEMS) if f"`{name}`" not in readme]


BAD_COMMANDS = {
    "no such problem": (["--problem", "chess"], "Problems are"),
    "no data": (["--model", "a.py:b"], "--model needs --data"),
    "data of a problem": (["--problem", "wine", "--data", "a:b"], "a problem has its own"),
    "no function": (["--model", "model.py", "--data", "a:b"], "Expected FILE.py:FUNCTION"),
    "no such file": (["--model", "none.py:b", "--data", "a:b"], "cannot be loaded"),
    "one twice": (["--problem", "wine", "--schedules", "greedy, greedy"], "be different names"),
    "no such function": (["--model", "json:nothing", "--data", "a:b"], "There is no function"),
}


@pytest.mark.parametrize("case", BAD_COMMANDS)
def test_the_command_says_what_was_wrong(case, capsys):
    options, reason = BAD_COMMANDS[case]
    assert main(["compare", *options]) == 2
    assert reason in capsys.readouterr().err


def test_the_help_names_all_there_is(capsys):
    with pytest.raises(SystemExit):
        main(["compare", "--help"])
    shown = set(re.findall(r"[a-z-]+", re.sub(r"-\n +", "-", capsys.readouterr().out)))
    assert not {*CONTESTANTS, *PROBLEMS} - shown


def test_as_many_seeds_as_a_sign_test_needs():
    command = make_parser().parse_args(["compare", "--problem", "wine"])
    assert command.seeds == inspect.signature(compare).parameters["seeds"].default
    assert 2.0 ** (1 - command.seeds) < 0.05


def test_the_command_says_what_numbers_it_wants(capsys):
    with pytest.raises(SystemExit):
        main(["compare", "--problem", "wine", "--rates", "0.1;1"])
    assert "--rates: expected numbers such as 0.1,1,10, got '0.1;1'" in capsys.readouterr().err


LOSS = """
from comparing import DATA, small


def bad(y, prediction):
    raise ValueError("no loss")


def model():
    model = small()
    model.compile(loss=bad, run_eagerly=True)
    return model


def data():
    return DATA
"""


@pytest.mark.parametrize("jobs", ["1", "2"])
def test_what_fails_in_fit_keeps_its_traceback(jobs, tmp_path):
    (tmp_path / "mine.py").write_text(LOSS)
    mine = f"{tmp_path}/mine.py:"
    options = ["--schedules", "constant", "--jobs", jobs, "--out", str(tmp_path / "out")]
    with pytest.raises(ValueError, match="no loss"):
        main(["compare", "--model", mine + "model", "--data", mine + "data", *options])


def test_what_cannot_be_printed_is_written_all_the_same(tmp_path, monkeypatch):
    def closed(*_, **__):
        raise BrokenPipeError

    monkeypatch.setattr("keras_greedylr.compare.rich_table", closed)
    options = ["--schedules", "constant", "--seeds", "1", "--epochs", "1", "--out", str(tmp_path)]
    with contextlib.suppress(BrokenPipeError):
        main(["compare", "--problem", "wine", *options])
    assert {"comparison.md", "comparison.json", "logs"} <= {p.name for p in tmp_path.iterdir()}


def test_ctrl_c_says_how_to_go_on(tmp_path, monkeypatch, capsys):
    def stop(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("keras_greedylr.compare.compare", stop)
    assert main(["compare", "--problem", "wine", "--out", str(tmp_path)]) == 130
    assert "the same command goes on from there" in capsys.readouterr().err
