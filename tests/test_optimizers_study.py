"""Momentum, Adam and weight decay on the synthetic example: two engines agree, known limits hold, runs resume to the bit, and thresholds were written down first."""
import json, math
import numpy as np, pandas as pd, pytest, torch
import torch.nn.functional as F
from understanding_lrs.analysis.claims import CLAIMS, role_of, verdicts
from understanding_lrs.analysis.evidence import Evidence
from understanding_lrs.analysis.optimizers import C38, C39, C40, C41, OPTIMIZERS, lines, zones
from understanding_lrs.analysis.verdicts import MISSING, NOT, REPRODUCED, answers
from understanding_lrs.core.checkout import project_root
from understanding_lrs.core.errors import InputError, OutOfTime
from understanding_lrs.data.synthetic import SyntheticConfig, make_data
from understanding_lrs.networks.mlp import MLPSpec
from understanding_lrs.runs.protocol import networks
from understanding_lrs.runs.store import Run
from understanding_lrs.studies.optimizers import VARIANTS
from understanding_lrs.studies.registry import protocols, study_of
from understanding_lrs.studies.trial import live
from understanding_lrs.training import native
from understanding_lrs.training.networks import make_networks
from understanding_lrs.training.stacked import SyntheticTask, stack_sets
from understanding_lrs.training.stacked_optimizers import FIRST, SECOND, STEPS, OptimizerTask, StackOptimizer, direction
from understanding_lrs.training.trainer import Schedule, Trainer

STUDY = 'synthetic_optimizers'
EACH = dict(sgd=StackOptimizer(), momentum=StackOptimizer(momentum=.9), adam=StackOptimizer('adam', .9), decay=StackOptimizer(weight_decay=1e-2),
            adamw=StackOptimizer('adam', .9, .1))
ENGINES = ['torch', pytest.param('native', marks=pytest.mark.skipif(native.kernel() is None, reason='no C compiler'))]

@pytest.fixture(scope='module')
def small():
    sets = stack_sets([make_data(SyntheticConfig(), d) for d in (1, 2)])
    return sets, make_networks(MLPSpec(), [1, 2, 2], readouts=[1, 1, 2], data=[0, 1, 1])

def trained(small, o, engine='auto', steps=100, lr=1e-3):
    sets, nets = small
    return Trainer(OptimizerTask(sets, engine=engine, optimizer=o), nets, lr, Schedule(steps)).run()

@pytest.mark.skipif(native.kernel() is None, reason='no C compiler')
@pytest.mark.parametrize('name', EACH)
def test_both_engines_are_one(small, name):
    c, t = (trained(small, EACH[name], engine).networks for engine in ('native', 'torch'))
    for key in t.state: assert torch.allclose(c.state[key], t.state[key], atol=1e-3 if 'adam' in name else 1e-5), key

@pytest.mark.parametrize('width, depth', [(12, 1), (20, 3)])
@pytest.mark.skipif(native.kernel() is None, reason='no C compiler')
def test_sizes_that_are_no_whole_rows(small, width, depth):
    nets = make_networks(MLPSpec(32, width, depth), [1, 2], readouts=[1, 2], data=[0, 1])
    for o in EACH.values():
        c, t = (trained((small[0], nets), o, engine, 20).networks.flat() for engine in ('native', 'torch'))
        assert torch.allclose(c, t, atol=1e-4)

@pytest.mark.parametrize('engine', ENGINES)
def test_no_momentum_is_projected_sgd(small, engine):
    sets, nets = small
    plain = Trainer(SyntheticTask(sets, engine=engine), nets, 1e-3, Schedule(100)).run()
    assert torch.allclose(trained(small, StackOptimizer(), engine).networks.flat(), plain.networks.flat(), atol=1e-6)

@pytest.mark.parametrize('engine', ENGINES)
@pytest.mark.parametrize('name', ['momentum', 'adam'])
def test_on_the_sphere_lengths_stay_and_velocities_are_tangent(small, name, engine):
    nets = trained(small, EACH[name], engine).networks
    w, first = nets.flat().double(), nets.state[FIRST].double()
    assert torch.allclose(w.norm(dim=1), torch.ones(3, dtype=torch.float64), atol=1e-6)
    assert ((w*first).sum(1).abs()/first.norm(dim=1)).max() < 1e-5 and first.norm(dim=1).min() > 0

def test_adams_direction_is_that_of_torch():
    curvature, w = torch.logspace(-2, 1, 8)[None], torch.ones(1, 8)
    theirs, memory = torch.nn.Parameter(torch.ones(1, 8)), {FIRST: torch.zeros(1, 8), SECOND: torch.zeros(1, 8), STEPS: torch.zeros(1)}
    optimizer = torch.optim.Adam([theirs], 1e-2)
    for _ in range(50):
        theirs.grad = curvature*theirs.detach()
        optimizer.step()
        w = w - 1e-2*direction(StackOptimizer('adam', .9), curvature*w, memory)
    assert torch.allclose(w, theirs.detach(), atol=1e-6)

@pytest.mark.parametrize('name', ['sgd', 'adam'])
def test_weight_decay_settles_at_the_known_angle(small, name):
    o, lr = StackOptimizer(name, weight_decay=.1), .1
    trainer, squares = Trainer(OptimizerTask(small[0], optimizer=o), small[1], lr, Schedule(1400)).run(1000), []
    before = trainer.networks.flat().double()
    for t in range(1001, 1401):
        after = trainer.run(t).networks.flat().double()
        squares.append(2 - 2*F.cosine_similarity(before, after))
        before = after
    assert torch.stack(squares).mean(0).sqrt().tolist() == pytest.approx([math.sqrt(2*lr*.1)]*3, rel=.1)

def test_a_scale_of_the_weights_is_a_rate(small):
    "with a weight decay, weights twice as long at four times the rate and a quarter of the decay go the same way"
    sets, nets = small
    def ended(scale):
        o = StackOptimizer(weight_decay=.01/scale**2)
        return Trainer(OptimizerTask(sets, optimizer=o), nets.packed().at_flat(scale*nets.flat()), 1e-2*scale**2, Schedule(50)).run().networks.flat()
    assert torch.allclose(ended(2.)/2, ended(1.), atol=1e-5)

@pytest.mark.parametrize('given, words', [
    (dict(optimizer='adamm'), "optimizer must be one of"), (dict(momentum=1.), 'momentum must be below 1, got 1.0'), (dict(momentum=-.1), 'momentum must be at least 0'),
    (dict(weight_decay=-.1), 'weight_decay must be at least 0'), (dict(swa_k=[2]), 'swa_k must be empty'), (dict(momentum='much'), 'momentum')])
def test_bad_settings_are_one_line(given, words):
    with pytest.raises(InputError) as e: protocols(STUDY, 'smoke', overrides=given)
    assert words in str(e.value) and '\n' not in str(e.value)

@pytest.mark.parametrize('given', [dict(name='rmsprop'), dict(momentum=1.), dict(weight_decay=-1.), dict(weight_decay=float('nan'))])
def test_a_bad_optimizer_is_refused(given):
    with pytest.raises(ValueError, match='must be'): StackOptimizer(**given)

def test_recorded_seeds_are_fresh_and_all_have_one_cost():
    ps = protocols(STUDY, 'fresh')
    assert {d for p in ps for d,*_ in networks(p)} == set(range(513, 573)) and len(ps) == 81 and len({(p.settings['steps'], *networks(p)) for p in ps}) == 1
    assert all(any(o.is_of(p.settings) for o in OPTIMIZERS.values()) for p in ps) and len(OPTIMIZERS) == len(VARIANTS)

def tables_of(run): return {name: run.table(name).to_csv() for name in run.tables()}

@pytest.mark.parametrize('which', ['adam', 'decay'])
def test_an_interrupted_run_ends_at_the_same_bits(which, tmp_path):
    p = next(p for p in protocols(STUDY, 'smoke') if (p.settings['optimizer'] == 'adam' if which == 'adam' else p.settings['weight_decay']) and p.plr == 1e-2)
    whole, cut, stops = Run(tmp_path/'whole', p), Run(tmp_path/'cut', p), 0
    live(p, whole)
    while cut.state().kind != 'done':
        try: live(p, cut, time_limit=0)
        except OutOfTime: stops += 1
    assert stops and tables_of(cut) == tables_of(whole)

def test_fine_tuning_begins_on_the_sphere_without_memory(tmp_path):
    p = next(p for p in protocols(STUDY, 'smoke') if p.settings['weight_decay'] and p.plr == 1e-2)
    points = live(p, Run(tmp_path, p)).points
    assert all(torch.allclose(nets.flat().norm(dim=1), torch.ones(len(nets)), atol=1e-5) for nets in points.values())
    assert not any(name.startswith('velocity') for nets in points.values() for name in nets.state)

def made(line_of, beyond_of, above=3., seeds=6):
    "Tables in which every optimizer has a line and an effective rate beyond it; just above it fine-tuning ends `above` higher"
    rng, parts, runs, features = np.random.default_rng(0), [], [], []
    for v in VARIANTS:
        given = {**dict(optimizer='sgd', momentum=0., weight_decay=0.), **{k: x for k,x in v.items() if k != 'plrs'}}
        name = next(n for n,o in OPTIMIZERS.items() if o.is_of(given))
        for plr in v['plrs']:
            run, slow = f'{name}-{plr:g}', plr < line_of(name)
            runs.append(dict(run=run, plr=plr, settings=json.dumps(given)))
            for s in range(seeds):
                row = dict(run=run, study=STUDY, data='synthetic', plr=plr, data_seed=s, train_seed=1, readout_seed=s, flr=np.nan, swa_k=np.nan, band=None, pair=None, rank=np.nan)
                ends = dict(train_loss=1e-4 if slow else .5, test_acc=75., test_acc_tail=75., test_acc_tail_std=.1 if slow else 3., effective_rate=beyond_of(name))
                parts += [row | dict(stage='pretrain', metric=m, value=x) for m,x in ends.items()]
                tuned = 75 + (0 if slow else above) + .01*rng.standard_normal()
                parts += [row | dict(stage='finetune', flr=f, metric='test_acc', value=tuned) for f in (1e-5, 1e-3)]
                features += [row | dict(stage='pretrain', metric='dominance', value=0. if slow else 30.),
                             row | dict(stage='pretrain', metric='single_feature_acc', rank=1, band='feature=3', value=80.)]
    return dict(metrics=pd.DataFrame(parts), features=pd.DataFrame(features), runs=pd.DataFrame(runs))

MIDDLE = {next(n for n,o in OPTIMIZERS.items() if o.is_of(dict(dict(optimizer='sgd', momentum=0., weight_decay=0.), **v))): v['plrs'][4]*1.01 for v in VARIANTS}

def judged(tables):
    e = Evidence(tables, study_of(STUDY))
    return e, {a.part.id: a for a in answers((*C38, *C39, *C40, *C41), e)}

def test_what_is_as_expected_is_seen():
    e, found = judged(made(MIDDLE.get, lambda name: 1e-2))
    assert {found[i].verdict for i in ('C38.slope', 'C39.m90_gain', 'C39.adam_gain', 'C39.decay2_gain', 'C40.line', 'C41.line', 'C41.gain')} == {REPRODUCED}
    assert found['C38.slope'].found.value == pytest.approx(0, abs=.01) and found['C39.adam_share'].found.value == pytest.approx(1)
    assert found['C40.product'].found.value == pytest.approx(0, abs=.01) and len(lines(e)) == 9

def test_what_is_not_is_told():
    fixed = lambda name: MIDDLE[name]*(1. if name not in ('m90', 'm95') else 3.)
    _, found = judged(made(fixed, lambda name: 4e-3 if 'decay' in name else 1e-2, above=-3.))
    assert {found[i].verdict for i in ('C38.slope', 'C39.m90_gain', 'C39.adam_gain', 'C40.line', 'C41.line', 'C41.gain')} == {NOT}
    assert found['C40.line'].found.value == pytest.approx(np.log10(2.5), abs=1e-6) and found['C39.decay2_gain'].found.value == pytest.approx(-3, abs=.1)

def test_networks_of_one_rate_on_both_sides_make_a_zone_of_their_own():
    "One seed of six that converges at two further rates: the zone where none does begins after them, the line does not move"
    tables = made(MIDDLE.get, lambda name: 1e-2)
    m, rates = tables['metrics'], sorted(tables['runs'][tables['runs'].run.str.startswith('decay2-')].plr)
    late = m.run.str.startswith('decay2-') & m.plr.isin(rates[5:7]) & (m.data_seed == 0) & (m.stage == 'pretrain')
    for metric,value in (('train_loss', 1e-4), ('test_acc_tail_std', .1)): m.loc[late & (m.metric == metric), 'value'] = value
    m.loc[m.run.str.startswith('decay2-') & (m.metric == 'effective_rate') & (m.plr >= rates[7]), 'value'] = 3e-2
    e, found = judged(tables)
    assert [zones(e, 'decay2').query('plr == @r').zone.iloc[0] for r in rates] == [-1]*5 + [0]*2 + [1]*2
    assert found['C40.line'].found.value == pytest.approx(0, abs=.01) and found['C41.line'].found.value == pytest.approx(np.log10(3), abs=1e-6)

def test_optimizers_that_were_not_run_are_named():
    tables = made(MIDDLE.get, lambda name: 1e-2)
    some = {name: t[~t.run.str.startswith('adam-')] for name,t in tables.items()}
    found = judged(some)[1]
    assert found['C39.adam_gain'].verdict == MISSING and found['C39.adam_gain'].label == 'runs of Adam' and found['C38.slope'].verdict == REPRODUCED

def test_thresholds_are_those_that_were_written_down():
    written = pd.read_csv(project_root()/'figures/data/optimizers/thresholds.csv')
    parts = {p.id: p for p in (*C38, *C39, *C40, *C41)}
    assert sorted(parts) == sorted(written.id)
    for row in written.itertuples():
        p = parts[row.id]
        assert (p.label, p.comparison, p.threshold, p.decides) == (row.what, row.sense, float(row.threshold), row.decides)

def test_claims_ask_these_tables_only():
    assert role_of(STUDY, 'fresh') == 'optimizers' and {c.id for c in CLAIMS if 'optimizers' in c.roles} == {'C38', 'C39', 'C40', 'C41'}
    table = verdicts({})
    assert set(table[table.claim.isin(['C38', 'C39', 'C40', 'C41'])].verdict) == {MISSING}
