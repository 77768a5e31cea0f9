"""The command line: 0 fine, 1 failed runs, 2 wrong input in one line on stderr; a finished verb leaves what it says."""
import json, resource, subprocess, sys
from pathlib import Path
from types import SimpleNamespace
import pytest
from understanding_lrs import runs
from understanding_lrs.cli import main
from understanding_lrs.runs import Protocol, Run, check_settings, pick, read_published

SETTINGS = dict(steps=3, pause=0.)

def fake_studies():
    "A registry with one study that is lived by the tiny notebook"
    preset = SimpleNamespace(doc='for tests', minutes=.1, plrs=(.1, .2), variants=({},))
    means = lambda tables: tables['metrics'].groupby('plr').value.mean()
    rows = lambda tables, study: [dict(PLR=plr, test=f'{v:.1f}') for plr, v in means(tables).items()]
    tiny = SimpleNamespace(id='tiny', title='A tiny study', template='tests/tiny_plr.ipynb', needs='',
                           presets=dict(smoke=preset, laptop=preset), summary=rows)
    known = dict(tiny=tiny)
    def study_of(id): return known[pick(id, known, 'study')]
    def protocols(study, name, plrs=None, data_seeds=(1,), train_seeds=(1,), overrides=None):
        p = study_of(study).presets[pick(name, study_of(study).presets, 'preset')]
        settings = check_settings(overrides or {}, SETTINGS)
        return [Protocol(study, plr, [.01], [], data_seeds, train_seeds, settings=settings) for plr in plrs or p.plrs]
    return SimpleNamespace(STUDIES=known, study_of=study_of, protocols=protocols)

@pytest.fixture
def ulrs(monkeypatch, tmp_path, capsys):
    "Run a command in an empty folder: code, output, errors"
    monkeypatch.setitem(sys.modules, 'understanding_lrs.studies', fake_studies())
    monkeypatch.chdir(tmp_path)
    def run(words):
        code = main(words.split())
        return code, *capsys.readouterr()
    return run

@pytest.mark.parametrize('words,part', [
    ('sweep tinny', "unknown study 'tinny'; did you mean 'tiny'?"),
    ('sweep tiny --preset smok', "unknown preset 'smok'; did you mean 'smoke'?"),
    ('sweep tiny --plr abc', "plr must be a positive number, got 'abc'"),
    ('sweep tiny --plr 0', "plr must be a positive number, got '0'"),
    ('sweep tiny --plr nan', "plr must be a positive number, got 'nan'"),
    ('sweep tiny --plr=-1', "plr must be a positive number, got '-1'"),
    ('sweep tiny --data-seeds 3..1', 'range 3..1 is empty'),
    ('sweep tiny --data-seeds 1,1', 'data_seeds must be distinct'),
    ('sweep tiny --set stps=3', "unknown setting 'stps'; did you mean 'steps'?"),
    ('sweep tiny --set steps', "expected name=value, got 'steps'"),
    ('sweep tiny --set steps=x', "steps: expected int (like 3), got 'x'"),
    ('sweep tiny --workers 0', 'workers: expected a whole number'),
    ('status tinny', "did you mean 'tiny'?"),
    ('tables tiny --out x', 'no finished run in runs; first: ulrs sweep tiny'),
    ('tables tinny --out x --preset smoke', "did you mean 'tiny'?"),
    ('bench tiny', "unknown benchmark 'tiny'")])
def test_wrong_input_is_one_line(ulrs, words, part):
    code, out, err = ulrs(words)
    assert (code, out) == (2, '') and err.startswith('ulrs: ') and part in err and err.count('\n') == 1

@pytest.mark.parametrize('words', ['sweep', 'swep tiny', 'sweep tiny --nonsense', 'sweep tiny --workers x'])
def test_usage_errors(ulrs, words):
    code, out, err = ulrs(words)
    assert code == 2 and 'Traceback' not in err

@pytest.mark.parametrize('verb', ['studies', 'sweep', 'status', 'tables', 'figures', 'bench'])
def test_help_of_the_final_verbs(ulrs, verb): assert ulrs(f'{verb} --help')[0] == 0

def test_lists_studies(ulrs):
    code, out, _ = ulrs('studies')
    assert code == 0 and 'tiny: A tiny study' in out and 'smoke' in out and 'for tests' in out

def test_sweep_from_plan_to_tables(ulrs, tmp_path):
    code, out, _ = ulrs('sweep tiny --preset smoke --dry-run')
    assert code == 0 and '2 to do, 0 done' in out and not (tmp_path/'runs').exists()
    code, out, err = ulrs('sweep tiny --preset smoke')
    assert code == 0 and '2 ran, 0 were done, 0 failed' in out and '[2/2]' in err
    assert 'PLR' in out and 'notebook.ipynb' in out
    assert ulrs('sweep tiny --preset smoke')[1].startswith('0 ran, 2 were done')
    assert ulrs('status')[:2] == (0, 'tiny: 2 done, 0 partial, 0 damaged; 2 networks\n')
    code, out, _ = ulrs('sweep tiny --preset smoke --data-seeds 1..3 --dry-run')
    assert 'd2-3_t1' in out and '2 to do, 2 done' in out
    code, out, _ = ulrs('tables tiny --preset smoke --out here')
    assert code == 0 and set(read_published(tmp_path/'here')) == {'metrics', 'curves', 'runs'}

def test_failed_run_is_exit_code_1(ulrs):
    code, out, err = ulrs('sweep tiny --plr .1,2')
    assert code == 1 and '1 ran, 0 were done, 1 failed' in out and 'In [5], RuntimeError: diverged' in out
    assert '1 of 2 runs are not finished' in out and 'Traceback' not in out + err

def test_set_takes_effect(ulrs, tmp_path):
    assert ulrs('sweep tiny --plr 1e-1 --set steps=5')[0] == 0
    run, = runs.find_runs(tmp_path/'runs')
    assert run.protocol.settings['steps'] == 5 and set(run.table('curves').step) == {5}

def test_damaged_and_partial_runs_are_listed(ulrs, tmp_path):
    a, b = (Run('runs', Protocol('tiny', plr)).start() for plr in (.1, .2))
    a.progress('finetune', 3, 11)
    (b/'protocol.json').write_text('{')
    code, out, _ = ulrs('status')
    assert code == 0 and '0 done, 1 partial, 1 damaged' in out
    assert 'finetune 3/11' in out and 'protocol.json: unreadable' in out

def test_figures_are_drawn_from_what_is_there(ulrs, monkeypatch):
    drawn = []
    plots = SimpleNamespace(draw=lambda study, source, out, preset: drawn.append((study, sorted(source), out, preset)) or [out/'a.svg'])
    monkeypatch.setitem(sys.modules, 'understanding_lrs.plots', plots)
    assert 'nothing to draw in runs' in ulrs('figures')[2]
    run = Run('runs', fake_studies().protocols('tiny', 'smoke')[0]).start()
    run.finish({})
    code, out, err = ulrs('figures --preset smoke')
    assert code == 0 and drawn == [('tiny', ['runs'], Path('runs/tiny/smoke/figures'), 'smoke')] and 'a.svg' in out
    assert 'note: 1 of 2 runs are not finished' in err

def test_bench_prints_json(ulrs, monkeypatch):
    result = dict(rows=[dict(models=50, us=3.1)], peak_mib=200.)
    monkeypatch.setitem(sys.modules, 'understanding_lrs.bench', SimpleNamespace(synthetic=lambda: result))
    assert json.loads(ulrs('bench --json')[1]) == result
    assert 'peak_mib' in ulrs('bench synthetic')[1]

def test_missing_room_is_one_line(ulrs, monkeypatch):
    monkeypatch.setitem(sys.modules, 'understanding_lrs.plots', None)
    code, _, err = ulrs('figures tiny')
    assert code == 2 and 'this version has no plots' in err

def test_status_of_a_thousand_runs_is_fast_and_light(tmp_path, monkeypatch):
    monkeypatch.setattr(runs.os, 'fsync', lambda fd: None)
    data = b'plr,value\n' + b'0.1,97.1234\n' * 10_000
    for i in range(1000):
        p = Protocol('tiny', 1e-4*(i+1), data_seeds=range(1, 11), settings={f's{j}': j for j in range(20)})
        run = Run(tmp_path, p).start()
        (run/'metrics.csv').write_bytes(data)
        run._seal(['metrics.csv', 'protocol.json'])
    code = f"""
import sys
from understanding_lrs.cli import main
main(['status', '--runs', {str(tmp_path)!r}])
sys.exit('torch' in sys.modules)"""
    used = lambda: sum(resource.getrusage(resource.RUSAGE_CHILDREN)[:2])
    before = used()
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True)
    assert done.returncode == 0 and '1000 done' in done.stdout
    assert used() - before < 2 # processor seconds: other work on the machine does not count
