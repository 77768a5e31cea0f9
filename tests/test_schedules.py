"""Schedules with a peak rate: their values, equal cost, the same bits however a run is cut, and claims whose thresholds were written down first."""
import numpy as np, pandas as pd, pytest, torch
from understanding_lrs.analysis.claims import CLAIMS, role_of, verdicts
from understanding_lrs.analysis.evidence import Evidence
from understanding_lrs.analysis.schedules import C35, C36, DECAYING, chosen_on_others, regret
from understanding_lrs.analysis.verdicts import MISSING, NOT, REPRODUCED, answers
from understanding_lrs.core.checkout import project_root
from understanding_lrs.core.errors import InputError, OutOfTime
from understanding_lrs.runs.protocol import networks
from understanding_lrs.runs.store import Run
from understanding_lrs.studies.registry import protocols, study_of
from understanding_lrs.studies.schedules import PEAKS, VARIANTS
from understanding_lrs.studies.trial import live
from understanding_lrs.training.rates import KINDS, check_schedule, factor, segments

STUDY = 'synthetic_schedules'
LENGTHS = {v['schedule']: {k: x for k,x in v.items() if k != 'schedule'} for v in VARIANTS}

@pytest.mark.parametrize('kind, values', [
    ('constant', [1, 1, 1, 1, 1]), ('constant_decay', [1, 1, 1, 1, 0]), ('linear', [1, .75, .5, .25, 0]),
    ('cosine', [1, .853553, .5, .146447, 0]), ('onecycle', [.04, .935692, .811745, .283058, 4e-6]), ('wsd', [0, 1, 1, 1, 0])])
def test_known_values(kind, values):
    assert [factor(kind, x, **LENGTHS[kind]) for x in (0., .25, .5, .75, 1.)] == pytest.approx(values, abs=1e-3)

@pytest.mark.parametrize('kind', KINDS)
def test_rates_stay_between_nothing_and_the_peak(kind):
    found = [factor(kind, x, **LENGTHS[kind]) for x in np.linspace(0, 1, 1001)]
    assert min(found) >= 0 and max(found) == pytest.approx(1, abs=1e-4) and (kind == 'constant' or found[-1] < 1e-5)

@pytest.mark.parametrize('kind', ['linear', 'cosine', 'onecycle'])
def test_torch_has_the_same(kind):
    optimizer, n, rates = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.), 200, torch.optim.lr_scheduler
    made = dict(
        linear=lambda: rates.LinearLR(optimizer, 1., 0., n), cosine=lambda: rates.CosineAnnealingLR(optimizer, n),
        onecycle=lambda: rates.OneCycleLR(optimizer, 1., n + 1, pct_start=(.3*n + 1)/(n + 1), cycle_momentum=False))[kind]()
    for t in range(n):
        assert optimizer.param_groups[0]['lr'] == pytest.approx(factor(kind, t/n, **LENGTHS[kind]), abs=1e-9)
        optimizer.step()
        made.step()

@pytest.mark.parametrize('given, words', [
    (dict(schedule='cosin'), "did you mean 'cosine'"), (dict(schedule='onecycle', warmup=1.2, decay=0.), 'must be below 1, got 1.2'),
    (dict(schedule='wsd', warmup=.5, decay=.5), 'must be below 1, got 1'), (dict(schedule='linear', warmup=.1, decay=0.), 'has no warmup'),
    (dict(schedule='wsd', warmup=0., decay=.2), 'needs a warmup above 0'), (dict(warmup=-.1), 'warmup must be at least'), (dict(segment=0), 'segment must be at least 1')])
def test_bad_schedules_are_one_line(given, words):
    with pytest.raises(InputError) as e: protocols(STUDY, 'smoke', overrides=given)
    assert words in str(e.value) and '\n' not in str(e.value)

@pytest.mark.parametrize('peak', [0, -1e-2, float('nan'), 'much'])
def test_a_peak_is_positive(peak):
    with pytest.raises(InputError, match='plr must be a positive number'): protocols(STUDY, 'smoke', plrs=[peak])

def test_every_check_names_what_is_wrong():
    for kind in KINDS: check_schedule(kind, **dict(warmup=0., decay=0.) | LENGTHS[kind])
    with pytest.raises(InputError, match='unknown schedule'): check_schedule('exponential', warmup=0., decay=0.)

@pytest.mark.parametrize('preset', ['smoke', 'fresh'])
def test_equal_cost_and_equal_trials(preset):
    ps, by_kind = protocols(STUDY, preset), {}
    for p in ps: by_kind.setdefault(p.settings['schedule'], []).append(p)
    assert {*by_kind} == {*KINDS} and len({(p.settings['steps'], *networks(p)) for p in ps}) == 1
    assert len({tuple(p.plr for p in mine) for mine in by_kind.values()}) == 1 and not any(p.flrs for p in ps)

def test_recorded_seeds_are_fresh():
    seeds = {d for p in protocols(STUDY, 'fresh') for d,*_ in networks(p)}
    assert seeds == set(range(413, 473)) and len(PEAKS) == 13

@pytest.mark.parametrize('start, stop, length', [(0, 100, 10), (7, 93, 10), (0, 5, 50), (49, 51, 50)])
def test_segments_cover_every_step_once_with_the_rate_of_its_place(start, stop, length):
    steps = [t for first,last,_ in segments(start, stop, length) for t in range(first, last)]
    assert steps == list(range(start, stop))
    assert all(mid == t//length*length + length/2 for first,last,mid in segments(start, stop, length) for t in range(first, last))

def settled(run): return {name: run.table(name).to_csv() for name in run.tables()}

@pytest.mark.parametrize('kind', ['cosine', 'wsd'])
def test_an_interrupted_run_ends_at_the_same_bits(kind, tmp_path):
    p = next(p for p in protocols(STUDY, 'smoke', overrides=dict(segment=7)) if p.settings['schedule'] == kind and p.plr == 1e-2)
    whole, cut = Run(tmp_path/'whole', p), Run(tmp_path/'cut', p)
    live(p, whole)
    stops = 0
    while cut.state().kind != 'done':
        try: live(p, cut, time_limit=0)
        except OutOfTime: stops += 1
    assert stops and settled(cut) == settled(whole)

def test_constant_is_the_plain_study(tmp_path):
    p = next(p for p in protocols(STUDY, 'smoke') if p.settings['schedule'] == 'constant')
    plain, = protocols('synthetic', 'smoke', plrs=[p.plr], overrides=dict(flrs=[], swa_k=[]))
    def end(p):
        m = live(p, Run(tmp_path/p.study, p)).tables['metrics']
        return m[m.stage == 'pretrain'].value.tolist()
    assert end(p) == end(plain)

def made(best_of, gain=0., seeds=6):
    "Tables in which each decaying schedule is best at a peak, by a clear margin; constant in 2A and a short decay lacks `gain` to linear"
    rng, metrics, runs = np.random.default_rng(0), [], []
    for i,variant in enumerate(VARIANTS):
        kind = variant['schedule']
        for plr in PEAKS:
            run = f'{i}-{plr:g}'
            runs.append(dict(run=run, plr=plr, settings=pd.Series(variant).to_json()))
            acc = 70. if kind == 'constant' else 75. - 5*abs(np.log10(plr/best_of(kind))) + gain*(kind == 'linear')
            for seed in range(seeds):
                row = dict(run=run, study=STUDY, data='synthetic', plr=plr, data_seed=seed, train_seed=1, readout_seed=seed, flr=np.nan, swa_k=np.nan,
                           band=None, pair=None, rank=np.nan, stage='pretrain')
                metrics.append(row | dict(metric='test_acc', value=acc + .01*rng.standard_normal()))
    return dict(metrics=pd.DataFrame(metrics), runs=pd.DataFrame(runs))

def judged(tables, lines=(7.499e-3, 1.334e-2)):
    e = Evidence(tables, study_of(STUDY))
    e.found['lines'] = lines
    return {a.part.id: a for a in answers((*C35, *C36), e)}

def test_best_peaks_inside_and_outside_the_window_are_told_apart():
    found = judged(made(lambda kind: 1e-1 if kind == 'cosine' else 1e-2))
    assert {kind: found[f'C35.{kind}'].verdict for kind in DECAYING} == {kind: NOT if kind == 'cosine' else REPRODUCED for kind in DECAYING}
    assert found['C35.cosine_loss'].found.value == pytest.approx(2.5, abs=.1) and found['C35.cosine_decades'].found.value == pytest.approx(1, abs=.01)
    assert found['C36.regret'].verdict == REPRODUCED and found['C36.decay'].found.value == pytest.approx(5, abs=.2)

def test_a_schedule_that_is_better_is_a_regret():
    found = judged(made(lambda kind: 1e-2, gain=3.))
    assert found['C36.regret'].found.value == pytest.approx(3, abs=.1) and found['C36.regret'].verdict == NOT

def test_luck_is_no_regret():
    "pure noise: the best of seventy arms on the same seeds is far ahead, the one chosen on the others is not"
    rng, own, others = np.random.default_rng(1), [], []
    for _ in range(300):
        noise = rng.normal(0, 3, (12, 70))
        own.append(noise.mean(0).max())
        others.append(chosen_on_others(noise, np.ones(12)).mean())
    assert np.mean(own) > 1.5 and abs(np.mean(others)) < .4
    assert chosen_on_others(np.array([[9., 0.], [0., 1.]]), np.ones(2)).tolist() == [0., 0.]
    assert regret(None, np.full((12, 3), 76.), np.full((12, 1), 75.)).value == 1

def test_without_the_lines_nothing_is_said():
    found = judged(made(lambda kind: 1e-2), lines=None)
    assert found['C35.constant_decay'].verdict == MISSING and 'C35.linear' not in found

def test_thresholds_are_those_that_were_written_down():
    written = pd.read_csv(project_root()/'figures/data/schedules/thresholds.csv')
    parts = {p.id: p for p in (*C35, *C36)}
    assert sorted(parts) == sorted(written.id)
    for row in written.itertuples():
        p = parts[row.id]
        assert (p.label, p.comparison, p.threshold, p.decides) == (row.what, row.sense, float(row.threshold), row.decides)

def test_claims_ask_these_tables_only():
    assert role_of(STUDY, 'fresh') == 'schedules' and {c.id for c in CLAIMS if 'schedules' in c.roles} == {'C35', 'C36'}
    table = verdicts({})
    assert set(table[table.claim.isin(['C35', 'C36'])].verdict) == {MISSING}
