"""An intervention changes exactly what it says; dose zero is the plain study, bit for bit; cut anywhere and continued = never cut."""
from dataclasses import replace
import numpy as np, pytest, torch
from sklearn.neighbors import KNeighborsClassifier
from understanding_lrs.studies import intervention_trial, interventions
from understanding_lrs.training import reference as training
from understanding_lrs.probes.features import dominance, single_feature_accuracy
from understanding_lrs.studies.settings import HOW
from understanding_lrs.studies.intervention_trial import LOOKS, InterventionTrial, hidden_pattern, hide
from understanding_lrs.studies.intervention_trial import look_steps, without
from understanding_lrs.core.errors import InputError, OutOfTime
from understanding_lrs.runs.store import Run
from understanding_lrs.core.seeds import batch_order, stream
from understanding_lrs.training.stacked import version_order
from understanding_lrs.studies.registry import STUDIES, protocols
from understanding_lrs.studies.trial import live
from understanding_lrs.data.synthetic import SyntheticConfig, make_data, single_feature_sets

CHANGED = 'synthetic_easier', 'synthetic_hidden', 'synthetic_removed', 'synthetic_implanted', 'synthetic_swapped'
PLAIN = protocols('synthetic', 'smoke', plrs=[1e-2], overrides=dict(swa_k=[5]))[0]

def arm(**settings):
    "the plain smoke run with an intervention"
    p = protocols('synthetic_hidden', 'smoke', plrs=[1e-2])[0]
    return replace(p, settings=p.settings | settings)

def lived(p, stage='read'):
    trial = STUDIES[p.study].trial(p)
    for name,_ in trial.stages:
        getattr(trial, name)()
        if name == stage: return trial

@pytest.fixture(scope='module')
def plain(): return live(PLAIN)

# --- what is hidden says nothing; what is not hidden stays

CONFIG = SyntheticConfig(n_train=4000, n_test=2000)

def told(data, feature):
    "accuracy (%) of a nearest-neighbour classifier that sees one feature"
    at = slice(2*feature, 2*feature + 2)
    fit = KNeighborsClassifier(15).fit(data.x_train[:, at].numpy(), data.y_train.numpy())
    return 100*fit.score(data.x_test[:, at].numpy(), data.y_test.numpy())

def test_a_removed_feature_carries_no_information():
    data = make_data(CONFIG, 1)
    less = without(CONFIG, data, 1, 5)
    assert told(data, 5) > 95 and abs(told(less, 5) - 50) < 4 and told(less, 4) == told(data, 4)
    others = [i for i in range(32) if i not in (10, 11)]
    for a,b in zip(data, less): assert torch.equal(a[..., others] if a.ndim == 2 else a, b[..., others] if b.ndim == 2 else b)

def test_nothing_hidden_is_the_same_data():
    x = make_data(CONFIG, 1).x_train
    assert torch.equal(hide(CONFIG, x, np.zeros((16, len(x)), bool), stream('hidden', 1)), x)

@pytest.mark.parametrize('how', HOW)
def test_every_way_hides_as_many_points(how):
    pattern = hidden_pattern(how, .25, (16, 64, 10), stream('hidden', 1))
    versions = pattern.reshape(16, 10, 64)
    assert pattern.mean() == .25 and versions.sum((0, 2)).tolist() == [.25*16*64]*10
    by_feature, by_sample = versions.all(2), versions.all(0) # (features, versions), (versions, samples)
    if how == 'samples': assert by_sample.sum(1).tolist() == [16]*10 and not by_feature.any() and len(np.unique(by_sample, axis=0)) > 1
    else: assert by_feature.sum(0).tolist() == [4]*10 and len(np.unique(by_feature, axis=1).T) == (1 if how == 'fixed' else len(np.unique(by_feature.T, axis=0)))
    if how == 'features': assert len(np.unique(by_feature.T, axis=0)) > 1

# --- dose zero

def equal_points(a, b): return all(torch.equal(a[k].flat(), b[k].flat()) for k in ('pretrain', 'swa5', *(f'flr={f!r}' for f in PLAIN.flrs)))

@pytest.mark.parametrize('settings', [dict(), dict(hide_share=.01), dict(hide='samples', hide_share=.001), dict(remove='none', remove_at=100),
                                      dict(remove='none', remove_at=57), dict(remove='none', remove_at=200)], ids=str)
def test_dose_zero_is_the_plain_study(plain, settings):
    "no intervention; versions with nothing hidden; a cut with nothing removed"
    trial = lived(arm(**settings))
    assert equal_points(trial.points, plain.points)
    for name in ('features', 'geometry'):
        assert trial.tables[name].drop(columns=['run', 'study']).equals(plain.tables[name].drop(columns=['run', 'study']))

def test_utility_one_is_the_plain_study(plain):
    p = protocols('synthetic_easier', 'smoke', plrs=[1e-2])[0]
    assert set(p.settings['utility']) == {1.} and equal_points(lived(p).points, plain.points)

@pytest.mark.parametrize('settings', [dict(hide_share=.25), dict(hide='fixed', hide_share=.25), dict(hide='samples', hide_share=.25), dict(remove_at=100),
                                      dict(implant_steps=50)], ids=str)
def test_another_dose_is_not(plain, settings):
    assert not torch.equal(lived(arm(**settings), 'pretrain').points['pretrain'].flat(), plain.points['pretrain'].flat())

# --- each stage

def test_hidden_steps_are_those_of_the_reference():
    "step by step the reference sees the version that the order names"
    p = arm(hide_share=.25, steps=20)
    p = replace(p, plr=1e-3, swa_k=())
    trial = lived(p, 'pretrain')
    seen = trial.seen(lambda rng: hidden_pattern('features', .25, (16, 64, interventions.VERSIONS), rng)).x_seen
    for k,seed in enumerate(p.data_seeds):
        model, y = trial.networks.spec.build(1, seed), make_data(trial.config, seed).y_train
        for t,v in enumerate(version_order(1, 4, 0, 20, interventions.VERSIONS)):
            training.train(model, seen[k, v*64:(v + 1)*64], y, batch_order(1, 64, 16, t, t + 1), p.plr)
        torch.testing.assert_close(trial.points['pretrain'].flat()[k], model.flat(), rtol=1e-4, atol=2e-5)

def test_fine_tuning_sees_plain_data():
    "a hidden feature is hidden in pre-training only"
    trial = lived(arm(hide_share=.5), 'finetune')
    assert trial.sets.x_seen is None and trial.stage['finetune'].task.sets is trial.plain

@pytest.mark.parametrize('at', [100, 200])
@pytest.mark.parametrize('which', ['best', 'last'])
def test_the_right_feature_goes(at, which):
    trial = lived(arm(remove=which, remove_at=at), 'finetune')
    moment = trial.points['before' if at == 100 else 'pretrain']
    start = STUDIES[trial.protocol.study].trial(trial.protocol).make().networks
    acc = single_feature_accuracy(start.at_flat(moment.flat()), *single_feature_sets(trial.config))
    assert trial.removed.tolist() == (acc.argmax(1) if which == 'best' else acc.argsort(dim=1, descending=True, stable=True)[:, -1]).tolist()
    for k,(seed,f) in enumerate(zip(trial.frame.data_seed, trial.removed)):
        want = without(trial.config, make_data(trial.config, seed), seed, int(f))
        assert torch.equal(trial.sets.x_train[trial.networks.data[k]], want.x_train) and torch.equal(trial.sets.x_test[trial.networks.data[k]], want.x_test)

def test_a_swap_leaves_pre_training_alone(plain):
    trial = lived(arm(remove_at=200))
    assert all(torch.equal(trial.points[k].flat(), plain.points[k].flat()) for k in ('pretrain', 'swa5'))
    high = f'flr={PLAIN.flrs[-1]!r}'
    assert not torch.equal(trial.points[high].flat(), plain.points[high].flat())

def test_an_implant_makes_its_feature_the_best():
    p = arm(n_train=512, implant_steps=3000)
    trial = lived(p, 'implant')
    acc = single_feature_accuracy(trial.start, *single_feature_sets(trial.config))
    assert acc.argmax(1).tolist() == [0, 0] and (dominance(acc) > 5).all()
    seen = trial.stage['implant'].task.sets.x_seen
    assert torch.equal(seen[..., :2], trial.plain.x_train[..., :2]) and not torch.equal(seen[..., 2:4], trial.plain.x_train[..., 2:4])

def test_looks_after_a_removal():
    looks = live(arm(remove_at=100)).tables['looks']
    assert sorted(looks.step.unique()) == look_steps(100, 200) and len(look_steps(20_000, 40_000)) == LOOKS >= 20
    count = looks.groupby('metric').size()
    assert count.finetuned_acc < count.dominance == count.angle_start == count.train_loss
    at = looks[(looks.metric == 'angle_removal') & (looks.step == 100)]
    assert (at.value < 1e-3).all()

def tables(run): return {t: (run.folder/f'{t}.csv').read_bytes() for t in run.tables()}

@pytest.mark.parametrize('settings', [dict(remove_at=100), dict(remove_at=200), dict(implant_steps=60), dict(hide_share=.25)], ids=str)
def test_a_run_in_pieces(tmp_path, settings, monkeypatch):
    "every call stops after one window; the tables are the bytes of an undisturbed run. Six looks after a removal, three of them fine-tuned, are enough"
    monkeypatch.setattr(intervention_trial, 'LOOKS', 6)
    monkeypatch.setattr(intervention_trial, 'TUNED', (0, 2, 5))
    p, calls = arm(**settings), 0
    whole, pieces = live(p, Run(tmp_path/'a', p)).run, Run(tmp_path/'b', p)
    while pieces.state().kind != 'done':
        try: live(p, pieces, time_limit=0)
        except OutOfTime: calls += 1
    assert calls > 10 and tables(pieces) == tables(whole)

# --- what cannot be done is one clear line

@pytest.mark.parametrize('settings, words', [
    (dict(hide='feature'), "did you mean 'features'"), (dict(hide_share=1.), 'hide_share must be in [0, 1)'), (dict(hide_share=-.1), 'hide_share'),
    (dict(remove='first'), "unknown remove 'first'"), (dict(remove_at=-1), 'remove_at must be in 0..200'), (dict(remove_at=201), 'remove_at must be in 0..200'),
    (dict(remove_at=190), 'the longest average needs 40'), (dict(implant_steps=-1), 'implant_steps'), (dict(implant_lr=0.), 'implant_lr must be positive'),
    (dict(implant_features=0), 'implant_features must be in 1..16'), (dict(implant_features=17), 'implant_features must be in 1..16'),
    (dict(implant_versions=0), 'implant_versions'), (dict(hide_share=.25, implant_steps=5), 'one intervention at a time')], ids=str)
def test_bad_input_is_one_clear_line(settings, words):
    with pytest.raises(InputError) as e: protocols('synthetic_swapped', 'smoke', plrs=[1e-2], overrides=settings)
    assert words in str(e.value) and '\n' not in str(e.value)

@pytest.mark.parametrize('study', CHANGED)
def test_presets_compare_like_with_like(study):
    "every arm has the same rates, seeds and lengths; six rates at least, forty seeds"
    ps = protocols(study, 'wide')
    arms = {}
    for p in ps: arms.setdefault(str({k: v for k,v in p.settings.items()}), []).append((p.plr, p.data_seeds, p.train_seeds, p.flrs))
    assert len(arms) >= 2 and len({str(a) for a in arms.values()}) == 1
    assert len({p.plr for p in ps}) >= 6 and len(ps[0].data_seeds) >= 40 and not {*range(901, 917)} & {*ps[0].data_seeds}
    assert issubclass(STUDIES[study].trial, InterventionTrial)
