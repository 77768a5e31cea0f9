"""The command line: 0 fine, 1 failed runs, 2 wrong input in one line on stderr; a finished verb leaves what it says."""
import json, resource, shlex, subprocess, sys
from pathlib import Path
from types import SimpleNamespace
import pytest
from understanding_lrs.core import files
from understanding_lrs.runs import records
from understanding_lrs.app.cli import main
from understanding_lrs.core.checks import check_settings, pick
from understanding_lrs.runs.find import find_runs
from understanding_lrs.runs.protocol import Protocol
from understanding_lrs.runs.published import read_published
from understanding_lrs.runs.store import Run

SETTINGS = dict(steps=3, pause=0.)

def fake_studies():
    "A registry with one study that is lived by the tiny notebook"
    preset = SimpleNamespace(doc='for tests', minutes=.1, mib=600., plrs=(.1, .2), data_seeds=(1,), variants=({},))
    untold = SimpleNamespace(**vars(preset) | dict(mib=0., data_seeds=()))
    tiny = SimpleNamespace(id='tiny', title='A tiny study', data='none', template='nbs/experiments/tiny_plr.ipynb', needs='', per_gpu=0,
                           presets=dict(smoke=preset, laptop=preset, untold=untold))
    known = dict(tiny=tiny)
    def study_of(id): return known[pick(id, known, 'study')]
    def protocols(study, name, plrs=None, data_seeds=(1,), train_seeds=(1,), overrides=None):
        if data_seeds is None: data_seeds = (1,)
        p = study_of(study).presets[pick(name, study_of(study).presets, 'preset')]
        settings = check_settings(overrides or {}, SETTINGS)
        return [Protocol(study, plr, [.01], [], data_seeds, train_seeds, settings=settings) for plr in plrs or p.plrs]
    return SimpleNamespace(STUDIES=known, study_of=study_of, protocols=protocols, resolved=lambda wanted, here=True, read=True: wanted)

def fake_summary(tables, study):
    "One row a learning rate of the tiny study"
    means = tables['metrics'].groupby('plr').value.mean()
    return [dict(PLR=plr, test=f'{v:.1f}') for plr, v in means.items()]

@pytest.fixture
def ulrs(monkeypatch, tmp_path, capsys):
    "Run a command in an empty folder: code, output, errors"
    monkeypatch.setitem(sys.modules, 'understanding_lrs.studies.registry', fake_studies())
    monkeypatch.setitem(sys.modules, 'understanding_lrs.analysis.summaries', SimpleNamespace(summary=fake_summary))
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
    ('sweep tiny --seeds 1..3 --data-seeds 1', '--seeds and --data-seeds say the same: choose one of them'),
    ('sweep tiny --preset untold --seeds 1 --train-seeds 1', '--seeds and --train-seeds say the same'),
    ('sweep tiny --seeds 3..1', 'data_seeds: range 3..1 is empty'),
    ('sweep tiny --set stps=3', "unknown setting 'stps'; did you mean 'steps'?"),
    ('sweep tiny --set steps', "expected name=value, got 'steps'"),
    ('sweep tiny --set steps=x', "steps: expected int (like 3), got 'x'"),
    ('sweep tiny --workers 0', 'workers: expected a whole number'),
    ('status tinny', "did you mean 'tiny'?"),
    ('tables tiny --out x', 'no finished run in runs; first: ulrs sweep tiny'),
    ('tables tinny --out x --preset smoke', "did you mean 'tiny'?"),
    ('bench tiny', "unknown benchmark 'tiny'"),
    ('sweep tiny --time-limit soon', "expected a time such as 45s, 30m or 1h30m, got 'soon'"),
    ('sweep tiny --time-limit 0', "got '0'"),
    ('sweep tiny --scheduler nowhere', "expected tcp://host:port, got 'nowhere'"),
    ('sweep tiny --scheduler tcp://127.0.0.1:9 --inline', 'choose one of them'),
    ('sweep tiny --per-gpu=-1', 'per_gpu: expected a whole number'),
    ('tables tiny --out x --set steps=4', 'name the preset'), ('tables tiny --out x --seeds 1,2', 'name the preset'),
    ('bench sweep --preset laptop', '--preset is for the benchmarks paths and readings, not for sweep'),
    ('figures tiny --published --seeds 1', '--published and --seeds'),
    ('bench pictures --precision tf32', '--precision is for the benchmarks gpu and walk, not for pictures'),
    ('bench gpu --precision tf23', "unknown precision 'tf23'; did you mean 'tf32'?"),
    ('figures tiny --published --set steps=5', '--published and --set: the committed tables are drawn whole'),
    ('figures --set steps=5', '--set changes a preset of one study'),
    ('bench gpu --data here', '--data is for the benchmark precision, not for gpu'),
    ('show abc', "unknown run in runs, 'abc'"),
    ('pack a.tar', 'there is no run to pack')])
def test_wrong_input_is_one_line(ulrs, words, part):
    code, out, err = ulrs(words)
    assert (code, out) == (2, '') and err.startswith('ulrs: ') and part in err and err.count('\n') == 1

@pytest.mark.parametrize('words', ['sweep', 'swep tiny', 'sweep tiny --nonsense', 'sweep tiny --workers x'])
def test_usage_errors(ulrs, words):
    code, out, err = ulrs(words)
    assert code == 2 and 'Traceback' not in err

@pytest.mark.parametrize('verb', ['studies', 'sweep', 'status', 'show', 'tables', 'figures', 'claims', 'bench',
                                  'pack', 'unpack', 'clean', 'path', 'bands', 'read'])
def test_help_of_the_final_verbs(ulrs, verb):
    code, out, _ = ulrs(f'{verb} --help')
    assert code == 0 and f'ulrs {verb}' in out.split('\n', 3)[3] and 'Example' in out # beside the line of usage

def test_lists_studies(ulrs):
    code, out, _ = ulrs('studies')
    assert code == 0 and 'tiny: A tiny study; data none; needs no data to fetch' in out and 'MiB a run' in out
    known = [line.split() for line in out.splitlines() if 'for tests' in line]
    told, untold = ['2', '0.1', '600', 'for', 'tests'], ['2', '0.1', 'for', 'tests']
    assert known == [['smoke', *told], ['laptop', *told], ['untold', *untold]]

@pytest.mark.parametrize('words,part', [
    ('--seeds 4..5', 'd4-5_t1'), ('--preset untold --seeds 4..5', 'd1_t4-5'), ('--seeds 4 --train-seeds 2', 'd4_t2')])
def test_seeds_are_those_of_the_main_role(ulrs, words, part):
    code, out, _ = ulrs(f'sweep tiny --plr .1 --dry-run {words}')
    assert code == 0 and f'plr=1.000e-01_{part}_' in out

def test_a_plan_costs_its_share_of_the_preset(ulrs):
    for words, time in (('', '6 s'), ('--plr .1', '3 s'), ('--plr .1 --seeds 1..4', '12 s')):
        assert ulrs(f'sweep tiny --preset smoke --dry-run {words}')[1].endswith(f'about {time}\n')

def test_an_estimate_follows_the_settings(ulrs):
    for words, time in (('--set steps=6', '12 s'), ('--set steps=30 --plr .1', '30 s')):
        assert ulrs(f'sweep tiny --preset smoke --dry-run {words}')[1].endswith(f'about {time}\n')

def finished_run(p):
    import pandas as pd
    run = Run('runs', p).start()
    run.write_table('metrics', pd.DataFrame([dict(run=p.short, plr=p.plr, value=1.)]))
    run.finish({})
    return run

def test_finished_runs_are_told_apart_by_what_they_are(ulrs):
    from understanding_lrs.app.run_sets import sets_of
    made = lambda plr, **settings: finished_run(Protocol('tiny', plr, [.01], data_seeds=[1], train_seeds=[1], settings=SETTINGS | settings)).protocol
    smoke = [made(.1), made(.2)]
    names = lambda: {name: [r.protocol for r in found] for name, (found, _) in sets_of('runs', 'tiny').items()}
    assert names() == dict(smoke=smoke)
    five = made(.1, steps=5)
    assert names() == dict(smoke=smoke, custom=[five])
    seven = [made(.1, steps=7), made(.3, steps=7)]
    assert names() == {'smoke': smoke, 'custom_steps=5': [five], 'custom_steps=7': seven}
    assert [p.key for p in sets_of('runs', 'tiny')['smoke'][1]] == [p.key for p in smoke]

def test_show_takes_what_a_sweep_printed(ulrs, tmp_path):
    run = finished_run(Protocol('tiny', .1, [.01], data_seeds=[1], train_seeds=[1], settings=SETTINGS))
    (run/'notebook.ipynb').write_text('{}')
    for words in (run/'notebook.ipynb', run.folder, run.folder.absolute(), run.folder.name, run.protocol.short):
        code, out, _ = ulrs(f'show {words}')
        assert code == 0 and f'key: {run.protocol.key}' in out
    code, _, err = ulrs(f'show {run.folder.name[:-1]}x')
    assert code == 2 and f"did you mean '{run.folder.name}'?" in err

@pytest.mark.parametrize('columns', [60, 80, 130])
def test_claims_take_a_line_each(columns, monkeypatch, capsys):
    import pandas as pd
    from understanding_lrs.app.cli_evidence import claim_lines
    from understanding_lrs.app.terminal import print_lines
    monkeypatch.setenv('COLUMNS', str(columns))
    rows = [dict(claim=f'C{i}', statement='a statement that is longer than any terminal ' * 4, study='synthetic', preset=preset,
                 verdict='reproduced' if i > 1 else f'seen at {preset}') for i in (1, 2, 13) for preset in ('laptop', 'paper', 'paper')]
    print_lines(claim_lines(pd.DataFrame(rows)))
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 4 and max(map(len, lines)) <= columns
    assert lines[2].split()[:2] == ['C2', 'reproduced'] and lines[1].startswith('C1') and ('synthetic laptop' in lines[1]) == (columns > 110)

def test_suggested_commands_can_be_pasted(ulrs, capsys):
    finished_run(Protocol('tiny', .1, [.01], data_seeds=[1], train_seeds=[1], settings=SETTINGS))
    Path('runs').rename('my runs')
    assert main(['sweep', 'tiny', '--plr', '.1', '--runs', 'my runs']) == 0
    hint = next(line for line in capsys.readouterr().out.splitlines() if line.strip().startswith('ulrs figures'))
    assert shlex.split(hint)[-2:] == ['--runs', 'my runs']

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
    run, = find_runs(tmp_path/'runs')
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
    register = SimpleNamespace(draw_study=lambda study, source, out, preset, wanted, replace: drawn.append((study, sorted(source), out, preset, len(wanted))) or [out/'a.svg'])
    monkeypatch.setitem(sys.modules, 'understanding_lrs.figures.registry', register)
    assert 'nothing to draw in runs' in ulrs('figures')[2]
    run = Run('runs', fake_studies().protocols('tiny', 'smoke')[0]).start()
    run.finish({})
    code, out, err = ulrs('figures --preset smoke')
    assert code == 0 and drawn == [('tiny', ['runs'], Path('runs/tiny/smoke/figures'), 'smoke', 2)] and 'a.svg' in out
    assert 'note: 1 of 2 runs are not finished' in err

def test_bench_prints_json(ulrs, monkeypatch):
    result = dict(rows=[dict(models=50, us=3.1)], peak_mib=200.)
    rows = dict(sweeps=lambda: dict(rows=[dict(workers=2)]), synthetic=lambda: result)
    rows |= {name: lambda **kw: dict(rows=[kw]) for name in ('precision_effect', 'readings')}
    for family in ('synthetic', 'use', 'precision', 'probes'):
        monkeypatch.setitem(sys.modules, f'understanding_lrs.app.bench_{family}', SimpleNamespace(**rows))
    assert json.loads(ulrs('bench --json')[1]) == result
    assert 'peak_mib' in ulrs('bench synthetic')[1] and 'workers' in ulrs('bench sweep')[1]
    assert json.loads(ulrs('bench precision --data here --json')[1])['rows'] == [dict(pictures='here')]
    assert json.loads(ulrs('bench readings --preset laptop --json')[1])['rows'] == [dict(preset='laptop')]

def test_missing_room_is_one_line(ulrs, monkeypatch):
    monkeypatch.setitem(sys.modules, 'understanding_lrs.figures.registry', None)
    code, _, err = ulrs('figures tiny')
    assert code == 2 and 'this version has no figures.registry' in err

def test_status_of_a_thousand_runs_is_fast_and_light(tmp_path, monkeypatch):
    monkeypatch.setattr(files.os, 'fsync', lambda fd: None)
    data = b'plr,value\n' + b'0.1,97.1234\n' * 10_000
    for i in range(1000):
        p = Protocol('tiny', 1e-4*(i+1), data_seeds=range(1, 11), settings={f's{j}': j for j in range(20)})
        run = Run(tmp_path, p).start()
        (run/'metrics.csv').write_bytes(data)
        run.seal(['metrics.csv', 'protocol.json'])
    code = f"""
import sys
from understanding_lrs.app.cli import main
main(['status', '--runs', {str(tmp_path)!r}])
sys.exit('torch' in sys.modules)"""
    used = lambda: sum(resource.getrusage(resource.RUSAGE_CHILDREN)[:2])
    before = used()
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True)
    assert done.returncode == 0 and '1000 done' in done.stdout
    assert used() - before < 2 # processor seconds: other work on the machine does not count

def some(n=3, seeds=(1,)):
    "Finished runs of the preset, made without a kernel"
    import pandas as pd
    made = []
    for p in fake_studies().protocols('tiny', 'smoke', plrs=[.1, .2, .3][:n], data_seeds=seeds):
        run = Run('runs', p).start()
        run.write_table('metrics', pd.DataFrame([dict(run=p.short, plr=p.plr, data_seed=s, metric='test_acc', value=89. + s) for s in seeds]))
        run.finish(dict(seconds=1.))
        made.append(run)
    return made

def test_show(ulrs):
    run, *_ = some()
    for words in (run.protocol.short, run.folder.name, f'runs/tiny/{run.folder.name}', 'plr=1.000e-01'):
        code, out, _ = ulrs(f'show {words}')
        assert code == 0 and 'done' in out and run.protocol.key in out and 'tables: metrics' in out and 'torch' in out
    assert 'write more of it' in ulrs('show plr')[2]

def test_pack_here_unpack_there(ulrs, tmp_path):
    some()
    assert ulrs('pack a.tar.gz --study tiny')[:2][0] == 0
    code, out, _ = ulrs('unpack a.tar.gz --runs there')
    assert code == 0 and out.count('done, new') == 3
    assert '3 done' in ulrs('status --runs there --deep')[1]
    (tmp_path/'a.tar.gz').write_bytes(b'no tar')
    code, _, err = ulrs('unpack a.tar.gz')
    assert code == 2 and err.count('\n') == 1 and 'not a whole pack' in err

def test_clean_asks_and_spares_finished_runs(ulrs, monkeypatch):
    some()
    Run('runs', Protocol('tiny', .9)).start()
    code, _, err = ulrs('clean')
    assert code == 2 and 'say so with --yes' in err and len(find_runs('runs')) == 4
    monkeypatch.setattr(sys, 'stdin', SimpleNamespace(isatty=lambda: True, readline=lambda *_: 'n\n'))
    monkeypatch.setattr('typer.confirm', lambda text: False)
    assert 'nothing was deleted' in ulrs('clean')[1] and len(find_runs('runs')) == 4
    assert '1 runs deleted' in ulrs('clean --yes')[1] and len(find_runs('runs')) == 3
    assert 'nothing to clean' in ulrs('clean --yes')[1]
    assert '3 runs deleted' in ulrs('clean --finished --yes')[1] and not find_runs('runs')

def test_clean_leaves_a_run_alone_that_is_written(ulrs):
    run = Run('runs', Protocol('tiny', .9))
    with run.lock():
        run.start()
        assert '1 running' in ulrs('status')[1] and 'nothing to clean' in ulrs('clean --yes')[1]
    assert '1 partial' in ulrs('status')[1]

def test_status_deep_reads_every_byte(ulrs, monkeypatch):
    monkeypatch.setattr(records, 'SMALL', 10)
    run = some(1)[0]
    data = (run/'metrics.csv').read_bytes()
    (run/'metrics.csv').write_bytes(data.replace(b'90', b'91'))
    assert '1 done' in ulrs('status')[1] and '1 damaged' in ulrs('status --deep')[1]

def preset_of(out): return json.loads((Path(out)/'tables.json').read_text())['preset']

def test_a_changed_preset_is_called_custom(ulrs):
    some(2)
    code, _, err = ulrs('tables tiny --preset smoke --out a')
    assert (code, err, preset_of('a')) == (0, '', 'smoke')
    code, out, _ = ulrs('sweep tiny --preset smoke --set steps=5')
    assert code == 0 and "custom: these runs are not those of the preset 'smoke'" in out and 'ulrs figures tiny --preset smoke --set steps=5' in out
    code, _, err = ulrs('tables tiny --preset smoke --set steps=5 --out b')
    assert code == 0 and 'called custom' in err and preset_of('b') == 'custom'
    assert ulrs('tables tiny --preset smoke --set steps=3 --out c')[0] == 0 and preset_of('c') == 'smoke' # not a change
    assert ulrs('tables tiny --out d')[0] == 0 and preset_of('d') == 'custom' # both together

def test_seeds_that_were_added_to_a_preset_are_taken_in_when_asked(ulrs):
    some(2); some(2, (2, 3))
    def published(words):
        code, _, err = ulrs(f'tables tiny --preset smoke --out a {words}')
        return code, err, preset_of('a'), sorted(read_published('a')['metrics'].data_seed)
    assert published('') == (0, '', 'smoke', [1, 1])
    assert published('--seeds 1..3') == (0, '', 'smoke', [1, 1, 2, 2, 3, 3]) # more seeds, the same preset
    assert published('--seeds 2,3')[2:] == ('custom', [2, 2, 3, 3])          # not all of the preset's
    out = ulrs('sweep tiny --preset smoke --seeds 2,3')[1]
    assert 'custom' not in out and 'ulrs figures tiny --preset smoke --seeds 2,3' in out

def test_tables_of_runs_from_two_machines(ulrs):
    "one after the other: the bytes of both together, and the name that both together have"
    import shutil
    a, b = some(2)
    assert ulrs('tables tiny --preset smoke --out whole')[0] == 0
    shutil.move(b.folder, 'away')
    assert ulrs('tables tiny --out grown')[0] == 0 and preset_of('grown') == 'custom'
    shutil.move('away', b.folder); shutil.rmtree(a.folder)
    assert ulrs('tables tiny --out grown --add')[0] == 0 and preset_of('grown') == 'smoke'
    for file in Path('whole').iterdir(): assert file.read_bytes() == (Path('grown')/file.name).read_bytes()
    code, _, err = ulrs('tables tiny --out grown --add')
    assert code == 0 and len(read_published('grown')['runs']) == 2

def test_published_runs_are_left_out_when_asked(ulrs, tmp_path, monkeypatch):
    from understanding_lrs.app import cli_sweep
    some(1)
    assert ulrs('tables tiny --out figures/data/tiny/smoke')[0] == 0
    assert ulrs('clean --finished --yes')[0] == 0
    monkeypatch.setattr(cli_sweep, 'committed', lambda path: tmp_path/path)
    assert '2 to do, 0 done;' in ulrs('sweep tiny --preset smoke --dry-run')[1]
    assert '1 to do, 0 done, 1 published' in ulrs('sweep tiny --preset smoke --dry-run --skip-published')[1]

def test_retry_failed(ulrs):
    assert ulrs('sweep tiny --plr 2')[0] == 1
    out = ulrs('sweep tiny --plr .1,2 --retry-failed --dry-run')[1]
    assert '1 to do, 0 done' in out and 'plr=2.000e+00' in out

def test_a_folder_that_cannot_be_written(ulrs, tmp_path):
    (tmp_path/'runs').write_text('a file')
    code, out, err = ulrs('sweep tiny')
    assert (code, out, err.count('\n')) == (2, '', 1) and 'cannot keep runs there' in err

def test_outside_a_checkout(ulrs, monkeypatch, tmp_path):
    "A package without experiment notebooks, with no checkout around it: status, tables and the like work all the same"
    import understanding_lrs
    some(1)
    monkeypatch.setattr(understanding_lrs, '__file__', str(tmp_path/'site-packages/understanding_lrs/__init__.py'))
    code, out, err = ulrs('sweep tiny')
    assert (code, out, err.count('\n')) == (2, '', 1) and 'run from a clone of it' in err
    assert '1 done' in ulrs('status')[1] and ulrs('tables tiny --out x')[0] == 0

def test_a_newer_run_is_named_and_left_alone(ulrs):
    run = Run('runs', fake_studies().protocols('tiny', 'smoke')[0]).start()
    (run/'protocol.json').write_text((run/'protocol.json').read_text().replace('"schema": 1', '"schema": 2'))
    code, out, err = ulrs('sweep tiny --preset smoke')
    assert code == 2 and 'update the package' in err and err.count('\n') == 1
    assert '1 newer' in ulrs('status')[1] and 'nothing to clean' in ulrs('clean --yes')[1]

@pytest.mark.parametrize('words,part', [('sweep ', 'tiny'), ('sweep tiny --preset ', 'smoke'), ('', 'unpack'), ('show ', 'plr=1.000e-01')])
def test_shell_completion(ulrs, monkeypatch, words, part):
    some(1)
    monkeypatch.setenv('_ULRS_COMPLETE', 'complete_bash')
    monkeypatch.setenv('COMP_WORDS', f'ulrs {words}')
    monkeypatch.setenv('COMP_CWORD', str(1 + words.count(' ')))
    assert part in ulrs('')[1]
