"""At any moment at most one process may write a run; an owner that is gone is replaced, and what it writes late is refused."""
import json, os, signal, subprocess, sys, time
import pandas as pd, pytest
from conftest import patience
from understanding_lrs.runs import lock
from understanding_lrs.core.errors import InputError, RunBusy, RunLost
from understanding_lrs.runs.find import find_runs
from understanding_lrs.runs.protocol import Protocol
from understanding_lrs.runs.store import Run

P = Protocol('tiny', .1, data_seeds=[1], train_seeds=[1])
ROWS = pd.DataFrame([dict(plr=.1, metric='test_acc', value=90.)])

def claim(run): return run/f'{lock.CLAIM}{lock.claims(run.folder)[-1]}'
def age(run, seconds): os.utime(claim(run), (1, time.time() - seconds))

def elsewhere(run):
    "Make the present claim one of another machine"
    record = json.loads(claim(run).read_bytes()) | dict(machine='node7 another-boot', pid=12)
    claim(run).write_text(json.dumps(record))

def other(root, body):
    "A process that holds the run and prints when it does"
    code = f"import time\nfrom understanding_lrs.runs.protocol import Protocol; from understanding_lrs.runs.store import Run\nrun = Run({str(root)!r}, Protocol.from_dict({P.to_dict()!r}))\n"
    p = subprocess.Popen([sys.executable, '-c', code + body], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    p.stdout.readline()
    return p

def test_an_owner_on_another_machine_counts_by_its_heartbeat(tmp_path):
    run = Run(tmp_path, P)
    with run.lock(): pass
    elsewhere(run)
    age(run, lock.STALE/2)
    with pytest.raises(RunBusy, match='process 12 on node7'):
        with run.lock(): pass
    age(run, lock.STALE + 5)
    with run.lock(): assert run.token == 2

def test_the_heartbeat_keeps_a_run(tmp_path, monkeypatch):
    monkeypatch.setattr(lock, 'BEAT', .05)
    monkeypatch.setattr(lock, 'STALE', patience(1.))
    run = Run(tmp_path, P)
    with run.lock():
        time.sleep(1.5*lock.STALE)
        with pytest.raises(RunBusy):
            with Run(tmp_path, P).lock(): pass

def test_without_a_heartbeat_it_would_be_lost(tmp_path, monkeypatch):
    monkeypatch.setattr(lock, 'STALE', .2)
    run = Run(tmp_path, P)
    with run.lock():
        time.sleep(.5)
        with Run(tmp_path, P).lock(): pass

def test_a_late_writer_is_refused(tmp_path):
    "Every kind of write, and what the new owner wrote stays"
    late, heir = Run(tmp_path, P), Run(tmp_path, P)
    with late.lock():
        late.start()
        age(late, lock.STALE + 5)
        with heir.lock():
            heir.write_table('metrics', ROWS)
            torch = pytest.importorskip('torch')
            for write in (lambda: late.write_table('metrics', ROWS.assign(value=1.)), lambda: late.finish({}),
                          lambda: late.save_checkpoint(dict(w=torch.ones(1)), {}), lambda: late.progress('pretrain', 1, 2)):
                with pytest.raises(RunLost, match='took this run over'): write()
            heir.finish({})
    assert list(heir.table('metrics').value) == [90.] and heir.state(deep=True).kind == 'done'
    assert not list(heir.folder.glob('.tmp-*'))

def test_a_sleeping_process_is_replaced_and_refused(tmp_path):
    "SIGSTOP of a real owner; awake again, it fails with RunLost"
    p = other(tmp_path, "with run.lock():\n    run.start(); print(1, flush=True)\n    time.sleep(1); run.write('a.csv', b'late')")
    try:
        p.send_signal(signal.SIGSTOP)
        run = Run(tmp_path, P)
        with pytest.raises(RunBusy, match=f'process {p.pid}'):
            with run.lock(): pass
        age(run, lock.STALE + 5)
        with run.lock():
            p.send_signal(signal.SIGCONT)
            assert 'RunLost' in p.communicate(timeout=patience(20))[1]
            assert not (run/'a.csv').exists()
    finally: p.kill()

def test_a_killed_owner_is_replaced_at_once(tmp_path):
    p = other(tmp_path, "with run.lock():\n    print(1, flush=True); time.sleep(60)")
    run = Run(tmp_path, P)
    assert run.owner()['pid'] == p.pid
    p.kill()
    p.wait()
    assert run.owner() == {}
    with run.lock(): pass

def test_of_many_claimers_one_wins(tmp_path):
    "8 processes claim at the same moment, 20 times: never two at once"
    code = f"""
import os, sys, time
from understanding_lrs.core.errors import RunBusy
from understanding_lrs.runs.protocol import Protocol
from understanding_lrs.runs.store import Run
run = Run({str(tmp_path)!r}, Protocol.from_dict({P.to_dict()!r}))
won = 0
for i in range(20):
    time.sleep(max(0, float(sys.argv[1]) + i*.1 - time.time()))
    try:
        with run.lock():
            os.close(os.open(run/'alone', os.O_CREAT | os.O_EXCL))
            time.sleep(.01)
            os.unlink(run/'alone')
            won += 1
    except RunBusy: pass
print(won)"""
    start = str(time.time() + patience(2.5))
    pipes = dict(stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    many = [subprocess.Popen([sys.executable, '-c', code, start], **pipes) for _ in range(8)]
    ended = [p.communicate() for p in many]
    assert not any(err for _, err in ended), ended
    assert 10 <= sum(int(out) for out, _ in ended) <= 160 and len(list(Run(tmp_path, P).folder.iterdir())) == 1

def test_a_released_run_is_free_for_other_machines(tmp_path):
    run = Run(tmp_path, P)
    with run.lock(): pass
    elsewhere(run)
    os.utime(claim(run), (0, 0))
    with run.lock(): pass

def test_newer_runs_are_not_damaged_and_not_touched(tmp_path):
    run = Run(tmp_path, P).start()
    text = (run/'protocol.json').read_text().replace('"schema": 1', '"schema": 2')
    (run/'protocol.json').write_text(text)
    assert [r.state().kind for r in (run, find_runs(tmp_path)[0])] == ['newer', 'newer']
    with pytest.raises(InputError, match='update the package'): run.start()
