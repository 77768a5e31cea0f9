"""Verdicts follow from tables by the written rules: constructed tables give each verdict."""
import json
import numpy as np, pandas as pd, pytest
from understanding_lrs.analysis.claims import CLAIMS, ROLES, role_of, verdicts
from understanding_lrs.analysis.evidence import Evidence, resampled
from understanding_lrs.analysis.synthetic_claims import C13, C14, C19, C20
from understanding_lrs.analysis.verdicts import MISSING, NOT, OPEN, REPRODUCED, SINGLE, Estimate, Lacking
from understanding_lrs.analysis.verdicts import Part, answers, compared, worst
from understanding_lrs.studies.registry import STUDIES
from understanding_lrs.studies.synthetic import GRID, HIGH, LOW

SEEDS = dict(train_seed=1, flr=np.nan, swa_k=np.nan, rank=np.nan, band=None, pair=None)

def dominance(share, seeds=40, late=0., **where):
    "dominance of 20 pp in a share of the seeds at grid indices 11, 12 (and `late` of them from 16 on), 1 pp elsewhere"
    where = dict(stage='pretrain') | where
    on = lambda i, s: s < (share if i in (11, 12) else late if i >= 16 else 0)*seeds
    return pd.DataFrame([SEEDS | dict(plr=p, data_seed=s, readout_seed=s, metric='dominance', value=20. if on(i, s) else 1.) | where
                         for i,p in enumerate(GRID) for s in range(seeds)])

def judged(parts, tables): return worst(answers(parts, Evidence(tables, STUDIES['synthetic'])))

@pytest.mark.parametrize('share, late, seeds, want', [(.6, 0, 40, REPRODUCED), (0, 0, 40, NOT), (.25, 0, 6, OPEN), (.6, .5, 40, NOT), (.6, .1, 20, OPEN),
                                                      (1., 0, 1, SINGLE)])
def test_c13(share, late, seeds, want): assert judged(C13, dict(features=dominance(share, seeds, late))) == want

def test_c13_uses_the_whole_window():
    share, late = (a.found for a in answers(C13, Evidence(dict(features=dominance(.6)), None)))
    assert share.value == pytest.approx(.6) and share.lo < .6 < share.hi
    assert (share.n, share.seeds, late.value) == (40, 40, 0)

@pytest.mark.parametrize('low, swa, want', [(.6, .6, REPRODUCED), (.6, 0, NOT), (0, .6, NOT)])
def test_c14_is_as_good_as_its_worst_part(low, swa, want):
    features = pd.concat([dominance(low, stage='finetune', flr=LOW), dominance(swa, stage='average', swa_k=5), dominance(1., stage='finetune', flr=HIGH)])
    assert judged(C14, dict(features=features, metrics=pd.DataFrame(dict(flr=[LOW, HIGH])))) == want

@pytest.mark.parametrize('best, want', [(19, REPRODUCED), (4, NOT), (16, OPEN)])
def test_c19(best, want):
    "20 networks with a dominant feature; in `best` of them it has utility 1"
    rows = [SEEDS | dict(run='r', plr=.01, data_seed=s, readout_seed=s, stage='pretrain') | more for s in range(20)
            for more in (dict(metric='dominance', value=15.), dict(metric='single_feature_acc', rank=1, value=80., band=f"feature={0 if s < best else 15:02d}"))]
    rows.append(SEEDS | dict(run='r', plr=.01, data_seed=99, readout_seed=99, stage='pretrain', metric='dominance', value=2.))
    runs = pd.DataFrame([dict(run='r', settings=json.dumps(STUDIES['synthetic_utilities'].settings))])
    one, = answers(C19, Evidence(dict(features=pd.DataFrame(rows), runs=runs), None))
    assert (one.verdict, one.found.n, one.found.value) == (want, 20, best/20)

def one_basin(inside, outside, rise, seeds=8):
    "a grid with one PLR in regime 1, two in 2A, two in 2B, one in 3; worst barriers in 2A and 2B, loss rise in % of the pre-training loss"
    plrs, kind = (1e-3, 1e-2, 2e-2, 3e-2, 4e-2, 1.), (('1', (1e-4, 80, .1)),) + (('2', (.4, 70, 5)),)*4 + (('3', (.7, 50, 1)),)
    metrics, geometry, edges = [], [], []
    for i,(p,(_,values)) in enumerate(zip(plrs, kind)):
        for s in range(seeds):
            row = SEEDS | dict(plr=p, data_seed=s, readout_seed=s)
            metrics += [row | dict(stage='pretrain', metric=m, value=v) for m,v in zip(('train_loss', 'test_acc_tail', 'test_acc_tail_std'), values)]
            geometry.append(row | dict(pair='low_high', metric='train_barrier', value=0. if i < 3 else 9.))
            for pair,part in (('low0-low1', .5), ('low0-high0', 1.)):
                edges += [row | dict(pair=pair, metric='train_barrier', value=part*(0 if i < 1 else inside if i < 3 else outside)),
                          row | dict(pair=pair, metric='train_loss_rise', value=part*rise/100*.4)]
    return dict(metrics=pd.DataFrame(metrics), geometry=pd.DataFrame(geometry), edges=pd.DataFrame(edges))

@pytest.mark.parametrize('inside, outside, rise, want', [(.2, 8, .1, REPRODUCED), (4, 8, .1, NOT), (.2, .4, .1, NOT), (.2, 8, 30, NOT)])
def test_c20(inside, outside, rise, want): assert judged(C20, one_basin(inside, outside, rise)) == want

def test_every_claim_is_listed_and_missing_tables_say_so():
    table = verdicts({})
    assert table.claim.tolist() == [f'C{i}' for i in range(1, 42)] == [c.id for c in CLAIMS] and set(table.verdict) == {MISSING}

def test_laptop_size_only_illustrates():
    features = pd.concat([dominance(.6), dominance(.6, stage='finetune', flr=LOW), dominance(.6, stage='average', swa_k=5)])
    tables = dict(features=features, metrics=pd.DataFrame(dict(flr=[LOW], metric=['test_acc'], value=[50.])))
    seen = {p: verdicts({('synthetic', p): tables}).set_index('claim').verdict for p in ('laptop', 'wide')}
    assert set(seen['laptop'].loc['C13']) == {'seen at laptop size'} and set(seen['wide'].loc['C13']) == {REPRODUCED}

def test_the_interval_resamples_data_seeds_only():
    "fifty networks of two data seeds are two observations"
    table = pd.concat([dominance(.5, seeds=2).assign(train_seed=t) for t in range(25)])
    share = resampled(table, lambda v, p: (v >= 10).mean())
    assert (share.n, share.seeds, share.lo) == (50, 2, 0.)

@pytest.mark.parametrize('value, lo, hi, want', [(.2, .16, .3, REPRODUCED), (.2, .1, .3, OPEN), (.1, .05, .14, NOT)])
def test_parts_in_both_directions(value, lo, hi, want):
    assert compared(Part('', '', None, '>=', .15), Estimate(value, lo, hi, 9, 9)) == want
    assert compared(Part('', '', None, '<=', -.15), Estimate(-value, -hi, -lo, 9, 9)) == want

def test_ids_are_unique_and_name_their_claim():
    ids = [p.id for c in CLAIMS for p in c.parts]
    assert len({*ids}) == len(ids) and all(p.id.startswith(f'{c.id}.') for c in CLAIMS for p in c.parts)
    assert {role for c in CLAIMS for role in c.roles} <= {*ROLES}

def test_every_row_of_a_verdict_is_found_by_its_id():
    table = verdicts({('synthetic', 'wide'): dict(features=dominance(.6), metrics=pd.DataFrame(dict(flr=[LOW], metric=['test_acc'], value=[50.])))})
    assert table.dropna(subset=['id']).id.tolist() == ['C13.share', 'C13.late', 'C14.low', 'C14.average']

@pytest.mark.parametrize('study, preset, role', [('synthetic', 'wide', 'synthetic'), ('synthetic', 'edges', 'pairs'), ('synthetic', 'factorial', 'crossed'),
    ('resnet18si_cifar10', 'paper', 'main'), ('resnet18si_cifar10_basin', 'laptop', 'pairs'), ('vit_cifar10', 'paper', 'practical'), ('nobody_knows', 'paper', '')])
def test_roles(study, preset, role): assert role_of(study, preset) == role

def test_what_is_lacking_is_said_once():
    lost = [Part(f'C0.{n}', n, lambda e: Lacking('norms'), '>=', 1.) for n in 'ab']
    assert [(a.label, a.verdict) for a in answers([*lost, Part('C0.c', 'c', lambda e: None, '>=', 1.)], None)] == [('norms', MISSING)]
