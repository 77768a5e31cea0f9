"""The laboratory's list: whatever happens on the way (kill, full disk, two at once), its tables are those of one quiet sweep."""
import errno, importlib.util, os, shutil, signal, subprocess, sys
from pathlib import Path
import pandas as pd
import pytest
from conftest import until
from understanding_lrs.core.errors import InputError
from understanding_lrs.runs.published import read_published

ROOT = Path(__file__).resolve().parent.parent
spec = importlib.util.spec_from_file_location('lab', ROOT/'tools/lab.py')
lab = importlib.util.module_from_spec(spec)
sys.modules['lab'] = lab # dataclasses look their module up
spec.loader.exec_module(lab)

ENTRY = lab.Entry('synthetic', 'smoke', '1', 'nothing')
HEAD = 'study,preset,seeds,decides\n'

def queue_file(folder, text='synthetic,smoke,1,nothing\n'):
    path = folder/'queue.csv'
    path.write_text(HEAD + text)
    return path

def folders(tmp): return lab.Folders(tmp/'runs', tmp/'tables', tmp/'drafts')

def words(tmp, *more):
    places = [f'--{k}={tmp/k}' for k in ('runs', 'tables', 'drafts')]
    return [sys.executable, str(ROOT/'tools/lab.py'), '--queue', str(queue_file(tmp)), '--nice=0', *places, *more]

def metrics(folder): # what must be equal: no dates, no seconds
    return read_published(folder)['metrics'].sort_values(['plr', 'stage', 'metric', 'flr', 'swa_k']).reset_index(drop=True)

@pytest.fixture(scope='module')
def quiet(tmp_path_factory):
    "The tables of one undisturbed pass"
    tmp = tmp_path_factory.mktemp('quiet')
    done = subprocess.run(words(tmp), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return tmp

def test_it_works_through_the_list(quiet):
    ledger = read_published(quiet/'tables/synthetic/smoke')['runs']
    assert set(ledger.plr) == set(lab.study_of('synthetic').presets['smoke'].plrs)
    assert not (quiet/'drafts/synthetic').exists()

def test_what_is_there_is_not_run_again(quiet):
    before = {f: f.stat().st_mtime_ns for f in (quiet/'tables').rglob('*')}
    done = subprocess.run(words(quiet), capture_output=True, text=True)
    assert done.returncode == 0 and {f: f.stat().st_mtime_ns for f in (quiet/'tables').rglob('*')} == before
    shown = subprocess.run(words(quiet, '--show'), capture_output=True, text=True)
    assert 'synthetic/smoke: complete (nothing)' in shown.stdout

def test_killed_after_its_first_run_it_goes_on(quiet, tmp_path):
    place, draft = tmp_path/'tables/synthetic/smoke', tmp_path/'drafts/synthetic/smoke'
    first = subprocess.Popen(words(tmp_path), start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    until(lambda: (draft/'tables.json').exists() and not (draft/'.ready').exists(), 120)
    os.killpg(first.pid, signal.SIGKILL)
    first.wait()
    assert 0 < len(read_published(draft)['runs']) < 3 and not place.exists() # no claim is judged on half a grid
    done = subprocess.run(words(tmp_path), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    pd.testing.assert_frame_equal(metrics(place), metrics(quiet/'tables/synthetic/smoke'))
    assert not draft.exists()

def test_tables_that_were_on_their_way_get_to_their_place(quiet, tmp_path):
    "Killed between a complete set of tables and its place: the same command goes on"
    place = tmp_path/'tables/synthetic/smoke'
    shutil.copytree(quiet/'tables/synthetic/smoke', place)
    (place/'.ready').mkdir()
    for path in [p for p in place.iterdir() if p.is_file()]: shutil.copy(path, place/'.ready')
    at = [f'--runs={quiet/"runs"}', f'--tables={tmp_path/"tables"}', f'--drafts={tmp_path/"drafts"}']
    assert lab.main(['--queue', str(queue_file(tmp_path)), '--nice=0', *at]) == 0
    assert not (place/'.ready').exists()
    pd.testing.assert_frame_equal(metrics(place), metrics(quiet/'tables/synthetic/smoke'))

def test_runs_of_another_machine_count(quiet, tmp_path):
    "Their tables travel, their run folders do not"
    wanted = lab.wanted_runs(ENTRY, {})
    assert lab.left_of(ENTRY, wanted, lab.Folders(tmp_path/'runs', quiet/'tables', tmp_path/'drafts')) == []
    assert len(lab.left_of(ENTRY, wanted, folders(tmp_path))) == 3

def test_half_a_grid_does_not_replace_other_tables(quiet, tmp_path):
    "Published runs of another kind stay until the new ones are complete"
    at, old = folders(tmp_path), lab.finished(quiet/'runs', 'synthetic')
    other = [lab.protocols('synthetic', 'smoke', overrides=dict(width=16))[0]]
    lab.publish(old[:1], at.tables/'synthetic/smoke', preset='custom')
    assert lab.place_for(ENTRY, other, at) == at.drafts/'synthetic/smoke' # other settings: another kind
    wanted = lab.wanted_runs(ENTRY, {})
    assert lab.place_for(ENTRY, wanted, at) == at.tables/'synthetic/smoke'  # the same kind: beside them
    draft = at.drafts/'synthetic/smoke'
    draft.parent.mkdir(parents=True)
    lab.publish(old[:2], draft, preset='custom')
    assert not lab.promote(ENTRY, wanted, at) and len(read_published(at.tables/'synthetic/smoke')['runs']) == 1
    lab.publish(old, draft, preset='smoke')
    assert lab.promote(ENTRY, wanted, at) and len(read_published(at.tables/'synthetic/smoke')['runs']) == 3
    assert not draft.exists() and not list(at.tables.rglob('.*replaced'))

def test_two_at_once_are_one_too_many(tmp_path):
    (tmp_path/'drafts').mkdir()
    held = lab.alone(tmp_path/'drafts')
    done = subprocess.run(words(tmp_path), capture_output=True, text=True)
    assert done.returncode == 3 and 'at work' in done.stderr
    held.close()

def test_a_full_disk_is_said_and_nothing_is_lost(quiet, tmp_path, monkeypatch, capsys):
    at = lab.Folders(quiet/'runs', tmp_path/'tables', tmp_path/'drafts')
    def full(*args, **kw): raise OSError(errno.ENOSPC, 'No space left on device')
    places = [f'--{k}={getattr(at, k)}' for k in ('runs', 'tables', 'drafts')]
    call = ['--queue', str(queue_file(tmp_path)), '--nice=0', *places]
    with monkeypatch.context() as m:
        m.setattr(lab, 'publish', full)
        assert lab.main(call) == 2 and 'No space left' in capsys.readouterr().err
    assert lab.main(call) == 0 and len(read_published(at.tables/'synthetic/smoke')['runs']) == 3

def test_each_study_gets_the_copy_of_its_own_images(tmp_path):
    "a folder alone is CIFAR-10; another set is named; an equals sign in a folder's name is no name of a set"
    ten, hundred, none = (lab.Entry(s, 'smoke', '1', '') for s in ('convnetsi32_cifar10', 'convnetsi32_cifar100', 'synthetic'))
    mine, other = tmp_path/'my=copy'/'ten', tmp_path/'hundred'
    for folder in (mine, other): folder.mkdir(parents=True)
    copies = lab.read_copies([str(mine), f'cifar100={other}'], [ten, hundred, none])
    assert copies == dict(cifar10=str(mine), cifar100=str(other))
    part, = lab.protocols('convnetsi32_cifar100', 'smoke', plrs=[1e-2])
    assert lab.sweep_words(hundred, part, folders(tmp_path), copies)[-1] == f'data={other}'
    assert not any('data=' in word for word in lab.sweep_words(hundred, part, folders(tmp_path), dict(cifar10=str(mine))))
    robust = lab.Entry('convnetsi32_cifar10_robustness', 'small', '1..5', 'x')
    assert lab.sweep_words(robust, part, folders(tmp_path), copies)[-3::2] == [f'data={mine}', f'outside={other}'] # also what is foreign

@pytest.mark.parametrize('given, says', [
    ('cifar1O={}', "unknown set of images 'cifar1O'; did you mean 'cifar10'?"), ('cifar100={}', "unknown set of images 'cifar100'"),
    ('{}/nowhere', 'there is no folder'), ('cifar10={}/nowhere', 'there is no folder')])
def test_a_copy_that_nobody_asks_for_or_that_is_not_there_is_one_line(tmp_path, capsys, given, says):
    "before any work, and nothing is ignored in silence"
    queue = queue_file(tmp_path, 'convnetsi32_cifar10,laptop,1,x\n')
    assert lab.main(['--queue', str(queue), '--data', given.format(tmp_path), f'--drafts={tmp_path/"drafts"}']) == 2
    err = capsys.readouterr().err
    assert says in err and err.count('\n') == 1 and not (tmp_path/'drafts').exists()

def test_an_entry_without_its_images_waits_and_the_others_are_run(quiet, tmp_path, monkeypatch, capsys):
    queue = queue_file(tmp_path, 'convnetsi32_cifar100,laptop,1,later\nsynthetic,smoke,1,nothing\n')
    asked = []
    monkeypatch.setattr(lab, 'run_child', lambda words: asked.append(words[2]) or 1)
    places = [f'--{k}={tmp_path/k}' for k in ('runs', 'tables', 'drafts')]
    (tmp_path/'empty').mkdir()
    call = ['--queue', str(queue), '--nice=0', '--data', f'cifar100={tmp_path/"empty"}', *places]
    assert lab.main(call) == 1 and asked == ['synthetic']*3
    assert f'convnetsi32_cifar100/laptop waits: {tmp_path/"empty"} has neither' in capsys.readouterr().err
    assert lab.main([*call, '--show']) == 0 and 'synthetic/smoke: 0 of' in capsys.readouterr().out

def test_a_run_that_fails_leaves_the_others(tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(lab, 'run_child', lambda words: asked.append(words) or 1)
    assert lab.work(lab.plan([ENTRY], {}), folders(tmp_path), {}) == 1 and len(asked) == 3
    monkeypatch.setattr(lab, 'run_child', lambda words: 130)
    assert lab.work(lab.plan([ENTRY], {}), folders(tmp_path), {}) == 130 # Ctrl-C ends it at once

@pytest.mark.parametrize('line,says', [
    ('nothing,smoke,1,x\n', 'unknown study'), ('synthetic,huge,1,x\n', 'unknown preset'), ('synthetic,smoke,one,x\n', 'whole numbers'),
    ('synthetic,smoke,1\n', 'expected the columns'), ('synthetic,smoke,1,x\nsynthetic,smoke,2,x\n', 'stand there twice')])
def test_a_wrong_list_is_refused_before_any_work(tmp_path, line, says):
    with pytest.raises(InputError, match=says): lab.read_queue(queue_file(tmp_path, line))

@pytest.mark.parametrize('content,says', [(b'', 'an empty file'), (b'a,b\n1,2\n', 'got a, b'), (b'\xff\xfe\x00', 'is not a CSV file')])
def test_what_is_no_list_is_refused(tmp_path, content, says):
    (tmp_path/'queue.csv').write_bytes(content)
    with pytest.raises(InputError, match=says): lab.read_queue(tmp_path/'queue.csv')

def test_a_list_that_is_not_there_is_one_line(tmp_path, capsys):
    assert lab.main(['--queue', str(tmp_path/'none.csv'), '--show']) == 2
    assert capsys.readouterr().err == f"{tmp_path/'none.csv'}: No such file or directory\n"

def test_the_committed_list_is_sound(): assert len(lab.read_queue(ROOT/'lab/queue.csv')) >= 1
