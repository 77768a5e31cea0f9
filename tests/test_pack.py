"""What arrives is, byte for byte, what was packed, or nothing is changed; a finished run never gives way."""
import dataclasses, io, json, tarfile
import numpy as np, pandas as pd, pytest
from understanding_lrs.runs import InputError, Protocol, Run, RunBusy, RunDamaged, find_runs, pack, unpack

P = Protocol('tiny', .1, data_seeds=[1], train_seeds=[1])

def done(root, p=P, value=90.):
    run = Run(root, p).start()
    run.write_table('metrics', pd.DataFrame([dict(plr=p.plr, metric='test_acc', value=value)]))
    run.finish({})
    return run

def partial(root, p=P, step=3):
    run = Run(root, p).start()
    run.save_checkpoint(dict(x=np.arange(step)), dict(step=step))
    return run

def content(root): return {str(f.relative_to(root)): f.read_bytes() for f in root.rglob('*') if f.is_file() and f.name[0] != '.'}
def leftovers(root): return [f for f in root.rglob('.tmp-*')]

@pytest.mark.parametrize('name', ['a.tar', 'a.tar.gz'])
def test_round_trip(tmp_path, name):
    done(tmp_path/'a'), partial(tmp_path/'a', dataclasses.replace(P, plr=.2))
    pack(find_runs(tmp_path/'a'), tmp_path/name)
    assert sorted(unpack(tmp_path/name, tmp_path/'b').values()) == ['done, new', 'partial, new']
    assert content(tmp_path/'a') == content(tmp_path/'b') and not leftovers(tmp_path)
    assert find_runs(tmp_path/'b')[1].load_checkpoint(numpy=True)[1] == dict(step=3)

def test_who_gives_way(tmp_path):
    done(tmp_path/'a', value=1.)
    pack(find_runs(tmp_path/'a'), tmp_path/'done.tar')
    partial(tmp_path/'p')
    pack(find_runs(tmp_path/'p'), tmp_path/'partial.tar')
    mine = done(tmp_path/'b', value=2.)
    for file in ('done.tar', 'partial.tar'): assert list(unpack(tmp_path/file, tmp_path/'b').values()) == ['kept the done run that is here']
    assert list(mine.table('metrics').value) == [2.]
    other = partial(tmp_path/'c', step=7)
    assert list(unpack(tmp_path/'partial.tar', tmp_path/'c').values()) == ['kept the partial run that is here']
    assert other.load_checkpoint(numpy=True)[1] == dict(step=7)
    assert list(unpack(tmp_path/'done.tar', tmp_path/'c').values()) == ['done, in place of a partial run']
    (mine/'metrics.csv').write_bytes(b'x')
    assert list(unpack(tmp_path/'done.tar', tmp_path/'b').values()) == ['done, in place of a damaged run']
    assert mine.state(deep=True).kind == other.state(deep=True).kind == 'done'

@pytest.mark.parametrize('part', [.02, .3, .6, .9, .99])
def test_a_cut_or_changed_pack_changes_nothing(tmp_path, part):
    done(tmp_path/'a')
    pack(find_runs(tmp_path/'a'), tmp_path/'a.tar.gz')
    data = (tmp_path/'a.tar.gz').read_bytes()
    i = int(len(data)*part)
    for bad in (data[:i], data[:i] + bytes([data[i] ^ 8]) + data[i+1:]):
        (tmp_path/'b.tar.gz').write_bytes(bad)
        try: unpack(tmp_path/'b.tar.gz', tmp_path/'b')
        except RunDamaged: assert not content(tmp_path/'b') and not leftovers(tmp_path)
        else: assert content(tmp_path/'b') == content(tmp_path/'a') # a byte of the compression that carries nothing

@pytest.mark.parametrize('name', ['../out.csv', '/tmp/out.csv', 'tiny/../../out.csv', 'tiny/x/.hidden'])
def test_a_foreign_name_is_refused(tmp_path, name):
    entry = dict(sha256='e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855', size=0)
    folder, _, file = name.rpartition('/')
    manifest = json.dumps(dict(schema=1, runs={folder: dict(state='done', files={file: entry})})).encode()
    with tarfile.open(tmp_path/'a.tar', 'w') as tar:
        for n, data in (('manifest.json', manifest), (name, b'')):
            info = tarfile.TarInfo(n)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    with pytest.raises(RunDamaged, match='does not belong'): unpack(tmp_path/'a.tar', tmp_path/'b')
    assert not content(tmp_path/'b') and not (tmp_path/'out.csv').exists()

def test_a_newer_pack_is_refused(tmp_path):
    with tarfile.open(tmp_path/'a.tar', 'w') as tar:
        data = json.dumps(dict(schema=99, runs={})).encode()
        info = tarfile.TarInfo('manifest.json')
        info.size = len(data)
        tar.addfile(info, io.BytesIO(data))
    with pytest.raises(InputError, match='update the package'): unpack(tmp_path/'a.tar', tmp_path/'b')

def test_damaged_and_busy_runs_are_not_packed(tmp_path):
    run = done(tmp_path/'a')
    (run/'metrics.csv').write_bytes(b'x')
    with pytest.raises(InputError, match='not packed'): pack([run], tmp_path/'a.tar')
    other = partial(tmp_path/'a', dataclasses.replace(P, plr=.2))
    with other.lock(), pytest.raises(RunBusy): pack([other], tmp_path/'a.tar')
    assert not (tmp_path/'a.tar').exists()
