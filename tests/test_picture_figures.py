"""Figures of picture studies: one function each, the same bytes every time; foreign values never, a partial grid always said."""
import hashlib, json, os, subprocess, sys
from dataclasses import replace
import matplotlib, numpy as np, pandas as pd, pytest
from test_figures import lines, run_page
from test_figures import words as as_broken
from test_picture_claims import FLRS, PLRS, STUDY, made
from understanding_lrs import plots
from understanding_lrs.claims import verdicts
from understanding_lrs.runs import InputError, Run, find_runs, publish, read_published
from understanding_lrs.studies import STUDIES, Preset, live, protocols, settled

def words(fig): return as_broken(fig).replace('\n', ' ')

def tables(plrs=PLRS, data='cifar10-jpeg', **kw):
    "Made-up tables with ledger and curves; only some of the rates"
    m = made(**kw)['metrics'].assign(data=data)
    m = m[m.plr.isin(plrs)]
    curves = m[(m.stage == 'pretrain') & m.metric.isin(['test_acc', 'train_loss'])]
    curves = pd.concat([curves.assign(step=e, value=curves.value*e/20) for e in range(1, 21)])
    return dict(metrics=m, curves=curves[['run', 'data_seed', 'train_seed', 'readout_seed', 'stage', 'flr', 'metric', 'step', 'value']],
                runs=pd.DataFrame(dict(run=[f'{p:g}' for p in plrs], plr=plrs, settings='{}')))

CURVES = {name: f for name,f in plots.PICTURE_FIGURES.items() if name != 'geometry'} # those that need no geometry

@pytest.fixture(autouse=True)
def study(monkeypatch):
    monkeypatch.setitem(STUDIES, STUDY.id, STUDY)
    return STUDY

@pytest.fixture(scope='session')
def paper(root): return plots.read_paper(root)

def view(study=STUDY, paper=None, preset='laptop', **kw): return plots.View(tables(**kw), study, paper, preset)

def test_every_figure_draws_and_says_what_it_shows():
    v = view()
    assert set(plots.PICTURE_FIGURES) == {'geometry', *CURVES}
    for name,f in CURVES.items():
        said = words(f(v))
        for want in ('CIFAR-10 (JPEG)', 'preset laptop', '3 train seeds', 'n = 3 networks a PLR', 'No values of the paper for this setup',
                     'agree in test accuracy'):
            assert want in said, (name, want)
        assert 'PARTIAL' not in said and 'data seeds' not in said

def test_labels_tell_what_is_drawn():
    fig = plots.pretraining(view())
    assert 'PLR (effective learning rate)' in words(fig) and '± std over these epochs' in words(fig) and 'guessing' in words(fig)
    fig = plots.finetune_and_swa(view())
    entries = {t.get_text() for a in fig.axes for t in a.get_legend().get_texts()}
    assert {'FLR 1e-5', 'FLR 1e-4', 'average of 2', 'average of 5', 'pre-training'} <= entries
    assert 'Values below' in words(fig) # pre-training in regime 3

def test_the_curves_are_the_means_of_the_tables():
    v = view()
    ax, _ = plots.finetune_and_swa(v).axes
    line, = lines(ax, 'FLR 1e-5')
    want = v(stage='finetune', metric='test_acc', flr=1e-5).groupby('plr').value.mean()
    assert np.allclose(line.get_ydata(), want) and np.allclose(line.get_xdata(), PLRS)
    tail = next(l for l in plots.pretraining(v).axes[0].lines if l.get_label().startswith('mean over'))
    assert np.allclose(tail.get_ydata(), v(metric='test_acc_tail').groupby('plr').value.mean())

def test_one_seed_has_no_band():
    fig = plots.finetune_and_swa(view(seeds=1))
    assert 'One seed a PLR: no bands.' in words(fig)
    m = made()['metrics']
    own = m[m.train_seed == 1].assign(train_seed=lambda d: d.plr.rank(method='dense').astype(int), data='digits') # the authors' scheme
    v = plots.View(dict(metrics=own), STUDY, preset='laptop')
    assert 'One seed a PLR: no bands.' in words(plots.finetune_and_swa(v)) and np.isnan([b.ci for b in v.bounds.values()]).all()

def test_lines_come_from_barriers_where_there_are_some():
    t = tables()
    end = t['metrics'].query("stage == 'pretrain' and metric == 'test_acc'").assign(stage='')
    value = np.where(end.plr <= 2e-4, 0., 9.)
    kinds = dict(train_barrier=1, test_barrier=1, angle=9)
    t['geometry'] = pd.concat([end.assign(pair=p, metric=m, value=value/k) for p in ('low_high', 'swa5_low') for m,k in kinds.items()])
    v = plots.View(t, STUDY, preset='laptop')
    assert v.bounds['lr_2ab'].line == 2e-4 and 'agree in test accuracy' not in words(plots.finetune_and_swa(v))
    assert 'CIFAR-10 (JPEG)' in words(plots.geometry(v)) and 'data seeds' not in words(plots.geometry(v))

def test_what_lies_beyond_the_grid_is_not_drawn():
    "all rates converge: one regime, no line"
    ax = plots.pretraining(view(converge=13)).axes[0]
    assert [t.get_text() for t in ax.texts] == ['1'] and not lines(ax, '_lr_12') and not lines(ax, '_lr_2ab')

def test_a_partial_grid_is_said():
    some = [p for p in PLRS if p not in (5e-5, 1e-2)]
    for f in CURVES.values():
        assert 'PARTIAL GRID: 2 of 13 PLRs missing or incomplete (5e-5, 1e-2)' in words(f(view(plrs=some)))
    less = tables()
    m = less['metrics']
    less['metrics'] = m[(m.plr != 5e-4) | (m.train_seed < 3)]
    assert plots.View(less, STUDY, preset='laptop').missing == [5e-4] # a seed is missing
    ax = plots.finetune_and_swa(view(plrs=some)).axes[0]
    assert np.isnan(lines(ax, 'FLR 1e-5')[0].get_ydata()[PLRS.index(1e-2)]) # no line across the gap

def theirs(preset):
    "The main setup of the paper as a study, with one preset"
    made_up = Preset('made up', PLRS, FLRS, (2, 5), (), (1, 2, 3), 1)
    return replace(STUDY, id='resnet18si_cifar10', lines=(3e-4, 1.4e-3, 2e-2), presets={preset: made_up})

@pytest.mark.parametrize('preset, marks', [('paper', True), ('short', True), ('laptop', False), ('smoke', False)])
def test_the_authors_values_only_beside_their_setup(paper, monkeypatch, preset, marks):
    main = theirs(preset)
    monkeypatch.setitem(STUDIES, main.id, main)
    for f,panel in ((plots.pretraining, 'pretrain_test_acc_mean_181_200'), (plots.finetune_and_swa, 'pretrain_test_acc_200')):
        fig = f(view(main, paper, preset))
        ax = fig.axes[0]
        found = lines(ax, '_authors pretrain')
        assert bool(found) == bool(lines(ax, '_authors')) == marks
        assert ('No values of the paper' not in words(fig)) == ("the paper's single runs" in words(fig)) == marks
        if marks: assert list(found[0].get_ydata()) == list(paper['resnet18si_cifar10_pretrain'].query('panel == @panel').value)

def test_no_values_of_another_setup(paper):
    for f in (plots.pretraining, plots.finetune_and_swa):
        assert not [l for ax in f(view(paper=paper, preset='short')).axes for l in ax.lines if str(l.get_label()).startswith('_authors')]

def test_fine_tuning_or_averages_may_be_missing():
    for kw in (dict(swa=None), dict(low=None, high=None), dict(high=None)):
        assert isinstance(plots.finetune_and_swa(view(**kw)), matplotlib.figure.Figure)
    bare = tables()
    del bare['curves']
    with pytest.raises(InputError, match='no rows of curves'): plots.regimes(bare, STUDY, preset='laptop')

def test_a_study_gets_the_figures_of_its_kind(tmp_path):
    with pytest.warns(UserWarning, match='not drawn: figure geometry'): done = plots.draw(STUDY.id, tables(), tmp_path, 'laptop', paper={})
    assert [p.name for p in done] == [f'{STUDY.id}_{n}.svg' for n in CURVES]
    assert all(p.stat().st_size < plots.LARGEST for p in done)
    assert not plots.of_pictures(STUDIES['synthetic']) and 'pretraining' not in plots.FIGURES

def test_same_bytes_and_others_for_other_numbers():
    for f in (plots.pretraining, plots.finetune_and_swa):
        other = dict(noise=.5, pre=[v + 1 for v in range(60, 73)])
        a, b, c = (hashlib.sha256(f(view(**kw)).render()).hexdigest() for kw in ({}, {}, other))
        assert a == b != c

def published(folder, made):
    "Tables as `publish` would leave them"
    folder.mkdir()
    files = {}
    for name,t in made.items():
        whole = {c: 'Int64' for c in ('data_seed', 'train_seed', 'readout_seed', 'swa_k', 'rank', 'step') if c in t}
        data = t.astype(whole).to_csv(index=False).encode()
        (folder/f'{name}.csv').write_bytes(data)
        files[f'{name}.csv'] = dict(sha256=hashlib.sha256(data).hexdigest(), size=len(data))
    (folder/'tables.json').write_text(json.dumps(dict(files=files)))
    return folder

PAGES = {'images_pretrain': 'pretraining', 'images_finetune_swa': 'finetune_and_swa'}

@pytest.mark.parametrize('page', PAGES)
def test_pages_draw_what_is_there(root, tmp_path, page):
    space = run_page(root/'nbs/figures'/f'{page}.ipynb', data=str(published(tmp_path/'tables', tables())), out=str(tmp_path))
    assert (tmp_path/f'{STUDY.id}_{PAGES[page]}.svg').exists()
    assert set(space['judged'].dropna(subset=['study']).verdict) == {'seen at laptop size'}

@pytest.mark.parametrize('page', PAGES)
def test_pages_say_that_tables_are_missing(root, tmp_path, page, capsys):
    space = run_page(root/'nbs/figures'/f'{page}.ipynb', data=str(tmp_path), out=str(tmp_path))
    assert 'No tables of convnetsi32_cifar10, preset laptop, yet' in capsys.readouterr().out
    assert not list(tmp_path.iterdir()) and space['fig'] is None and set(space['judged'].verdict) == {'not yet run'}

def test_a_grid_is_known_without_its_pictures(monkeypatch):
    "drawing committed tables never looks for a data set"
    def never(*a, **k): raise AssertionError('asked for pictures')
    monkeypatch.setattr('understanding_lrs.picture_lives.load_pictures', never)
    main = STUDIES['resnet18si_cifar10']
    assert len(protocols(main.id, 'paper')) == 25 and {p.train_seeds for p in protocols(main.id, 'paper')} == {(1,)}
    assert [p.train_seeds[0] for p in protocols(main.id, 'authors')] == list(range(2003, 2028))
    m = made(plrs=(1e-4, 1e-3), pre=PLRS[:2], low=None, high=None, swa=None, converge=1, noisy=2)['metrics']
    assert len(plots.View(dict(metrics=m), main, preset='short').missing) == 8

def test_digits_from_training_to_figures(tmp_path):
    "a real study, at smoke size"
    for p in settled(protocols('resnet18si_cifar10', 'smoke')): live(p, Run(tmp_path/'runs', p))
    publish(find_runs(tmp_path/'runs'), tmp_path/'tables')
    done = plots.draw('resnet18si_cifar10', tmp_path/'tables', tmp_path)
    assert [p.name for p in done] == [f'resnet18si_cifar10_{n}.svg' for n in plots.PICTURE_FIGURES]
    v = plots.View(read_published(tmp_path/'tables'), STUDIES['resnet18si_cifar10'], plots.read_paper())
    said = words(plots.pretraining(v))
    assert v.preset == 'smoke' and not v.missing and "scikit-learn's digits" in said and 'No values of the paper for this setup' in said
    judged = verdicts({('resnet18si_cifar10', 'smoke'): v.tables}).dropna(subset=['study'])
    assert set(judged.claim) == {f'C{i}' for i in range(1, 7)} and set(judged.verdict) == {'not seen at laptop size'}
