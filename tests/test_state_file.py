"""The state on disk: whole or not at all, and only for those it belongs to."""

import errno
import json
import math
import os
import threading

import pytest
from helpers import EAGER, Spy, data, fit, linear

from keras_greedylr import GreedyLR
from keras_greedylr.state_file import FORMAT, SavedStates, read_states, write_states

CONFIG = {"schedule": "S", "factor": 0.5, "max_lr": None}


def states(*epochs, finished=False):
    return SavedStates(finished, {epoch: {"rate": 0.1 / (epoch + 1)} for epoch in epochs})


def test_what_is_written_is_read(tmp_path):
    path = tmp_path / "made" / "state.json"
    assert read_states(path, CONFIG) is None
    write_states(path, CONFIG, states(4, 5))
    assert read_states(path, CONFIG) == states(4, 5)
    write_states(path, CONFIG, states(6, finished=True))
    assert read_states(str(path), CONFIG) == states(6, finished=True)
    assert os.listdir(path.parent) == ["state.json"]


FIRST = """{"format": 1, "config": {"schedule": "S", "factor": 0.5, "max_lr": null},
"finished": false, "epochs": {"4": {"rate": 0.02}, "5": {"rate": 0.01}}}"""


def test_a_file_of_the_first_format_is_read(tmp_path):
    (tmp_path / "s").write_text(FIRST)
    assert read_states(tmp_path / "s", CONFIG) == SavedStates(
        False, {4: {"rate": 0.02}, 5: {"rate": 0.01}}
    )


def test_which_state_a_fit_goes_on_from():
    cut_off, finished = states(4, 5), states(4, 5, finished=True)
    assert cut_off.after(4) == cut_off.epochs[4] and finished.after(4) == finished.epochs[5]
    assert cut_off.after(0) == finished.after(0) == cut_off.epochs[5]
    for epoch in (1, 3, 6):
        with pytest.raises(ValueError, match=f"Training begins at epoch {epoch}, but"):
            cut_off.after(epoch)


def test_only_the_last_epochs_are_kept(tmp_path):
    write_states(tmp_path / "s", CONFIG, states(8, 9, 10, 11, 2))
    assert read_states(tmp_path / "s", CONFIG) == states(9, 10, 11)


@pytest.mark.parametrize("fails", ["os.replace", "os.fsync", "os.fdopen"])
@pytest.mark.parametrize("there", [True, False])
def test_a_write_that_fails_leaves_what_was_there(tmp_path, monkeypatch, fails, there):
    path = tmp_path / "state.json"
    if there:
        write_states(path, CONFIG, states(1))
    before = path.read_bytes() if there else None

    def full(*arguments, **keywords):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched, pytest.raises(OSError, match="No space left"):
        patched.setattr(fails, full)
        write_states(path, CONFIG, states(2))
    assert os.listdir(tmp_path) == (["state.json"] if there else [])
    assert not there or path.read_bytes() == before


def test_a_disk_that_fills_up_halfway_leaves_what_was_there(tmp_path, monkeypatch):
    path = tmp_path / "state.json"
    write_states(path, CONFIG, states(1))
    fdopen = os.fdopen

    def small(handle, *arguments, **keywords):
        file = fdopen(handle, *arguments, **keywords)
        write = file.write

        def half(text):
            write(text[: len(text) // 2])
            file.flush()
            raise OSError(errno.ENOSPC, "No space left on device")

        file.write = half
        return file

    with monkeypatch.context() as patched, pytest.raises(OSError, match="No space left"):
        patched.setattr("os.fdopen", small)
        write_states(path, CONFIG, states(2))
    assert read_states(path, CONFIG) == states(1)
    assert os.listdir(tmp_path) == ["state.json"]


def test_a_reader_never_sees_half_a_file(tmp_path):
    path = tmp_path / "state.json"
    write_states(path, CONFIG, states(0))
    written, seen = threading.Event(), []

    def write():
        for epoch in range(1, 51):
            write_states(path, CONFIG, states(epoch))
        written.set()

    writer = threading.Thread(target=write)
    writer.start()
    while not written.is_set():
        seen += read_states(path, CONFIG).epochs
    writer.join()
    assert seen == sorted(seen)
    assert list(read_states(path, CONFIG).epochs) == [50]


def test_a_link_stays_a_link_and_others_may_read_the_file(tmp_path):
    real, link = tmp_path / "real.json", tmp_path / "link.json"
    link.symlink_to(real)
    write_states(link, CONFIG, SavedStates(False, {1: {}}))
    assert link.is_symlink() and read_states(real, CONFIG).epochs == {1: {}}
    (tmp_path / "plain").touch()
    assert real.stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_the_file_is_strict_json(tmp_path):
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_states(tmp_path / "s", CONFIG, SavedStates(False, {1: math.inf}))
    assert os.listdir(tmp_path) == []


# Refused.


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The folder of a state file that a `fit` left."""
    folder = tmp_path_factory.mktemp("trained")
    fit(linear(), [GreedyLR(state_path=folder / "state.json", **EAGER)], epochs=3)
    return folder


def again(path, **arguments):
    """Trains on from the state at `path`."""
    return fit(linear(), [GreedyLR(**{**EAGER, **arguments}, state_path=path)])


def test_a_file_cut_short_anywhere_is_refused(trained, tmp_path):
    whole = (trained / "state.json").read_bytes()
    path = tmp_path / "state.json"
    model = linear()
    lengths = range(0, len(whole), 10)
    assert len(lengths) > 50
    for length in lengths:
        path.write_bytes(whole[:length])
        greedy = GreedyLR(state_path=path, **EAGER)
        greedy.set_model(model)
        greedy.on_train_begin()
        before = greedy.state
        with pytest.raises(ValueError) as error:
            greedy.on_epoch_begin(0)
        assert str(error.value).startswith(f"State file '{path}' is damaged or was cut short ("), (
            length
        )
        assert str(error.value).endswith(
            "Nothing was read from it. Delete it to start the schedule afresh."
        )
        assert greedy.state == before
        assert path.read_bytes() == whole[:length]


def test_fit_says_so(trained, tmp_path):
    path = tmp_path / "state.json"
    path.write_bytes((trained / "state.json").read_bytes()[:100])
    with pytest.raises(ValueError, match="is damaged or was cut short"):
        again(path)


def broken(change):
    """A change of the decoded file."""

    def apply(text):
        content = json.loads(text)
        change(content)
        return json.dumps(content)

    return apply


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda text: "\xff\xfe" + text, "is damaged or was cut short"),
        (lambda text: "[]", "is damaged or was cut short (it has no `format`)"),
        (lambda text: "{}", "is damaged or was cut short (it has no `format`)"),
        (
            broken(lambda c: c.update(format=99)),
            f"has format 99; this version of keras-greedylr reads format {FORMAT}.",
        ),
        (broken(lambda c: c.update(format=None)), "has format None; this version of"),
        (broken(lambda c: c.pop("finished")), "(its entries are ['config', 'epochs', 'format'])"),
        (broken(lambda c: c.update(epochs={})), "(it holds no epochs)"),
        (broken(lambda c: c.update(epochs=[1])), "(it holds no epochs)"),
        (broken(lambda c: c.update(epochs={"last": 1})), "(it holds no epochs)"),
        (broken(lambda c: c.update(epochs={"9" * 5000: {}})), "(it holds no epochs)"),
        (lambda text: "[" * 100_000, "is damaged or was cut short"),
        (lambda text: "9" * 5000, "is damaged or was cut short"),
        (broken(lambda c: c.update(epochs={"3": None})), "(it holds what is no state)"),
        (broken(lambda c: c.update(epochs={"3": {}})), "cannot be used"),
        (broken(lambda c: c["epochs"]["3"].pop("group_sum")), "cannot be used"),
        (
            broken(lambda c: c["epochs"]["3"].update(group_batches=-1)),
            "cannot be used: `group_batches` must be an integer >= 0.",
        ),
        (broken(lambda c: c.update(finished=1)), "is damaged or was cut short (`finished` is 1)"),
        (
            broken(lambda c: c["epochs"]["3"]["rule"].update(learning_rate=-1.0)),
            "cannot be used: `learning_rate` must be a finite number > 0.",
        ),
        (
            broken(lambda c: c["epochs"]["3"]["rule"].pop("best")),
            "cannot be used: A GreedyState has exactly the fields",
        ),
        (
            broken(lambda c: c["config"].update(factor=0.9, cooldown=3)),
            "belongs to another configuration: cooldown is 3 in the file and 0 here, factor is "
            "0.9 in the file and 0.5 here. Use the configuration it was written with, or delete "
            "the file to start the schedule afresh.",
        ),
        (
            broken(lambda c: (c["config"].pop("factor"), c["config"].update(gain=3))),
            "configuration: factor is None in the file and 0.5 here, gain is 3 in the file and "
            "None here. ",
        ),
        (
            broken(lambda c: c["config"].update(schedule="Other", factor=0.9)),
            "belongs to another configuration: schedule is 'Other' in the file and 'GreedyLR' "
            "here.",
        ),
        (broken(lambda c: c.update(config=None)), "belongs to another configuration: the file"),
    ],
)
def test_a_file_that_is_not_ours_is_refused(trained, tmp_path, change, message):
    path = tmp_path / "state.json"
    text = change((trained / "state.json").read_text())
    path.write_bytes(text.encode("latin-1"))
    greedy = GreedyLR(state_path=path, **EAGER)
    greedy.set_model(linear())
    greedy.on_train_begin()
    before = greedy.state
    with pytest.raises(ValueError) as error:
        greedy.on_epoch_begin(0)
    assert str(error.value).startswith(f"State file '{path}' ")
    assert message in str(error.value)
    assert greedy.state == before


def test_what_does_not_bear_on_the_rate_may_differ(trained, tmp_path):
    path = tmp_path / "moved.json"
    path.write_bytes((trained / "state.json").read_bytes())
    assert again(path, verbose=1)["learning_rate"] == [0.08]


def test_weights_of_an_epoch_that_is_not_in_the_file_are_refused(tmp_path):
    path = tmp_path / "state.json"

    class Stop(Spy):
        def on_train_end(self, logs=None):
            """As if killed: the file does not say that training came to its end."""

    spy = Stop(state_path=path, **EAGER)
    spy.__class__.__name__ = "GreedyLR"
    fit(linear(), [spy], epochs=6)
    with pytest.raises(ValueError) as error:
        fit(linear(), [GreedyLR(state_path=path, **EAGER)], initial_epoch=2, epochs=6)
    assert str(error.value) == (
        f"State file '{path}' cannot be used: Training begins at epoch 2, but the state file "
        "holds only the states after [4, 5, 6] epochs. Restore the weights that belong to one of "
        "these, or delete the state file to start the schedule afresh."
    )


# Taken up again.


def test_a_second_fit_goes_on_where_the_first_one_stopped(tmp_path):
    path = tmp_path / "state.json"
    whole = fit(linear(), [GreedyLR(factor=0.5, patience=1, warmup=2)], epochs=6)
    model = linear()
    first = fit(model, [GreedyLR(factor=0.5, patience=1, warmup=2, state_path=path)], epochs=3)
    greedy = GreedyLR(factor=0.5, patience=1, warmup=2, state_path=path)
    second = fit(model, [greedy], epochs=3)
    assert first["learning_rate"] + second["learning_rate"] == whole["learning_rate"]
    assert len(set(whole["learning_rate"])) > 3
    assert greedy.state.initial_learning_rate == 0.01
    assert greedy.rule.max_lr == 1.0


def test_a_group_under_way_is_taken_up(tmp_path):
    path = tmp_path / "state.json"
    spies = [Spy(update_every=3, state_path=path, **EAGER) for _ in range(2)]
    model = linear()
    for spy in spies:
        fit(model, [spy])
    whole = Spy(update_every=3, **EAGER)
    fit(linear(), [whole], epochs=2)
    assert len(whole.looked) == 3
    assert spies[0].looked + spies[1].looked == whole.looked


def test_a_restored_rate_reaches_a_new_model(trained, tmp_path, capsys):
    path = tmp_path / "state.json"
    path.write_bytes((trained / "state.json").read_bytes())
    greedy = GreedyLR(state_path=path, verbose=1, **EAGER)
    assert fit(linear(rate=0.5), [greedy])["learning_rate"] == [0.08]
    said = f"\nEpoch 1: GreedyLR sets learning rate to 0.08: restored from {path}.\n"
    assert capsys.readouterr().out.startswith(said)


def test_a_resumed_fit_without_a_validation_left_is_no_absence(tmp_path):
    path = tmp_path / "state.json"
    arguments = {"validation_data": data(8), "validation_freq": 2}
    for initial in (0, 2):
        greedy = GreedyLR("val_loss", state_path=path, **EAGER)
        history = fit(
            linear(),
            [greedy],
            initial_epoch=initial,
            epochs=initial + 2 - initial // 2,
            **arguments,
        )
    assert history["learning_rate"] == [0.02]
