"""What arrives is, byte for byte, what was packed, or nothing is changed; a finished run never gives way."""
import dataclasses, hashlib, io, json, os, signal, subprocess, sys, tarfile, time
import numpy as np, pandas as pd, pytest
from conftest import patience
from understanding_lrs.core.errors import InputError, RunBusy, RunDamaged
from understanding_lrs.runs.archives import pack, unpack
from understanding_lrs.runs.find import find_runs
from understanding_lrs.runs.protocol import Protocol
from understanding_lrs.runs.store import Run

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

# --- packs that somebody else has made

def packed(file, manifest, *members):
    "A tar file of a manifest (an object, or bytes) and (name, data) or ready TarInfo"
    if not isinstance(manifest, bytes): manifest = json.dumps(manifest).encode()
    with tarfile.open(file, 'w:gz' if str(file).endswith('gz') else 'w') as tar:
        for name, data in (('manifest.json', manifest), *members):
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return file

def entry(data): return dict(sha256=hashlib.sha256(data).hexdigest(), size=len(data))
def manifest(folder, files, state='done'): return dict(schema=1, runs={folder: dict(state=state, files={f: entry(d) for f, d in files.items()})})

def refused(file, root, *parts, kind=InputError):
    "One line, in little time and memory, and nothing is left behind"
    start = time.process_time()
    with pytest.raises(kind) as e: unpack(file, root)
    assert time.process_time() - start < 5
    assert '\n' not in str(e.value) and all(p in str(e.value) for p in parts), str(e.value)
    assert not content(root) and not leftovers(root)

@pytest.mark.parametrize('name', ['/{}/evil/plr=1', '../evil/plr=1', 'tiny/..', 'tiny/../../evil', 'tiny', 'tiny/plr=1/more', 'tiny/.hidden', '', 'tiny/plr=1\n'])
def test_a_run_cannot_come_from_or_go_to_another_place(tmp_path, name):
    "the manifest names a folder that lies elsewhere, where a whole run waits to be moved or replaced"
    victim = done(tmp_path/'elsewhere')
    before = content(tmp_path/'elsewhere')
    name = name.format(str(tmp_path).strip('/'))
    file = packed(tmp_path/'a.tar', dict(schema=1, runs={name: dict(state='done', files={})}))
    refused(file, tmp_path/'runs')
    target = f"../elsewhere/{victim.folder.parent.name}/{victim.folder.name}"
    for odd in (target, str(victim.folder)):
        refused(packed(tmp_path/'b.tar', dict(schema=1, runs={odd: dict(state='done', files={})})), tmp_path/'runs', 'does not belong')
    assert content(tmp_path/'elsewhere') == before

ODD_MANIFESTS = {
    'deep': b'{"runs":' + b'['*100_000 + b']'*100_000 + b'}',
    'no state': dict(runs={'tiny/plr=1': dict(files={})}),
    'no files': dict(runs={'tiny/plr=1': dict(state='done')}),
    'runs are a list': dict(runs=['tiny/plr=1']),
    'no runs': dict(schema=1),
    'runs are null': dict(runs=None),
    'a list': [],
    'schema is text': dict(schema='1', runs={}),
    'a size that is none': dict(runs={'tiny/plr=1': dict(state='done', files={'DONE': dict(sha256='00', size='many')})}),
    'a negative size': dict(runs={'tiny/plr=1': dict(state='done', files={'DONE': dict(sha256='00', size=-1)})}),
    'a file elsewhere': dict(runs={'tiny/plr=1': dict(state='done', files={'../../DONE': dict(sha256='00', size=0)})}),
    'a huge number': b'{"runs": ' + b'9'*10_000 + b'}',
    'a run that is not there': dict(runs={'tiny/plr=1': dict(state='done', files={})}),
    'not text': b'\xff\xfe\x00',
}

@pytest.mark.parametrize('case', ODD_MANIFESTS)
def test_an_odd_manifest_is_one_line(tmp_path, case): refused(packed(tmp_path/'a.tar.gz', ODD_MANIFESTS[case]), tmp_path/'runs', kind=RunDamaged)

def test_bombs(tmp_path):
    "What is announced, and what comes unannounced"
    zeros = bytes(50_000_000)
    refused(packed(tmp_path/'a.tar.gz', manifest('tiny/plr=1', dict(big=zeros)), ('tiny/plr=1/big', zeros)), tmp_path/'runs', 'announces 50,000,000 bytes')
    many = dict(runs={'tiny/plr=1': dict(state='done', files={f'f{i}': dict(sha256='', size=0) for i in range(100_001)})})
    refused(packed(tmp_path/'b.tar.gz', many), tmp_path/'runs', '100,001 files')
    refused(packed(tmp_path/'c.tar.gz', manifest('tiny/plr=1', dict(small=b'x')), ('tiny/plr=1/small', zeros)), tmp_path/'runs', 'has changed')
    refused(packed(tmp_path/'d.tar.gz', b' '*50_000_000), tmp_path/'runs', 'more than it announces')
    far = dict(runs={'tiny/plr=1': dict(state='done', files={'f': dict(sha256='', size=10**18)})})
    refused(packed(tmp_path/'e.tar', far), tmp_path/'runs', 'announces')

def test_a_long_header_is_no_way_around(tmp_path):
    with tarfile.open(tmp_path/'a.tar.gz', 'w:gz', format=tarfile.PAX_FORMAT) as tar:
        info = tarfile.TarInfo('manifest.json')
        info.pax_headers = dict(comment='x'*60_000_000)
        tar.addfile(info, io.BytesIO())
    refused(tmp_path/'a.tar.gz', tmp_path/'runs', 'more than it announces')

@pytest.mark.parametrize('kind', [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE, tarfile.DIRTYPE, tarfile.GNUTYPE_SPARSE])
def test_members_that_are_no_plain_files(tmp_path, kind):
    data = json.dumps(manifest('tiny/plr=1', dict(DONE=b''))).encode()
    with tarfile.open(tmp_path/'a.tar', 'w') as tar:
        for name, body, of in (('manifest.json', data, tarfile.REGTYPE), ('tiny/plr=1/DONE', b'', kind)):
            info = tarfile.TarInfo(name)
            info.size, info.type, info.linkname = len(body), of, '/etc/passwd'
            tar.addfile(info, io.BytesIO(body))
    refused(tmp_path/'a.tar', tmp_path/'runs', kind=RunDamaged)

def test_all_runs_are_checked_before_the_first_is_moved(tmp_path):
    one, two = done(tmp_path/'a'), done(tmp_path/'a', dataclasses.replace(P, plr=.2))
    pack([one, two], tmp_path/'a.tar')
    with tarfile.open(tmp_path/'a.tar') as tar: files = {m.name: tar.extractfile(m).read() for m in tar}
    listed = json.loads(files.pop('manifest.json'))
    second = list(listed['runs'])[1]
    listed['runs'][second]['state'] = 'partial' # it is done
    refused(packed(tmp_path/'b.tar', listed, *files.items()), tmp_path/'runs', 'done')

@pytest.mark.parametrize('kind', ['pipe', 'device', 'folder'])
def test_what_is_no_file_is_not_unpacked(tmp_path, kind):
    file = tmp_path/'a.tar'
    dict(pipe=os.mkfifo, folder=os.mkdir, device=lambda f: f.symlink_to('/dev/zero'))[kind](file)
    with pytest.raises(OSError): unpack(file, tmp_path/'runs')
    assert not leftovers(tmp_path/'runs')

@pytest.mark.parametrize('end', ['SIGKILL', 'SIGTERM', 'SIGHUP'])
def test_what_a_killed_unpack_left_goes_with_the_next(tmp_path, end):
    done(tmp_path/'a')
    pack(find_runs(tmp_path/'a'), tmp_path/'a.tar')
    code = f"""
import sys, time
from understanding_lrs.runs import archives
from understanding_lrs.app.cli import main
archives._settle = lambda *args: print('now', flush=True) or time.sleep(60)
sys.exit(main(['unpack', {str(tmp_path/'a.tar')!r}, '--runs', {str(tmp_path/'b')!r}]))"""
    p = subprocess.Popen([sys.executable, '-c', code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert p.stdout.readline() == 'now\n' and leftovers(tmp_path/'b')
    p.send_signal(getattr(signal, end))
    assert 'Traceback' not in p.communicate(timeout=patience(60))[1]
    assert bool(leftovers(tmp_path/'b')) == (end == 'SIGKILL')
    assert list(unpack(tmp_path/'a.tar', tmp_path/'b').values()) == ['done, new'] and not leftovers(tmp_path/'b')

def test_two_at_once_do_not_sweep_each_other_away(tmp_path):
    for i in range(4): done(tmp_path/'a', dataclasses.replace(P, plr=.1*(i + 1)))
    pack(find_runs(tmp_path/'a'), tmp_path/'a.tar')
    code = f"from understanding_lrs.runs.archives import unpack; print(len(unpack({str(tmp_path/'a.tar')!r}, {str(tmp_path/'b')!r})))"
    both = [subprocess.Popen([sys.executable, '-c', code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    assert [p.communicate(timeout=patience(120)) for p in both] == [('4\n', '')]*2
    assert content(tmp_path/'a') == content(tmp_path/'b')

def test_a_run_of_too_many_networks_is_refused():
    with pytest.raises(InputError, match='more than one run can hold'): Protocol('tiny', .1, data_seeds=range(2000), train_seeds=range(2000))
