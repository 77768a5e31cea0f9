"""Stopped anywhere and continued = never stopped, bit for bit; the order in which things are asked does not matter."""
import pytest, torch
from understanding_lrs import seeds, stacked
from understanding_lrs.models import MLPSpec
from understanding_lrs.runs import InputError, Run
from understanding_lrs.stacked import Stage, make_stack, stack_sets
from understanding_lrs.runs import OutOfTime
from understanding_lrs.studies import live, protocols
from understanding_lrs.synthetic import SyntheticConfig, make_data

def stage(lr=5e-2): # above the threshold, where a single bit would grow
    sets = stack_sets([make_data(SyntheticConfig(n_train=64, n_test=50), d) for d in (1, 2)])
    return Stage(make_stack(MLPSpec(), [1, 2], [1, 2], [0, 1]), sets, lr, steps=100, swa_k=(2, 5), ckpt_every=10)

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

def test_readings_are_taken_once(tmp_path, monkeypatch):
    "a run that is stopped between two readings goes on with the second"
    from understanding_lrs import lives
    p, taken = protocols('synthetic', 'smoke')[2], []
    honest = lives.readings(p)
    monkeypatch.setattr(lives, 'readings', lambda p: {n: lambda points, life, n=n, f=f: taken.append(n) or f(points, life) for n,f in honest.items()})
    whole, run = live(p, Run(tmp_path/'a', p)).run, Run(tmp_path/'b', p)
    taken.clear()
    def late(life):
        life.on_progress = lambda stage, done, total, _: setattr(life, 'deadline', 0. if stage == 'read' else None)
        return life
    for n in honest:
        assert run.state().kind != 'done'
        life = late(lives.study_of(p.study).life(p, run))
        with pytest.raises(OutOfTime, match=f'after the reading {n}'): life.live()
        life._locked.close()
    assert taken == list(honest)
    life = live(p, run)
    assert tables(run) == tables(whole) and taken == list(honest) and set(life.provenance()['readings']) == {*honest}

def test_a_foreign_state_is_refused():
    with pytest.raises(ValueError, match="this state holds"):
        stage().load(Stage(make_stack(MLPSpec(), [1], [1], [0]), stage().sets, 1e-2, steps=100, swa_k=(2, 5), ckpt_every=10).state())

def test_a_finished_run_only_reads(tmp_path, monkeypatch):
    p = protocols('synthetic', 'smoke')[0]
    first = live(p, Run(tmp_path, p)).run
    monkeypatch.setattr(Stage, 'run', lambda *a, **kw: pytest.fail("trained again"))
    assert live(p, Run(tmp_path, p)).tables['metrics'].equals(first.table('metrics'))
