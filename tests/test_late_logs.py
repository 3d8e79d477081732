"""Reports of batches out of threads: in order, all of them, and none of another `fit`."""

import threading

import pytest

from keras_greedylr.callbacks import late_logs
from keras_greedylr.callbacks.late_logs import LateLogs


def in_thread(work):
    thread = threading.Thread(target=work)
    thread.start()
    return thread


def test_reports_are_waited_for_and_come_in_order():
    late = LateLogs()
    late.outstanding = 3
    threads = [in_thread(lambda i=i: late.put((i, {"loss": float(i)}))) for i in (2, 0, 1)]
    assert late.take() == [(i, {"loss": float(i)}) for i in range(3)]
    assert late.outstanding == 0
    for thread in threads:
        thread.join()
    late.put((3, {}))
    assert late.take_arrived() == [(3, {})]


def test_a_thread_of_a_fit_that_was_broken_off_is_a_stranger():
    begun, said = threading.Event(), {}

    def from_before():
        begun.wait()
        said["before"] = late.strange(), late.at_once()

    def from_now():
        said["now"] = late.strange(), late.at_once()

    before = in_thread(from_before)
    late = LateLogs()
    begun.set()
    now = in_thread(from_now)
    before.join()
    now.join()
    assert said == {"before": (True, False), "now": (False, False)}
    assert (late.strange(), late.at_once()) == (False, True)


def test_logs_that_never_come_are_not_waited_for_without_end(monkeypatch):
    monkeypatch.setattr(late_logs, "PATIENCE", 0.01)
    late = LateLogs()
    late.outstanding = 2
    late.put((0, {"loss": 1.0}))
    with pytest.raises(RuntimeError, match=r"^No logs came for 0.01 s, and 2 batches' are due: "):
        late.take()
