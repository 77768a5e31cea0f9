"""What the statistics of the basin give on made-up networks whose answer is known; what was asked is what was written down first."""
import matplotlib, numpy as np, pandas as pd, pytest
from understanding_lrs.analysis import basin
from understanding_lrs.figures import interventions
from understanding_lrs.analysis.basin import advantage, centred, estimate, network_table, paired, partial_rank, slope, two_stage, two_stage_interval
from understanding_lrs.analysis.claims import CLAIMS, ROLES, verdicts
from understanding_lrs.analysis.evidence import Evidence
from understanding_lrs.analysis.intervention_claims import C25, INTERVENED, INTERVENTIONS, SHOWN, intervention_effects
from understanding_lrs.analysis.verdicts import MISSING, NOT, OPEN, REPRODUCED, answers
from understanding_lrs.figures.view import View
from understanding_lrs.core.errors import InputError
from understanding_lrs.runs.find import find_runs
from understanding_lrs.runs.ledger import collect
from understanding_lrs.runs.published import read_published
from understanding_lrs.runs.store import Run
from understanding_lrs.core.seeds import stream
from understanding_lrs.studies.registry import STUDIES, protocols
from understanding_lrs.studies.trial import live

@pytest.fixture(autouse=True)
def quick(monkeypatch):
    "fewer resamples than a verdict takes"
    monkeypatch.setattr(basin.estimate, '__defaults__', (100,))

@pytest.fixture(scope='module')
def smoke(tmp_path_factory):
    "tables of the smoke presets of all interventions, by claim"
    root = tmp_path_factory.mktemp('interventions')
    for study in INTERVENED.values():
        for p in protocols(study, 'smoke', plrs=[1e-2]): live(p, Run(root, p))
    return {claim: collect(find_runs(root, study)) for claim,study in INTERVENED.items()}

# --- an instrument

def confounded(effect=2., direct=0., seed=0, n=4000):
    "cause and outcome share a confounder; the lot moves the cause and, if `direct`, the outcome too"
    rng = stream('probe', seed)
    lot, hidden, pull, own = rng.integers(0, 8, n), rng.normal(size=n), rng.normal(size=8), rng.normal(size=8)
    cause = pull[lot] + hidden + rng.normal(size=n)
    return effect*cause + 3*hidden + direct*own[lot] + rng.normal(size=n), cause, lot

@pytest.mark.parametrize('effect', [-1., 0., 2.])
def test_the_instrument_finds_the_effect_where_the_naive_estimate_is_wrong(effect):
    found = two_stage(*confounded(effect), np.zeros(4000))
    assert found.effect == pytest.approx(effect, abs=.15) and found.naive > effect + .5
    assert found.first_stage > 100 and found.overid > .01

def test_a_lot_with_a_way_of_its_own_is_seen():
    "the exclusion assumption is broken: the instruments contradict each other"
    assert two_stage(*confounded(direct=3.), np.zeros(4000)).overid < 1e-6

def test_a_weak_lot_says_so():
    y, x, lot = confounded()
    assert two_stage(y, x, stream('probe', 9).permutation(lot), np.zeros(4000)).first_stage < 5

def test_cells_are_taken_out():
    "outcomes and lots that go with the cell do not matter"
    y, x, lot = confounded()
    cell = stream('probe', 3).integers(0, 40, 4000)
    assert two_stage(y + 50*cell, x + cell, lot, cell).effect == pytest.approx(2., abs=.15)

def test_what_cannot_be_estimated_is_refused():
    y, x, lot = confounded(n=100)
    with pytest.raises(ValueError, match='at least 2 values'): two_stage(y, x, np.ones(100), np.zeros(100))
    with pytest.raises(ValueError, match='does not vary'): two_stage(y, np.ones(100), lot, np.zeros(100))

def crossed(effect=5., seeds=6):
    "a crossed design: the readout decides who is sparse, better data are better at everything"
    rng, rows = stream('probe', 5), []
    for d in range(seeds):
        for t in range(4):
            for r in range(seeds):
                ease = rng.normal()
                on = rng.random() < .1 + .8*r/seeds + .05*ease
                rows.append(dict(plr=.01, data_seed=d, train_seed=t, readout_seed=r, dominant=on, low=70 + d + effect*on + 3*ease + rng.normal()))
    return pd.DataFrame(rows)

def test_the_interval_holds_the_effect():
    found, naive, (lo, hi) = two_stage_interval(crossed(), 'low', 'dominant', n=60)
    assert lo < 5 < hi and hi - lo < 6 and lo < found.effect < hi and naive[0] < found.naive < naive[1]

# --- within rates

def networks(gap=4., seeds=30):
    "at each of three rates half of the networks are sparse, and `gap` better; higher rates are worse and have more noise in the loss"
    rng, rows = stream('probe', 6), []
    for i,plr in enumerate((.003, .01, .02)):
        for s in range(seeds):
            on = (s + i) % 2 == 0
            rows.append(dict(run=f'r{i}', plr=plr, data_seed=s, train_seed=1, readout_seed=s, dominant=on, dominance=20.*on + rng.random(),
                             low=80 - 5*i + gap*on + .2*rng.normal(), loss=i + rng.random()))
    return pd.DataFrame(rows)

@pytest.mark.parametrize('gap', [0., 4.])
def test_a_gap_within_rates(gap):
    found = estimate(networks(gap), lambda c: slope(c['low'], c['dominant'], c['plr']))
    assert found.lo < gap < found.hi and (found.n, found.seeds) == (90, 30) and found.hi - found.lo < .5

def test_differences_between_rates_do_not_count():
    net = networks(0.).assign(dominant=lambda d: d.plr < .005) # sparse at the good rate only
    assert np.isnan(slope(net.low, net.dominant, net.plr))
    assert centred(net.low, net.plr).mean() == pytest.approx(0, abs=1e-9)

def test_rank_correlation_with_a_third_held_fixed():
    net = networks()
    assert partial_rank(net.dominance, net.low, net.loss, net.plr) > .6 > .3 > abs(partial_rank(net.loss, net.low, net.dominance, net.plr))

def test_an_advantage_of_rates():
    net = networks(0.)
    assert advantage({c: net[c].to_numpy() for c in net}, (.003,), (.02,)) == pytest.approx(10, abs=.3)
    assert np.isnan(advantage({c: net[c].to_numpy() for c in net}, (.003,), (.5,)))

def test_pairs_are_the_same_networks():
    net = pd.concat([networks().assign(arm='a'), networks().assign(arm='b', low=lambda d: d.low + d.data_seed)]).sample(frac=1, random_state=0)
    assert np.allclose(paired(net, 'arm', 'b', 'a').gain, paired(net, 'arm', 'b', 'a').data_seed)

def test_nothing_and_one_seed():
    none, one = (estimate(n, lambda c: c['low'].mean()) for n in (networks().iloc[:0], networks(seeds=1)))
    assert np.isnan(none.value) and none.n == none.seeds == 0 and one.seeds == 1 and np.isfinite(one.value) and np.isnan(one.lo)

# --- the claims

def test_what_is_asked_is_what_was_written_down(root):
    written = pd.read_csv(root/'figures/data/basin/thresholds.csv')
    assert [tuple(r) for r in written[['id', 'what', 'sense', 'threshold', 'decides']].itertuples(index=False)] == [
        (p.id, p.label, p.comparison, p.threshold, p.decides) for parts in INTERVENTIONS.values() for p in parts]

def test_every_part_is_answered(smoke):
    "on tables of every intervention, in the order of the parts"
    for claim,parts in INTERVENTIONS.items():
        assert [a.part for a in answers(parts, Evidence(smoke[claim], None))] == [*parts] and parts[0].id.startswith(claim)
    roles = {c.id: c.roles for c in CLAIMS}
    assert {*INTERVENTIONS} == {*INTERVENED} and all(ROLES[roles[claim][0]] == (study,) for claim,study in INTERVENED.items())

def test_verdicts_name_them(smoke):
    judged = verdicts({(INTERVENED['C25'], 'wide'): smoke['C25']})
    assert len(judged[judged.claim == 'C25']) == 3 and set(judged[judged.claim == 'C24'].verdict) == {MISSING}

def made(smoke, arms):
    "the swap study with constructed accuracies: arms maps which feature was removed to (with, without a dominant feature)"
    t = smoke['C25']
    wide = network_table(t, 'remove')
    which = dict(zip(wide.run, wide.remove))
    more = pd.concat([t['metrics'].assign(data_seed=lambda d: d.data_seed + 2*s, value=lambda d: d.value + .01*s) for s in range(12)])
    feats = pd.concat([t['features'].assign(data_seed=lambda d: d.data_seed + 2*s) for s in range(12)])
    on = feats.data_seed % 2 == 0
    feats = feats.assign(value=np.where(feats.metric == 'dominance', np.where(on, 20., 1.), feats.value))
    acc = [arms[which[r]][0 if s % 2 == 0 else 1] for r,s in zip(more.run, more.data_seed)]
    more = more.assign(value=np.where((more.metric == 'test_acc') & (more.stage == 'finetune'), acc, more.value))
    return t | dict(metrics=more, features=feats)

@pytest.mark.parametrize('arms, want', [(dict(none=(82, 74), best=(66, 72), last=(82, 74)), [True, True, True]),
                                        (dict(none=(82, 74), best=(81, 74), last=(82, 74)), [False, True, True]),
                                        (dict(none=(82, 74), best=(66, 60), last=(66, 74)), [True, False, False])], ids=str)
def test_c25_follows_from_tables(smoke, arms, want):
    found = answers(C25, Evidence(made(smoke, arms), None))
    assert [a.verdict == REPRODUCED for a in found] == want and {a.verdict for a in found} <= {REPRODUCED, NOT, OPEN}

# --- figures

def test_figures_of_interventions_draw(smoke):
    for claim,study in INTERVENED.items():
        view = View(smoke[claim], STUDIES[study], preset='smoke')
        fig = interventions.arms(view)
        names = [t.get_text() for t in fig.legends[0].get_texts()]
        assert isinstance(fig, matplotlib.figure.Figure) and 'plain' in names and len(names) == len({str(p.settings) for p in protocols(study, 'smoke')})

def test_a_removal_draws_where_something_was_dominant(smoke):
    view = View(smoke['C23'], STUDIES['synthetic_removed'], preset='smoke')
    with pytest.raises(InputError, match='needs networks near the threshold'): interventions.removal(view)
    looks = view.tables['looks']
    view.tables['looks'] = looks.assign(value=looks.value.where(looks.metric != 'dominance', 20.))
    assert isinstance(interventions.removal(view), matplotlib.figure.Figure)

def test_a_basin_needs_a_fine_tuning():
    bare = live(protocols('synthetic', 'smoke', plrs=[1e-2], overrides=dict(flrs=[], swa_k=[]))[0]).tables
    with pytest.raises(InputError, match='no fine-tuning rate'): network_table(bare)

# --- what is published

def test_published_effects_are_those_of_the_tables(root, monkeypatch):
    "values of the committed table, computed again from the committed tables"
    monkeypatch.setattr(basin.estimate, '__defaults__', (2,))
    file = root/'figures/data/basin/effects.csv'
    told = pd.read_csv(file).set_index('what')
    for claim,study in INTERVENED.items():
        found = intervention_effects(claim, read_published(root/'figures/data'/study/'wide'))
        for what,e in found.items(): assert told.value[what] == pytest.approx(e.value, rel=1e-4), what
    assert {*SHOWN.values()} <= {*told.index}
    assert {'observed', 'instrument', 'intervention'} == set(told.kind) and (told.lo <= told.value).all() and (told.value <= told.hi).all()
