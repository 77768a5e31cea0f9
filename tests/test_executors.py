"""Where runs are executed does not show in their tables: inline, local, on a Dask cluster, also when a worker is killed."""
import contextlib, dataclasses, os, re, signal, socket, subprocess, sys, threading, time
import psutil, pytest
from conftest import TINY, is_kernel, patience, until
from understanding_lrs.sweep import executors
from understanding_lrs.core.errors import InputError
from understanding_lrs.runs.find import find_runs
from understanding_lrs.runs.protocol import Protocol
from understanding_lrs.runs.store import Run
from understanding_lrs.sweep.executors import Local, slots
from understanding_lrs.sweep.plan import Job
from understanding_lrs.sweep.sweep import LOST, sweep

P = Protocol('tiny', .1, flrs=[.01], data_seeds=[1, 2], train_seeds=[1], settings=dict(steps=3, pause=0.))
SLOW = [dataclasses.replace(P, plr=plr, settings=dict(steps=30, pause=.1)) for plr in (.1, .2, .3, .4)]

def tables(root): return {(r.folder.name, t): (r/f'{t}.csv').read_bytes() for r in find_runs(root) for t in r.tables()}
def files(root): return {re.sub(r'^\.lock-\d+$', '.lock', f.name) for r in find_runs(root) for f in r.folder.iterdir()}
def free_port():
    with socket.socket() as s:
        s.bind(('127.0.0.1', 0))
        return s.getsockname()[1]

def kernels(process):
    found = []
    for c in psutil.Process(process.pid).children(recursive=True):
        try: found += [c] * is_kernel(c)
        except psutil.Error: pass # it has just ended
    return found

@contextlib.contextmanager
def dask_cluster(n):
    "A scheduler and n workers, each a process of its own, on loopback"
    port = free_port()
    address, dask = f'tcp://127.0.0.1:{port}', [sys.executable, '-m', 'dask']
    quiet = dict(stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
    started = [subprocess.Popen([*dask, 'scheduler', '--host', '127.0.0.1', '--port', str(port), '--no-dashboard'], **quiet)]
    worker = [*dask, 'worker', address, '--nthreads', '1', '--no-nanny', '--no-dashboard', '--host', '127.0.0.1']
    started += [subprocess.Popen([*worker, '--name', f'w{i}'], **quiet) for i in range(n)]
    try:
        from distributed import Client
        with Client(address, timeout=patience(30), set_as_default=False) as client: client.wait_for_workers(n, timeout=patience(60))
        yield address, started
    finally:
        for p in started:
            try: os.killpg(p.pid, signal.SIGKILL)
            except ProcessLookupError: pass
            p.wait()

@pytest.fixture(scope='module')
def cluster():
    with dask_cluster(3) as address_and_processes: yield address_and_processes

@pytest.fixture(scope='module')
def undisturbed(tmp_path_factory):
    root = tmp_path_factory.mktemp('undisturbed')
    assert sweep(SLOW, root, TINY, workers=4, progress='none').exit_code == 0
    return tables(root), files(root)

def test_inline(tmp_path):
    result = sweep([P, dataclasses.replace(P, plr=2.)], tmp_path, TINY, executor='inline', progress='none')
    assert (len(result.ran), len(result.failed)) == (1, 1)

def test_dask_with_a_worker_killed_mid_run(tmp_path, cluster, undisturbed):
    "The worker that is training is killed; its run is done by another one, and its kernel is gone"
    address, started = cluster
    code = f"""
from understanding_lrs.runs.protocol import Protocol
from understanding_lrs.sweep.sweep import sweep
import sys
protocols = [Protocol.from_dict(d) for d in {[p.to_dict() for p in SLOW]!r}]
result = sweep(protocols, {str(tmp_path)!r}, {str(TINY)!r}, executor={address!r}, progress='plain')
print(result); sys.exit(result.exit_code)"""
    caller = subprocess.Popen([sys.executable, '-c', code], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    training = lambda: {r.owner().get('pid') for r in find_runs(tmp_path) if r.read_progress().get('stage') == 'pretrain'}
    until(lambda: any({k.pid for k in kernels(w)} & training() for w in started[1:]))
    victim = next(w for w in started[1:] if {k.pid for k in kernels(w)} & training())
    orphans = kernels(victim)
    victim.kill()
    output = caller.communicate(timeout=patience(100))[0]
    assert caller.returncode == 0 and '4 ran, 0 were done, 0 failed' in output, output
    assert (tables(tmp_path), files(tmp_path)) == undisturbed
    assert orphans and all(not k.is_running() or k.status() == psutil.STATUS_ZOMBIE for k in orphans)
    assert not list(tmp_path.glob('.*'))

def test_the_scheduler_dies(tmp_path, undisturbed, capfd):
    "Said soon, once a run and in words; the kernels end, and another sweep ends with the tables of an undisturbed one"
    with dask_cluster(1) as (address, started):
        def strike():
            until(lambda: any(r.read_progress().get('stage') == 'pretrain' for r in find_runs(tmp_path)))
            started[0].kill()
            dead.append(time.time())
        dead = []
        threading.Thread(target=strike).start()
        result = sweep(SLOW, tmp_path, TINY, executor=address, progress='plain')
        assert time.time() - dead[0] < patience(30) and result.exit_code == 1 and len(result.failed) == 4
        assert {f.error for f in result.failed} == {LOST} and 'Traceback' not in capfd.readouterr().err
        until(lambda: not kernels(started[1]) and not any(r.owner() for r in find_runs(tmp_path)))
    assert sweep(SLOW, tmp_path, TINY, workers=4, progress='none').exit_code == 0
    assert (tables(tmp_path), files(tmp_path)) == undisturbed

def test_dask_failure_and_second_call(tmp_path, cluster):
    protocols = [P, dataclasses.replace(P, plr=2.)]
    result = sweep(protocols, tmp_path, TINY, executor=cluster[0], progress='none')
    assert (len(result.ran), result.exit_code, result.failed[0].error) == (1, 1, 'RuntimeError: diverged at plr 2.0')
    again = sweep([P], tmp_path, TINY, executor=cluster[0], progress='none')
    assert (len(again.done), len(again.ran)) == (1, 0)

def test_dask_time_limit(tmp_path, cluster, undisturbed):
    result = sweep(SLOW[:2], tmp_path, TINY, executor=cluster[0], progress='none', time_limit=2)
    assert result.exit_code == 3 and not result.failed and result.seconds < patience(15)
    assert not any(r.owner() for r in find_runs(tmp_path))

def test_unreachable_scheduler_is_a_clear_error_soon(tmp_path, monkeypatch):
    monkeypatch.setattr(executors, 'ANSWER', 1.)
    start = time.time()
    with pytest.raises(InputError, match='no Dask scheduler answers at tcp://127.0.0.1'):
        sweep([P], tmp_path, TINY, executor=f'tcp://127.0.0.1:{free_port()}', progress='none')
    assert time.time() - start < patience(15)
    with pytest.raises(InputError, match='no Dask scheduler answers'):
        sweep([P], tmp_path, TINY, executor='tcp://nowhere.invalid:1', progress='none')

def test_a_worker_that_does_not_fit_is_named(tmp_path):
    assert 'expected 9.9' in executors.look_around(tmp_path, tmp_path, [TINY], '9.9')
    from understanding_lrs import __version__ as v
    assert 'does not see' in executors.look_around(tmp_path, tmp_path/'probe', [TINY], v)
    assert 'has no notebook' in executors.look_around(tmp_path, tmp_path, [tmp_path/'x.ipynb'], v)
    assert executors.look_around(tmp_path, tmp_path, [TINY], v) == ''

def test_unknown_executor(tmp_path):
    with pytest.raises(InputError, match="did you mean 'local'"): sweep([P], tmp_path, TINY, executor='locl')
    with pytest.raises(InputError, match='per_gpu: expected'): sweep([P], tmp_path, TINY, per_gpu=-1)

def test_places_for_gpus(monkeypatch):
    monkeypatch.setenv('CUDA_VISIBLE_DEVICES', '2,3')
    assert slots(None, 2) == [{'CUDA_VISIBLE_DEVICES': g} for g in '2323']
    assert slots(3, 1) == [{'CUDA_VISIBLE_DEVICES': g} for g in '232']
    monkeypatch.setenv('CUDA_VISIBLE_DEVICES', '')
    assert slots(2, 4) == slots(2) == [{}, {}]

def test_the_gpu_reaches_the_kernel(tmp_path):
    import nbformat
    nb = nbformat.read(TINY, 4)
    nb.cells[3].source = "import os\nassert os.environ['CUDA_VISIBLE_DEVICES'] == '7'\n" + nb.cells[3].source
    nbformat.write(nb, tmp_path/'gpu.ipynb')
    how = executors.How(dict(tiny=tmp_path/'gpu.ipynb'), 1, {})
    place = Local(slots(None, 1, ['7']))
    assert place.submit(Job(Run(tmp_path/'runs', P), 'run'), how).result() is None
    place.close()
