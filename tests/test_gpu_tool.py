"""What waits for a GPU is one call: refused without one, and otherwise it ends with tables, goes on where it stopped, and adds to what is published."""
import importlib.util, json
import pytest, torch
from understanding_lrs import bench
from understanding_lrs.runs import read_published

@pytest.fixture
def tool(root, tmp_path, monkeypatch):
    spec = importlib.util.spec_from_file_location('gpu_tool', root/'tools/gpu.py')
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, 'ProcessPoolExecutor', _Here)
    places = ['--runs', str(tmp_path/'runs'), '--out', str(tmp_path/'data')]
    def call(*words): module.main([*words, *places], needs_gpu=False)
    call.module = module
    return call

class _Here: # an executor that works at once, in this process
    def __init__(self, *a, **kw): pass
    def __enter__(self): return self
    def __exit__(self, *a): pass
    def submit(self, f, *a):
        from concurrent.futures import Future
        done = Future()
        try: done.set_result(f(*a))
        except Exception as e: done.set_exception(e)
        return done

SMOKE = '--study', 'convnetsi32_cifar10', '--preset', 'smoke', '--skip', 'checks', 'bench'

def test_runs_end_in_tables_and_are_not_done_twice(tool, tmp_path, capsys):
    tool(*SMOKE, '--minutes', '5')
    first = capsys.readouterr().out
    assert first.count(': is done') == 2 and '2 runs of 2' in first
    tables = read_published(tmp_path/'data/convnetsi32_cifar10/smoke')
    assert len(tables['runs']) == 2 and {'metrics', 'geometry', 'bands'} <= {*tables}
    tool(*SMOKE)
    assert '2 runs are published already' in (again := capsys.readouterr().out) and 'is done' not in again

def test_time_that_is_over_stops_a_run_where_it_goes_on(tool, tmp_path, capsys):
    tool(*SMOKE, '--minutes', '0.001')
    assert 'stopped at a checkpoint' in (out := capsys.readouterr().out) and 'no further run is finished' in out
    tool(*SMOKE, '--minutes', '5')
    assert '2 runs of 2' in capsys.readouterr().out

def test_runs_on_another_machine_are_added(tool, tmp_path, capsys):
    "the run folders of the first time are gone"
    import shutil
    tool(*SMOKE, '--minutes', '5')
    folder = tmp_path/'data/convnetsi32_cifar10/smoke'
    before = {f.name: f.read_bytes() for f in folder.iterdir()}
    from understanding_lrs.runs import find_runs, publish
    a, b = find_runs(tmp_path/'runs')
    publish([a], folder, preset='smoke')
    shutil.rmtree(a.folder)
    tool(*SMOKE, '--minutes', '5')
    assert {f.name: f.read_bytes() for f in folder.iterdir()} == before

def test_a_run_that_fails_does_not_take_the_others_along(tool, tmp_path, monkeypatch, capsys):
    "nor does a folder that is damaged; the end says so"
    from understanding_lrs import picture_lives
    whole = picture_lives.PictureLife.finetune
    def broken(self):
        if self.protocol.plr == 1e-4: raise RuntimeError('a chip is hot')
        return whole(self)
    monkeypatch.setattr(picture_lives.PictureLife, 'finetune', broken)
    (tmp_path/'runs/convnetsi32_cifar10/plr=odd').mkdir(parents=True)
    (tmp_path/'runs/convnetsi32_cifar10/plr=odd/protocol.json').write_text('{')
    with pytest.raises(SystemExit, match='1 runs failed'): tool(*SMOKE, '--minutes', '5')
    out = capsys.readouterr().out
    assert 'RuntimeError: a chip is hot' in out and '1 runs of 2' in out and len(read_published(tmp_path/'data/convnetsi32_cifar10/smoke')['runs']) == 1

def test_a_broken_pool_ends_it_with_tables(tool, tmp_path, monkeypatch, capsys):
    from concurrent.futures.process import BrokenProcessPool
    class Breaks(_Here):
        def submit(self, f, p, *a): return super().submit(f, p, *a) if p.plr == 1e-4 else super().submit(self.end)
        def end(self): raise BrokenProcessPool('a process was killed')
    monkeypatch.setattr(tool.module, 'ProcessPoolExecutor', Breaks)
    with pytest.raises(SystemExit, match='1 runs failed'): tool(*SMOKE, '--minutes', '5')
    assert '1 runs of 2' in capsys.readouterr().out

def test_a_benchmark_is_written_once(tool, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(bench, 'gpu', lambda **kw: dict(rows=[dict(way='x')]))
    monkeypatch.setattr(bench, 'precision_effect', lambda *a: dict(rows=[]))
    for _ in range(2): tool('--skip', 'checks', 'runs')
    assert json.loads((tmp_path/'data/bench/gpu.json').read_bytes()) == dict(rows=[dict(way='x')])
    assert capsys.readouterr().out.count('gpu.json: written') == 1

@pytest.mark.parametrize('words, said', [(('--minutes', '0'), '--minutes must be above 0'), (('--together', '0'), 'at least 1')])
def test_senseless_words_are_refused(tool, words, said, capsys):
    with pytest.raises(SystemExit): tool(*words)
    assert said in capsys.readouterr().err

@pytest.mark.parametrize('words, said', [(('--preset', 'shrt'), "did you mean 'short'"), (('--study', 'vit_cifar'), "did you mean 'vit_cifar10"),
                                         ((*SMOKE[:4], '--data', 'nowhere/pictures'), 'no folder')])
def test_what_is_wrong_is_said_before_any_work(tool, monkeypatch, words, said):
    for work in ('checks', 'measure', 'runs'): monkeypatch.setattr(tool.module, work, lambda *a: pytest.fail('work was begun'))
    with pytest.raises(SystemExit, match=said): tool(*words)

@pytest.mark.skipif(torch.cuda.is_available(), reason='there is a GPU')
def test_without_a_gpu_it_says_so(root):
    import subprocess, sys
    out = subprocess.run([sys.executable, str(root/'tools/gpu.py')], capture_output=True, text=True)
    assert out.returncode == 1 and 'finds no GPU here' in out.stderr and 'Traceback' not in out.stderr
