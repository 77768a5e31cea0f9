"""A probe is a function of an explicit context; what is registered is asked of every run that offers what it needs, and rows are checked."""
import pandas as pd, pytest, torch
from understanding_lrs.probes.context import PROBES, TIDY, Probe, example_images, example_synthetic, fine_tuning_names, probes_for, register_probe, tidy

@pytest.fixture(scope='module')
def contexts(): return dict(synthetic=example_synthetic(), images=example_images())

@pytest.fixture
def registry(monkeypatch):
    "what a test registers is gone after it"
    probes_for(set())
    kept = dict(PROBES)
    yield PROBES
    PROBES.clear()
    PROBES.update(kept)

def test_who_is_asked_what(contexts):
    assert list(probes_for(contexts['synthetic'].offers())) == ['edges', 'features', 'geometry']
    assert list(probes_for(contexts['images'].offers())) == ['bands', 'borders', 'edges', 'filters', 'geometry', 'norms', 'sharpness']
    assert list(probes_for({'arrays', 'images'})) == ['bands', 'borders', 'geometry', 'norms'], 'no sphere, no convolutions, one batch order'

@pytest.mark.parametrize('kind', ['synthetic', 'images'])
def test_every_probe_gives_what_it_declares(contexts, kind):
    "metrics, the columns in which rows differ, and one row for each network, metric and place"
    context = contexts[kind]
    for name,probe in probes_for(context.offers()).items():
        rows = probe(context)
        assert list(rows.columns) == TIDY and len(rows), name
        used = {c for c in ('flr', 'swa_k', 'stage', 'pair', 'band', 'rank') if rows[c].notna().any()}
        assert used <= {*probe.columns}, name
        assert (rows.groupby(['metric', *probe.columns], dropna=False).size() <= 2).all(), name
        assert set(rows.study) == {'example'}, name

def test_a_diverged_network_gives_rows_without_a_value(contexts):
    context = contexts['images']
    lost = {n: nets.at({k: v*torch.nan for k,v in nets.state.items()}) for n,nets in context.checkpoints.items()}
    for name,probe in probes_for(context.offers()).items():
        rows = probe(type(context)(context.evaluator, lost, context.seeds, context.run, context.flrs, context.ft_orders))
        assert rows[rows.metric != 'filter_count'].value.isna().all(), name

def test_a_probe_of_a_user_is_a_table_of_a_run(registry):
    from understanding_lrs.studies.registry import protocols
    from understanding_lrs.studies.trial import live
    @register_probe('norm', dict(joint_norm='joint norm of the weights'), columns=('stage',), needs=('features',))
    def norm(context): return context.rows(context.checkpoints['pretrain'].flat().norm(dim=1), 'joint_norm', stage='pretrain')
    trial = live(protocols('synthetic', 'smoke')[0])
    assert trial.tables['norm'].value.tolist() == pytest.approx([1., 1.], abs=1e-5) and 'norm' in trial.run.tables()

def test_the_registry_refuses_what_it_cannot_use(registry, contexts):
    for name in ('my probe', '', 'a-b'):
        with pytest.raises(ValueError, match='one word'): register_probe(name, {})
    with pytest.raises(ValueError, match="a probe 'bands' already, of understanding_lrs.probes.bands"): register_probe('bands', {})(lambda context: None)
    context = contexts['synthetic']
    with pytest.raises(ValueError, match="gave the metric 'b', it declares a"): Probe('p', lambda c: c.rows([1., 2.], 'b'), dict(a=''), ())(context)
    with pytest.raises(ValueError, match="no column 'run'"): Probe('p', lambda c: pd.DataFrame(dict(metric=['a'])), dict(a=''), ())(context)
    def mine(context): return context.table([])
    for _ in range(2): register_probe('mine', {})(mine) # a page that is run again
    assert registry['mine'](context).empty

def test_rows_spread_over_networks_and_places():
    seeds = pd.DataFrame(dict(data_seed=[1, 2], train_seed=[3, 4], readout_seed=[1, 2]))
    rows = tidy(seeds, dict(run='r', study='s', data='d', plr=.1), [[1, 2, 3], [4, 5, 6]], 'm', rank=[1, 2, 3], stage='pretrain')
    assert rows.data_seed.tolist() == [1]*3 + [2]*3 and rows['rank'].tolist() == [1, 2, 3]*2 and rows.value.tolist() == [1, 2, 3, 4, 5, 6]
    assert tidy(seeds, {}, [7, 8], 'm').value.tolist() == [7, 8]
    with pytest.raises(ValueError): tidy(seeds, {}, [1, 2, 3], 'm')

def test_names_of_fine_tunings():
    assert [n for n,*_ in fine_tuning_names([1e-5, .1], 2)] == ['flr=1e-05', 'flr=0.1', 'flr=1e-05#1', 'flr=0.1#1'] and not fine_tuning_names([], 3)

def test_the_caption_of_figure_5_is_a_rate_of_the_grid():
    from understanding_lrs.probes.features import CAPTION_FLR
    from understanding_lrs.studies.synthetic import CAPTION
    assert CAPTION_FLR == CAPTION
