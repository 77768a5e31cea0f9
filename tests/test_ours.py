"""Only what a manifest of ours lists is replaced or removed; everything else is named and left."""
import dataclasses, json, os, subprocess, sys
import pandas as pd, pytest
from understanding_lrs.core import files
from understanding_lrs.runs import published
from understanding_lrs.app.cli import main
from understanding_lrs.core.errors import InputError, RunDamaged
from understanding_lrs.core.files import check_free, put, sweep_up, temporary
from understanding_lrs.runs.archives import pack, unpack
from understanding_lrs.runs.find import find_runs
from understanding_lrs.runs.protocol import Protocol
from understanding_lrs.runs.published import publish, read_published
from understanding_lrs.runs.manifest import WRITTEN
from understanding_lrs.runs.store import Run

P = Protocol('tiny', .1, data_seeds=[1], train_seeds=[1])
OTHER = dataclasses.replace(P, plr=.2)

def begun(root, p=P):
    run = Run(root, p).start()
    run.write_table('curves', pd.DataFrame([dict(run=p.short, plr=p.plr, value=1.)]))
    return run

def done(root, p=P):
    run = begun(root, p)
    run.write_table('metrics', pd.DataFrame([dict(run=p.short, plr=p.plr, metric='test_acc', value=90.)]))
    run.finish({})
    return run

def mine(folder, *names):
    for name in names: (folder/name).write_text('mine')
    return names

def kept(folder, names): return all((folder/name).read_text() == 'mine' for name in names)

@pytest.mark.parametrize('make', [begun, done])
def test_reset_and_remove_leave_what_is_not_of_the_run(tmp_path, make):
    run = make(tmp_path)
    names = mine(run.folder, 'notes.md', 'best.csv', '.notes')
    (run/'pictures').mkdir()
    left = ['.notes', 'best.csv', 'notes.md', 'pictures']
    assert run.reset() == run.foreign() == left and kept(run.folder, names) and run.state().kind == 'absent'
    make(tmp_path)
    assert run.remove() == left and sorted(f.name for f in run.folder.iterdir()) == left and kept(run.folder, names)
    assert find_runs(tmp_path) == [] and make(tmp_path).state(deep=True).kind in ('partial', 'done')

def test_a_finished_run_does_not_seal_a_table_of_the_user(tmp_path):
    run = begun(tmp_path)
    mine(run.folder, 'best.csv')
    run.finish({})
    assert run.tables() == ['curves'] and run.foreign() == ['best.csv']

def test_a_file_in_the_way_of_a_table_is_set_aside(tmp_path, capsys):
    run = Run(tmp_path, P).start()
    for again in range(2):
        (run/'metrics.csv').write_text('mine')
        run.write_table('metrics', pd.DataFrame([dict(run=P.short, value=1.)]))
        run.write_table('metrics', pd.DataFrame([dict(run=P.short, value=2.)])) # its own is replaced
        run.reset()
    assert [(run/f).read_text() for f in ('metrics.csv.kept', 'metrics.csv.kept-1')] == ['mine', 'mine'] and len(run.foreign()) == 2
    assert 'it is kept as metrics.csv.kept' in capsys.readouterr().err

def test_an_unfinished_run_of_an_older_version_knows_its_tables(tmp_path):
    run = begun(tmp_path)
    (run/WRITTEN).unlink()
    (run/'best.csv').write_text('run,value\n12345678,1\n')
    assert run.tables() == ['curves'] and run.foreign() == ['best.csv']
    run.finish({})
    assert run.tables() == ['curves']

def test_folders_of_other_programs_are_no_runs(tmp_path):
    for name, file, text in (('other/a', 'DONE', ''), ('other/b', 'DONE', '{"files": {}}'), ('lab/c', 'protocol.json', '{"steps": []}')):
        (tmp_path/name).mkdir(parents=True)
        (tmp_path/name/file).write_text(text)
    run = done(tmp_path)
    os.rename(run.folder, run.folder.with_name('renamed'))
    assert [r.folder.name for r in find_runs(tmp_path)] == ['renamed'] # a run of ours under another name is named as damaged

def test_clean_names_what_it_leaves(tmp_path, capsys):
    like = tmp_path/'runs/lab/plr=1.000e-02_t1_deadbeef' # the name of a run, and nothing that says it is one
    like.mkdir(parents=True)
    for name in ('DONE', 'protocol.json', 'data.bin'): (like/name).write_text('not ours')
    run = begun(tmp_path/'runs')
    names = mine(run.folder, 'notes.md')
    assert main(['clean', '--runs', str(tmp_path/'runs'), '--yes']) == 0
    out = capsys.readouterr().out
    assert f'left alone: {like}' in out and f'left alone, not of the run: {run.folder}/notes.md' in out and '1 runs deleted' in out
    assert len(list(like.iterdir())) == 3 and kept(run.folder, names)

@pytest.mark.parametrize('name', ['metrics.csv', 'metrics.parquet', 'runs.csv', 'tables.json'])
def test_tables_are_not_written_over_other_files(tmp_path, name):
    run = done(tmp_path/'runs')
    (tmp_path/'out').mkdir()
    mine(tmp_path/'out', name)
    with pytest.raises(InputError, match=name): publish([run], tmp_path/'out')
    assert [f.name for f in (tmp_path/'out').iterdir()] == [name] and kept(tmp_path/'out', [name])

def test_published_tables_are_replaced_and_the_rest_stays(tmp_path):
    a, b, out = done(tmp_path/'runs'), done(tmp_path/'runs', OTHER), tmp_path/'out'
    publish([a], out)
    names = mine(out, 'notes.csv')
    (out/'metrics.csv').write_text('changed by hand')
    publish([a, b], out, leave_out=['curves']) # its own table goes, since it is not in the new set
    assert sorted(f.name for f in out.iterdir()) == ['metrics.csv', 'metrics.csv.kept', 'notes.csv', 'runs.csv', 'tables.json']
    assert kept(out, names) and (out/'metrics.csv.kept').read_text() == 'changed by hand' and len(read_published(out)['metrics']) == 2

def test_a_record_cannot_name_files_elsewhere(tmp_path):
    run, out = done(tmp_path/'runs'), tmp_path/'out'
    publish([run], out)
    mine(tmp_path, 'precious.csv')
    record = json.loads((out/'tables.json').read_text())
    record['files'] |= {'../precious.csv': dict(record['files']['runs.csv'], sha256=files.checksum(tmp_path/'precious.csv'), size=4)}
    (out/'tables.json').write_text(json.dumps(record))
    publish([run], out)
    assert kept(tmp_path, ['precious.csv'])

def test_a_set_that_was_cut_off_is_put_in_place(tmp_path, monkeypatch):
    a, b, out = done(tmp_path/'runs'), done(tmp_path/'runs', OTHER), tmp_path/'out'
    publish([a], out)
    def fail(*_): raise KeyboardInterrupt
    with monkeypatch.context() as m:
        m.setattr(published, 'put_in_place', lambda out: fail() if (out/published.READY).is_dir() else None)
        with pytest.raises(KeyboardInterrupt): publish([a, b], out)
    with pytest.raises(RunDamaged, match='was cut off'): read_published(out)
    publish([b], out, add=True)
    assert len(read_published(out)['metrics']) == 2 and not list(out.glob('.*'))

def test_a_pack_is_written_over_packs_only(tmp_path):
    run = done(tmp_path/'runs')
    mine(run.folder, 'my notes.md')
    mine(tmp_path, 'results.tar')
    with pytest.raises(InputError, match='is no pack of runs'): pack([run], tmp_path/'results.tar')
    assert kept(tmp_path, ['results.tar'])
    for _ in range(2): pack([run], tmp_path/'a.tar')
    for _ in range(2): assert unpack(tmp_path/'a.tar', tmp_path/'there') and find_runs(tmp_path/'there')[0].foreign() == ['my notes.md']

def test_what_is_unpacked_leaves_notes(tmp_path):
    pack([done(tmp_path/'a')], tmp_path/'a.tar')
    run = begun(tmp_path/'b')
    mine(run.folder, 'notes.md', 'metrics.csv')
    unpack(tmp_path/'a.tar', tmp_path/'b')
    assert run.state(deep=True).kind == 'done' and run.foreign() == ['metrics.csv.kept', 'notes.md']
    assert kept(run.folder, ['notes.md', 'metrics.csv.kept'])

def test_an_unpacked_unfinished_run_knows_its_tables(tmp_path):
    mine((run := begun(tmp_path/'a')).folder, 'best.csv')
    pack([run], tmp_path/'a.tar')
    unpack(tmp_path/'a.tar', tmp_path/'b')
    run, = find_runs(tmp_path/'b')
    assert run.tables() == ['curves'] and run.remove() == ['best.csv']

def test_pictures(tmp_path):
    picture = tmp_path/'a.svg'
    put(picture, b'first')
    put(picture, b'second')
    mine(tmp_path, 'b.svg')
    with pytest.raises(InputError, match='was not written by this program'): put(tmp_path/'b.svg', b'x')
    picture.write_text('edited')
    with pytest.raises(InputError, match='or was changed since'): check_free(picture)
    put(picture, b'third', replace=True)
    assert kept(tmp_path, ['b.svg']) and picture.read_bytes() == b'third'

def test_a_command_refuses_a_taken_picture_before_it_works(tmp_path, capsys):
    mine(tmp_path, 'path.svg')
    for words in (['path', 'a.safetensors', 'b.safetensors'], ['bands', 'a.safetensors']):
        assert main([*words, '--data', 'digits', '--out', str(tmp_path/'path.svg')]) == 2
        assert 'path.svg is there and was not written by this program' in capsys.readouterr().err
    assert kept(tmp_path, ['path.svg'])

def test_temporaries_of_the_dead_go_and_others_stay(tmp_path):
    child = subprocess.Popen([sys.executable, '-c', ''])
    child.wait()
    of = lambda pid: temporary('a').replace(f'-{os.getpid()}-', f'-{pid}-')
    dead, elsewhere = of(child.pid), of(child.pid).replace(files.machine_digest(), '0'*8)
    old = elsewhere.replace('.tmp-a', '.tmp-b')
    for name in (dead, elsewhere, old, temporary('a'), '.tmp-mine'): (tmp_path/name).touch()
    os.utime(tmp_path/old, (1, 1))
    (tmp_path/of(child.pid)).mkdir()
    sweep_up(tmp_path)
    assert len(left := {f.name for f in tmp_path.iterdir()}) == 3 and {elsewhere, '.tmp-mine'} < left
