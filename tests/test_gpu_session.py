"""A GPU session ends in time, leaves complete runs and readable files whatever fails, and its runs are the ordinary ones."""
import json, os, subprocess, sys
from dataclasses import replace
import pytest, torch
from conftest import patience
from understanding_lrs.app import gpu_measure, gpu_plan, gpu_session, gpu_transport, gpu_waves
from understanding_lrs.app.gpu_measure import SideProcess
from understanding_lrs.app.gpu_plan import SessionConfig, SimulatedClock
from understanding_lrs.app.gpu_session import REHEARSAL, Folders, GpuSession, rehearse, run_session
from understanding_lrs.app.gpu_transport import FILES, archives, bring_home, read_log
from understanding_lrs.studies import array_trial, trial as trials
from understanding_lrs.studies.images import NESTED
from understanding_lrs.core.errors import InputError
from understanding_lrs.runs.archives import unpack
from understanding_lrs.runs.find import find_runs
from understanding_lrs.runs.published import read_published
from understanding_lrs.runs.store import Run
from understanding_lrs.probes.context import PROBES
from understanding_lrs.studies.trial import live
from understanding_lrs.studies.registry import protocols

COSTS = dict(epoch=.5, probes=1., measure=20., images=5., check=5.) # seconds; a trial of the rehearsal has 6 model-epochs, so it takes 4
WAVE = 30 + 4*4 + 10 # seconds of a rehearsal with one wave of four
PAIR = 30 + 2*4 + 12 # of two

@pytest.fixture(autouse=True)
def made_up_speed(monkeypatch): monkeypatch.setattr(gpu_measure, 'timed_steps', lambda *a: (.5, 'graph'))

def events_of(folder, name): return [e for e in read_log(folder) if e['event'] == name]
def brought(home, to): return {name: said for f in sorted(home.glob('runs-*')) for name,said in unpack(f, to).items()}

@pytest.fixture(scope='module')
def whole(tmp_path_factory):
    "two waves: eight trials"
    folder = tmp_path_factory.mktemp('whole')
    clock = SimulatedClock(WAVE + 4*4 + 2, COSTS)
    with pytest.MonkeyPatch.context() as m:
        m.setattr(gpu_measure, 'timed_steps', lambda *a: (.5, 'graph'))
        rehearse(folder, clock)
    return folder, clock

# the plan

def test_the_grids_are_nested():
    "in the order of the plan; every session adds to those before"
    rates = [p.plr for p in protocols('resnet18si_cifar10', 'short')]
    assert rates == [1e-3, 1e-4, 1e-2, 3e-4, 5e-4, 3e-3, 2e-2, 1.4e-3, 1e-5, 2e-4, 7e-4, 2e-3, 5e-3, 5e-2, 1e-1, 3e-5] == [r for grid in NESTED for r in grid]
    p, = {replace(p, plr=1.) for p in protocols('resnet18si_cifar10', 'short')}
    assert {k: p.settings[k] for k in ('epochs', 'ft_epochs', 'batch', 'width', 'n_train', 'size')} == dict(
        epochs=60, ft_epochs=40, batch=128, width=32, n_train=0, size=32) and 'pad' not in p.settings and gpu_plan.model_epochs(p) == 149

@pytest.mark.parametrize('per_epoch, least', [(.5, 4), (.3, 8)])
def test_the_plan_has_the_trials_of_the_targets_and_ends_in_time(per_epoch, least):
    rows = gpu_plan.plan_rows(580, per_epoch)
    assert sum(int(r['does'][0]) for r in rows if r['step'] == 'wave') >= least and rows[-1]['ends'] <= 580
    assert all(a['ends'] == b['begins'] for a,b in zip(rows, rows[1:])) and all(r['fallback'] and r['brings'] for r in rows)
    assert next(r['begins'] for r in rows if r['step'] == 'wave') <= 120, 'the first training step'

def test_a_wave_shrinks_to_what_fits():
    assert [gpu_plan.wave_size(left, lambda k: 10.*k) for left in (-5, 10.9, 11.1, 25, 44.1, 500)] == [0, 0, 1, 2, 4, 4]
    assert gpu_plan.wave_size(60, lambda k: 30. + 5*k) == 4 and gpu_plan.wave_size(50, lambda k: 30. + 5*k) == 3, 'networks together cost less each'

# the whole of it

def test_it_ends_in_time_with_complete_runs(whole, tmp_path):
    folder, clock = whole
    assert clock.now() <= clock.end and events_of(folder/'home', 'end')[0]['trials'] == 8
    came = brought(folder/'home', tmp_path)
    assert set(came.values()) == {'done, new'} and [e['plrs'] for e in events_of(folder/'home', 'wave')] == [list(NESTED[0]), list(NESTED[1])]
    files = list((folder/'home').iterdir())
    assert len(files) <= FILES and all(f.is_file() and f.stat().st_size < 16*2**20 for f in files)

@pytest.mark.parametrize('arch', ['convnet', 'resnet18'])
def test_a_slice_is_the_ordinary_run(whole, tmp_path, request, arch):
    "same key, same tables, same bits; the convnet by the C kernel where there is one, the residual network in lanes"
    folder, _ = whole
    if arch == 'resnet18':
        request.getfixturevalue('one_wave')(settings=REHEARSAL | dict(arch='resnet18', epochs=2, n_train=70))
        folder = tmp_path
    run = next(r for r in find_runs(folder/'runs') if r.protocol.plr == 1e-4)
    alone = live(run.protocol, Run(tmp_path/'alone', run.protocol))
    assert set(alone.tables) == set(run.tables()) and run.folder.name == alone.run.folder.name
    for name in alone.tables: assert (alone.run.folder/f'{name}.csv').read_bytes() == (run.folder/f'{name}.csv').read_bytes(), name

def test_what_is_there_is_not_done_again(whole, tmp_path):
    "published"
    folder, _ = whole
    bring_home(folder/'home', tmp_path/'runs', tmp_path/'next/tables', SessionConfig())
    done = rehearse(tmp_path/'next', SimulatedClock(PAIR, COSTS))
    assert events_of(tmp_path/'next/home', 'wave')[0]['plrs'] == [1e-5, 2e-4] and done.pace.completed == 2

def test_a_wave_that_is_cut_off_leaves_the_ones_before(tmp_path):
    "training becomes slower than measured after the first two"
    class Slower(SimulatedClock):
        def spend(self, what, amount=1):
            super().spend(what, amount)
            if what == 'probes': self.costs['epoch'] = 9.
    rehearse(tmp_path, Slower(PAIR, COSTS | dict(measure=12., images=0.)), lanes=(2,), settings=REHEARSAL | dict(epochs=4))
    assert 1 <= len(brought(tmp_path/'home', tmp_path/'there')) <= 4 and events_of(tmp_path/'home', 'out of time')

# what may fail, each forced once

@pytest.fixture
def one_wave(monkeypatch, tmp_path):
    "a wave of two with few probes"
    monkeypatch.setattr(trials, 'probes_for', lambda offers: dict(filters=PROBES['filters']))
    return lambda seconds=PAIR, **config: rehearse(tmp_path, SimulatedClock(seconds, COSTS), **dict(seeds=(1,)) | config)

@pytest.mark.parametrize('call, args, words', [('gpu_measure.decode_ahead', ['no/such/folder'], 'no folder'), ('gpu_measure.pause', [600], 'not ready after')], ids=['fails', 'hangs'])
def test_compilation(one_wave, tmp_path, monkeypatch, call, args, words):
    "fails or hangs: uncompiled, and the other process is gone"
    process = SideProcess(call, args)
    if call == 'gpu_measure.pause': monkeypatch.setattr(gpu_session, 'COMPILER_SECONDS', .2)
    else: process.process.wait(patience(120))
    monkeypatch.setattr(gpu_session, 'start_compiler', lambda session: process)
    assert one_wave().pace.completed == 2 and process.ended()
    note, = events_of(tmp_path/'home', 'compile')
    assert not note['ready'] and words in note['why'] and not events_of(tmp_path/'home', 'choice')[0]['compiled']

def test_a_compiled_way_that_is_not_compiled_is_not_chosen(one_wave, tmp_path, monkeypatch):
    process = SideProcess('gpu_measure.pause', [0])
    process.process.wait(patience(120))
    monkeypatch.setattr(gpu_session, 'start_compiler', lambda session: process)
    monkeypatch.setattr(gpu_measure, 'timed_steps', lambda b, precision, way, steps: (.1, 'graph; torch.compile: no') if way.compiled else (.5, 'graph'))
    assert one_wave().pace.completed == 2
    rows = events_of(tmp_path/'home', 'speed')
    assert rows[-1]['compiled'] and rows[-1]['how'] == 'graph; torch.compile: no' and not events_of(tmp_path/'home', 'choice')[0]['compiled']

def test_capture(one_wave, tmp_path, monkeypatch):
    "fails: pre-training only, as Figure 1 needs it"
    monkeypatch.setattr(gpu_measure, 'timed_steps', lambda *a: (.5, 'eager; CUDA graph: operation not permitted'))
    real = gpu_session.choose
    monkeypatch.setattr(gpu_session, 'choose', lambda m, *a: real(replace(m, records=True), *a))
    assert one_wave().pace.completed >= 2 and events_of(tmp_path/'home', 'pre-training only')
    brought(tmp_path/'home', tmp_path/'there')
    assert {(r.protocol.flrs, r.protocol.swa_k) for r in find_runs(tmp_path/'there')} == {((), ())}

def test_memory(one_wave, tmp_path, monkeypatch):
    "is short: half the lanes, the same runs"
    real, asked = gpu_waves.trainer_like, []
    def short(stage, nets, *a, **kw):
        asked.append(len(nets))
        if len(nets) > 1: raise torch.OutOfMemoryError('CUDA out of memory')
        return real(stage, nets, *a, **kw)
    monkeypatch.setattr(gpu_waves, 'trainer_like', short)
    assert one_wave(lanes=(2,)).pace.completed == 2 and asked[:2] == [2, 1]
    assert [e['lanes'] for e in events_of(tmp_path/'home', 'out of memory')] == [1]

@pytest.fixture
def parts(tmp_path):
    "two sets of images in parts: folders of small images"
    from PIL import Image
    import numpy as np
    rng = np.random.default_rng(0)
    import pyarrow as pa, pyarrow.parquet as pq, io
    def png(k):
        out = io.BytesIO()
        Image.fromarray((rng.integers(0, 99, (8, 8, 3)) + 15*k).astype('uint8')).save(out, 'PNG')
        return out.getvalue()
    for name in ('best', 'second'):
        (tmp_path/name).mkdir()
        for half,n in (('train', 200), ('test', 80)):
            pq.write_table(pa.table(dict(img=[png(i%10) for i in range(n)], label=[i%10 for i in range(n)])), tmp_path/name/f'{half}.parquet')
        size = sum(f.stat().st_size for f in (tmp_path/name).iterdir())
        assert len(gpu_transport.split_folder(tmp_path/name, tmp_path/'parts', size//2 + 1)) == 2
    return tmp_path/'parts'

def test_images_that_are_wrong(parts, one_wave, tmp_path, monkeypatch):
    "changed on the way: the second set, under its own name; both: measurements only"
    monkeypatch.setenv('ULRS_CACHE', str(tmp_path/'cache'))
    def run(folder):
        folders = Folders(folder/'home', folder/'runs', folder/'work', folder/'tables', ('best', 'second'), parts)
        config = SessionConfig(settings=REHEARSAL, precisions=('fp32',), lanes=(2,), cpu=(), seeds=(1,))
        return run_session(GpuSession(config, folders, SimulatedClock(PAIR, COSTS)))
    (parts/'best-1of2'/'part').write_bytes(b'other')
    one = run(tmp_path/'a')
    assert one.pace.completed == 2 and one.data.startswith('second@') and 'best-1of2/part has changed' in events_of(tmp_path/'a/home', 'failed')[0]['why']
    assert {r.protocol.settings['data'] for r in find_runs(tmp_path/'a/runs')} == {one.data}
    (parts/'second-1of2'/'part').unlink()
    assert run(tmp_path/'b').pace.completed == 0 and events_of(tmp_path/'b/home', 'no images') and events_of(tmp_path/'b/home', 'speed')

def test_another_device_and_missing_packages(one_wave, tmp_path, monkeypatch):
    "are said, and the session goes on"
    known = gpu_measure.machine()
    monkeypatch.setattr(gpu_session, 'machine', lambda: known | dict(device='Tesla T4', missing=['scipy', 'triton'], compiler=''))
    assert one_wave(cpu=(('convnetsi32_cifar10', 'smoke'),)).pace.completed == 2
    said = events_of(tmp_path/'home', 'look')[0]['remarks']
    assert any('this is Tesla T4' in s for s in said) and any('scipy is missing' in s for s in said) and not events_of(tmp_path/'home', 'cores')

def test_checks_that_fail_are_reported(one_wave, tmp_path, monkeypatch):
    "and what differs is not used"
    monkeypatch.setattr(gpu_measure, 'lane_steps', lambda w, *a: [v*2 if isinstance(v, torch.Tensor) else v for v in gpu_measure.plain_steps(w, 4)])
    assert one_wave().pace.completed >= 2
    note, = events_of(tmp_path/'home', 'check')
    assert not note['good'] and note['weights'] == 1. and events_of(tmp_path/'home', 'pre-training only')

def test_a_trial_that_fails_leaves_the_others(one_wave, tmp_path, monkeypatch):
    real = array_trial.ImageTrial.finetune
    def broken(self):
        if self.protocol.plr == 1e-4: raise RuntimeError('a chip is hot')
        return real(self)
    monkeypatch.setattr(array_trial.ImageTrial, 'finetune', broken)
    assert one_wave().pace.completed >= 1 and 'a chip is hot' in events_of(tmp_path/'home', 'failed')[0]['why']
    brought(tmp_path/'home', tmp_path/'there')
    rates = [r.protocol.plr for r in find_runs(tmp_path/'there')]
    assert 1e-3 in rates and 1e-4 not in rates

# number formats

def test_a_figure_never_mixes_number_formats(whole, tmp_path):
    "tables that are there decide"
    folder, _ = whole
    bring_home(folder/'home', tmp_path/'runs', tmp_path/'tables')
    folders, clock = Folders(tmp_path/'h', tmp_path/'r', tmp_path/'w', tmp_path/'tables'), SimulatedClock(1, {})
    def fixed(**config): return gpu_session.fixed_precision(GpuSession(SessionConfig(precisions=('bf16', 'tf32'), **config), folders, clock))
    assert fixed() == 'fp32' and fixed(preset='paper') == ''

def test_the_other_format_gets_a_control(one_wave, tmp_path, monkeypatch):
    "pre-training beside the line, once"
    speed = dict(fp32=.5, bf16=.3)
    monkeypatch.setattr(gpu_measure, 'timed_steps', lambda b, precision, *a: (speed[precision], 'graph'))
    one_wave(PAIR + 8, precisions=('fp32', 'bf16'), settings=REHEARSAL | dict(arch='resnet18', n_train=70, flrs=[1e-3], swa_k=[], epochs=2))
    controls = events_of(tmp_path/'home', 'control')
    assert [(c['plr'], c['precision'], c['epochs'], len(c['train_loss'])) for c in controls] == [(3e-4, 'fp32', 2, 2), (5e-4, 'fp32', 2, 2)]
    assert {r.protocol.precision for r in find_runs(tmp_path/'runs')} == {'bf16'}

# the cores

def test_the_cores_bring_their_runs(tmp_path):
    "in the same archive"
    clock = gpu_plan.Clock(300)
    todo = gpu_waves.missing_runs((('convnetsi32_cifar10', 'smoke'),), 'digits', set())
    cores = gpu_waves.CpuRuns(todo, tmp_path/'runs', clock, 2)
    cores.poll()
    for process,_ in list(cores.running): assert process.wait(patience(240)) == ''
    cores.poll()
    assert not cores.failed and not cores.todo
    done = find_runs(tmp_path/'runs')
    assert [r.state().kind for r in done] == ['done', 'done'] \
        and not gpu_waves.missing_runs((('convnetsi32_cifar10', 'smoke'),), 'digits', {r.protocol.key for r in done})

# what comes home

def test_archives_are_split_where_one_is_too_large(whole, tmp_path):
    runs = [r for r in find_runs(whole[0]/'runs')]
    one, = archives(runs, tmp_path/'a.tar.gz')
    several = archives(runs, tmp_path/'a.tar.gz', most=len(one)//2)
    assert len(several) >= 2 and all(len(a) <= len(one)//2 for a in several)
    for i,a in enumerate(several):
        (tmp_path/f'{i}.tar.gz').write_bytes(a)
        unpack(tmp_path/f'{i}.tar.gz', tmp_path/'there')
    assert {r.protocol.key for r in find_runs(tmp_path/'there')} == {r.protocol.key for r in runs}

def test_home_is_tables_and_figures_that_say_what_is_missing(whole, tmp_path):
    from understanding_lrs.analysis.claims import verdicts
    from understanding_lrs.analysis.tables import published_tables
    from understanding_lrs.figures.view import View
    from understanding_lrs.studies.registry import STUDIES
    folder, _ = whole
    assert bring_home(folder/'home', tmp_path/'runs', tmp_path/'tables') == {'resnet18si_cifar10/short': '8 runs'}
    tables = read_published(tmp_path/'tables/resnet18si_cifar10/short')
    assert len(tables['runs']) == 8 and {'metrics', 'geometry', 'bands', 'curves'} <= set(tables)
    assert len(View(tables, STUDIES['resnet18si_cifar10'], preset='short').missing) == 8
    judged = verdicts(published_tables(tmp_path/'tables'))
    mine = judged[(judged.study == 'resnet18si_cifar10') & (judged.claim == 'C1')]
    assert len(mine) and set(mine.verdict) == {'partial grid, no verdict'}
    kept, = json.loads((tmp_path/'tables/bench/gpu_session.json').read_text())['sessions']
    assert kept['speed'][0]['share_of_memory_floor'] > 0 and kept['end'][0]['trials'] == 8

def test_killed_at_any_moment_it_leaves_readable_files(root):
    "20 random moments; at most eight files, each below 16 MiB, every run in them complete"
    out = subprocess.run([sys.executable, str(root/'tests/gpu_session_kills.py'), '20'], capture_output=True, text=True)
    assert out.returncode == 0, out.stderr[-2000:]
    found = json.loads(out.stdout.splitlines()[-1])
    assert len(found) >= 20 and sum(f['killed'] for f in found) >= 10 and any(f['runs'] for f in found) and any(not f['runs'] for f in found)

# what travels

def test_the_payload_fits(root):
    "all that git does not ignore, with one part of the pictures, below 60 MiB; parts are not too many"
    if not (root/'.git').exists(): pytest.skip('not a checkout')
    part = gpu_transport.part_size(root)
    assert gpu_transport.payload(root) + part < 60*2**20 and 14_000_000 <= part < 30_000_000

def test_parts_are_joined_by_their_hash(parts, tmp_path):
    joined = gpu_transport.join_parts(parts, 'best', tmp_path/'joined')
    assert {f.name: f.read_bytes() for f in joined.iterdir()} == {f.name: f.read_bytes() for f in (tmp_path/'best').iterdir()}
    assert len(list(parts.glob('best-*/part'))) == 2
    with pytest.raises(InputError, match='no part of third'): gpu_transport.join_parts(parts, 'third', tmp_path)
    (parts/'best-2of2'/'part').unlink()
    with pytest.raises(InputError, match='carry part 2 of 2'): gpu_transport.join_parts(parts, 'best', tmp_path)

BLOCKED = ['papermill', 'pydantic', 'fastcore', 'dask', 'distributed', 'nbdev', 'typer', 'rich', 'matplotlib', 'IPython', 'torchvision', 'PIL', 'sklearn',
           'scipy', 'pytest', 'ipywidgets', 'nbformat', 'nbconvert', 'jupyter_client', 'joblib', 'tqdm', 'requests']

def bare(root, code, *words):
    "Python with nothing but what a bare image has"
    block = ("import sys\nclass Blocked:\n    def find_spec(self, name, path=None, target=None):\n"
             f"        if name.split('.')[0] in {BLOCKED}: raise ModuleNotFoundError(f'{{name}} is blocked', name=name)\nsys.meta_path.insert(0, Blocked())\n")
    env = {**os.environ, 'PYTHONPATH': str(root), 'CUDA_VISIBLE_DEVICES': ''}
    return subprocess.run([sys.executable, '-c', block + code, *words], capture_output=True, text=True, env=env, cwd=root)

def test_a_bare_image_is_enough(root, tmp_path):
    "the plan, a measurement and a wave of pre-training with nothing but torch, numpy, pandas, pyarrow, safetensors"
    code = """
from dataclasses import replace
from pathlib import Path
from understanding_lrs.app import gpu_measure
from understanding_lrs.app.gpu_plan import SessionConfig, SimulatedClock
from understanding_lrs.app.gpu_session import REHEARSAL, Folders, GpuSession, run_session
from understanding_lrs.data.images import Images
from understanding_lrs.data.cache import save_cached, image_cache
import torch
gpu_measure.timed_steps = lambda *a: (.5, 'graph')
x = torch.randint(0, 255, (260, 3, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
p = Images('made-up', tuple('0123456789'), x[:200], torch.arange(200)%10, x[200:], torch.arange(60)%10)
save_cached(p, image_cache())
there = Path(sys.argv[1])
folders = Folders(there/'home', there/'runs', there/'work', there/'tables', (p.id,))
config = SessionConfig(settings=REHEARSAL, precisions=('fp32',), lanes=(2,), cpu=(), seeds=(1,))
one = run_session(GpuSession(config, folders, SimulatedClock(51, dict(epoch=.5, probes=1., measure=20., images=5., check=5.))))
assert one.pace.completed == 2, one.pace.completed
"""
    os.environ['ULRS_CACHE'], kept = str(tmp_path/'cache'), os.environ.get('ULRS_CACHE')
    try: out = bare(root, code, str(tmp_path/'session'))
    finally: os.environ.pop('ULRS_CACHE') if kept is None else os.environ.update(ULRS_CACHE=kept)
    assert out.returncode == 0, out.stderr[-3000:] + out.stdout[-3000:]
    assert len(brought(tmp_path/'session/home', tmp_path/'there')) == 2
