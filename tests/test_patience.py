"""Time limits of the tests grow with the load of the machine, and still end a wait for something that never comes."""
import os, time
import pytest
from conftest import patience, until

def test_a_busy_machine_gets_more_time(monkeypatch):
    cores = len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count()
    limits = []
    for load in (0., 7.5*cores, 1000.*cores):
        monkeypatch.setattr(os, 'getloadavg', lambda: (load, 0., 0.), raising=False)
        limits.append(patience(10))
    assert limits == [10., 85., 200.]

def test_a_wait_has_an_end(monkeypatch):
    monkeypatch.setattr(os, 'getloadavg', lambda: (0., 0., 0.), raising=False)
    start = time.monotonic()
    with pytest.raises(AssertionError, match='waited longer than 0 s: no file'): until(lambda: False, .2, lambda: 'no file')
    assert time.monotonic() - start >= .2 and until(lambda: 'there', .2) == 'there'
