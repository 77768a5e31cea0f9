"""Readings are functions of the networks of a run: the same in memory and from kept networks; two stages at one rate are one long stage."""
import pandas as pd, pytest, torch
from understanding_lrs.studies import array_trial, trial as trials
from understanding_lrs.probes.context import ArrayEvaluator, PathSettings, columns_of, probes_for
from understanding_lrs.training.networks import make_networks
from understanding_lrs.core.errors import InputError
from understanding_lrs.runs.find import find_runs
from understanding_lrs.runs.ledger import collect
from understanding_lrs.runs.published import publish, read_published
from understanding_lrs.runs.store import Run
from understanding_lrs.studies.registry import STUDIES, protocols, resolved
from understanding_lrs.studies.trial import live
from understanding_lrs.core.stats import CONVERGED
from understanding_lrs.analysis.summaries import summary
from understanding_lrs.analysis.tables import select

def smoke(study='convnetsi32_cifar10', i=0, **kw): return resolved(protocols(study, 'smoke', overrides=kw))[i]

@pytest.fixture
def bare(monkeypatch):
    "no readings: training alone is asked about"
    monkeypatch.setattr(trials, 'probes_for', lambda offers: {})

def test_two_stages_at_one_rate_are_one_long_stage(bare):
    one, two = live(smoke(epochs=6)), live(smoke(epochs=4, then_plr=1e-4, then_epochs=2))
    for name in ('pretrain', 'swa5', 'flr=0.0001'): assert torch.equal(one.points[name].flat(), two.points[name].flat()), name
    assert set(two.tables['curves'].stage) == {'first', 'pretrain', 'finetune'}
    assert not torch.equal(two.points['first'].flat(), two.points['pretrain'].flat())

def test_another_rate_is_another_end(bare):
    a, b = (live(smoke(epochs=4, then_plr=plr, then_epochs=2)) for plr in (1e-4, 1e-3))
    assert torch.equal(a.points['first'].flat(), b.points['first'].flat()) and not torch.equal(a.points['pretrain'].flat(), b.points['pretrain'].flat())

def test_further_orders_leave_the_first_alone(bare):
    one, three = live(smoke()), live(smoke(ft_orders=3))
    assert torch.equal(one.points['flr=1e-05'].flat(), three.points['flr=1e-05'].flat())
    assert not torch.equal(three.points['flr=1e-05#1'].flat(), three.points['flr=1e-05#2'].flat())
    assert set(three.tables['metrics'].band.dropna()) >= {'order=1', 'order=2'}

def test_networks_at_one_loss_are_those_of_their_epoch(bare):
    trial = live(smoke(i=1, epochs=8, level=.2)) # 1e-2
    crossed = trial.stage['pretrain'].crossed
    for k,epoch in enumerate(crossed.tolist()):
        losses = trial.stage['pretrain'].curves[1:, 0, k]
        assert losses[epoch - 1] < .2 and (losses[:epoch - 1] >= .2).all()
        short = live(smoke(i=1, epochs=epoch, level=0.))
        assert torch.equal(short.points['pretrain'].flat()[k], trial.points['pretrain@0.2'].flat()[k])

def test_pretraining_can_end_at_a_loss(bare):
    trial = live(smoke(i=1, epochs=200, stop_loss=CONVERGED, look_every=0))
    m = trial.tables['metrics']
    epochs, acc = (select(m, stage='pretrain', metric=n).value.to_numpy() for n in ('convergence_epoch', 'test_acc_converged'))
    st = trial.stage['pretrain']
    assert st.step == epochs.max() < 200 and (acc > 50).all()
    assert (st.curves[epochs.astype(int), 0, [0, 1]] < CONVERGED).all()

def test_later_readings_are_those_of_the_moment(tmp_path, monkeypatch):
    p = smoke(ft_orders=2)
    now = live(p)
    monkeypatch.setenv('ULRS_KEEP_STATES', '1')
    monkeypatch.setattr(trials, 'probes_for', lambda offers: dict(norms=probes_for(offers)['norms']))
    run = Run(tmp_path/'run', p)
    assert live(p, run).run.tables() == ['curves', 'metrics', 'norms']
    monkeypatch.setattr(trials, 'probes_for', probes_for)
    assert array_trial.read_later(array_trial.ImageTrial(p, run)) == ['bands', 'borders', 'edges', 'filters', 'geometry', 'sharpness']
    for name in now.tables: assert (run/f'{name}.csv').read_bytes() == (now.run/f'{name}.csv').read_bytes(), name
    assert run.state(deep=True).kind == 'done' and array_trial.read_later(array_trial.ImageTrial(p, run)) == []

def test_without_kept_networks_there_is_nothing_to_read(tmp_path, bare, monkeypatch):
    p, run = smoke(), Run(tmp_path/'run', smoke())
    live(p, run)
    monkeypatch.setattr(trials, 'probes_for', probes_for)
    with pytest.raises(InputError, match='kept no networks'): array_trial.read_later(array_trial.ImageTrial(p, run))

def test_every_reading_has_its_rows():
    trial = live(smoke('resnet18si_cifar10_basin'))
    t = trial.tables
    assert set(t['bands'].stage) == {'pretrain', 'average', 'finetune'} and set(t['filters'].stage) == {'init', 'pretrain', 'average', 'finetune'}
    assert set(t['edges'].pair) == {'low0-high0', 'low0-low1', 'low0-high1', 'high0-low1', 'high0-high1', 'low1-high1'}
    assert select(t['sharpness'], metric='sharpness').value.gt(0).all()
    counts = select(t['filters'], metric='filter_count').groupby(['stage', 'flr', 'swa_k', 'train_seed'], dropna=False).value.sum()
    assert counts.nunique() == 1
    acc = select(t['bands'], metric='without_acc', stage='pretrain', band='background')
    assert acc.value.between(0, 100).all() and len(acc) == 2

def test_names_of_points_are_columns():
    assert columns_of('swa5') == dict(stage='average', swa_k=5)
    assert columns_of('flr=0.0003@0.1') == dict(stage='finetune', flr=3e-4, band='level=0.1')

@pytest.mark.parametrize('kw, words', [(dict(then_plr=1e-3), 'then_epochs'), (dict(ft_orders=0), 'ft_orders'), (dict(path_pictures=-1), 'path_pictures'),
                                       (dict(level=-1.), 'level'), (dict(great_circle='perhaps'), 'great_circle')], ids=str)
def test_bad_settings_are_one_clear_line(kw, words):
    with pytest.raises(InputError, match=words) as e: smoke(**kw)
    assert '\n' not in str(e.value)

def test_the_command_reads_what_is_missing(tmp_path, monkeypatch, capsys):
    from understanding_lrs.app.cli import main
    p = smoke()
    monkeypatch.setenv('ULRS_KEEP_STATES', '1')
    with monkeypatch.context() as m:
        m.setattr(trials, 'probes_for', lambda offers: {})
        live(p, Run(tmp_path, p))
    assert main(['read', 'convnetsi32_cifar10', '--runs', str(tmp_path)]) == 0
    assert 'bands, borders, filters, geometry, norms, sharpness' in capsys.readouterr().out
    assert main(['read', 'convnetsi32_cifar10', '--runs', str(tmp_path)]) == 0 and 'nothing is missing' in capsys.readouterr().out
    assert main(['read', 'synthetic', '--runs', str(tmp_path)]) == 2 and 'no readings that can be taken later' in capsys.readouterr().err

def test_a_study_without_fine_tuning_has_tables_and_a_summary(tmp_path):
    "its geometry has columns and no rows"
    study = STUDIES['resnet18si_cifar10_boundary']
    for p in resolved(protocols(study.id, 'smoke', overrides=dict(flrs=[], swa_k=[]))): live(p, Run(tmp_path/'runs', p))
    tables = collect(find_runs(tmp_path/'runs', study.id))
    assert not len(tables['geometry']) and {'run', 'plr', 'metric', 'value'} <= {*tables['geometry'].columns}
    publish(find_runs(tmp_path/'runs', study.id), tmp_path/'tables')
    for t in (tables, read_published(tmp_path/'tables')): assert [row['n'] for row in summary(t, study)] == ['2', '2']

class Watched(ArrayEvaluator):
    "notes the weights that it is asked about"
    def measure(self, nets, *args, **kw):
        self.seen.append(nets.flat())
        return torch.zeros(2, len(nets))

def test_a_great_circle_is_another_way_to_the_same_middle():
    "through `along`: inner points differ from those of the chord, ends and middle agree, all lie on the sphere"
    p, = resolved(protocols('convnetsi32_cifar10', 'smoke', plrs=[1e-3]))
    trial, seen = STUDIES[p.study].trial(p).make(), {}
    a, b = trial.networks, make_networks(trial.spec, [8, 9], trial.rho)
    for circle in (False, True):
        watched = Watched(trial.data, trial.rho, path=PathSettings(points=5, great_circle=circle))
        watched.__dict__['seen'] = seen[circle] = []
        watched.along(a, b, halves=('train',))
    chord, arc = torch.stack(seen[False]), torch.stack(seen[True])
    torch.testing.assert_close(arc.norm(dim=2), torch.full((5, 2), trial.rho))
    torch.testing.assert_close(arc[[0, 2, 4]], chord[[0, 2, 4]], rtol=1e-4, atol=1e-5)
    assert not torch.allclose(arc[1], chord[1], atol=1e-3)

def test_derivatives_are_read_in_the_precision_of_the_protocol(monkeypatch):
    "PyTorch's own default on a GPU would be tf32 convolutions, whatever was asked for"
    from contextlib import contextmanager
    asked, honest = [], array_trial.numerics
    @contextmanager
    def noted(precision, device='cpu'):
        asked.append(precision)
        with honest(precision, device): yield
        asked.pop()
    inside = []
    monkeypatch.setattr(array_trial, 'numerics', noted)
    monkeypatch.setattr(trials, 'probes_for', lambda offers: dict(norms=lambda context: inside.append(asked[-1:]) or pd.DataFrame(dict(value=[1.]))))
    for precision in ('fp32', 'bf16'): live(smoke(precision=precision))
    assert inside == [['fp32'], ['fp32']] and not asked

@pytest.mark.parametrize('where', ['resident', 'Trainer', 'probes_for'])
def test_too_small_a_gpu_is_one_line(monkeypatch, where):
    def no_room(*a, **k): raise torch.OutOfMemoryError('CUDA out of memory.\nTried to allocate')
    module = array_trial if where == 'resident' else trials
    monkeypatch.setattr(module, where, no_room if where != 'probes_for' else lambda offers: dict(norms=no_room))
    with pytest.raises(InputError, match='out of GPU memory.*GiB.*--per-gpu 1') as e: live(smoke())
    assert '\n' not in str(e.value)

def test_a_run_says_how_fast_it_was(bare):
    trial = live(smoke())
    said = trial.provenance()['network_epochs_per_s']
    assert said.keys() == {'pretrain', 'average', 'finetune'} and said['pretrain'] == pytest.approx(2*4/trial.clock.seconds['pretrain'], rel=.01)
