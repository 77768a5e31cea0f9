"""Regret, coverage and the gate of the benchmark, on tables that are written by hand."""
import pandas as pd, pytest
from understanding_lrs.app.bench_regime_tasks import TASKS
from understanding_lrs.app.bench_regimes import COLUMNS, coverage, regrets, verdict
from understanding_lrs.finder.rules import RULES

TASK = TASKS['spirals'] # its name and direction only
CURVE = {.01: (80., 82.), .1: (90., 94.), 1.: (33., 33.)} # rate -> test metric of two seeds; the best one is 92 in the mean

@pytest.fixture
def folder(tmp_path):
    truth = [dict(task=TASK.name, seed=s, rate=r, val=v, test=v, loss=.1, seconds=1.)
             for r, values in CURVE.items() for s, v in zip((1, 2), values)]
    ours = dict(method='find_regimes 1.5', rate=.1, cost=1.4, lr_lo=.01, lr_hi=.1, window_lo=.2, window_hi=1., names='')
    lost = ours | dict(rate=1., names='nothing_learned')
    choices = [dict(ours, task=TASK.name, seed=1), dict(ours, task=TASK.name, seed=2, rate=.1**1.5)]
    choices += [dict(task=TASK.name, seed=s, method=f'{rule} equal cost', rate=.01, cost=1.) for s in (1, 2) for rule in RULES]
    choices += [dict(lost, task=TASK.name, seed=1, method='find_regimes 0.5')]
    tables = dict(truth=truth, starts=[dict(task=TASK.name, seed=s, test=30.) for s in (1, 2)], choices=choices,
                  references=[dict(task=TASK.name, seed=1, method='prodigy', test=91., seconds=1.)])
    for name, rows in tables.items():
        pd.DataFrame(rows, columns=COLUMNS[name]).to_csv(tmp_path/f'{name}.csv', index=False)
    return tmp_path

def test_regret_is_what_a_choice_loses(folder):
    found = regrets(folder, [TASK]).groupby('method').regret.apply(list)
    assert found['find_regimes 1.5'] == pytest.approx([0., 5.5]) # the second one lies halfway to 0.01
    assert found['fastai_valley equal cost'] == pytest.approx([11., 11.])
    assert found['find_regimes 0.5'] == pytest.approx([62.]) # nothing learned: the network before training
    assert found['prodigy'] == pytest.approx([1.])

def test_ranges_are_held_against_the_best_rate(folder):
    row = coverage(folder, [TASK]).query('method == "find_regimes 1.5"').iloc[0]
    assert row['in_lr'] and not row['in_window'] and row['octaves'] == 0

def test_the_gate_has_three_parts(folder):
    found = verdict(folder, [TASK])
    assert found.regret == pytest.approx(2.75) and found.seed_noise == pytest.approx(8**.5) and found.cost == pytest.approx(1.4)
    assert found.parts == {'within seed noise': True, 'cost': True, 'no rule is safer': True}
    table = pd.read_csv(folder/'choices.csv')
    table.loc[table.method == 'fastai_valley equal cost', 'rate'] = .1
    table.loc[table.method == 'find_regimes 1.5', 'cost'] = 1.6
    table.to_csv(folder/'choices.csv', index=False)
    assert [*verdict(folder, [TASK]).parts.values()] == [True, False, False]
