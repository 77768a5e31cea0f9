"""Robustness: corruptions, attacks and certainty have known answers; bad input is one line before any work; claims follow their tables."""
import numpy as np, pandas as pd, pytest, torch
from dataclasses import replace
from understanding_lrs.analysis.evidence import Evidence, made_up
from understanding_lrs.analysis.robustness import C30, C31, C32, C37, FAULT_COLUMNS
from understanding_lrs.analysis.verdicts import NOT, REPRODUCED, answers
from understanding_lrs.app.cli import main
from understanding_lrs.core.errors import InputError, OutOfTime
from understanding_lrs.data.bands import band_images
from understanding_lrs.data.corruptions import BANDS, SEVERITIES, STRENGTHS, corrupt, corrupted, noise_like
from understanding_lrs.data.loading import load_images
from understanding_lrs.data.synthetic import SHAPES, SyntheticConfig
from understanding_lrs.probes.attacks import Attack, attacked, attacked_accuracies
from understanding_lrs.probes.certainty import auroc, calibration_error, certainty_of
from understanding_lrs.probes.context import example_images
from understanding_lrs.probes.faults import FAULTS, fault_samples, groups_of, with_faults
from understanding_lrs.runs.store import Run
from understanding_lrs.studies.registry import STUDIES, protocols, resolved
from understanding_lrs.studies.trial import live
from understanding_lrs.training.optimizers import at_rest

IMAGES, FEATURES = 'convnetsi32_cifar10_robustness', 'synthetic_faults'

@pytest.fixture(scope='module')
def digits(): return load_images('digits').x_test

@pytest.fixture(scope='module')
def context(): return example_images()

# --- corruptions

@pytest.mark.parametrize('side', [8, 16, 24, 32])
def test_every_corruption_fits_every_side_and_grows_with_its_severity(side):
    g = torch.Generator().manual_seed(side)
    smooth = torch.nn.functional.interpolate(torch.rand(6, 3, 4, 4, generator=g), size=side, mode='bicubic').clamp(0, 1)
    x = (smooth*255).byte()
    off = {name: (spoilt.float() - x).square().mean().item() for name,spoilt in corrupted(x)}
    assert len(off) == len(STRENGTHS)*len(SEVERITIES)
    for kind in set(STRENGTHS) - {'jpeg'}: assert off[f'{kind}=1'] <= off[f'{kind}=2'] < off[f'{kind}=3'], kind
    assert off['jpeg=1'] < off['jpeg=3']

def test_corruptions_are_the_same_each_time_and_leave_the_images_alone(digits):
    before = digits.clone()
    for kind in STRENGTHS: assert torch.equal(corrupt(digits[:20], kind, 2), corrupt(digits[:20], kind, 2))
    assert torch.equal(digits, before)

@pytest.mark.parametrize('band', BANDS)
def test_noise_of_a_band_is_in_that_band_alone_and_as_strong_as_white_noise(digits, band):
    noise = noise_like(digits[:200], .05, band)
    assert noise.square().mean().sqrt().item() == pytest.approx(.05, rel=1e-3)
    assert noise_like(digits[:200], .05).square().mean().sqrt().item() == pytest.approx(.05, rel=.02)
    grey = ((noise + .5)*255).round().byte() # bytes, so that the cutting of bands can be used; rounding is white and small
    limits = {'low': (1, 2), 'mid': (3, 6), 'high': (7, 8)}
    power = {name: band_images(grey, *ends).square().sum().item() for name,ends in limits.items()}
    assert power[band] > .98*sum(power.values())

@pytest.mark.parametrize('kind, severity, x, words', [
    ('fog', 1, torch.zeros(1, 3, 8, 8, dtype=torch.uint8), "unknown corruption 'fog'; known: noise"), ('blur', 0, torch.zeros(1, 3, 8, 8, dtype=torch.uint8), 'severity must be 1, 2 or 3, got 0'),
    ('blur', 2.5, torch.zeros(1, 3, 8, 8, dtype=torch.uint8), 'severity must be 1, 2 or 3, got 2.5'), ('blur', 1, torch.zeros(1, 3, 8, 8), 'uint8 images')])
def test_a_wrong_corruption_is_one_line(kind, severity, x, words):
    with pytest.raises(ValueError, match=words) as e: corrupt(x, kind, severity)
    assert '\n' not in str(e.value)

def test_without_torchvision_noise_works_and_blur_says_what_is_missing(digits, monkeypatch):
    for name in ('torchvision', 'torchvision.transforms.v2'): monkeypatch.setitem(__import__('sys').modules, name, None)
    assert corrupt(digits[:5], 'noise_mid', 1).shape == digits[:5].shape
    for kind in ('blur', 'jpeg'):
        with pytest.raises(ValueError, match='corruptions need torchvision'): corrupt(digits[:5], kind, 1)
    with pytest.raises(InputError, match="corruptions need torchvision"): live(*resolved(protocols(IMAGES, "smoke", plrs=[1e-4]))) # before any training

# --- attacks

@pytest.mark.parametrize('norm', ['linf', 'l2'])
def test_pgd_finds_the_worst_case_of_a_linear_model(norm):
    g = torch.Generator().manual_seed(3)
    w, x = torch.randn(48, generator=g), .3 + .4*torch.rand(40, 3, 4, 4, generator=g)
    y = torch.randint(2, (40,), generator=g)
    def model(v): z = v.flatten(1) @ w; return torch.stack([-z, z], 1)
    def margin(v): return (model(v).gather(1, y[:, None]) - model(v).gather(1, 1 - y[:, None]))[:, 0]
    worst = 2*.05*(w.abs().sum() if norm == 'linf' else w.norm())
    for steps,share in ((1, 1.), (10, .95), (40, .97)):
        lost = margin(x) - margin(attacked(model, x, y, Attack(norm, .05, steps)))
        assert (lost >= share*worst - 1e-4).all() and (lost <= worst + 1e-4).all()

@pytest.mark.parametrize('attack', [Attack(norm, radius, steps) for norm in ('linf', 'l2') for radius in (.02, .3) for steps in (0, 1, 7)])
def test_attacked_images_are_images_within_the_radius(attack, digits):
    x, y = digits[:30].float()/255, torch.arange(30) % 10
    g = torch.Generator().manual_seed(0)
    weights = torch.randn(192, 10, generator=g)
    spoilt = attacked(lambda v: v.flatten(1) @ weights, x, y, attack)
    change = (spoilt - x).flatten(1)
    size = change.abs().amax(1) if attack.norm == 'linf' else change.norm(dim=1)
    assert spoilt.min() >= 0 and spoilt.max() <= 1 and size.max() <= attack.radius + 1e-5 and size.max() > 0

@pytest.mark.parametrize('wrong, words', [(dict(radius=0.), 'radius must be positive'), (dict(radius=-1.), 'radius must be positive'), (dict(radius=float('nan')), 'radius must be positive'),
                                          (dict(radius=float('inf')), 'radius must be positive'), (dict(norm='L2'), 'norm must be linf or l2'), (dict(steps=-1), 'steps must be at least 0')])
def test_a_wrong_attack_is_refused(wrong, words):
    with pytest.raises(ValueError, match=words): Attack(**dict(norm='linf', radius=.1, steps=5) | wrong)

def test_attacks_leave_the_networks_as_they_are_and_lost_ones_are_nan(context):
    d = context.evaluator.data
    few, nets = replace(d, x_test=d.x_test[:40], y_test=d.y_test[:40]), at_rest(context.checkpoints['pretrain'])
    before = nets.flat().clone()
    found = {(m, band): acc for m,band,acc in attacked_accuracies(nets, 0, few)}
    assert torch.equal(nets.flat(), before)
    assert found['noise_acc', 'linf=2'] >= found['pgd_acc', 'linf=2'] >= found['more_steps_acc', 'linf=2'] - 2.5
    broken = nets.copy()
    next(iter(broken.state.values()))[1] = float('nan')
    assert np.isnan([acc for *_,acc in attacked_accuracies(broken, 1, few)]).all()
    assert np.isnan([v for *_,v in certainty_of(broken, 1, few, {})]).all()

# --- certainty

def test_calibration_and_auroc_of_constructed_outputs():
    g = torch.Generator().manual_seed(0)
    p = torch.rand(200_000, generator=g)*.8 + .1 # answers that are right as often as they say
    y = (torch.rand(200_000, generator=g) > p).long()
    z = torch.stack([p.log(), (1 - p).log()], 1)
    assert calibration_error(z, y) < .6
    assert calibration_error(3*z, y) > 5 # the same, too sure
    own, foreign = torch.randn(500, generator=g).double(), torch.randn(700, generator=g).double()
    pairs = (own[:, None] > foreign).double().mean().item()
    assert auroc(own, foreign) == pytest.approx(pairs, abs=1e-12) and auroc(foreign, own) == pytest.approx(1 - pairs, abs=1e-12)

# --- features that fail

@pytest.mark.parametrize('shape', list(SHAPES))
def test_faults_are_where_they_should_be(shape):
    config = SyntheticConfig(shape=shape, feature_ids=(0, 4, 8), in_dim=10)
    y, x = fault_samples(config, 300)
    def classes(v): return np.stack([SHAPES[shape].classify(v[:, i:i + 2]) for i in config.feature_ids])
    spoilt = with_faults(config, x['sound'], x['misleading'], [1])
    assert (classes(x['sound']) == y).all() and ((classes(spoilt) != y).all(1) == [False, True, False]).all()
    assert (spoilt[:, [2, 3, 6, 7, 9]] == x['sound'][:, [2, 3, 6, 7, 9]]).all() # what is no feature stays

def test_each_feature_fails_equally_often():
    for k in (1, 2, 4, 8):
        groups = groups_of(k, 16)
        assert np.bincount(np.ravel(groups)).tolist() == [k]*16 and all(len(set(g)) == k for g in groups)

# --- studies

def test_smoke_has_its_probes_alone_and_goes_on_to_the_same_numbers(tmp_path):
    p, = resolved(protocols(IMAGES, 'smoke', plrs=[1e-4]))
    whole = live(p, Run(tmp_path/'a', p))
    assert set(whole.tables) == {'metrics', 'curves', 'geometry', 'corruptions', 'attacks', 'certainty'}
    assert set(whole.tables['certainty'].band.dropna()) == {'outside=noise'}
    with pytest.raises(OutOfTime): live(p, Run(tmp_path/'b', p), time_limit=0.)
    again = live(p, Run(tmp_path/'b', p))
    for name in whole.tables: pd.testing.assert_frame_equal(whole.tables[name], again.tables[name])

def test_smoke_of_features_that_fail():
    trial = live(protocols(FEATURES, 'smoke')[0])
    assert set(trial.tables) == {'metrics', 'curves', 'geometry', 'features', 'faults'}
    assert {b.split('=')[0] for b in trial.tables['faults'].band.dropna()} == {*FAULTS}

@pytest.mark.parametrize('settings, words', [(dict(outside='digits'), 'outside must be other images than data, got digits for both'), (dict(outside='nowhere'), 'nowhere')])
def test_foreign_images_that_cannot_be_are_refused_before_any_work(settings, words):
    with pytest.raises(InputError, match=words) as e: resolved(protocols(IMAGES, 'smoke', overrides=settings))
    assert '\n' not in str(e.value)

def test_any_run_on_images_can_be_asked_later(tmp_path, capsys):
    assert main(['sweep', 'convnetsi32_cifar10', '--preset', 'smoke', '--plr', '1e-4', '--seeds', '1', '--set', 'n_test=60', '--keep-states', '--runs', str(tmp_path)]) == 0
    def read(*probes): return main(['read', 'convnetsi32_cifar10', '--runs', str(tmp_path), *(word for p in probes for word in ('--probe', p))])
    assert read('corruptions', 'attacks') == 0 and 'attacks' in capsys.readouterr().out
    assert read('corruptions') == 0 and 'nothing is missing' in capsys.readouterr().out
    assert read('corruption') == 2 and "unknown probe 'corruption'; did you mean 'corruptions'?" in capsys.readouterr().err
    assert read('groups') == 2 and "probe 'groups' needs groups" in capsys.readouterr().err
    table = pd.read_csv(next(tmp_path.rglob('corruptions.csv')))
    assert set(table.band.dropna()) == {f'{kind}={s}' for kind in STRENGTHS for s in SEVERITIES} and table.value.between(0, 100).all()

def test_seeds_of_exploration_are_not_recorded():
    for preset in STUDIES[IMAGES].presets.values(): assert not {11, 12, 13} & {*preset.train_seeds}
    seeds = {s for p in STUDIES[FEATURES].presets.values() for s in p.data_seeds}
    assert not {*range(901, 1000)} & seeds

# --- claims

def image_tables(robust):
    "Made tables: in 2A attacks and noise cost less where `robust`, and middle frequencies more"
    made, rows = made_up()['metrics'], {name: [] for name in ('corruptions', 'attacks', 'certainty')}
    tuned = made[(made.stage == 'finetune') & (made.flr == 1e-5) & (made.metric == 'test_acc')]
    rates = sorted(made.plr.unique())
    for row in tuned.to_dict('records'):
        inside = robust and rates.index(row['plr']) in (4, 5, 6)
        def add(table, metric, band, value): rows[table].append(row | dict(metric=metric, band=band, value=value))
        cost = {kind: 10. for kind in STRENGTHS} | (dict(noise_mid=14., noise_high=2.) if inside else {})
        for kind,lost in cost.items():
            for s in SEVERITIES: add('corruptions', 'corrupted_acc', f'{kind}={s}', row['value'] - lost)
        for norm in ('linf', 'l2'):
            for i in (1, 2, 3): add('attacks', 'pgd_acc', f'{norm}={i}', 40. if inside else 20.)
        add('attacks', 'more_steps_acc', 'linf=2', 39. if inside else 19.)
        add('certainty', 'ece', None, 5. if inside else 20.)
        add('certainty', 'auroc_confidence', 'outside=others', .7 if inside else .6)
    return dict(metrics=made) | {name: pd.DataFrame(r) for name,r in rows.items()}

def test_a_robust_window_is_found_and_one_that_is_not_is_not():
    def verdicts(robust): return {a.part.id: a.verdict for a in answers((*C30, *C31, *C32), Evidence(image_tables(robust), STUDIES[IMAGES]))}
    yes, no = verdicts(True), verdicts(False)
    for part in (*C30, *C31, *C32):
        if part.decides: assert yes[part.id] == REPRODUCED, part.id
    for id in ('C30.attacked_1', 'C31.attacked_share', 'C31.calibration', 'C31.outside', 'C32.mid_high', 'C32.mid_low', 'C32.high'): assert no[id] == NOT, id

def fault_tables(brittle):
    "Made networks near the threshold: those with a dominant feature rest on it where `brittle`"
    blank = dict(run='r', study='made', data='made', flr=np.nan, swa_k=np.nan, train_seed=1, readout_seed=1, pair=None, band=None, rank=np.nan, plr=1e-2)
    metrics, features, faults = [], [], []
    for seed in range(1, 9):
        row = blank | dict(data_seed=seed)
        sparse = seed % 2 == 0
        low = row | dict(stage='finetune', flr=1e-5)
        metrics += [low | dict(metric='test_acc', value=80.), row | dict(stage='pretrain', metric='train_loss', value=.1)]
        features += [row | dict(stage='pretrain', metric='dominance', value=20. if sparse else 1.),
                     row | dict(stage='pretrain', metric='single_feature_acc', rank=1, band='feature=03', value=70.)]
        mine = dict(sound=80., own=76., other=78., four=68., misled=65., misled_other=76.)
        if sparse and brittle: mine |= dict(own=55., other=80., four=74., misled=25.)
        faults += [low | dict(metric=FAULT_COLUMNS[k][0], band=FAULT_COLUMNS[k][1], value=v + .01*seed) for k,v in mine.items()]
    return dict(metrics=pd.DataFrame(metrics), features=pd.DataFrame(features), faults=pd.DataFrame(faults))

def test_sparse_networks_that_break_are_told_from_those_that_do_not():
    def found(brittle): return {a.part.id: a for a in answers(C37, Evidence(fault_tables(brittle), STUDIES[FEATURES]))}
    yes, no = found(True), found(False)
    deciding = [part.id for part in C37 if part.decides]
    assert [yes[id].verdict for id in deciding] == [REPRODUCED]*3 and [no[id].verdict for id in deciding] == [NOT]*3
    assert yes['C37.own'].found.value == pytest.approx(21., abs=.1)

def test_thresholds_are_those_that_were_written_down(root):
    written = pd.read_csv(root/'figures/data/robustness/thresholds.csv').set_index('id')
    parts = (*C30, *C31, *C32, *C37)
    assert sorted(p.id for p in parts) == sorted(written.index)
    for p in parts:
        row = written.loc[p.id]
        assert (p.label, p.comparison, p.threshold, p.decides) == (row.what, row.sense, float(row.threshold), row.decides)
