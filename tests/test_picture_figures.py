"""Figures of picture studies: one function each, the same bytes every time; foreign values never, a partial grid always said."""
import hashlib, json
from dataclasses import replace
import matplotlib, numpy as np, pandas as pd, pytest, torch
from test_figures import FOLDER, lines, run_page
from test_figures import words as as_broken
from test_picture_claims import FLRS, PLRS, STUDY, made
from understanding_lrs.figures import (drawing, fig06_frequency_bands, fig16_geometry, images_beside_paper, images_bands, images_boundary,
                                       images_filters, images_finetune_swa, images_overview, images_practical, images_pretrain,
                                       images_sharpness, images_two_stage, path_between, training_curves)
from understanding_lrs.figures.axis import tints
from understanding_lrs.figures.registry import draw, draw_study, figures_of
from understanding_lrs.figures.view import View, on_images, read_paper, view_of
from understanding_lrs.analysis.claims import verdicts
from understanding_lrs.analysis.tables import select
from understanding_lrs.core.errors import InputError
from understanding_lrs.runs.find import find_runs
from understanding_lrs.runs.published import publish, read_published
from understanding_lrs.probes.between import Between
from understanding_lrs.runs.store import Run
from understanding_lrs.studies.registry import STUDIES, Preset, protocols, resolved
from understanding_lrs.studies.trial import live

def words(fig): return as_broken(fig).replace('\n', ' ')

def tables(plrs=PLRS, data='cifar10-jpeg', **kw):
    "Made-up tables with ledger and curves; only some of the rates"
    m = made(**kw)['metrics'].assign(data=data)
    m = m[m.plr.isin(plrs)]
    curves = m[(m.stage == 'pretrain') & m.metric.isin(['test_acc', 'train_loss'])]
    curves = pd.concat([curves.assign(step=e, value=curves.value*e/20) for e in range(1, 21)])
    return dict(metrics=m, curves=curves[['run', 'data_seed', 'train_seed', 'readout_seed', 'stage', 'flr', 'metric', 'step', 'value']],
                runs=pd.DataFrame(dict(run=[f'{p:g}' for p in plrs], plr=plrs, settings='{}')))

IMAGE_FIGURES = figures_of(STUDIES['convnetsi32_cifar10'])
CURVES = {name: IMAGE_FIGURES[name] for name in ('finetune_and_swa', 'pretraining', 'regimes')} # those that need no more than metrics and curves
MORE = ('geometry', 'bands', 'band_inputs', 'filters', 'sharpness', 'picture_overview')

@pytest.fixture(autouse=True)
def study(monkeypatch):
    monkeypatch.setitem(STUDIES, STUDY.id, STUDY)
    return STUDY

@pytest.fixture(scope='session')
def paper(root): return read_paper(root)

def view(study=STUDY, paper=None, preset='laptop', **kw): return View(tables(**kw), study, paper, preset)

def test_every_figure_draws_and_says_what_it_shows():
    v = view()
    assert set(IMAGE_FIGURES) == {*MORE, *CURVES, 'shared_axis'}
    for name,f in CURVES.items():
        said = words(f(v))
        for want in ('CIFAR-10 (JPEG)', 'preset laptop', '3 train seeds', 'n = 3 networks a PLR', 'No values of the paper for this setup',
                     'agree in test accuracy'):
            assert want in said, (name, want)
        assert 'PARTIAL' not in said and 'data seeds' not in said

def test_labels_tell_what_is_drawn():
    fig = images_pretrain.pretraining(view())
    assert 'PLR (effective learning rate)' in words(fig) and '± std over these epochs' in words(fig) and 'guessing' in words(fig)
    fig = images_finetune_swa.finetune_and_swa(view())
    entries = {t.get_text() for a in fig.axes for t in a.get_legend().get_texts()}
    assert {'FLR 1e-5', 'FLR 1e-4', 'average of 2', 'average of 5', 'pre-training'} <= entries
    assert 'Values below' in words(fig) # pre-training in regime 3

def test_the_curves_are_the_means_of_the_tables():
    v = view()
    ax, _ = images_finetune_swa.finetune_and_swa(v).axes
    line, = lines(ax, 'FLR 1e-5')
    want = v(stage='finetune', metric='test_acc', flr=1e-5).groupby('plr').value.mean()
    assert np.allclose(line.get_ydata(), want) and np.allclose(line.get_xdata(), PLRS)
    tail = next(l for l in images_pretrain.pretraining(v).axes[0].lines if l.get_label().startswith('mean over'))
    assert np.allclose(tail.get_ydata(), v(metric='test_acc_tail').groupby('plr').value.mean())

def test_one_seed_has_no_band():
    fig = images_finetune_swa.finetune_and_swa(view(seeds=1))
    assert 'One seed a PLR: no bands.' in words(fig)
    m = made()['metrics']
    own = m[m.train_seed == 1].assign(train_seed=lambda d: d.plr.rank(method='dense').astype(int), data='digits') # the authors' scheme
    v = View(dict(metrics=own), STUDY, preset='laptop')
    assert 'One seed a PLR: no bands.' in words(images_finetune_swa.finetune_and_swa(v)) and np.isnan([b.ci for b in v.bounds.values()]).all()

def test_lines_come_from_barriers_where_there_are_some():
    t = tables()
    end = t['metrics'].query("stage == 'pretrain' and metric == 'test_acc'").assign(stage='')
    value = np.where(end.plr <= 2e-4, 0., 9.)
    kinds = dict(train_barrier=1, test_barrier=1, angle=9)
    t['geometry'] = pd.concat([end.assign(pair=p, metric=m, value=value/k) for p in ('low_high', 'swa5_low') for m,k in kinds.items()])
    v = View(t, STUDY, preset='laptop')
    assert v.bounds['lr_2ab'].line == 2e-4 and 'agree in test accuracy' not in words(images_finetune_swa.finetune_and_swa(v))
    assert 'CIFAR-10 (JPEG)' in words(fig16_geometry.geometry(v)) and 'data seeds' not in words(fig16_geometry.geometry(v))

def test_what_lies_beyond_the_grid_is_not_drawn():
    "all rates converge: one regime, no line"
    ax = images_pretrain.pretraining(view(converge=13)).axes[0]
    assert [t.get_text() for t in ax.texts] == ['1'] and not lines(ax, '_lr_12') and not lines(ax, '_lr_2ab')

def test_a_partial_grid_is_said():
    some = [p for p in PLRS if p not in (5e-5, 1e-2)]
    for f in CURVES.values():
        assert 'PARTIAL GRID: 2 of 13 PLRs missing or incomplete (5e-5, 1e-2)' in words(f(view(plrs=some)))
    less = tables()
    m = less['metrics']
    less['metrics'] = m[(m.plr != 5e-4) | (m.train_seed < 3)]
    assert View(less, STUDY, preset='laptop').missing == [5e-4] # a seed is missing
    ax = images_finetune_swa.finetune_and_swa(view(plrs=some)).axes[0]
    assert np.isnan(lines(ax, 'FLR 1e-5')[0].get_ydata()[PLRS.index(1e-2)]) # no line across the gap

def extended(**kw):
    "The tables with what is read from networks as well: geometry, bands, filters, sharpness, networks at an equal training loss"
    t, rng = tables(**kw), np.random.default_rng(1)
    m = t['metrics']
    ends = m[(m.metric == 'test_acc')]
    pre = ends[ends.stage == 'pretrain']
    x = np.log10(pre.plr).to_numpy()
    def rows(base, metric, value, **columns): return base.assign(metric=metric, value=value, **columns)
    barrier, geometry = np.where(pre.plr <= 1e-3, 0., 10*(x + 3)), []
    for pair in fig16_geometry.PAIRS:
        values = dict(angle=np.clip(.4*(x + 5), 0, 1.5), train_barrier=barrier, test_barrier=barrier*.8, train_loss_barrier=barrier/20, test_loss_barrier=barrier/15)
        geometry += [rows(pre, k, v, stage='', pair=pair) for k,v in values.items()]
    peak = lambda b, width, at: 10 + b*np.exp(-((np.log10(ends.plr) - at)/width)**2) + rng.standard_normal(len(ends))*.5
    bands = []
    for band,(b,w,at) in dict(background=(6, 3, -5), low=(20, 2, -4), mid=(30, .7, -3), high=(1, 1, -3)).items():
        bands += [rows(ends, f'band_acc_{k}', peak(b*s, w, at), band=band) for k,s in dict(raw=1, std=1.5, band=1.2).items()]
        bands += [rows(ends, 'without_acc', 80 - peak(b, w, at), band=band)]
    bands += [rows(ends, 'band_acc_raw', peak(b, 1, -3), band=f'mid={k}-24') for k,b in ((5, 35), (9, 30), (13, 20))]
    sharp = [rows(pre, m_, 10**(-x*.7 + .1*rng.standard_normal(len(pre)))*c) for m_,c in (('sharpness', 5), ('sharpness_average', .1))]
    slow = pre[pre.plr <= 5e-3]
    sharp += [rows(slow, 'sharpness', 10**(-np.log10(slow.plr)*.7 + 1), band='level=0.1')]
    t['metrics'] = pd.concat([m, rows(slow, 'test_acc', slow.value - 5, band='level=0.1')], ignore_index=True)
    t |= dict(geometry=pd.concat(geometry), bands=pd.concat(bands), sharpness=pd.concat(sharp), filters=norms(ends))
    return t

def norms(ends):
    "Filters of networks: all alike at first, spread out at the largest rate"
    out = []
    first = ends[(ends.stage == 'pretrain') & (ends.plr == min(PLRS))].assign(stage='init')
    for _,e in pd.concat([first, ends]).iterrows():
        wide = .5 if e.plr == max(PLRS) and e.stage != 'init' and not e.flr == FLRS[-1] else .05
        n, edges = np.histogram(np.clip(np.random.default_rng(2).normal(-1.7, wide, 400), -5.9, -.01), images_filters.BINS)
        out += [dict(e) | dict(metric='filter_count', band=f'bin={lo:.2f}', value=float(k)) for k,lo in zip(n, edges) if k]
        out += [dict(e) | dict(metric='filter_log10_std', value=wide)]
    return pd.DataFrame(out)

LINE = [1e-4, 1.5e-4, 2e-4, 2.5e-4, 3e-4, 3.5e-4, 3.7e-4, 3.8e-4, 3.9e-4, 4e-4, 4.2e-4] # of the authors

def special(name, lines=(3e-4, None, None)):
    "A study of the appendix"
    made_up = Preset('made up', tuple(LINE) if name == 'boundary' else PLRS, FLRS, (), (), (1, 2, 3), 1)
    return replace(STUDY, id=f'resnet18si_cifar10_{name}', title='made up', lines=lines, presets={'paper': made_up})

def around_the_line():
    "Networks that need longer and longer; beyond the line they never get there"
    base = made(plrs=LINE, pre=[80 + i/2 for i in range(11)], low=None, high=None, swa=None, converge=7, noisy=11)['metrics']
    pre = base[base.metric == 'test_acc']
    i = pre.plr.map(LINE.index).to_numpy()
    late = np.where(i < 8 + (pre.train_seed == 1), np.round(10*1.9**i*(1 + .1*pre.train_seed)), np.nan)
    more = [pre.assign(metric='convergence_epoch', value=late), pre.assign(metric='test_acc_converged', value=np.where(np.isnan(late), np.nan, 79 + i/2))]
    ledger = pd.DataFrame(dict(run=[f'{p:g}' for p in LINE], plr=LINE, settings='{"epochs": 3000}'))
    return dict(metrics=pd.concat([base, *more], ignore_index=True), runs=ledger)

WAYS = {(1e-5, 0.): (60, 85), (1e-4, 0.): (50, 86), (1e-3, 0.): (88, 88.4), (1e-2, 0.): (70, 76), (1e-2, 1e-3): (87.5, 88.1), (1e-3, 1e-3): (88.2, 88.6)}

def by_ways(ways=WAYS):
    "Runs of one stage and of two, and without pre-training"
    rows, runs, rng = [], [], np.random.default_rng(0)
    for (plr,then),accs in ways.items():
        run = f'{plr:g}-{then:g}'
        runs += [dict(run=run, plr=plr, settings=json.dumps(dict(then_plr=then, then_epochs=200 if then else 0, epochs=200)))]
        parts = [(dict(stage='finetune', flr=f), a) for f,a in zip(FLRS, accs)] + [(dict(stage='pretrain'), accs[0] - 5)] + [(dict(stage='first'), 40)]*bool(then)
        rows += [dict(run=run, plr=plr, train_seed=s, metric='test_acc', value=a + .3*rng.standard_normal()) | c for c,a in parts for s in (1, 2, 3)]
    m = pd.DataFrame(rows).assign(study='x', data='cifar10', swa_k=np.nan, data_seed=np.nan, readout_seed=np.nan, pair=None, band=None, rank=np.nan)
    return dict(metrics=m, runs=pd.DataFrame(runs))

def three_rates():
    "From regime 3 and from nothing, with filters"
    t = by_ways({(1e-5, 0.): (68, 85), (1e-4, 0.): (50, 86), (1e-1, 0.): (80, 86)})
    m = t['metrics']
    ends = dict(train_loss=.5, test_acc_tail=10., test_acc_tail_std=.1)
    pre = m[m.stage == 'pretrain']
    more = [pre.assign(metric=k, value=np.where(pre.plr < 1e-2, 1e-3 if k == 'train_loss' else v, v)) for k,v in ends.items()]
    return t | dict(metrics=pd.concat([m, *more], ignore_index=True), filters=norms(m))

def basin():
    "All pairs of fine-tunings"
    t = tables()
    pre = t['metrics'].query("stage == 'pretrain' and metric == 'test_acc'").assign(stage='')
    wall = np.where(pre.plr <= 1e-3, .2, 20*(np.log10(pre.plr) + 3))
    pairs = [f'{a}-{b}' for a,b in (('low0', 'low1'), ('low0', 'high0'), ('high0', 'high1'))]
    t['edges'] = pd.concat([pre.assign(pair=p, metric=m, value=wall*k*(1 + .1*i)) for i,p in enumerate(pairs) for m,k in dict(train_barrier=1, train_loss_rise=.003, angle=.01).items()])
    return t

@pytest.fixture(scope='module')
def whole(): return extended()

def whole_view(whole, study=STUDY, paper=None, preset='laptop'): return View(whole, study, paper, preset)

def test_figures_of_readings_draw_and_say_what_they_show(whole):
    v = whole_view(whole)
    for name in MORE:
        said = words(IMAGE_FIGURES[name](v))
        for want in ('CIFAR-10 (JPEG)', 'preset laptop', 'n = 3 networks a PLR', 'No values of the paper for this setup'): assert want in said, (name, want)
        assert 'PARTIAL' not in said and 'data seeds' not in said

@pytest.mark.parametrize('name', MORE)
def test_readings_that_are_missing_are_named(name):
    with pytest.raises(InputError, match=f'figure {name}: no rows of'): IMAGE_FIGURES[name](tables(), STUDY, preset='laptop')

def test_a_partial_grid_of_readings_is_said(whole):
    gone = {f'{p:g}' for p in (5e-5, 1e-2)}
    some = View({k: t[~t.run.isin(gone)] for k,t in whole.items()}, STUDY, preset='laptop')
    for name in MORE: assert 'PARTIAL GRID: 2 of 13 PLRs missing or incomplete (5e-5, 1e-2)' in words(IMAGE_FIGURES[name](some)), name

def test_bands_are_the_means_of_the_table(whole):
    v = whole_view(whole)
    axes = images_bands.bands(v).axes
    for i,where in enumerate((dict(stage='pretrain'), dict(stage='average', swa_k=5), dict(stage='finetune', flr=1e-5), dict(stage='finetune', flr=1e-4))):
        for band in images_bands.BANDS:
            line, = lines(axes[i], band)
            want = v('bands', metric='band_acc_band', band=band, **where).groupby('plr').value.mean()
            assert np.allclose(line.get_ydata(), want), (where, band)
    assert len({m for _,m in images_bands.BANDS.values()}) == len({c for c,_ in images_bands.BANDS.values()}) == 4 # told apart by colour and by mark
    _, removed, moved, few = images_bands.band_inputs(v).axes
    assert np.allclose(lines(removed, 'without mid')[0].get_ydata(), v('bands', metric='without_acc', band='mid', stage='finetune', flr=1e-5).groupby('plr').value.mean())
    assert {'mid 5-24', 'mid 9-24', 'mid 13-24'} <= {l.get_label() for l in moved.lines}
    assert (images_bands.effective_bands(v, stage='pretrain').groupby('plr').value.mean().between(1, 4)).all() and len(lines(few, 'pre-training')) == 1
    one = v('bands', metric='band_acc_band', stage='pretrain').assign(value=lambda d: d.band.map(dict(mid=30.)).fillna(10.)) # one band tells everything
    sparse = View(whole | dict(bands=one), STUDY, preset='laptop')
    assert np.allclose(images_bands.effective_bands(sparse, stage='pretrain').value, 1) and not np.allclose(images_bands.effective_bands(v, stage='pretrain').value, 1)

def test_bands_of_some_stages_only(whole):
    rows = whole['bands']
    part = whole | dict(bands=rows[(rows.stage == 'pretrain') & (rows.metric == 'band_acc_band') & ~rows.band.str.contains('=')])
    v = View(part, STUDY, preset='laptop')
    assert len(lines(images_bands.bands(v).axes[0], 'mid')) == 1 and 'after pre-training' in words(images_overview.picture_overview(v))
    assert isinstance(images_bands.band_inputs(v), matplotlib.figure.Figure)
    with pytest.raises(InputError, match='no rows of band_acc_band in the table bands'):
        images_bands.bands(View(whole | dict(bands=rows[rows.metric == 'without_acc']), STUDY, preset='laptop'))

def test_the_sides_of_the_bands_are_said(whole):
    ledger = whole['runs'].assign(settings='{"size": 16}')
    assert 'background 0, low 1-4, mid 5-12, high 13-16' in words(images_bands.bands(View(whole | dict(runs=ledger), STUDY, preset='laptop')))

def test_the_overview_has_the_authors_values_beside_their_setup(whole, paper, monkeypatch):
    main = theirs('paper')
    monkeypatch.setitem(STUDIES, main.id, main)
    fig = images_overview.picture_overview(whole_view(whole, main, paper, 'paper'))
    at = [[l.get_label() for l in ax.lines if str(l.get_label()).startswith('_authors ')] for ax in fig.axes]
    assert '_authors pretrain' in at[0] and '_authors k=5' in at[0] and at[1] == ['_authors low_high'] and len(at[2]) == 3 and not at[3]
    assert list(lines(fig.axes[1], '_authors low_high')[0].get_ydata()) == list(paper['resnet18si_cifar10_geometry'].query("panel == 'angle_rad' and series == 'low_high'").value)
    assert len({ax.get_xlim() for ax in fig.axes}) == 1 # one axis

def test_geometry_has_loss_barriers_where_they_were_measured(whole):
    v = whole_view(whole)
    fig = fig16_geometry.geometry(v)
    assert {'train loss barrier, nats', 'test loss barrier, nats'} <= {ax.get_ylabel() for ax in fig.axes}
    g = whole['geometry']
    fig = fig16_geometry.geometry(View(whole | dict(geometry=g[~g.metric.str.contains('loss')]), STUDY, preset='laptop'))
    assert len(fig.axes) == 3 and 'nats' not in words(fig)

def test_histograms_are_mean_counts(whole):
    fig = images_filters.filters(whole_view(whole))
    t = whole['filters']
    for ax,where in zip(fig.axes, (dict(stage='pretrain'), dict(stage='finetune', flr=1e-5), dict(stage='finetune', flr=1e-4))):
        edge = next(p for p in ax.patches if 'PLR 1e-1' in str(p.get_label()))
        rows = select(t, metric='filter_count', plr=1e-1, **where)
        assert edge.get_data().values.sum() == pytest.approx(rows.value.sum()/3) == pytest.approx(400)
        i = np.argmax(edge.get_data().values)
        assert rows[rows.band == f'bin={images_filters.BINS[i]:.2f}'].value.iloc[0] == edge.get_data().values[i]
    assert 'is in regime' not in words(fig)
    low = {k: x[x.run.astype(float) <= 1e-3] for k,x in whole.items()} # no regime 3
    assert 'PLR 1e-3 is in regime 2A of these tables, not in 3' in words(images_filters.filters({k: x for k,x in low.items() if k != 'runs'}, STUDY))

def test_every_network_is_a_mark_at_its_sharpness(whole):
    v = whole_view(whole)
    found = images_sharpness.at_level(v, 'sharpness', 'level=0.1')
    assert len(found) == 27 and set(found.regime) == {'1', '2A', '2B'} and len(images_sharpness.at_the_end(v, 'sharpness', dict(stage='pretrain'))) == 39
    row = found[(found.plr == 5e-3) & (found.train_seed == 2)].iloc[0]
    acc = whole['metrics'].query("band == 'level=0.1' and plr == 5e-3 and train_seed == 2").value.item()
    assert row.error == pytest.approx(100 - acc)
    ends = {k: x[x.band.isna()] if k in ('metrics', 'sharpness') else x for k,x in whole.items()}
    assert 'at training loss' not in words(images_sharpness.sharpness(View(ends, STUDY, preset='laptop')))
    tuned = whole['sharpness'].assign(stage='finetune', flr=1e-5) # fine-tuned ends only
    said = words(images_sharpness.sharpness(View(whole | dict(sharpness=tuned[tuned.band.isna()]), STUDY, preset='laptop')))
    assert 'fine-tuned, FLR 1e-5' in said and 'after pre-training' not in said and 'at training loss' not in said
    negative = whole['sharpness'].assign(value=lambda d: d.value.where(d.plr < .1, -1.))
    assert '6 values of zero or less are not shown' in words(images_sharpness.sharpness(View(whole | dict(sharpness=negative), STUDY, preset='laptop')))

@pytest.fixture
def appendix(monkeypatch):
    "name -> (study, tables) of the appendix"
    out = {n: (special(n), t()) for n,t in dict(boundary=around_the_line, two_stage=by_ways, scratch=three_rates, basin=basin).items()}
    for s,_ in out.values(): monkeypatch.setitem(STUDIES, s.id, s)
    return out

def test_each_study_of_the_appendix_has_its_figures(appendix, tmp_path):
    want = dict(boundary=['boundary'], two_stage=['two_stage'], scratch=['filters', 'scratch'], basin=['edges'])
    for name,(s,t) in appendix.items():
        assert [p.stem for p in draw(view_of(s.id, t, 'paper', {}), tmp_path)] == [f'{s.id}_{f}' for f in want[name]]

def test_networks_that_never_converged_stand_at_the_budget(appendix):
    s, t = appendix['boundary']
    v = View(t, s, preset='paper')
    ax = images_boundary.boundary(v).axes[0]
    never, = lines(ax, 'not within the budget')
    rows = v(metric='convergence_epoch')
    assert set(never.get_ydata()) == {3000.} and len(never.get_ydata()) == rows.value.isna().sum() > 0
    assert sorted(lines(ax, 'converged')[0].get_ydata()) == sorted(rows.value.dropna()) and never.get_marker() == '^'
    assert np.isnan(lines(ax, 'median')[0].get_ydata()[-1])
    with pytest.raises(InputError, match='no rows of convergence_epoch'): images_boundary.boundary(view())

def test_ways_of_pre_training(appendix):
    s, t = appendix['two_stage']
    v = View(t, s, preset='paper')
    ways = dict(images_two_stage.ways(v, v.plrs))
    assert list(ways) == ['PLR 1e-3', 'PLR 1e-2', 'PLR 1e-3, then 1e-3', 'PLR 1e-2, then 1e-3', 'no pre-training', 'no pre-training, longer']
    ax = images_two_stage.two_stage(v).axes[0]
    assert [x.get_text() for x in ax.get_yticklabels()] == list(ways)
    points = [l.get_xdata()[0] for l in ax.lines if l.get_marker() == 'D']
    assert np.allclose(points, [60 if 'longer' in w else 55 if w.startswith('no') else WAYS[k][0] for w,k in zip(ways, [(1e-3, 0), (1e-2, 0), (1e-3, 1e-3), (1e-2, 1e-3), None, None])], atol=.6)
    assert all(0 < np.ptp(l.get_xdata()) < 1 for l in ax.lines if len(l.get_xdata()) == 2) # intervals
    bare = t['metrics'][t['metrics'].stage != 'finetune']
    with pytest.raises(InputError, match='these runs have none'): images_two_stage.two_stage(dict(t, metrics=bare), s, preset='paper')

def test_ways_name_their_regimes(root):
    "where the tables say them: those of two-stage pre-training at laptop size"
    s = STUDIES['resnet18si_cifar10_two_stage']
    v = View(read_published(root/'figures/data'/s.id/'laptop'), s)
    assert [w for w,_ in images_two_stage.ways(v, v.plrs)] == ['PLR 4e-3 (2A)', 'PLR 2e-2 (2B)', 'PLR 4e-3 (2A), then 4e-3 (2A)', 'PLR 2e-2 (2B), then 4e-3 (2A)',
                                                'no pre-training', 'no pre-training, longer']
    assert 'n = 10 networks a PLR and setting' in words(images_two_stage.two_stage(v)), 'also where a rate has fewer settings'

def test_same_bytes_of_readings(whole):
    for name in ('bands', 'filters'): assert IMAGE_FIGURES[name](whole_view(whole)).render() == IMAGE_FIGURES[name](whole_view(whole)).render()

def hill(**kw):
    a = torch.linspace(0, 1, 5, dtype=torch.float64)
    up = a*(1 - a)
    return replace(Between(1.2, a, 100 - 40*up, 90 - 40*up, up, .5 + up), **kw)

def test_a_path_as_a_picture():
    fig = path_between.path_picture(hill())
    assert np.allclose(lines(fig.axes[0], 'train')[0].get_ydata(), hill().train_acc) and np.allclose(lines(fig.axes[1], 'test')[0].get_ydata(), hill().test_loss)
    assert 'Angle 1.200 rad' in words(fig) and 'train 10.00 pp' in words(fig)
    nan = torch.full((5,), torch.nan)
    assert 'nan' in words(path_between.path_picture(hill(train_acc=nan, train_loss=nan, angle=np.nan)))

@pytest.mark.parametrize('channels', [1, 3])
def test_a_spectrum_as_a_picture(channels):
    x = (torch.rand(5, channels, 8, 8, generator=torch.Generator().manual_seed(0))*255).byte()
    fig = fig06_frequency_bands.spectrum_picture(x)
    assert 'low 1-2, mid 3-6, high 7-8' in words(fig) and len(fig.axes) == 3*5 + 2
    rows = [dict(band='low', metric='band_acc_raw', accuracy=40.), dict(band='low', metric='without_acc', accuracy=np.nan), dict(band='low=1-1', metric='band_acc_raw', accuracy=1.)]
    said = words(fig06_frequency_bands.spectrum_picture(x, dict(background=(0, 0), low=(1, 4)), rows, few=1))
    assert 'background 0, low 1-4' in said and '40' in said and 'low=1-1' not in said

def test_bars_of_bands_are_those_of_the_figures():
    "what is drawn is the input of the published figures, beside chance; raw bands leave batch-norm networks near it"
    x = (torch.rand(5, 3, 8, 8, generator=torch.Generator().manual_seed(0))*255).byte()
    rows = [dict(band=b, metric=m, accuracy=a) for m, *values in (('band_acc_raw', 25., 12.), ('band_acc_std', 31., 13.), ('band_acc_band', 57., 14.), ('without_acc', 40., 80.))
            for b, a in zip(('low', 'high'), values)]
    fig = fig06_frequency_bands.spectrum_picture(x, dict(low=(0, 4), high=(5, 8)), rows, few=1, chance=10.)
    ax = fig.axes[-1] if lines(fig.axes[-1], 'chance') else next(a for a in fig.axes if lines(a, 'chance'))
    assert [round(p.get_width()) for p in ax.patches] == [57, 14, 40, 80] and lines(ax, 'chance')[0].get_xdata()[0] == 10.
    assert 'own std' in words(fig) and 'chance' in words(fig)

def test_pictures_of_ones_own_are_not_called_cifar():
    "neither figures nor stories say CIFAR of other data"
    for f in (images_pretrain.pretraining, images_finetune_swa.finetune_and_swa, training_curves.regimes):
        said = words(f(View(tables(data='my-photos'), STUDY, None, 'laptop')))
        assert 'my-photos' in said and 'CIFAR' not in said, f.__name__
    assert not [s.title for s in STUDIES.values() if 'CIFAR' in s.title]

def test_only_rates_that_were_run_are_tinted():
    some = tables()
    one = {n: t[t.plr == PLRS[4]] if 'plr' in t else t for n, t in some.items()}
    v = View(one, STUDY, None, 'laptop')
    (regime, left, right), = tints(v, PLRS[0]/1.2, PLRS[-1]*1.2)
    assert PLRS[3] < left < PLRS[4] < right < PLRS[5]
    whole = tints(view(), PLRS[0]/1.2, PLRS[-1]*1.2)
    assert whole[0][1] == PLRS[0]/1.2 and whole[-1][2] == PLRS[-1]*1.2 and all(a[2] == b[1] for a, b in zip(whole, whole[1:]))

def theirs(preset):
    "The main setup of the paper as a study, with one preset"
    made_up = Preset('made up', PLRS, FLRS, (2, 5), (), (1, 2, 3), 1)
    return replace(STUDY, id='resnet18si_cifar10', lines=(3e-4, 1.4e-3, 2e-2), presets={preset: made_up})

@pytest.mark.parametrize('preset, marks', [('paper', True), ('short', True), ('small', False), ('laptop', False), ('smoke', False)])
def test_the_authors_values_only_beside_their_setup(paper, monkeypatch, preset, marks):
    main = theirs(preset)
    monkeypatch.setitem(STUDIES, main.id, main)
    for f,panel in ((images_pretrain.pretraining, 'pretrain_test_acc_mean_181_200'), (images_finetune_swa.finetune_and_swa, 'pretrain_test_acc_200')):
        fig = f(view(main, paper, preset))
        ax = fig.axes[0]
        found = lines(ax, '_authors pretrain')
        assert bool(found) == bool(lines(ax, '_authors')) == marks
        assert ('No values of the paper' not in words(fig)) == ("the paper's single runs" in words(fig)) == marks
        if marks: assert list(found[0].get_ydata()) == list(paper['resnet18si_cifar10_pretrain'].query('panel == @panel').value)

def test_no_values_of_another_setup(paper):
    for f in (images_pretrain.pretraining, images_finetune_swa.finetune_and_swa):
        assert not [l for ax in f(view(paper=paper, preset='short')).axes for l in ax.lines if str(l.get_label()).startswith('_authors')]

def test_fine_tuning_or_averages_may_be_missing():
    for kw in (dict(swa=None), dict(low=None, high=None), dict(high=None)):
        assert isinstance(images_finetune_swa.finetune_and_swa(view(**kw)), matplotlib.figure.Figure)
    bare = tables()
    del bare['curves']
    with pytest.raises(InputError, match='no rows of curves'): training_curves.regimes(bare, STUDY, preset='laptop')

def test_a_study_gets_the_figures_of_its_kind(tmp_path):
    with pytest.warns(UserWarning, match='not drawn: figure') as said: done = draw(view_of(STUDY.id, tables(), 'laptop', {}), tmp_path)
    assert [str(w.message).split()[3].rstrip(':') for w in said] == [n for n in IMAGE_FIGURES if n not in CURVES] # one warning each
    assert [p.name for p in done] == [f'{STUDY.id}_{n}.svg' for n in CURVES]
    assert all(p.stat().st_size < drawing.LARGEST for p in done)
    assert not on_images(STUDIES['synthetic']) and 'pretraining' not in figures_of(STUDIES['synthetic'])

def test_same_bytes_and_others_for_other_numbers():
    for f in (images_pretrain.pretraining, images_finetune_swa.finetune_and_swa):
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

BARE = [f'C{i}' for i in range(1, 7)] # claims that need no more than metrics
PAGES = {'images_pretrain': 'pretraining', 'images_finetune_swa': 'finetune_and_swa'}

@pytest.mark.parametrize('page', PAGES)
def test_pages_draw_what_is_there(root, tmp_path, page):
    space = run_page(root/'nbs/figures'/f'{page}.ipynb', data=str(published(tmp_path/'tables', tables())), out=str(tmp_path))
    assert (tmp_path/f'{STUDY.id}_{PAGES[page]}.svg').exists()
    mine = space['judged'].dropna(subset=['study'])
    assert set(mine[mine.claim.isin(BARE)].verdict) == {'seen at laptop size'}

@pytest.mark.parametrize('page', PAGES)
def test_pages_say_that_tables_are_missing(root, tmp_path, page, capsys):
    space = run_page(root/'nbs/figures'/f'{page}.ipynb', data=str(tmp_path), out=str(tmp_path))
    assert 'No tables of convnetsi32_cifar10, preset laptop, yet' in capsys.readouterr().out
    assert not list(tmp_path.iterdir()) and space['fig'] is None and set(space['judged'].verdict) == {'not yet run'}

NEW_PAGES = dict(images_overview=('picture_overview',), images_beside_paper=('shared_axis',), images_geometry=('geometry',), images_bands=('bands', 'band_inputs'), images_sharpness=('sharpness',),
                 images_boundary=('boundary',), images_two_stage=('two_stage',), images_filters=('filters', 'scratch'), images_basin=('edges',),
                 images_practical=('picture_overview', 'finetune_and_swa', 'geometry', 'bands', 'band_inputs'))

OTHERS = sorted({p.stem for p in FOLDER.glob('images_*.ipynb')} - {*PAGES}) # a page that is not named above has to draw something

@pytest.mark.parametrize('page', OTHERS)
def test_pages_of_readings_draw_what_is_there(root, tmp_path, page, whole, appendix):
    study, made_up = appendix.get({'filters': 'scratch'}.get(page[7:], page[7:]), (STUDY, whole))
    preset = 'laptop' if study is STUDY else 'paper'
    space = run_page(FOLDER/f'{page}.ipynb', study=study.id, preset=preset, data=str(published(tmp_path/'tables', made_up)), out=str(tmp_path))
    drawn = {p.name for p in tmp_path.glob('*.svg')}
    assert drawn and space['view'].study.id == study.id
    if page in NEW_PAGES: assert drawn == {f'{study.id}_{f}.svg' for f in NEW_PAGES[page]}

@pytest.mark.parametrize('page', OTHERS)
def test_pages_of_readings_say_that_tables_are_missing(root, tmp_path, page, capsys):
    space = run_page(root/'nbs/figures'/f'{page}.ipynb', data=str(tmp_path), out=str(tmp_path))
    assert f"No tables of {space['study']}, preset laptop, yet. First: ulrs sweep" in capsys.readouterr().out
    assert not list(tmp_path.iterdir()) and space['view'] is None and set(space['judged'].verdict) == {'not yet run'}

def test_the_transformers_figure_beside_the_paper(root):
    "drawn where the paper has fine-tuned accuracies of the study: ours and theirs both end at their own best, 0; refused elsewhere"
    from understanding_lrs.analysis.tables import published_tables
    t = published_tables(root/'figures/data')['vit_cifar10', 'laptop']
    v = View(t, STUDIES['vit_cifar10'], read_paper(root), 'laptop')
    fig = images_practical.beside_paper(v)
    left, right = fig.axes
    lines = {l.get_label(): l for l in left.lines}
    assert set(lines) == {f'{who}, FLR {f}' for who in ('here', 'the paper') for f in ('1e-5', '1e-4')}
    assert all(np.nanmax(l.get_ydata()) == pytest.approx(0) for l in lines.values())
    best = lambda l: l.get_xdata()[np.nanargmax(l.get_ydata())]
    assert best(lines['here, FLR 1e-4']) == 1e-3 and best(lines['the paper, FLR 1e-5']) == 2e-4 and len(right.lines) == 5
    with pytest.raises(InputError, match='no fine-tuned accuracies of the paper'): images_practical.beside_paper(View(t, STUDIES['vit_cifar10'], None, 'laptop'))

def test_both_on_one_axis(root, whole, paper):
    "rates over the own 1|2 line, accuracies below the own best: ours and the paper's are those of the tables, and both lines stand at 1"
    v = whole_view(whole)
    line = v.bounds['lr_12'].line
    fig = images_beside_paper.shared_axis(v)
    tuned, averaged, barrier, angle = fig.axes
    ours, = [l for l in tuned.lines if l.get_label().startswith(f'FLR {v.flrs[-1]/line:.2g} ')]
    means = select(v.metrics, stage='finetune', metric='test_acc').groupby(['flr', 'plr']).value.mean()
    assert np.allclose(ours.get_xdata(), v.plrs/line) and np.allclose(ours.get_ydata(), means[v.flrs[-1]] - means.max())
    theirs, = lines(barrier, '_authors low FLR – high FLR')
    rows = paper['resnet18si_cifar10_geometry'].query("panel == 'train_barrier_pct' and series == 'low_high'")
    assert np.allclose(theirs.get_xdata(), rows.plr/3e-4) and np.allclose(theirs.get_ydata(), rows.value)
    their_best, = [l for l in tuned.lines if l.get_label().startswith('_authors FLR')][:1]
    assert -6 < np.nanmax(their_best.get_ydata()) <= 0
    k5, = lines(averaged, '_authors average of 5')
    assert min(k5.get_ydata()) > -30 # a zero of the paper lies below its axis: not drawn
    at_one = [l for l in tuned.lines if l.get_label() == '_lr_12']
    assert [l.get_xdata()[0] for l in at_one] == [1.] and 'ResNet-18 on all of CIFAR-10' in words(fig) and '88.7 % in the paper' in words(fig)
    assert fig.render() == images_beside_paper.shared_axis(v).render()

def test_no_shared_axis_without_a_line(whole):
    v = whole_view(whole)
    v.bounds = {name: replace(b, lo=None, hi=None) for name,b in v.bounds.items()}
    with pytest.raises(InputError, match='no shared axis'): images_beside_paper.shared_axis(v)

def test_a_page_of_older_tables_goes_on(root, tmp_path, capsys):
    run_page(root/'nbs/figures/images_bands.ipynb', data=str(published(tmp_path/'tables', tables())), out=str(tmp_path))
    assert 'not drawn: figure bands: no rows of bands' in capsys.readouterr().out and not list(tmp_path.glob('*.svg'))

def test_a_grid_is_known_without_its_pictures(monkeypatch):
    "drawing committed tables never looks for a data set"
    def never(*a, **k): raise AssertionError('asked for pictures')
    monkeypatch.setattr('understanding_lrs.data.loading.load_images', never)
    main = STUDIES['resnet18si_cifar10']
    assert len(protocols(main.id, 'paper')) == 25 and {p.train_seeds for p in protocols(main.id, 'paper')} == {(1,)}
    assert [p.train_seeds[0] for p in protocols(main.id, 'authors')] == list(range(2003, 2028))
    m = made(plrs=(1e-4, 1e-3), pre=PLRS[:2], low=None, high=None, swa=None, converge=1, noisy=2)['metrics']
    assert len(View(dict(metrics=m), main, preset='short').missing) == 14

def test_digits_from_training_to_figures(tmp_path):
    "a real study, at smoke size"
    for p in resolved(protocols('resnet18si_cifar10', 'smoke')): live(p, Run(tmp_path/'runs', p))
    publish(find_runs(tmp_path/'runs'), tmp_path/'tables')
    done = draw_study('resnet18si_cifar10', tmp_path/'tables', tmp_path)
    drawn = [n for n in IMAGE_FIGURES if n != 'shared_axis'] # a smoke run is too short for a 1|2 line
    assert [p.name for p in done] == [f'resnet18si_cifar10_{n}.svg' for n in drawn]
    v = View(read_published(tmp_path/'tables'), STUDIES['resnet18si_cifar10'], read_paper())
    said = words(images_pretrain.pretraining(v))
    assert v.preset == 'smoke' and not v.missing and "scikit-learn's digits" in said and 'No values of the paper for this setup' in said
    judged = verdicts({('resnet18si_cifar10', 'smoke'): v.tables}).dropna(subset=['study'])
    said = set(judged[judged.claim.isin(BARE)].verdict)
    assert 'not seen at laptop size' in said and 'seen at laptop size' not in said and {*BARE, 'C7', 'C15', 'C18'} <= set(judged.claim)
