"""A sweep ends with exactly the tables of an undisturbed one, whatever is killed and however often it is called."""
import dataclasses, os, re, shutil, signal, subprocess, sys, time
from pathlib import Path
import nbformat, psutil, pytest
from conftest import TINY, is_kernel, patience, until
from understanding_lrs.sweep import sweep as module
from understanding_lrs.sweep import checks
from understanding_lrs.core.errors import InputError
from understanding_lrs.runs.find import find_runs
from understanding_lrs.runs.protocol import Protocol
from understanding_lrs.runs.store import Run
from understanding_lrs.sweep.execute import execute
from understanding_lrs.sweep.kernels import Kernels
from understanding_lrs.sweep.plan import Job, plan
from understanding_lrs.sweep.sweep import sweep

P = Protocol('tiny', .1, flrs=[.01], data_seeds=[1, 2], train_seeds=[1], settings=dict(steps=3, pause=0.))
GRID = [dataclasses.replace(P, plr=plr) for plr in (.1, .2, .3)]
SLOW = [dataclasses.replace(p, settings=dict(steps=6, pause=.15)) for p in GRID]

def quick(protocols, root, **kw): return sweep(protocols, root, TINY, workers=2, progress='none', **kw)

def tables(root):
    "Bytes of all finished tables, and everything else that lies in the folders"
    found = find_runs(root)
    extra = {re.sub(r'^\.lock-\d+$', '.lock', f.name) for r in found for f in r.folder.iterdir()} # a claim carries its number
    done = [r for r in found if r.state(deep=True).kind == 'done']
    return {(r.folder.name, t): (r/f'{t}.csv').read_bytes() for r in done for t in r.tables()}, extra

WHOLE = {'.lock', 'DONE', 'curves.csv', 'metrics.csv', 'notebook.ipynb', 'protocol.json', 'provenance.json'}

@pytest.fixture(scope='module')
def undisturbed(tmp_path_factory):
    "One sweep of the slow grid that nobody touches"
    root = tmp_path_factory.mktemp('undisturbed')
    assert quick(SLOW, root).exit_code == 0
    found, extra = tables(root)
    assert len(found) == 6 and extra == WHOLE
    return root, found

def child(root):
    "The same sweep in a process of its own"
    code = f"""
from understanding_lrs.runs.protocol import Protocol
from understanding_lrs.sweep.sweep import sweep
import sys
protocols = [Protocol.from_dict(d) for d in {[p.to_dict() for p in SLOW]!r}]
result = sweep(protocols, {str(root)!r}, {str(TINY)!r}, workers=2, progress='plain')
print(result); sys.exit(result.exit_code)"""
    return subprocess.Popen([sys.executable, '-c', code], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)

def kernels(process):
    below = psutil.Process(process.pid).children(recursive=True)
    return [c for c in below if is_kernel(c)]

def training(root): return [r for r in find_runs(root) if r.read_progress().get('stage') == 'pretrain']
def gone(processes): return all(not p.is_running() or p.status() == psutil.STATUS_ZOMBIE for p in processes)

def test_asked_again_nothing_is_done(undisturbed):
    root, found = undisturbed
    before = {f: f.stat().st_mtime_ns for f in root.rglob('*') if f.is_file()}
    result = quick(SLOW, root)
    assert (len(result.done), len(result.ran), result.exit_code) == (3, 0, 0)
    assert {f: f.stat().st_mtime_ns for f in root.rglob('*') if f.is_file()} == before

def test_killed_in_the_middle(tmp_path, undisturbed):
    "SIGKILL of the sweep: no kernel is left, no run lies, the next call completes it"
    process = child(tmp_path)
    until(lambda: training(tmp_path))
    orphans = kernels(process)
    process.kill()
    process.wait()
    assert orphans
    until(lambda: gone(orphans), 5)
    states = [r.state(deep=True).kind for r in find_runs(tmp_path)]
    assert set(states) <= {'partial', 'done'} and states.count('done') < len(SLOW)
    assert quick(SLOW, tmp_path).exit_code == 0
    assert tables(tmp_path) == (undisturbed[1], WHOLE)

def test_kernel_killed(tmp_path, undisturbed):
    "SIGKILL of one kernel: that run fails and says so, the others end, the next call completes it"
    process = child(tmp_path)
    until(lambda: training(tmp_path))
    kernels(process)[0].kill()
    output = process.communicate()[0]
    assert process.returncode == 1 and '2 ran' in output
    assert output.count('failed: ') == 2 and 'the kernel died' in output
    assert quick(SLOW, tmp_path).exit_code == 0
    assert tables(tmp_path) == (undisturbed[1], WHOLE)

def test_ctrl_c(tmp_path, undisturbed):
    process = child(tmp_path)
    until(lambda: training(tmp_path))
    orphans = kernels(process)
    process.send_signal(signal.SIGINT)
    output = process.communicate(timeout=patience(10))[0]
    assert process.returncode == 130 and 'the same command goes on' in output
    assert 'Traceback' not in output and 'failed:' not in output
    assert gone(orphans)
    assert quick(SLOW, tmp_path).exit_code == 0
    assert tables(tmp_path) == (undisturbed[1], WHOLE)

def test_the_comparison_can_fail(tmp_path, undisturbed):
    shutil.copytree(undisturbed[0], tmp_path/'copy')
    run = find_runs(tmp_path/'copy')[0]
    (run/'metrics.csv').write_bytes((run/'metrics.csv').read_bytes().replace(b'9', b'8'))
    assert tables(tmp_path/'copy')[0] != undisturbed[1]

def test_one_failing_run_stays_alone(tmp_path):
    bad = dataclasses.replace(P, plr=2.)
    result = quick([GRID[0], bad, GRID[1]], tmp_path)
    assert (len(result.ran), len(result.failed), result.exit_code) == (2, 1, 1)
    failure = result.failed[0]
    assert (failure.run.protocol, failure.cell, failure.error) == (bad, 'In [5]', 'RuntimeError: diverged at plr 2.0')
    assert failure.notebook == failure.run/'notebook.failed.ipynb' and failure.notebook.exists()
    assert str(failure.notebook) in str(result)
    assert quick([bad], tmp_path).exit_code == 1 # tried again, and said again

def test_damaged_run_is_named_and_made_anew(tmp_path, capsys):
    quick([P], tmp_path)
    before, run = tables(tmp_path), Run(tmp_path, P)
    (run/'metrics.csv').write_bytes(b'plr,value\n')
    job, = plan([P], tmp_path).jobs
    assert job.kind == 'again' and 'metrics.csv has 10 bytes' in job.why
    result = sweep([P], tmp_path, TINY, workers=1, progress='plain')
    assert result.exit_code == 0 and 'metrics.csv has 10 bytes' in capsys.readouterr().err
    assert tables(tmp_path) == before

def test_more_seeds_and_force(tmp_path):
    quick([P], tmp_path)
    more = dataclasses.replace(P, data_seeds=(1, 2, 3))
    result = quick([more], tmp_path)
    seeds = lambda found: [r.protocol.data_seeds for r in found]
    assert (seeds(result.ran), seeds(result.done)) == ([(3,)], [(1, 2)])
    stamp = (Run(tmp_path, P)/'DONE').stat().st_mtime_ns
    assert len(quick([P], tmp_path, force=True).ran) == 1 and (Run(tmp_path, P)/'DONE').stat().st_mtime_ns > stamp

def test_ctrl_c_saves_first(tmp_path, undisturbed):
    "A run that was training goes on from where it was, not from the start"
    process = child(tmp_path)
    until(lambda: [r for r in training(tmp_path) if r.read_progress()['done'] >= 2])
    process.send_signal(signal.SIGINT)
    output = process.communicate(timeout=patience(10))[0]
    stopped = [r for r in find_runs(tmp_path) if r.state().kind == 'partial' and (r/'checkpoint.safetensors').exists()]
    assert stopped and all(r.load_checkpoint(numpy=True)[1]['step'] >= 1 for r in stopped)
    assert 'the same command goes on from here with' in output and not list(tmp_path.glob('.*'))
    assert {j.kind for j in plan(SLOW, tmp_path).jobs} <= {'resume', 'run'}
    assert quick(SLOW, tmp_path).exit_code == 0
    assert tables(tmp_path) == (undisturbed[1], WHOLE)

def test_time_limit(tmp_path, undisturbed):
    "The whole sweep ends soon after it, says so by its exit code, and goes on"
    limit = patience(4.)
    long = [dataclasses.replace(p, settings=dict(steps=int(50*limit), pause=.1)) for p in SLOW]
    start = time.time()
    result = quick(long, tmp_path, time_limit=limit)
    assert (result.exit_code, result.left, result.failed) == (3, 3, []) and time.time() - start < limit + patience(12)
    assert 'the time limit is reached; the same command goes on from here with 3 runs' in str(result)
    steps = [r.load_checkpoint(numpy=True) for r in find_runs(tmp_path)]
    assert any(s and s[1]['step'] > 1 for s in steps)

def test_keep_states_and_limits_reach_the_kernel(tmp_path):
    def edit(nb): nb.cells[3].source = "import os\nassert os.environ['ULRS_KEEP_STATES'] == '1'\n" + nb.cells[3].source
    assert sweep([P], tmp_path/'runs', changed(tmp_path, edit), progress='none', keep_states=True).exit_code == 0

def test_retry_failed_runs_only_those(tmp_path):
    bad = dataclasses.replace(P, plr=2.)
    quick([bad], tmp_path)
    result = quick([P, bad], tmp_path, only_failed=True)
    assert (len(result.ran), [f.run.protocol for f in result.failed]) == (0, [bad])

def test_published_runs_count_as_done(tmp_path):
    result = quick(GRID[:2], tmp_path, published=GRID[:1])
    assert ([r.protocol for r in result.ran], result.published) == (GRID[1:2], 1)
    assert 'their tables are published' in str(result)

def test_two_sweeps_in_one_folder(tmp_path, undisturbed):
    "Each run is done once, both end well"
    both = [child(tmp_path) for _ in range(2)]
    out = [p.communicate(timeout=patience(100))[0] for p in both]
    assert [p.returncode for p in both] == [0, 0], out
    assert sum(int(re.search(r'^(\d+) ran', o, re.M)[1]) for o in out) == len(SLOW), out
    assert tables(tmp_path) == (undisturbed[1], WHOLE)

def test_what_a_kill_in_the_last_moment_leaves_is_swept_up(tmp_path):
    quick([P], tmp_path)
    run = Run(tmp_path, P)
    before = tables(tmp_path)
    left = '.tmp-x', '.running-1-2.log', '.running-1-2.ipynb', 'checkpoint.safetensors', 'progress.json', 'kernel.log'
    for name in left: (run/name).touch()
    assert quick([P], tmp_path).exit_code == 0 and tables(tmp_path) == before

def test_a_study_of_200_runs_with_bad_ones(tmp_path, monkeypatch):
    "3 bad parameters are refused before any work; of the others 5 fail, 195 end, and only the 5 are tried again"
    import pandas as pd
    grid = [dataclasses.replace(P, plr=round(.001*(i+1), 4)) for i in range(195)]
    failing, wrong = [dataclasses.replace(P, plr=2. + i) for i in range(5)], []
    for given in (dict(plr='abc'), dict(data_seeds=[-1]), dict(train_seeds=[1, 1])):
        with pytest.raises(InputError): wrong.append(dataclasses.replace(P, **given))
    with pytest.raises(InputError): quick([*grid, dataclasses.replace(P, settings=dict(steps=3, pauze=0.))], tmp_path)
    assert not find_runs(tmp_path) and not wrong
    def bare(job, how):
        "The run without its kernel: the sweep itself is what is tested"
        from concurrent.futures import Future
        f, run = Future(), job.run
        if run.protocol.plr > 1:
            run.start()
            (run/module.FAILED).touch()
            f.set_result(module.Failure(run, 'In [5]', 'RuntimeError: diverged', run/module.FAILED))
        else:
            run.start().write_table('metrics', pd.DataFrame([dict(plr=run.protocol.plr, value=1.)]))
            run.finish({})
            (run/'notebook.ipynb').touch()
            f.set_result(None)
        return f
    class Bare:
        submit = staticmethod(bare)
        def close(self): pass
    monkeypatch.setattr(module, 'make_executor', lambda *_: Bare())
    monkeypatch.setattr('understanding_lrs.core.files.os.fsync', lambda fd: None)
    result = quick([*grid, *failing], tmp_path)
    assert (len(result.ran), len(result.failed), result.exit_code) == (195, 5, 1)
    assert str(result).count('failed: plr=') == 5 and str(result).count('see ') == 5
    again = quick([*grid, *failing], tmp_path, only_failed=True)
    assert (len(again.done), len(again.ran), len(again.failed)) == (195, 0, 5)

def test_run_made_bare_gets_its_notebook(tmp_path):
    quick([P], tmp_path)
    before, run = tables(tmp_path), Run(tmp_path, P)
    (run/'notebook.ipynb').unlink()
    assert [j.kind for j in plan([P], tmp_path).jobs] == ['notebook']
    assert quick([P], tmp_path).exit_code == 0 and tables(tmp_path) == before

def changed(tmp_path, edit):
    "A copy of the tiny notebook with one change"
    nb = nbformat.read(TINY, 4)
    edit(nb)
    nbformat.write(nb, tmp_path/'changed.ipynb')
    return tmp_path/'changed.ipynb'

def test_override_takes_effect_after_cleaning(tmp_path, root):
    "nbdev's cleaning keeps the tag, and the value asked for is the value run with"
    copy = changed(tmp_path, lambda nb: None)
    clean = Path(sys.executable).parent/'nbdev-clean'
    subprocess.run([clean, '--fname', copy], cwd=root, check=True, capture_output=True)
    p = dataclasses.replace(P, settings=dict(steps=5, pause=0.))
    assert sweep([p], tmp_path/'runs', copy, progress='none').exit_code == 0
    assert set(Run(tmp_path/'runs', p).table('curves').step) == {5}

def test_notebook_that_ignores_its_parameters_is_caught(tmp_path):
    def edit(nb): nb.cells[3].source = 'plr = .7\n' + nb.cells[3].source
    result = sweep([P], tmp_path/'runs', changed(tmp_path, edit), progress='none')
    assert 'ran something else than was asked' in result.failed[0].error

def untag(nb): nb.cells[2].metadata = {}
def extra(nb): nb.cells[2].source += '\nelr: float = .1  # not in the protocol'

@pytest.mark.parametrize('edit,protocol,part', [
    (untag, P, "no readable cell tagged 'parameters'"),
    (extra, P, "declares ['elr']"),
    (lambda nb: None, dataclasses.replace(P, settings=dict(steps=3, pause=0., wait=3)), "unknown parameters ['wait']"),
    (lambda nb: None, dataclasses.replace(P, settings=dict(steps=3)), "declares ['pause']")])
def test_refused_before_any_work(tmp_path, edit, protocol, part):
    with pytest.raises(InputError) as e: sweep([P, protocol], tmp_path/'runs', changed(tmp_path, edit), progress='none')
    assert part in str(e.value) and 'changed.ipynb' in str(e.value) and not (tmp_path/'runs').exists()

@pytest.mark.parametrize('kw,part', [
    (dict(workers=0), 'workers: expected'),
    (dict(template='nowhere.ipynb'), 'no such notebook'),
    (dict(progress='loud'), 'progress: expected'),
    (dict(root=str(TINY)), 'cannot keep runs there')])
def test_bad_arguments(tmp_path, kw, part):
    with pytest.raises(InputError, match=part): sweep([P], **(dict(root=tmp_path, template=TINY) | kw))
    with pytest.raises(InputError, match='expected protocols'): sweep(['P'], tmp_path, TINY)
    with pytest.raises(InputError, match='no protocol'): sweep([], tmp_path, TINY)

def test_foreign_kernel_is_refused(tmp_path, monkeypatch):
    spec = tmp_path/'kernels/python3'
    spec.mkdir(parents=True)
    argv = '["/elsewhere/bin/python", "-m", "ipykernel_launcher"]'
    (spec/'kernel.json').write_text(f'{{"argv": {argv}, "display_name": "x", "language": "python"}}')
    monkeypatch.setenv('JUPYTER_PATH', str(tmp_path))
    with pytest.raises(InputError, match='starts /elsewhere/bin/python'): checks.check_kernel()

@pytest.mark.parametrize('failures,fine', [(2, True), (3, False)])
def test_only_a_kernel_that_did_not_start_is_tried_again(tmp_path, monkeypatch, failures, fine):
    calls = []
    real = Kernels.manager
    def flaky(self, *args):
        calls.append(args)
        if len(calls) <= failures: raise RuntimeError('Kernel died before replying to kernel_info')
        return real(self, *args)
    monkeypatch.setattr(Kernels, 'manager', flaky)
    failure = execute(Job(Run(tmp_path, P), 'run'), TINY, Kernels())
    assert len(calls) == 3 and (failure is None) == fine
    if not fine: assert 'the kernel did not start: Kernel died before replying' in str(failure)

def test_own_environment_one_thread_and_the_folder_of_the_notebook(tmp_path, monkeypatch):
    "The working folder of the sweeping process is not touched: its threads share it"
    here, moved = str(Path.cwd()), []
    monkeypatch.setattr(os, 'chdir', moved.append)
    checks = f"""import os, sys
assert os.environ['OMP_NUM_THREADS'] == '1'
assert sys.prefix == {sys.prefix!r}
assert os.getcwd() == {str(tmp_path)!r}
"""
    def edit(nb): nb.cells[3].source = checks + nb.cells[3].source
    assert sweep([P], tmp_path/'runs', changed(tmp_path, edit), progress='none').exit_code == 0
    assert set(moved) <= {here}

@pytest.mark.parametrize('name', ['a {b} c', 'it\'s "w"', '100% #1'])
def test_folders_with_letters_that_mean_something_elsewhere(tmp_path, name):
    "braces are papermill's, quotes Python's"
    result = quick(GRID[:1], tmp_path/name)
    assert result.exit_code == 0 and (result.ran[0]/'notebook.ipynb').exists() and (tmp_path/name).is_dir()
