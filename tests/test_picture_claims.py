"""Verdicts on pictures follow from tables: constructed ones give each verdict of each claim; the 2A|2B line has a labelled fallback."""
from dataclasses import replace
import numpy as np, pandas as pd, pytest
from understanding_lrs.claims import CLAIMS, MISSING, NOT, OPEN, PARTIAL, PICTURES, REPRODUCED, SINGLE, Grid, verdicts, worst
from understanding_lrs.claims import c1, c2, c3, c4, c5, c6
from understanding_lrs.plots import read_paper
from understanding_lrs.regimes import AGREE, boundaries, regime_of
from understanding_lrs.studies import STUDIES, Life, Preset

PLRS = (1e-5, 2e-5, 5e-5, 1e-4, 2e-4, 5e-4, 1e-3, 2e-3, 5e-3, 1e-2, 2e-2, 5e-2, 1e-1)
REGIME = ['1']*4 + ['2A']*3 + ['2B']*3 + ['3']*3
PRE = [60, 65, 70, 75, 60, 55, 50, 40, 30, 20, 10, 10, 10]
LOW, HIGH = [60, 65, 70, 75, 79, 80, 79, 74, 71, 68, 62, 62, 62], [60, 65, 70, 75, 79, 80, 79, 77, 75, 74, 70, 70, 70]
SWA = [60, 65, 70, 75, 78, 81, 80, 70, 55, 40, 10, 10, 10]
FLRS = 1e-5, 1e-4

STUDY = replace(STUDIES['synthetic'], id='convnetsi32_cifar10', life=Life, chance=10., lines=(), settings={},
                presets={n: Preset('made up', PLRS, FLRS, (2, 5), (), (1, 2, 3), 1) for n in ('laptop', 'short')})

def made(seeds=3, noise=.03, pre=PRE, low=LOW, high=HIGH, swa=SWA, converge=4, noisy=10, by_seed=None, plrs=PLRS):
    "Tables of a made-up study; `by_seed`: seed -> changes of these settings for that seed"
    rng, rows = np.random.default_rng(0), []
    for s in range(1, seeds + 1):
        a = dict(pre=pre, low=low, high=high, swa=swa, converge=converge, noisy=noisy) | (by_seed or {}).get(s, {})
        parts = [(dict(stage='pretrain'), a['pre']), (dict(stage='finetune', flr=FLRS[0]), a['low']),
                 (dict(stage='finetune', flr=FLRS[1]), a['high']), *((dict(stage='average', swa_k=k), a['swa']) for k in (2, 5))]
        for i,p in enumerate(plrs):
            row = dict(run=f'{p:g}', study=STUDY.id, data='digits', plr=p, flr=np.nan, swa_k=np.nan, train_seed=s)
            rows += [row | where | dict(metric='test_acc', value=v[i] + noise*rng.standard_normal()) for where,v in parts if v]
            loss, std = (1e-3, .1) if i < a['converge'] else (.5, 4.) if i < a['noisy'] else (2.3, .2)
            ends = dict(train_loss=loss, test_acc_tail=a['pre'][i], test_acc_tail_std=std)
            rows += [row | dict(stage='pretrain', metric=m, value=v) for m,v in ends.items()]
    return dict(metrics=pd.DataFrame(rows).assign(data_seed=np.nan, readout_seed=np.nan, pair=None, band=None, rank=np.nan))

def at(values, regime, add): return [v + add*(r in regime) for v,r in zip(values, REGIME)]
def judged(claim, **kw): return worst(claim(made(**kw), STUDY))
FEW = dict(pre=PRE[:9] + [10]*4, noisy=9) # 2B is one PLR shorter

CASES = [
    (c1, {}, REPRODUCED),
    (c1, dict(converge=2, pre=PRE), NOT), # two rates converge
    (c1, dict(pre=PRE[:4] + [10]*9, noisy=4), NOT), # nothing between convergence and chance
    (c1, dict(pre=PRE[:11] + [18, 30], noisy=13), NOT), # no regime 3
    (c1, dict(pre=PRE[:6] + [10] + PRE[7:]), NOT), # chance in the middle of regime 2
    (c1, dict(by_seed={3: dict(converge=2)}), OPEN), # one of three seeds
    (c2, {}, REPRODUCED),
    (c2, dict(pre=[75, 70, 65, 60] + PRE[4:]), NOT), # falls
    (c2, dict(pre=[70, 71, 72, 73] + PRE[4:]), NOT), # rises by 3 points only
    (c2, dict(by_seed={1: dict(pre=[70, 71, 72, 73] + PRE[4:])}, pre=[69, 70, 72, 75] + PRE[4:]), OPEN),
    (c2, dict(converge=0, pre=[60]*10 + PRE[10:]), OPEN), # no regime 1, nothing to judge
    (c3, {}, REPRODUCED),
    (c3, dict(low=at(LOW, '1', 10), high=at(HIGH, '1', 10)), NOT), # regime 1 is better
    (c3, dict(high=at(HIGH, ['3'], 15)), NOT), # regime 3 is better, with one of the FLRs
    (c3, dict(low=[*LOW[:6], 82, *LOW[7:]], high=[*HIGH[:6], 82, *HIGH[7:]]), NOT), # the best rate is too far from the line
    (c3, dict(by_seed={1: dict(low=at(LOW, '1', 10), high=at(HIGH, '1', 10))}), OPEN),
    (c4, {}, REPRODUCED),
    (c4, dict(high=at(LOW, ['2B'], 1.5)), NOT), # 2B hardly depends on the FLR
    (c4, dict(by_seed={1: dict(high=LOW)}, high=at(LOW, ['2B'], 3.5)), OPEN),
    (c5, {}, REPRODUCED),
    (c5, dict(swa=at(SWA, ['2A'], -3)), NOT), # averages stay below fine-tuning
    (c5, dict(swa=at(SWA, ['2B'], 20)), NOT), # the best average is in 2B
    (c5, dict(by_seed={1: dict(swa=at(SWA, ['2A'], -3))}), OPEN),
    (c6, {}, REPRODUCED),
    (c6, dict(swa=at(SWA, ['1'], 1)), NOT), # averaging helps in regime 1
    (c6, dict(swa=at(SWA, ['2B'], 30)), NOT), # averaging still works in high 2B
    (c6, dict(by_seed={1: dict(swa=at(SWA, ['1'], 1))}), OPEN),
    *((c, dict(seeds=1), SINGLE) for c in (c1, c2, c3, c4, c5, c6)),
    *((c, dict(swa=None), MISSING) for c in (c5, c6)), (c3, dict(low=None, high=None), MISSING), (c4, dict(high=None), MISSING)]

@pytest.mark.parametrize('claim, change, want', CASES, ids=lambda v: getattr(v, '__name__', None))
def test_each_verdict(claim, change, want): assert judged(claim, **change) == want

def test_every_claim_has_every_verdict():
    got = {c: {w for d,_,w in CASES if d is c} for c in (c1, c2, c3, c4, c5, c6)}
    assert all({REPRODUCED, NOT, OPEN, SINGLE} <= seen for seen in got.values())

def test_the_values_are_those_of_the_tables():
    near = lambda p, value: p.value == pytest.approx(value, abs=.2) and p.lo <= p.value + 1e-9 and p.value <= p.hi + 1e-9
    tables = made()
    assert [p.value for p in c1(tables, STUDY)] == [4, 6, 3, 0]
    rho, gain = c2(tables, STUDY)
    assert rho.value == 1 and gain.value == 15 and (gain.n, gain.seeds) == (3, 3)
    assert all(near(p, v) for p,v in zip(c3(tables, STUDY), (5, 3, 10, 1)))
    assert all(near(p, v) for p,v in zip(c4(tables, STUDY), (0, 6)))
    assert all(near(p, v) for p,v in zip(c5(tables, STUDY), (1, 1)))
    assert all(near(p, v) for p,v in zip(c6(tables, STUDY), (0, 75 - 55)))
    assert 'average of 5 ' in c5(tables, STUDY)[1].what and 'averaging 2, 5 ' in c6(tables, STUDY)[0].what

def test_the_least_covered_rate_counts():
    "one seed at a single rate: no verdict from there"
    m = made()['metrics']
    tables = dict(metrics=m[(m.plr != 5e-4) | (m.train_seed == 1)])
    assert {p.seeds for p in c3(tables, STUDY)} == {1} and worst(c3(tables, STUDY)) == SINGLE

def test_another_seed_for_each_rate_is_a_single_run():
    "the authors' scheme: one run a rate, its own seed"
    m = made()['metrics']
    own = m[m.train_seed == 1].assign(train_seed=lambda d: d.plr.rank(method='dense').astype(int))
    for claim in (c1, c2, c3, c4, c5, c6):
        parts, same = claim(dict(metrics=own), STUDY), claim(made(seeds=1), STUDY)
        assert worst(parts) == SINGLE and {(p.n, p.seeds) for p in parts} == {(1, 1)} and all(np.isnan(p.lo) for p in parts)
        assert [p.value for p in parts] == pytest.approx([p.value for p in same])

def test_other_quantities_do_not_count():
    "accuracies on a frequency band are not accuracies"
    m = made()['metrics']
    more = pd.concat([m, m[m.metric == 'test_acc'].assign(band='mid', value=99.)], ignore_index=True)
    assert [vars(p) for p in c3(dict(metrics=more), STUDY)] == [vars(p) for p in c3(dict(metrics=m), STUDY)]

@pytest.fixture
def study(monkeypatch):
    monkeypatch.setitem(STUDIES, STUDY.id, STUDY)
    return STUDY.id

def runs(plrs=PLRS): return dict(runs=pd.DataFrame(dict(plr=plrs)))

def test_tables_of_verdicts(study):
    table = verdicts({(study, p): made() | runs() for p in ('laptop', 'short')})
    first = table[table.claim.isin([f'C{i}' for i in range(1, 7)])]
    assert set(first[first.preset == 'short'].verdict) == {REPRODUCED}
    assert set(first[first.preset == 'laptop'].verdict) == {'seen at laptop size'}
    assert set(first.study) == {study} and first.reference.str.startswith('ResNet-18').all()
    assert table.claim.drop_duplicates().tolist() == [c.id for c in CLAIMS]
    assert list(verdicts({}).columns) == list(table.columns) and set(PICTURES) >= {study}

def test_a_partial_grid_gives_no_verdict(study):
    part = made(plrs=PLRS[::2], pre=PRE[::2], low=LOW[::2], high=HIGH[::2], swa=SWA[::2], converge=2, noisy=5)
    table = verdicts({(study, p): part | runs(PLRS[::2]) for p in ('laptop', 'short')}).dropna(subset=['study'])
    assert set(table.verdict) == {PARTIAL, MISSING} and table.value.notna().any() # other claims wait for their tables
    assert set(table[table.claim.isin([f'C{i}' for i in range(1, 7)])].verdict) == {PARTIAL}

def test_a_stage_that_was_not_run_is_said(study):
    table = verdicts({(study, 'short'): made(swa=None) | runs()})
    assert set(table[table.claim.isin(['C5', 'C6'])].verdict) == {MISSING} and set(table[table.claim == 'C3'].verdict) == {REPRODUCED}

def test_one_seed_of_laptop_size_is_no_verdict(study):
    table = verdicts({(study, 'laptop'): made(seeds=1) | runs()}).dropna(subset=['study'])
    assert set(table.verdict) == {SINGLE, MISSING} and set(table[table.value.notna() & table.decides.astype(bool)].part) == {SINGLE}

def labels(tables):
    b = boundaries(tables['metrics'], 10.)
    return [regime_of(p, b) for p in PLRS], b

def test_the_fallback_is_labelled():
    found, b = labels(made())
    assert found == REGIME and b['lr_2ab'].how == 'low-high test accuracy' and b['lr_2ab'].ci == (1e-3, 1e-3)

def test_barriers_come_before_the_fallback():
    m = made()['metrics']
    pre = m[(m.stage == 'pretrain') & (m.metric == 'test_acc')]
    barrier = pre.assign(stage=None, metric='train_barrier', pair='low_high', value=np.where(pre.plr <= 2e-4, 0., 9.))
    found, b = labels(dict(metrics=pd.concat([m, barrier], ignore_index=True)))
    assert b['lr_2ab'].line == 2e-4 and b['lr_2ab'].how == 'low-high train barrier'

def test_a_single_fine_tuning_rate_draws_no_inner_line():
    assert 'lr_2ab' not in labels(made(high=None))[1]

@pytest.mark.parametrize('gap, inside', [(AGREE - .1, True), (AGREE + .2, False)])
def test_agreement_of_exact_seeds(gap, inside):
    found, _ = labels(made(noise=0., high=[v + gap*(i == 4) for i,v in enumerate(HIGH)]))
    assert (found[4] == '2A') == inside

def test_noise_of_the_seeds_is_allowed_for():
    "a difference of 1 pp counts when the seeds agree, and not when their standard error is about as large"
    high = at(HIGH, ['2A'], 1.)
    assert labels(made(noise=0., high=high))[0][4] == '2B'
    shift = lambda add: dict(high=[v + add for v in high])
    assert labels(made(noise=0., high=high, by_seed={1: shift(-1.5), 2: shift(1.5)}))[0][4] == '2A'

def test_2a_never_reaches_into_regime_3():
    found, b = labels(made(high=LOW))
    assert found == ['1']*4 + ['2A']*6 + ['3']*3 and b['lr_2ab'].line < b['lr_23'].line

def paper_tables(root):
    "The authors' values as a table of one seed; where training loss is unknown it is left out of the rule"
    p = read_paper(root)
    pre, fine, swa = (p[f'resnet18si_cifar10_{n}'] for n in ('pretrain', 'finetune', 'swa'))
    last = 'pretrain_test_acc_200'
    names = dict(pretrain_test_acc_mean_181_200='test_acc_tail', pretrain_test_acc_std_181_200='test_acc_tail_std') | {last: 'test_acc'}
    known = lambda t: t.assign(value=t.value.mask(t.value == 0)) # 0: below the axis
    parts = [pre.assign(stage='pretrain', metric=pre.panel.map(names)),
        pre[pre.panel == last].assign(stage='pretrain', metric='train_loss', value=np.nan),
        known(fine).assign(stage='finetune', metric='test_acc', flr=fine.series.str.removeprefix('flr=').astype(float)),
        known(swa).assign(stage='average', metric='test_acc', swa_k=swa.series.str.removeprefix('k=').astype(int))]
    rows = pd.concat(parts, ignore_index=True)
    return dict(metrics=rows.assign(train_seed=2000, data_seed=np.nan, readout_seed=np.nan, pair=None, band=None))

def test_the_authors_lines_from_the_authors_values(root):
    "the frozen rule on the paper's own numbers: 3e-4, 1.4e-3 and 2e-2, as the authors drew them by hand"
    b = boundaries(paper_tables(root)['metrics'], 10.)
    assert (b['lr_12'].line, b['lr_2ab'].line, b['lr_23'].line) == (3e-4, 1.4e-3, 2e-2)
    assert np.isnan(b['lr_2ab'].ci).all() # one run a rate

def test_the_authors_values_meet_the_thresholds_but_one_run_is_no_verdict(root):
    tables = paper_tables(root)
    good = lambda p: p.value >= p.threshold if p.sense == '>=' else p.value <= p.threshold
    for claim in (c2, c3, c4, c5, c6):
        parts = claim(tables, STUDY)
        assert all(map(good, parts)) and worst(parts) == SINGLE, claim.__name__
    margins = [p.value for p in c3(tables, STUDY)[:3]]
    assert margins == pytest.approx([1.7, .3, 1.8], abs=.25)
    assert Grid(tables, STUDY).ks[-1] == 100 and c5(tables, STUDY)[1].value == pytest.approx(.7, abs=.15)
