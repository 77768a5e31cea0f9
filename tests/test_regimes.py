"""One rule from tables to regimes: constructed tables give known labels and lines; intervals come from data seeds."""
import numpy as np, pandas as pd, pytest
from understanding_lrs.analysis.regimes import LAST_EPOCHS, SLOW, UNKNOWN, Boundary, boundaries, network_regimes, rate, regime_of, regime_words, unconverged
from understanding_lrs.core.seeds import stream
from understanding_lrs.core.stats import TAIL_LOOKS, bootstrap, tail_std

GRID = np.geomspace(1e-4, 1, 9)
KINDS = {'1': (1e-4, 80, .1), 'slow': (.4, 60, .2), '2': (.4, 70, 5), '3': (.7, 50.5, 2), 'nan': (np.nan,)*3,
         'short': (.7, 70, np.nan), 'short at chance': (.7, 50.2, np.nan)}

def pretraining(labels, seeds=(1, 2, 3, 4)): # labels: one a PLR, or {seed: labels}
    of = labels if isinstance(labels, dict) else dict.fromkeys(seeds, labels)
    return pd.DataFrame([dict(plr=p, data_seed=s, train_seed=1, readout_seed=s, stage='pretrain', pair=None, metric=m, value=v)
                         for s,kinds in of.items() for p,k in zip(GRID, kinds)
                         for m,v in zip(('train_loss', 'test_acc_tail', 'test_acc_tail_std'), KINDS[k])])

def barriers(values, seeds=(1, 2, 3, 4)):
    return pd.DataFrame([dict(plr=p, data_seed=s, train_seed=1, readout_seed=s, stage=None, pair='low_high', metric='train_barrier', value=v)
                         for s in seeds for p,v in zip(GRID, values)])

LABELS = ['slow', '1', '1', '2', '2', '2', '3', '3', 'nan']

def test_labels():
    got = network_regimes(pretraining(LABELS, seeds=(1,)), 50.)
    assert got.regime.tolist() == [SLOW, '1', '1', '2', '2', '2', '3', '3', '3']

def test_quiet_is_not_converged():
    "quiet, and far from converged: on the convergent side of the line, and said to need longer training"
    table = pretraining(['slow']*3 + ['2']*3 + ['3']*3)
    b = boundaries(table, 50.)
    assert {*network_regimes(table, 50.).regime} == {SLOW, '2', '3'} and b['lr_12'].line == GRID[2]
    assert unconverged(table, b) == [*GRID[:3]]
    assert regime_words(GRID[0], b, unconverged(table, b)) == '1, not converged yet' and regime_words(GRID[3], b, []) == '2'

def test_left_of_what_converges_nothing_is_noisy_or_lost():
    "an accuracy that climbs has a spread, one that has not begun to climb is at chance; neither is regime 2 or 3"
    table = pretraining(['3', '2', '1', '2', '1', '3', '3', '3', 'nan'])
    assert network_regimes(table, 50.).regime.tolist()[::4] == [SLOW, SLOW, '1', '2', '1', '3', '3', '3', '3']
    assert boundaries(table, 50.)['lr_12'].line == GRID[2] and unconverged(table, boundaries(table, 50.)) == [*GRID[:2]]
    lost = pretraining(['nan', '1', '1', '2', '2', '2', '3', '3', '3'])
    assert network_regimes(lost, 50.).regime[0] == '3', 'weights that are no numbers any more do not converge later'

def test_a_tail_of_too_few_looks_is_unknown():
    looks = np.arange(8.)
    assert [np.isnan(tail_std(looks[:n])) for n in (1, TAIL_LOOKS - 1, TAIL_LOOKS)] == [True, True, False]
    table = pretraining(['short']*6 + ['short at chance']*3)
    b = boundaries(table, 50.)
    assert {*network_regimes(table, 50.).regime} == {UNKNOWN} and {*b} == {'lr_12', 'lr_23'}
    assert [regime_of(p, b) for p in GRID] == [UNKNOWN]*9 and 'train longer' in b['lr_12'].words() and b['lr_12'].line is None
    assert network_regimes(pretraining(['1', 'nan']).assign(value=lambda d: d.value.mask(d.metric == 'test_acc_tail_std')), 50.).regime.tolist()[::4] == ['1', '3']

def test_learned_by_heart_is_converged():
    "no training loss, chance on the test set: the rate converged"
    by_heart = pretraining(['1'], seeds=(1,)).assign(value=lambda d: d.value.where(d.metric != 'test_acc_tail', 50.2))
    assert network_regimes(by_heart, 50.).regime.tolist() == ['1']

def test_lines_and_their_sides():
    b = boundaries(pd.concat([pretraining(LABELS), barriers([0, 0, 0, .9, 1.1, .5, 9, 9, np.nan])]), 50.)
    assert [regime_of(p, b) for p in GRID] == ['1']*3 + ['2A'] + ['2B']*2 + ['3']*3
    assert (b['lr_12'].line, b['lr_2ab'].line, b['lr_23'].line) == (GRID[2], GRID[3], GRID[6])
    assert b['lr_12'].hi == GRID[3] and b['lr_23'].lo == GRID[5]
    assert b['lr_12'].ci == (GRID[2], GRID[2]) # all seeds agree

def test_seeds_that_disagree_widen_the_interval():
    late = ['1']*5 + ['2', '3', '3', '3']
    b = boundaries(pretraining({1: LABELS, 2: LABELS, 3: late, 4: LABELS, 5: late}), 50.)
    assert b['lr_12'].line == GRID[2] and b['lr_12'].ci == (GRID[2], GRID[4])

def test_networks_of_a_data_seed_are_one_observation():
    "ten networks that share their data count once: no false precision"
    one = pretraining({1: LABELS, 2: ['1']*5 + LABELS[5:]})
    ten = pd.concat([one.assign(train_seed=t) for t in range(10)])
    assert boundaries(ten, 50.)['lr_12'].ci == boundaries(one, 50.)['lr_12'].ci

def test_a_grid_without_the_boundary_says_so():
    b = boundaries(pretraining(['1']*9), 50.)
    assert b['lr_12'].hi is None and b['lr_23'].hi is None and 'lr_2ab' not in b
    b = boundaries(pretraining(['3']*9), 50.)
    assert b['lr_12'].lo is None and b['lr_23'].lo is None and regime_of(GRID[0], b) == '3'

def test_no_2a_where_the_first_barrier_is_high():
    b = boundaries(pd.concat([pretraining(LABELS), barriers([0]*3 + [5]*6)]), 50.)
    assert regime_of(GRID[3], b) == '2B'

def test_studies_without_data_seeds():
    b = boundaries(pretraining(LABELS).assign(data_seed=pd.NA, readout_seed=pd.NA, train_seed=lambda d: np.repeat([1, 2, 3, 4], len(d)//4)), 50.)
    assert b['lr_12'].line == GRID[2]

def test_missing_metrics_are_named():
    with pytest.raises(ValueError, match="test_acc_tail_std"): boundaries(pretraining(LABELS).query("metric != 'test_acc_tail_std'"), 50.)

def test_bootstrap_of_a_known_share():
    "the interval of a share of 200 fair coins is +-6.9 points wide, and covers 50 % in about 95 % of repetitions"
    coins = stream('probe', 5).integers(0, 2, (300, 200))
    def mean(many): return many.mean(1)
    covered = [lo <= .5 <= hi for _,lo,hi in (bootstrap(c, mean, n=300, seed=i) for i,c in enumerate(coins))]
    assert .9 <= np.mean(covered) <= .99
    _, lo, hi = bootstrap(coins[0], mean)
    assert (hi - lo)/2 == pytest.approx(1.96*.5/200**.5, abs=.01)
    assert np.isnan(bootstrap(coins[0][:1], mean)[1:]).all()

def tailed(table, at=(), loss=(.02, .02), std=1e-5): # `at`: indices of the grid whose training loss is loud in its last epochs
    "The same table with mean and std of the training loss over the tail"
    end, loud = table[table.metric == 'train_loss'], lambda d: d.plr.isin(GRID[list(at)])
    return pd.concat([table, end.assign(metric='train_loss_tail', value=lambda d: d.value.mask(loud(d), loss[0])),
                      end.assign(metric='train_loss_tail_std', value=lambda d: np.where(loud(d), loss[1], std))])

def test_one_run_a_rate_takes_its_interval_from_the_last_epochs():
    quiet, loud = (boundaries(tailed(pretraining(LABELS, seeds=(1,)), at), 50.) for at in ((), (3, 4)))
    assert loud['lr_12'].line == quiet['lr_12'].line == GRID[2] and loud['lr_23'].line == GRID[6]
    assert quiet['lr_12'].ci == (GRID[2], GRID[2]) and loud['lr_12'].ci == (GRID[2], GRID[4])
    assert LAST_EPOCHS in loud['lr_12'].how and LAST_EPOCHS in loud['lr_23'].how

def test_the_tail_accuracy_is_drawn_with_its_whole_std():
    "near chance with a std of 2: some draws lie outside of +-1 point, so regime 3 may begin later"
    b = boundaries(tailed(pretraining(LABELS, seeds=(1,))), 50.)
    assert b['lr_23'].line == GRID[6] and b['lr_23'].ci[1] > GRID[6]

def test_intervals_from_seeds_stay_as_they_are():
    for seeds in ((1, 2), (1, 2, 3, 4)):
        one = pretraining(LABELS, seeds)
        assert boundaries(tailed(one, (3, 4)), 50.) == boundaries(one, 50.)
    some = pd.concat([pretraining(LABELS, (1,)), pretraining(LABELS, (2,)).query('plr > .01')]) # one rate has a single seed, others two
    assert boundaries(tailed(some, (3,)), 50.) == boundaries(some, 50.) and np.isnan(boundaries(some, 50.)['lr_12'].ci).all()

@pytest.mark.parametrize('lost', ['train_loss_tail', 'train_loss_tail_std'])
def test_without_the_tail_there_is_no_interval(lost):
    table = tailed(pretraining(LABELS, seeds=(1,)), (3,)).query('metric != @lost')
    assert boundaries(table, 50.) == boundaries(pretraining(LABELS, seeds=(1,)), 50.) and np.isnan(boundaries(table, 50.)['lr_12'].ci).all()

def test_another_seed_for_each_rate_is_one_run_a_rate():
    own = pretraining(LABELS, seeds=(1,)).assign(data_seed=np.nan, readout_seed=np.nan, train_seed=lambda d: d.plr.rank(method='dense'))
    assert boundaries(tailed(own, (3, 4)), 50.)['lr_12'].ci == (GRID[2], GRID[4])

def test_the_inner_line_gets_no_interval_from_the_tail():
    b = boundaries(pd.concat([tailed(pretraining(LABELS, seeds=(1,)), (3,)), barriers([0, 0, 0, .9, 1.1, .5, 9, 9, np.nan], (1,))]), 50.)['lr_2ab']
    assert np.isnan(b.ci).all() and b.how == 'low-high train barrier' and b.line == GRID[3]

def test_rows_with_a_band_are_something_else():
    "networks at an equal training loss, or a further batch order, do not count"
    plain = pretraining(LABELS).assign(band=None)
    more = pd.concat([plain, plain.assign(band='level=0.1', value=1e-4)])
    assert boundaries(more, 50.) == boundaries(plain, 50.)

@pytest.mark.parametrize('lo, hi, want', [(4e-3, 6e-3, 'between 4e-3 and 6e-3'), (.1, None, 'the grid ends before it'), (None, 1e-5, 'below the whole grid')])
def test_a_boundary_in_words(lo, hi, want): assert Boundary('lr_12', lo, hi, (np.nan, np.nan), '').words() == want

def test_rates_as_people_write_them(): assert [rate(p) for p in (1.4e-3, 7.4989e-3, 1e-5, 1.)] == ['1.4e-3', '7.499e-3', '1e-5', '1'] and rate(7.499e-3, 2) == '7.5e-3'
