"""Every preset asks for exactly the runs that its protocol names: grid, seeds, lengths, orders."""
import math
from pathlib import Path
import numpy as np, pandas as pd, pytest
from understanding_lrs.studies.array_trial import ImageTrial
from understanding_lrs.core.errors import InputError
from understanding_lrs.runs.protocol import missing, networks
from understanding_lrs.runs.published import published_protocols
from understanding_lrs.studies.synthetic import CAPTION, GRID, HIGH, LOW, UTILITIES
from understanding_lrs.studies.registry import STUDIES, protocols
from understanding_lrs.studies.trial import fine_tunings
from understanding_lrs.data.synthetic import SHAPES

DATA = Path(__file__).resolve().parent.parent/'figures'/'data'
PUBLISHED = """3.162e-5 5.623e-5 1.000e-4 1.778e-4 3.162e-4 5.623e-4 1.000e-3 1.778e-3 3.162e-3 5.623e-3 7.499e-3 1.000e-2
               1.334e-2 1.778e-2 2.371e-2 3.162e-2 4.217e-2 5.623e-2 1.000e-1 1.778e-1 3.162e-1 5.623e-1 1.000e+0"""
FULL = dict(shape='tick', margin=.1, noise=0., n_train=512, n_test=2000, width=32, depth=2, batch=16, in_dim=32, steps=40_000,
            ft_steps=20_000, ckpt_every=100)

def steps(ps): return sum(len(networks(p))*(p.settings['steps'] + len(fine_tunings(p))*p.settings['ft_steps']) for p in ps)
def epochs(ps): return sum(len(networks(p))*(p.settings['epochs'] + max(p.swa_k) + len(p.flrs)*p.settings['ft_epochs']) for p in ps)
IMAGES = [s for s in STUDIES if issubclass(STUDIES[s].trial, ImageTrial)]

def test_the_grid_is_the_published_one():
    assert GRID == tuple(float(x) for x in PUBLISHED.split())
    assert (LOW, CAPTION, HIGH) == (GRID[0], GRID[2], GRID[10])

@pytest.mark.parametrize('preset, data, train, flrs, order', [
    ('laptop', range(1, 11), (1,), (LOW, CAPTION, HIGH), 'own'), ('paper', range(1, 6), range(1, 11), GRID[:11], 'replay'),
    ('wide', range(101, 161), (1,), (LOW, HIGH), 'own'), ('edges', range(101, 121), (1,), (LOW, HIGH), 'own')])
def test_presets_on_the_whole_grid(preset, data, train, flrs, order):
    ps = protocols('synthetic', preset)
    assert [p.plr for p in ps] == list(GRID)
    for p in ps:
        assert (p.data_seeds, p.train_seeds, p.readout_seeds, p.flrs, p.precision) == (tuple(data), tuple(train), (), tuple(flrs), 'fp32')
        assert {k: p.settings[k] for k in FULL} == FULL and p.settings['utility'] == [1.] and p.settings['order'] == order
        assert p.settings['feature_ids'] == list(range(0, 32, 2)) and p.settings['ft_orders'] == (3 if preset == 'edges' else 1)
        assert p.swa_k == ((5,) if preset == 'edges' else (2, 5, 10, 20, 50))

def test_the_papers_design_is_299_million_steps():
    ps = protocols('synthetic', 'paper')
    assert steps(ps) == 299_000_000 and sum(len(networks(p)) for p in ps) == 1_150
    assert sum(len(networks(p))*len(p.flrs) for p in ps) == 12_650
    assert all(d == r for p in ps for d,_,r in networks(p)) # the readout goes with the data seed

def test_factorial_is_fully_crossed():
    ps = protocols('synthetic', 'factorial')
    assert [p.plr for p in ps] == list(GRID[9:14])
    assert all(set(networks(p)) == {(d, t, r) for d in range(1, 9) for t in range(1, 9) for r in range(1, 9)} for p in ps)
    assert all({k: p.settings[k] for k in FULL} == FULL and p.settings['utility'] == [1.] for p in ps)
    assert {(p.flrs, p.swa_k, p.settings['order'], p.settings['ft_orders']) for p in ps} == {((LOW, HIGH), (5,), 'own', 1)}

def test_utilities_run_every_shape():
    ps = protocols('synthetic_utilities', 'wide')
    assert {(p.plr, p.settings['shape']) for p in ps} == {(g, s) for g in GRID[5:17] for s in SHAPES} and len(SHAPES) == 8
    tick = protocols('synthetic_utilities', 'laptop')
    assert [p.plr for p in tick] == list(GRID) and {p.settings['shape'] for p in tick} == {'tick'}
    for p in ps + tick:
        assert (p.data_seeds, p.train_seeds, p.readout_seeds, p.flrs, p.swa_k) == (tuple(range(201, 221)), (1,), (), (LOW, HIGH), (5,))
        assert {k: p.settings[k] for k in FULL} == FULL | dict(shape=p.settings['shape']) and p.settings['utility'] == UTILITIES
        assert (p.settings['order'], p.settings['ft_orders']) == ('own', 1)
    assert sorted(np.unique(UTILITIES, return_counts=True)[1]) == [4]*4

@pytest.mark.parametrize('study', STUDIES)
def test_smoke_is_small(study):
    ps = protocols(study, 'smoke')
    if study == 'own': assert epochs(ps) < 200 and {p.settings["data"] for p in ps} == {"example"}
    elif study in ('speech', 'text'): assert epochs(ps) < 200 and {p.settings['data'] for p in ps} <= {'tones', 'made-sentences'}
    elif study in IMAGES: assert epochs(ps) < 200 and {p.settings['data'] for p in ps} == {'digits'}
    else: assert steps(ps) < 20_000

CIFAR = """1e-5 1.4e-5 2e-5 3e-5 5e-5 7e-5 1e-4 1.4e-4 2e-4 3e-4 5e-4 7e-4 1e-3 1.4e-3 2e-3 3e-3 5e-3 7e-3 1e-2 1.4e-2 2e-2 3e-2 5e-2 7e-2 1e-1"""

@pytest.mark.parametrize('preset', ['paper', 'authors'])
def test_the_main_experiment_is_the_published_one(preset):
    ps = protocols('resnet18si_cifar10', preset)
    assert [p.plr for p in ps] == [float(x) for x in CIFAR.split()]
    assert {(p.flrs, p.swa_k) for p in ps} == {((1e-5, 5e-5, 1e-4, 2e-4, 3e-4), (2, 5, 10, 50, 100))}
    assert {p.precision for p in ps} == {'tf32', 'fp32'} and [p.plr for p in ps if p.precision == 'fp32'] == [3e-4, 5e-4, 1.4e-3, 2e-3, 1.4e-2, 2e-2]
    assert {p.precision for p in protocols('resnet18si_cifar10', preset, overrides=dict(precision='bf16'))} == {'bf16'} # what is asked for wins
    want = dict(data='cifar10', arch='resnet18', width=32, size=32, n_train=0, n_test=0, norm='cifar', batch=128, epochs=200, ft_epochs=200, rho=28.,
                order='replay', ft_orders=1, then_plr=0., then_epochs=0, level=.1, stop_loss=0., look_every=1, path_points=21, path_pictures=0,
                great_circle=False)
    assert all(p.settings == want and not p.data_seeds and not p.readout_seeds for p in ps)
    assert [p.train_seeds for p in ps] == ([(1,)]*25 if preset == 'paper' else [(2003 + i,) for i in range(25)])

@pytest.mark.parametrize('study, arch, width, rho', [('resnet18si_cifar100', 'resnet18', 32, 28.), ('convnetsi32_cifar10', 'convnet', 32, 12.),
                                                     ('convnetsi128_cifar100', 'convnet', 128, 12.)])
def test_the_other_setups(study, arch, width, rho):
    ps = protocols(study, 'paper')
    assert [p.plr for p in ps] == [float(f'{a}e{e}') for e in range(-5, 0) for a in (1, 2, 5)] + [1.]
    assert {(p.settings['arch'], p.settings['width'], p.settings['rho'], p.settings['data'], p.settings['epochs']) for p in ps} == {
        (arch, width, rho, study.split('_')[1], 200)}

def test_a_rate_written_as_text_keeps_what_its_preset_says_of_it():
    for plr in ('3e-4', '0.0003', 3e-4): # seed and precision of the authors' scheme hang on the rate
        p, = protocols('resnet18si_cifar10', 'authors', plrs=[plr])
        assert (p.train_seeds, p.precision) == ((2012,), 'fp32')

BESIDE = {s: protocols(f'resnet18si_cifar10_{s}', 'paper') for s in ('boundary', 'two_stage', 'scratch', 'basin')}

@pytest.mark.parametrize('study', ['convnetsi32_cifar10', *(f'resnet18si_cifar10_{s}' for s in BESIDE)])
def test_laptop_sizes_of_pictures_are_one(study):
    ps = protocols(study, 'laptop')
    assert {p.train_seeds for p in ps} == {(1, 2, 3)} and {len(p.flrs) for p in ps} == {0 if 'boundary' in study else 2}
    assert {(p.settings['width'], p.settings['size'], p.settings['n_train'], p.settings['batch']) for p in ps} == {(8, 16, 2000, 50)}
    assert {p.settings['n_train'] % p.settings['batch'] for p in ps} == {0} # half a batch leaves poor running statistics behind

SMALL_ONES = [s for s in IMAGES if 'small' in STUDIES[s].presets and s not in ('speech', 'text')]

ROBUST = 'convnetsi32_cifar10_robustness'

@pytest.mark.parametrize('study', [s for s in SMALL_ONES if s.startswith('convnetsi32') and s != ROBUST])
def test_small_trains_as_long_as_the_paper_in_its_own_units(study):
    "effective rate times steps: 0.8 at the lowest rate and 23 at the line, as with 78,000 steps at 1e-5 and 3e-4 in the paper; rates from line/30 to 100 lines"
    ps = protocols(study, 'small')
    line, plrs = ps[0].flrs[-1], [p.plr for p in ps]
    length = {p.plr: p.plr*p.settings['epochs']*p.settings['n_train']/p.settings['batch'] for p in ps}
    assert length[plrs[0]] == pytest.approx(.8, abs=.1) and length[line] == pytest.approx(23, abs=1)
    assert plrs == sorted(plrs) and plrs[0] == pytest.approx(line/30, rel=.05) and plrs[-1] == pytest.approx(100*line, rel=.05)
    assert len(plrs) >= 14 and sum(p <= line for p in plrs) >= 5 and sum(line < p <= 5*line for p in plrs) >= 3
    assert len(ps[0].flrs) == 3 and {*ps[0].flrs} <= {*plrs} and all(p.settings['ft_epochs'] == p.settings['epochs'] for p in ps)
    assert max(ps[0].swa_k) >= 50 and {p.settings['n_train'] % p.settings['batch'] for p in ps} == {0}

@pytest.mark.parametrize('preset, rates', [('laptop', 14), ('small', 8)])
def test_networks_whose_robustness_is_asked_are_those_of_the_main_study(preset, rates):
    main, asked = ({p.plr: p for p in protocols(study, preset)} for study in ('convnetsi32_cifar10', ROBUST))
    assert len(asked) == rates and {*asked} <= {*main}
    for plr, p in asked.items():
        same = {k: v for k, v in p.settings.items() if k in main[plr].settings}
        assert same == main[plr].settings and p.flrs == main[plr].flrs and {*p.train_seeds} <= {*main[plr].train_seeds}

@pytest.mark.parametrize('study', SMALL_ONES)
def test_small_runs_are_of_recorded_seeds_only(study):
    "pilots look at train seeds 11 to 16, which are never recorded; the studies around the main one have its network, images and line"
    main = protocols('convnetsi32_cifar10', 'small')[0]
    for p in protocols(study, 'small'):
        assert p.train_seeds == (1, 2, 3, 4, 5) and not {*p.train_seeds} & {*range(11, 17)} and not p.data_seeds
        if study.startswith('resnet18si_cifar10_'):
            assert all(p.settings[k] == main.settings[k] for k in ('arch', 'width', 'size', 'n_train', 'batch', 'data'))
            assert {*p.flrs} <= {*main.flrs}
    queue = [row.split(',')[:3] for row in (DATA.parent.parent/'lab/queue.csv').read_text().splitlines()]
    assert [study, 'small', '1..5'] in queue

def test_a_short_run_that_is_cut_has_seen_every_regime():
    "1 and both halves of 2 in the first four rates, all after the second four, by the authors' lines"
    ps, (one, inner, three) = protocols('resnet18si_cifar10', 'short'), STUDIES['resnet18si_cifar10'].lines
    regime = lambda p: '1' if p <= one else '2A' if p <= inner else '2B' if p < three else '3'
    assert {regime(p.plr) for p in ps[:4]} == {'1', '2A', '2B'} and {regime(p.plr) for p in ps[4:8]} == {'2A', '2B', '3'}
    assert len({p.plr for p in ps}) == len(ps) == 16
    assert [p.plr for p in protocols('synthetic', 'laptop', plrs=['1e-1', '1e-3'])] == [1e-1, 1e-3]

def test_the_main_laptop_grid_holds_its_fine_tuning_rates():
    "so that pre-training at a fine-tuning rate is training from scratch at it (claim C10)"
    ps = protocols('convnetsi32_cifar10', 'laptop')
    assert len(ps) >= 9 and {f for p in ps for f in p.flrs} <= {p.plr for p in ps}

def test_the_studies_beside_the_main_one_are_the_published_ones():
    boundary, two, scratch, basin = BESIDE.values()
    assert [p.plr for p in boundary] == [1e-4, 1.5e-4, 2e-4, 2.5e-4, 3e-4, 3.5e-4, 3.7e-4, 3.8e-4, 3.9e-4, 4e-4, 4.2e-4, 4.27e-4]
    assert {(p.settings['epochs'], p.settings['stop_loss'], p.flrs) for p in boundary} == {(30_000, 1e-4, ())}
    assert {(p.plr, p.settings['then_plr'], p.settings['then_epochs']) for p in two} == {
        *((plr, 0., 0) for plr in (1e-5, 3e-4, 1e-3, 1e-2)), (1e-3, 1e-3, 200), (1e-2, 1e-3, 200)}
    assert [p.plr for p in scratch] == [1e-5, 3e-4, 1e-1] and {p.settings['ft_orders'] for p in basin} == {3}
    assert {p.flrs for p in (*two, *scratch, *basin)} == {(1e-5, 3e-4)}
    assert {(p.settings['arch'], p.settings['width'], p.settings['n_train'], p.precision) for ps in BESIDE.values() for p in ps} == {('resnet18', 32, 0, 'tf32')}

LEDGERS = [(s, p) for s in STUDIES for p in STUDIES[s].presets if (DATA/s/p/'runs.csv').exists()
           if not STUDIES[s].per_gpu or p in ('smoke', 'laptop', 'small')] # of CPUs
@pytest.mark.parametrize('study, preset', LEDGERS)
def test_what_a_preset_says_it_needs_is_what_was_recorded(study, preset):
    "memory of its largest run within a quarter; time of its networks on two cores within a factor of two, if there are more seeds their share"
    runs, said = pd.read_csv(DATA/study/preset/'runs.csv'), STUDIES[study].presets[preset]
    count = lambda ps: sum(len(networks(p)) for p in ps)
    share = count(protocols(study, preset))/count(published_protocols(DATA/study/preset))
    assert runs.peak_mib.max() == pytest.approx(said.mib, rel=.25)
    assert .5 < share*runs.seconds.sum()/120/said.minutes < 2

def test_every_preset_says_what_it_needs():
    assert LEDGERS and all(p.mib and p.minutes for s in STUDIES.values() for p in s.presets.values())

@pytest.mark.parametrize('study, preset', [(s, p) for s in STUDIES for p in STUDIES[s].presets])
def test_no_two_runs_are_the_same(study, preset):
    ps = protocols(study, preset)
    assert len({p.key for p in ps}) == len(ps)

def test_more_seeds_add_only_their_runs():
    ten, twelve = (protocols('synthetic', 'laptop', plrs=[1e-2], data_seeds=range(1, n + 1))[0] for n in (10, 12))
    extra, = missing(twelve, [ten])
    assert extra.data_seeds == (11, 12) and extra.plr == twelve.plr

@pytest.mark.parametrize('kw, words', [
    (dict(plrs=[0]), 'positive'), (dict(plrs=[-1]), 'positive'), (dict(plrs=['abc']), "'abc'"), (dict(plrs=[math.nan]), 'positive'),
    (dict(plrs=['1e-3', 1e-3]), 'distinct'), (dict(overrides=dict(utility=[1.2])), 'utility'),
    (dict(overrides=dict(utility=[.5, .5])), 'utility needs one number or 16'), (dict(overrides=dict(feature_ids=[0, 3])), 'even'),
    (dict(overrides=dict(feature_ids=[0, 0])), 'feature'), (dict(overrides=dict(feature_ids=[0, 40])), '40'),
    (dict(overrides=dict(shape='tik')), "did you mean 'tick'"), (dict(overrides=dict(margn=.1)), "did you mean 'margin'"),
    (dict(overrides=dict(batch=1000)), 'batch'), (dict(overrides=dict(order='x')), 'order'), (dict(overrides=dict(precision='fp8')), 'fp8'),
    (dict(overrides=dict(steps=0)), 'steps'), (dict(overrides=dict(width='wide')), 'width'), (dict(data_seeds=[]), 'seed'),
    (dict(data_seeds=[-1]), 'data_seeds')],
    ids=lambda v: str(v)[:40])
def test_bad_input_is_one_clear_line(kw, words):
    with pytest.raises(InputError) as e: protocols('synthetic', 'smoke', **kw)
    assert words in str(e.value) and '\n' not in str(e.value)

def test_text_becomes_numbers():
    p, = protocols('synthetic', 'smoke', plrs=['1e-3'], overrides=dict(margin='0.2', steps='100', swa_k='2,5'))
    assert (p.plr, p.settings['margin'], p.settings['steps'], p.swa_k) == (1e-3, .2, 100, (2, 5))

def test_the_classes_of_cifar100_are_the_first_of_the_alphabet_and_their_number_names_a_run():
    "ten classes for every preset but smoke; another number is another run, and no other study has the setting"
    for preset in ('laptop', 'small'):
        ps = protocols('convnetsi32_cifar100', preset)
        assert {(p.settings['classes'], p.settings['data'], p.settings['n_train'], p.settings['n_test']) for p in ps} == {(10, 'cifar100', 1000, 500)}
        assert ps[0].key != protocols('convnetsi32_cifar100', preset, overrides=dict(classes=20))[0].key
    assert [s for s in IMAGES if 'classes' in STUDIES[s].settings] == ['convnetsi32_cifar100']
