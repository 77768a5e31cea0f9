"""What moves the window: lines of settings, slopes over knobs, and claims whose thresholds were written down first."""
import numpy as np, pandas as pd, pytest
from understanding_lrs.analysis.claims import CLAIMS, role_of, verdicts
from understanding_lrs.analysis.evidence import Evidence
from understanding_lrs.analysis.verdicts import MISSING, answers
from understanding_lrs.analysis.window import C33, C34, DEFAULTS, SETTINGS, alone, setting_lines, slope_draws, together
from understanding_lrs.core.checkout import project_root
from understanding_lrs.runs.protocol import networks
from understanding_lrs.studies.registry import protocols, study_of
from understanding_lrs.studies.synthetic import KNOBS, WINDOW_GRID, window_rates

STUDY = 'synthetic_window'

def test_thresholds_are_those_that_were_written_down():
    written = pd.read_csv(project_root()/'figures/data/window/thresholds.csv')
    parts = {p.id: p for p in (*C33, *C34)}
    assert sorted(parts) == sorted(written.id)
    for row in written.itertuples():
        p = parts[row.id]
        assert (p.label, p.comparison, p.threshold, p.decides) == (row.what, row.sense, float(row.threshold), row.decides)

def test_recorded_seeds_are_fresh_and_shared():
    ps = protocols(STUDY, 'wide')
    assert {d for p in ps for d,*_ in networks(p)} == set(range(301, 313))
    by_setting = {}
    for p in ps: by_setting.setdefault(tuple(p.settings[s] for s in SETTINGS), []).append(p.plr)
    assert len(by_setting) == len(KNOBS) + 1 == 22 and {len(v) for v in by_setting.values()} == {11}

@pytest.mark.parametrize('batch, n', [(4, 512), (128, 512), (16, 128), (16, 2048), (64, 2048)])
def test_rates_surround_the_expected_line(batch, n):
    rates, expected = window_rates(batch, n), 7.5e-3*batch/16*512/n
    assert len(rates) == 11 and set(rates) <= set(WINDOW_GRID) and rates[4] < expected*1.2 and rates[6] > expected/1.2

def made(line_of, sparse_above=True, seeds=3):
    "Tables of networks that converge below the line of their setting and bounce above it"
    rng, metrics, features, runs = np.random.default_rng(0), [], [], []
    for i,knob in enumerate(({}, *KNOBS)):
        s = DEFAULTS | knob
        line = line_of(s)
        for j,plr in enumerate(window_rates(int(s['batch']), int(s['n_train']))):
            run = f'{i:02}{j:02}'
            runs.append(dict(run=run, settings=pd.Series(s).to_json()))
            for seed in range(seeds):
                row = dict(run=run, study=STUDY, data='synthetic', plr=plr, data_seed=seed, train_seed=1, readout_seed=seed, flr=np.nan, swa_k=np.nan, band=None,
                           pair=None, rank=np.nan)
                inside, near = plr < line, line < plr < 4*line
                for m,v in dict(train_loss=1e-5 if inside else .5, test_acc=70, test_acc_tail=70, test_acc_tail_std=.01 if inside else 3.).items():
                    metrics.append(row | dict(stage='pretrain', metric=m, value=v))
                acc = 75. if near else 71.
                for flr in (1e-4, 1e-2): metrics.append(row | dict(stage='finetune', flr=flr, metric='test_acc', value=acc + .1*rng.standard_normal()))
                metrics.append(row | dict(stage='average', swa_k=5, metric='test_acc', value=acc))
                gap = 20. if near and sparse_above else 1.
                features.append(row | dict(stage='pretrain', metric='dominance', value=gap))
                features.append(row | dict(stage='pretrain', metric='single_feature_acc', rank=1, band='feature=0', value=80.))
    return dict(metrics=pd.DataFrame(metrics), features=pd.DataFrame(features), runs=pd.DataFrame(runs))

def found(tables, parts): return {a.part.id: a.found.value for a in answers(parts, Evidence(tables, study_of(STUDY)))}

def test_a_line_in_proportion_to_the_share_is_found():
    values = found(made(lambda s: 7.5e-3*s['batch']/16*512/s['n_train']), (*C33, *C34))
    assert values['C33.batch'] == pytest.approx(1, abs=.1) and values['C33.samples'] == pytest.approx(-1, abs=.1)
    assert values['C33.together'] < .05 and values['C33.length'] < 1e-9 and values['C33.noise'] < 1e-9
    assert values['C34.share'] == pytest.approx(1) and values['C34.quality'] == pytest.approx(4, abs=.3) and values['C34.settings'] == 1

def test_a_line_that_moves_half_as_much_is_told_apart():
    values = found(made(lambda s: 7.5e-3*(s['batch']/16*512/s['n_train'])**.5, sparse_above=False), (*C33, *C34))
    assert .4 < values['C33.batch'] < .6 and -.6 < values['C33.samples'] < -.4 and values['C34.share'] == pytest.approx(0)

def test_lines_beyond_the_grid_are_not_known():
    e = Evidence(made(lambda s: 1e9), study_of(STUDY))
    assert all(np.isnan(d).all() for d in setting_lines(e).draws) and np.isnan(slope_draws(alone(setting_lines(e), 'batch'), 'batch')).all()
    assert len(together(setting_lines(e))) == 5

def test_claims_ask_these_tables_only():
    assert role_of(STUDY, 'wide') == 'window' and {c.id for c in CLAIMS if 'window' in c.roles} == {'C33', 'C34'}
    judged = verdicts({})
    assert set(judged[judged.claim.isin(['C33', 'C34'])].verdict) == {MISSING}
