"""Stopped anywhere and continued = never stopped, bit for bit; the order in which things are asked does not matter."""
import pytest, torch
from understanding_lrs.core import seeds
from understanding_lrs.training import stacked
from understanding_lrs.networks.mlp import MLPSpec
from understanding_lrs.core.errors import OutOfTime
from understanding_lrs.runs.store import Run
from understanding_lrs.training.networks import make_networks
from understanding_lrs.training.stacked import SyntheticTask, stack_sets
from understanding_lrs.training.trainer import Schedule, Trainer
from understanding_lrs.studies.registry import protocols, study_of
from understanding_lrs.studies.trial import live
from understanding_lrs.data.synthetic import SyntheticConfig, make_data

def stage(lr=5e-2): # above the threshold, where a single bit would grow
    sets = stack_sets([make_data(SyntheticConfig(n_train=64, n_test=50), d) for d in (1, 2)])
    return Trainer(SyntheticTask(sets), make_networks(MLPSpec(), [1, 2], readouts=[1, 2], data=[0, 1]), lr, Schedule(100, swa_k=(2, 5), swa_every=10))

def equal(a, b): return all(torch.equal(a[k], b[k]) for k in a)

@pytest.mark.parametrize('cut', [0, 4, 33, 64, 99]) # 4 steps are an epoch here: at its edge and inside
def test_cut_and_continued(cut):
    whole, first = stage().run().state(), stage().run(cut)
    assert first.step == cut
    assert equal(stage().load(first.state()).run().state(), whole)

def test_a_broken_order_is_seen(monkeypatch):
    "the negative test: shuffling that depends on where one stopped gives other bits"
    whole, first = stage().run().state(), stage().run(33)
    honest = seeds.batch_order
    monkeypatch.setattr(stacked, 'batch_order', lambda s, n, b, start, stop, p: honest(s + start, n, b, 0, stop - start, p))
    assert not equal(stage().load(first.state()).run().state(), whole)

def tables(run): return {t: (run.folder/f'{t}.csv').read_bytes() for t in run.tables()}

def test_a_run_in_pieces(tmp_path):
    "every call stops after one window; the tables are the bytes of an undisturbed run"
    p = protocols('synthetic', 'smoke', overrides=dict(steps=400))[2]
    whole, pieces, calls = live(p, Run(tmp_path/'a', p)).run, Run(tmp_path/'b', p), 0
    while pieces.state().kind != 'done':
        try: live(p, pieces, time_limit=0)
        except OutOfTime: calls += 1
    assert calls > 10 and tables(pieces) == tables(whole)

@pytest.fixture
def reads(monkeypatch):
    "names of the probes as they are taken"
    from understanding_lrs.studies import trial as module
    taken, honest = [], module.probes_for
    def noted(name, probe): return lambda context: taken.append(name) or probe(context)
    monkeypatch.setattr(module, 'probes_for', lambda offers: {n: noted(n, probe) for n,probe in honest(offers).items()})
    return taken

class Killed(Exception): pass

def kill_after(trial, n):
    "n readings; like a kill: what is not on disk by then is lost"
    def told(stage, done, total, _):
        if stage == 'read' and len(trial.tables) == n: raise Killed
    trial.on_progress = told
    with pytest.raises(Killed): trial.live()
    trial.locked.close()

def test_a_late_run_stops_after_every_reading(tmp_path, reads):
    p = protocols('synthetic', 'smoke')[2]
    whole, run, names = live(p, Run(tmp_path/'a', p)).run, Run(tmp_path/'b', p), list(reads)
    reads.clear()
    for n in names:
        trial = study_of(p.study).trial(p, run)
        trial.on_progress = lambda stage, *_: setattr(trial, 'deadline', 0. if stage == 'read' else None)
        with pytest.raises(OutOfTime, match=f'after the probe {n}'): trial.live()
        trial.locked.close()
    assert len(names) > 1 and reads == names
    trial = live(p, run)
    assert tables(run) == tables(whole) and reads == names and list(trial.provenance()['readings']) == names
    assert trial.clock.seconds['read'] >= sum(trial.provenance()['readings'].values()) - .01*len(names)

def test_a_killed_run_takes_no_reading_twice(tmp_path, reads, monkeypatch):
    p = protocols('synthetic', 'smoke')[2]
    whole, run, names = live(p, Run(tmp_path/'a', p)).run, Run(tmp_path/'b', p), list(reads)
    reads.clear()
    kill_after(study_of(p.study).trial(p, run), 1)
    monkeypatch.setattr(Trainer, 'run', lambda st, **kw: st if st.step == st.steps else pytest.fail('trained again'))
    live(p, run)
    assert reads == names and tables(run) == tables(whole)

@pytest.mark.parametrize('harm', ['another table', 'no checkpoint', 'an old checkpoint'])
def test_a_table_of_other_networks_is_not_kept(tmp_path, reads, harm):
    p = protocols('synthetic', 'smoke')[2]
    whole, run, names = live(p, Run(tmp_path/'a', p)).run, Run(tmp_path/'b', p), list(reads)
    reads.clear()
    kill_after(study_of(p.study).trial(p, run), 1)
    file, checkpoint = run.folder/f'{names[0]}.csv', run.folder/'checkpoint.safetensors'
    file.write_bytes(file.read_bytes().replace(b'1', b'2'))
    if harm == 'no checkpoint': checkpoint.unlink()
    if harm == 'an old checkpoint': run.save_checkpoint((kept := run.load_checkpoint())[0], dict(seconds=kept[1]['seconds']))
    live(p, run)
    assert reads == [names[0], *names] and tables(run) == tables(whole)

def test_a_foreign_state_is_refused():
    with pytest.raises(ValueError, match="this state holds"):
        stage().load(Trainer(SyntheticTask(stage().task.sets), make_networks(MLPSpec(), [1], readouts=[1], data=[0]), 1e-2, Schedule(100, swa_k=(2, 5), swa_every=10)).state())

def test_a_finished_run_only_reads(tmp_path, monkeypatch):
    p = protocols('synthetic', 'smoke')[0]
    first = live(p, Run(tmp_path, p)).run
    monkeypatch.setattr(Trainer, 'run', lambda *a, **kw: pytest.fail("trained again"))
    assert live(p, Run(tmp_path, p)).tables['metrics'].equals(first.table('metrics'))
