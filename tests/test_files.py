"""A file is seen whole or not at all; a run folder is finished, unfinished or named as damaged."""
import dataclasses, json, os, signal, subprocess, sys, time
import pandas as pd, pytest, torch
from understanding_lrs.core import files
from understanding_lrs.runs import tables
from understanding_lrs.core.errors import InputError, RunBusy, RunDamaged
from understanding_lrs.core.files import atomic_write
from understanding_lrs.runs.find import find_runs
from understanding_lrs.runs.ledger import collect, load
from understanding_lrs.runs.protocol import Protocol
from understanding_lrs.runs.published import publish, read_published
from understanding_lrs.runs.store import Run

P = Protocol('tiny', .1, flrs=[.01], swa_k=[2, 5], data_seeds=[1, 2], train_seeds=[1], settings=dict(steps=3))

def rows(p):
    fixed = dict(run=p.short, plr=p.plr, train_seed=1, rank=None, metric='test_acc', value=97.123456789)
    return pd.DataFrame([fixed | dict(data_seed=d, flr=f) for d in p.data_seeds for f in (None, 3.162e-5)])

def made(root, p=P):
    run = Run(root, p).start()
    run.write_table('metrics', rows(p))
    run.finish(dict(seconds=dict(pretrain=1., finetune=2.)))
    return run

@pytest.mark.parametrize('point', ['os.fsync', 'os.replace', 'os.open', 'write'])
def test_failure_half_way_leaves_the_old_file(tmp_path, monkeypatch, point):
    path = tmp_path/'a.csv'
    atomic_write(path, b'old')
    def fail(*_, **__): raise OSError(28, 'No space left on device')
    if point == 'write': bad = 'not bytes'
    else:
        bad = b'new'
        monkeypatch.setattr(files.os, point.split('.')[1], fail)
    with pytest.raises((OSError, TypeError)): atomic_write(path, bad)
    monkeypatch.undo()
    assert [f.name for f in tmp_path.iterdir()] == ['a.csv']
    assert path.read_bytes() == (b'new' if point == 'os.open' else b'old') # the last step only makes the rename durable

def test_the_check_can_fail(tmp_path):
    "A plain write is torn by the same failure"
    path = tmp_path/'a.csv'
    path.write_bytes(b'old')
    with pytest.raises(TypeError), open(path, 'wb') as f: f.write('not bytes')
    assert path.read_bytes() != b'old'

def test_states(tmp_path):
    run = Run(tmp_path, P)
    assert run.state().kind == 'absent'
    run.start()
    assert run.state().kind == 'partial'
    assert made(tmp_path).state().kind == 'done' == Run.open(run.folder).state().kind

@pytest.mark.parametrize('file', ['protocol.json', 'metrics.csv', 'provenance.json', 'DONE'])
@pytest.mark.parametrize('harm', ['flip', 'cut', 'empty', 'remove'])
def test_damage_is_named(tmp_path, file, harm):
    run = made(tmp_path)
    data = (run/file).read_bytes()
    i = len(data) // 2
    new = dict(flip=data[:i] + bytes([data[i] ^ 4]) + data[i+1:], cut=data[:i], empty=b'').get(harm)
    (run/file).write_bytes(new) if new is not None else (run/file).unlink()
    found = find_runs(tmp_path)[0]
    for r in (run, found):
        state = r.state()
        if (file, harm) == ('DONE', 'remove'): assert state.kind == 'partial'
        else: assert state.kind == 'damaged' and (file in state.why or file == 'DONE'), state
    if file in ('metrics.csv', 'protocol.json'):
        with pytest.raises(RunDamaged, match=file): load([found])

@pytest.mark.parametrize('i', range(0, 800, 37))
def test_no_flipped_byte_of_a_finished_run_is_used(tmp_path, i):
    run = made(tmp_path)
    for f in ('metrics.csv', 'DONE', 'protocol.json'):
        data = (run/f).read_bytes()
        if i >= len(data): continue
        (run/f).write_bytes(data[:i] + bytes([data[i] ^ 1]) + data[i+1:])
        if Run(tmp_path, P).state().kind == 'done': # a byte that carries nothing: the white space of the layout
            pd.testing.assert_frame_equal(load([run]), load([made(tmp_path/'again')]))
        (run/f).write_bytes(data)

def test_half_written_folder(tmp_path):
    run = Run(tmp_path, P)
    run.folder.mkdir(parents=True)
    (run/'.tmp-protocol.json-1-2').write_bytes(b'{')
    assert run.state().kind == 'absent'
    with run.lock(): assert not list(run.folder.glob('.tmp-*'))
    (run/'metrics.csv').write_bytes(b'x')
    assert run.state().kind == 'absent' and run.foreign() == ['metrics.csv'] # it is not of this run
    (run/'progress.json').write_bytes(b'{}')
    assert run.state().kind == 'damaged' and 'protocol.json' in run.state().why

def test_foreign_folder_is_refused(tmp_path):
    run, other = Run(tmp_path, P).start(), Run(tmp_path, dataclasses.replace(P, plr=.2)).start()
    os.replace(other/'protocol.json', run/'protocol.json')
    with pytest.raises(RunDamaged, match='another protocol'): run.start()
    os.rename(run.folder, run.folder.with_name('renamed'))
    assert [r.state().kind for r in find_runs(tmp_path)] == ['damaged']

def test_newer_layout_is_refused(tmp_path):
    run = Run(tmp_path, P).start()
    (run/'protocol.json').write_text((run/'protocol.json').read_text().replace('"schema": 1', '"schema": 2'))
    with pytest.raises(InputError, match='update the package'): Run.open(run.folder)

def test_checkpoint_round_trip_and_damage(tmp_path):
    run = Run(tmp_path, P).start()
    assert run.load_checkpoint() is None
    g = torch.Generator().manual_seed(0)
    tensors = dict(w=torch.randn(3, 4, generator=g), view=torch.randn(4, 4, generator=g).T[1:], step=torch.tensor(7),
                   nan=torch.tensor(float('nan')), half=torch.ones(3, dtype=torch.bfloat16), none=torch.zeros(0, 2))
    run.save_checkpoint(tensors, dict(stage='finetune', step=7))
    back, meta = run.load_checkpoint()
    assert meta == dict(stage='finetune', step=7) and set(back) == set(tensors)
    for k, v in tensors.items(): torch.testing.assert_close(back[k], v, rtol=0, atol=0, equal_nan=True)
    path = run/'checkpoint.safetensors'
    good = path.read_bytes()
    run.save_checkpoint(tensors, dict(step=7, stage='finetune'))
    assert path.read_bytes() == good
    blank = good[:8+int.from_bytes(good[:8], 'little')].rstrip(b' ')
    for i in [*range(0, len(blank), 7), *range(len(good)-200, len(good), 11)]:
        path.write_bytes(good[:i] + bytes([good[i] ^ 1]) + good[i+1:])
        assert run.state(deep=True).kind == 'damaged', i
        with pytest.raises(RunDamaged, match='checkpoint'): run.load_checkpoint()
    for n in (0, 5, 100, len(good)-1):
        path.write_bytes(good[:n])
        assert 'checkpoint' in run.state().why and run.state().kind == 'damaged'

def test_checkpoint_of_another_protocol_is_refused(tmp_path):
    a, b = Run(tmp_path, P).start(), Run(tmp_path, dataclasses.replace(P, plr=.2)).start()
    a.save_checkpoint(dict(w=torch.ones(2)), {})
    os.replace(a/'checkpoint.safetensors', b/'checkpoint.safetensors')
    with pytest.raises(RunDamaged, match=f'saved by run {P.short}'): b.load_checkpoint()

def test_one_writer(tmp_path):
    "Held by another process it is refused, and free as soon as that process is killed"
    run = Run(tmp_path, P)
    code = f"""
import time
from understanding_lrs.runs.protocol import Protocol
from understanding_lrs.runs.store import Run
with Run({str(tmp_path)!r}, Protocol.from_dict({P.to_dict()!r})).lock():
    print(1, flush=True)
    time.sleep(60)"""
    other = subprocess.Popen([sys.executable, '-c', code], stdout=subprocess.PIPE)
    other.stdout.readline()
    with pytest.raises(RunBusy, match=f'process {other.pid}'):
        with run.lock(): pass
    other.send_signal(signal.SIGKILL)
    other.wait()
    with run.lock(): pass

def test_a_fork_does_not_keep_the_lock(tmp_path):
    run = Run(tmp_path, P)
    with run.lock():
        pid = os.fork()
        if pid == 0: time.sleep(20); os._exit(0)
    try:
        with run.lock(): pass
    finally: os.kill(pid, signal.SIGKILL); os.waitpid(pid, 0)

def test_progress_is_throttled_and_lost_without_harm(tmp_path):
    run = Run(tmp_path, P).start()
    for i in range(100): run.progress('pretrain', i, 100, fraction=i/200)
    assert run.read_progress()['done'] == 0
    run.progress('finetune', 3, 11)
    assert run.state().why == 'finetune 3/11'
    (run/'progress.json').write_bytes(b'{"sta')
    assert run.state().kind == 'partial'
    made(tmp_path)
    assert not (run/'progress.json').exists()

def test_finished_tables_are_not_overwritten(tmp_path):
    run = made(tmp_path)
    with pytest.raises(ValueError, match='is finished'): run.write_table('metrics', rows(P))
    run.write_table('sharpness', rows(P))
    assert run.state().kind == 'done' and run.tables() == ['metrics', 'sharpness']
    run.reset()
    assert run.state().kind == 'absent'

def test_publish_is_bit_stable_and_checked(tmp_path):
    big = [made(tmp_path/'runs', dataclasses.replace(P, plr=plr)) for plr in (.2, .1)]
    publish(big, tmp_path/'a')
    publish(big[::-1], tmp_path/'b')
    files = sorted(f.name for f in (tmp_path/'a').iterdir())
    assert files == ['metrics.csv', 'runs.csv', 'tables.json']
    assert all((tmp_path/'a'/f).read_bytes() == (tmp_path/'b'/f).read_bytes() for f in files)
    tables = read_published(tmp_path/'a')
    assert list(tables['metrics'].plr) == [.1]*4 + [.2]*4 and list(tables['runs'].seconds) == [3., 3.]
    for name, df in collect(big).items(): pd.testing.assert_frame_equal(df, tables[name], check_dtype=False)
    (tmp_path/'a/metrics.csv').write_bytes((tmp_path/'a/metrics.csv').read_bytes()[:-1])
    with pytest.raises(RunDamaged, match='metrics.csv'): read_published(tmp_path/'a')

def test_large_tables_become_parquet_with_equal_content(tmp_path, monkeypatch):
    run = made(tmp_path/'runs')
    publish([run], tmp_path/'t')
    small = read_published(tmp_path/'t')['metrics']
    monkeypatch.setattr(tables, 'LARGE', 10)
    publish([run], tmp_path/'t')
    assert sorted(f.name for f in (tmp_path/'t').iterdir()) == ['metrics.parquet', 'runs.parquet', 'tables.json']
    pd.testing.assert_frame_equal(read_published(tmp_path/'t')['metrics'], small)

def test_networks_are_taken_once(tmp_path):
    a, b = made(tmp_path), made(tmp_path, dataclasses.replace(P, data_seeds=[2, 3]))
    assert sorted(load([a, b]).data_seed) == [1, 1, 2, 2, 3, 3]
    assert sorted(load([a, b], protocols=[dataclasses.replace(P, data_seeds=[3])]).data_seed) == [3, 3]

def test_status_imports_nothing_heavy():
    heavy = {'torch', 'pandas', 'papermill', 'pydantic', 'fastcore', 'typer', 'rich'}
    code = f"import sys, understanding_lrs.runs.store; sys.exit(bool({heavy} & set(sys.modules)))"
    assert subprocess.run([sys.executable, '-c', code]).returncode == 0

def test_tables_left_out_are_not_published(tmp_path):
    "a table that is too large to track is left out, an older copy of it goes, a misspelt name is refused"
    from understanding_lrs.studies.registry import protocols
    from understanding_lrs.studies.trial import live
    p, = protocols('synthetic', 'smoke', plrs=[1e-2])
    run = live(p, Run(tmp_path/'runs', p)).run
    publish([run], tmp_path/'out')
    assert set(publish([run], tmp_path/'out', leave_out=('curves',))) == {'features.csv', 'geometry.csv', 'metrics.csv', 'runs.csv'}
    assert not (tmp_path/'out'/'curves.csv').exists() and 'curves' not in read_published(tmp_path/'out')
    with pytest.raises(InputError, match="did you mean 'curves'"): publish([run], tmp_path/'out', leave_out=('curve',))

def test_tables_grow_run_by_run(tmp_path):
    "rates and seeds that come later, in any order: the bytes are those of all at once; a run that comes again replaces itself; nobody is counted twice"
    several = [made(tmp_path/'runs', dataclasses.replace(P, plr=plr, **kw)) for plr in (.2, .1) for kw in ({}, dict(train_seeds=[2]))]
    publish(several, tmp_path/'whole')
    for run in [several[i] for i in (2, 1, 3, 0, 1)]: publish([run], tmp_path/'grown', add=True)
    for f in (tmp_path/'whole').iterdir(): assert f.read_bytes() == (tmp_path/'grown'/f.name).read_bytes(), f.name
    other = made(tmp_path/'runs', dataclasses.replace(P, plr=.1, train_seeds=[2, 3]))
    with pytest.raises(InputError, match='has networks of'): publish([other], tmp_path/'grown', add=True)
    publish([several[0]], tmp_path/'grown')
    assert len(read_published(tmp_path/'grown')['runs']) == 1

def test_tables_of_another_study_or_of_other_data_are_not_added(tmp_path):
    of = lambda **kw: made(tmp_path/'runs', dataclasses.replace(P, settings=dict(steps=3, **kw)))
    publish([of(data='a@1')], tmp_path/'t')
    for other in (of(data='b@2'), made(tmp_path/'runs', dataclasses.replace(P, study='other'))):
        with pytest.raises(InputError, match='publish them into another folder'): publish([other], tmp_path/'t', add=True)

def test_a_table_that_some_runs_lack_is_kept_when_more_are_added(tmp_path):
    a, b = (made(tmp_path/'runs', dataclasses.replace(P, plr=plr)) for plr in (.1, .2))
    a.write_table('sharpness', rows(a.protocol))
    publish([a], tmp_path/'t'); publish([b], tmp_path/'t', add=True)
    t = read_published(tmp_path/'t')
    assert set(t['sharpness'].plr) == {.1} and set(t['metrics'].plr) == {.1, .2} and list(t)[-1] == 'runs'
    for run in (a, b): publish([run], tmp_path/'t', add=True, leave_out=('sharpness',)*(run is a))
    assert 'sharpness' not in read_published(tmp_path/'t') and json.loads((tmp_path/'t/tables.json').read_text())['left_out'] == {a.protocol.short: ['sharpness']}
    with pytest.raises(InputError, match='table'): publish([b], tmp_path/'t', leave_out=('runs',))

@pytest.mark.parametrize('name', ['protocol.json', 'DONE', 'metrics.csv', 'provenance.json', 'progress.json', 'checkpoint.safetensors', '.lock-1'])
def test_a_pipe_in_the_place_of_a_file_does_not_hang(tmp_path, name):
    def late(*_): raise AssertionError('it hangs')
    run = Run(tmp_path, P).start()
    (run/name).unlink(missing_ok=True)
    os.mkfifo(run/name)
    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(30)
    try:
        found, = find_runs(tmp_path)
        assert found.state(deep=True).kind in ('partial', 'damaged')
        if not found.trouble: assert (found.owner(), found.read_progress()) == ({}, {})
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
