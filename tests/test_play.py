"""The page in play/ computes what the package computes: the same draws, steps and regimes, and a browser shows them."""
import functools, http.server, importlib.util, json, os, shutil, subprocess, threading, time
from pathlib import Path
import numpy as np
import pytest
import torch
from conftest import patience, until
from test_browser import CHROME, FLAGS, browser # noqa: F401
from understanding_lrs.analysis.regimes import boundaries, network_regimes, regime_of, tail_std, unconverged
from understanding_lrs.app import explore
from understanding_lrs.app.explore import GRID, Settings, from_text, looks, to_text
from understanding_lrs.core.seeds import batch_order
from understanding_lrs.data.synthetic import SHAPES, make_data, single_feature_sets
from understanding_lrs.figures.axis import spans
from understanding_lrs.figures.drawing import rate
from understanding_lrs.networks.mlp import MLPSpec
from understanding_lrs.training.native import pad
from understanding_lrs.training.stacked import evaluate, make_stack, stack_sets, train_

PLAY = Path(__file__).resolve().parent.parent/'play'
spec = importlib.util.spec_from_file_location('play_build', PLAY/'build.py')
build = importlib.util.module_from_spec(spec)
spec.loader.exec_module(build)

NODE = shutil.which('node')
needs_node = pytest.mark.skipif(NODE is None, reason='node is not installed')

@functools.lru_cache
def relaxed_flags():
    "Options with which this node runs relaxed SIMD; none where it does so anyway, or cannot"
    flag = '--experimental-wasm-relaxed-simd'
    return () if runs_relaxed() or not runs_relaxed(flag) else (flag,)

def runs_relaxed(*flags):
    code = f"console.log(WebAssembly.validate(require('fs').readFileSync({str(PLAY/'wasm/mlp-relaxed.wasm')!r})))"
    return subprocess.run([NODE, *flags, '-e', code], capture_output=True, text=True).stdout.strip() == 'true'

def ask(question, **given):
    "What the page's source answers, in node"
    text = json.dumps(dict(question=question, **given))
    done = subprocess.run([NODE, *relaxed_flags(), Path(__file__).with_name('play.mjs')], input=text, capture_output=True, text=True, timeout=patience(120))
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout)

# The results that are committed belong to the sources

def test_the_results_are_those_of_the_sources():
    assert json.loads((PLAY/'built.json').read_text())['sources'] == build.fingerprint(), 'sources have changed: python play/build.py'

def test_the_page_has_everything_inside():
    text = (PLAY/'index.html').read_text()
    assert len(text) < 200_000 and '/*BUNDLE*/' not in text
    assert (PLAY.parent/'understanding_lrs/app/play.js').stat().st_size < 200_000

@pytest.mark.skipif(build.find_zig() is None, reason='zig is not installed: pip install ziglang, or set ZIG')
def test_kernels_are_compiled_from_the_sources(tmp_path):
    if build.version(build.find_zig()) != json.loads((PLAY/'built.json').read_text())['zig']: pytest.skip('built with another version of zig')
    build.build_wasm(tmp_path)
    for name in build.KERNELS: assert (tmp_path/name).read_bytes() == (PLAY/'wasm'/name).read_bytes(), name

@pytest.mark.skipif(build.find_esbuild() is None, reason='esbuild is not installed: npm install esbuild, or set ESBUILD')
def test_page_and_widget_are_bundled_from_the_sources(tmp_path):
    if build.version([build.find_esbuild()]) != json.loads((PLAY/'built.json').read_text())['esbuild']: pytest.skip('built with another version of esbuild')
    build.build_bundle(tmp_path/'index.html', tmp_path/'play.js')
    assert (tmp_path/'index.html').read_text() == (PLAY/'index.html').read_text()
    assert (tmp_path/'play.js').read_text() == (PLAY.parent/'understanding_lrs/app/play.js').read_text()

# Draws

DRAWN = [dict(shape=shape, n_features=(16, 3, 7, 1)[i % 4], utility=[(1., .5, .8)[j % 3] for j in range((16, 3, 7, 1)[i % 4])],
              noise=(0, .2)[i % 2], n_train=(512, 64)[i % 2], seed=(i, 999 - i)[i % 2], margin=(.1, .05)[i % 2])
         for i,shape in enumerate(SHAPES)]

@needs_node
@pytest.mark.parametrize('given', DRAWN, ids=list(SHAPES))
def test_every_draw_is_the_package_s(given):
    "The streams are those of NumPy; single precision hides the last bit of its logarithms, so one number in thousands is one rounding off"
    s, spec = Settings(**given), MLPSpec()
    data, (x, y), lesson = make_data(s.config, s.seed), single_feature_sets(s.config), explore.Lesson(s)
    lesson.exam.result()
    expected = dict(x=data.x_train, y=data.y_train, x_test=data.x_test, y_test=data.y_test, x_single=x, y_single=y, others=lesson.others,
                    border=lesson.border, w=spec.initial_weights(s.seed), readout=spec.initial_readout(s.seed),
                    order=batch_order(s.seed, s.n_train, 16, 5, 100))
    found = ask('draws', settings=given)
    for name,values in expected.items():
        a, b = np.float32(found[name]), np.asarray(values, np.float32).ravel()
        assert a.shape == b.shape and np.abs(a - b).max() <= 5e-7, name
        assert (a != b).sum() <= 3 + len(a)/1000, name

# Training

@needs_node
@pytest.mark.parametrize('kernel', build.KERNELS)
@pytest.mark.parametrize('width,depth', [(32, 2), (8, 1), (64, 4)])
def test_a_step_is_the_native_one(kernel, width, depth):
    """Weights of unit vectors agree to 1e-6 in the median and to 5e-4 in the worst case, where a ReLU near zero flips: after 200 steps
    below the threshold, after 3 steps above it, where training is chaotic"""
    if 'relaxed' in kernel and not runs_relaxed(*relaxed_flags()): pytest.skip('this node has no relaxed SIMD')
    spec, sets = MLPSpec(32, width, depth), stack_sets([make_data(Settings().config, 3)])
    for rates,steps in (([1e-4, 1e-3], 200), ([.1, 1.], 3)):
        stack = make_stack(spec, [3]*2, [3]*2, [0]*2)
        order = batch_order(3, 512, 16, 0, steps)
        given = dict(w=stack.w.flatten().tolist(), readout=stack.readout[0].tolist(), x=sets.x_train.flatten().tolist(),
                     y=sets.y_train[0].tolist(), order=order.flatten().tolist(), lr=rates, steps=steps)
        found = ask('train', kernel=kernel, sizes=dict(inDim=32, width=width, depth=depth), **given)
        train_(stack, sets.x_train, sets.y_train, torch.from_numpy(order)[None], torch.zeros(2, dtype=torch.int64), torch.tensor(rates))
        gaps = np.abs(np.float32(found['w']) - stack.w.flatten().numpy())
        assert np.median(gaps) < 1e-6 and gaps.max() < 5e-4
        loss, acc = evaluate(stack, sets.x_train, sets.y_train)
        assert found['loss'] == pytest.approx(loss.tolist(), rel=1e-3) and found['acc'] == pytest.approx(acc.tolist(), abs=.4)
        assert float(np.mean((np.array(found['logits']) > 0) == sets.y_train[0].numpy()))*100 == pytest.approx(found['acc'][0], abs=.2)

@needs_node
def test_a_lesson_reads_what_the_explorer_reads():
    "Below the threshold: losses, accuracies of the three networks and of single features at every mark"
    small = dict(n_train=64, n_features=4, steps=5000, width=16, utility=1.)
    rates, s = [GRID[4], GRID[6]], Settings(**small)
    *_, shot = (x for x in explore.Lesson(s).follow(s.flr) if x.readings)
    events = ask('lesson', settings=small, rates=rates)
    assert [e['mark'] for e in events if e['type'] == 'read'] == [2000]*3 + [5000]*3
    curves = {e['step']: e for e in events if e['type'] == 'curve'}
    assert set(curves) == looks(5000)
    at = [GRID.index(r) for r in rates]
    for t,row in zip(shot.steps, shot.loss): assert curves[t]['loss'] == pytest.approx(row[at].tolist(), rel=.02, abs=2e-5), t
    for name in explore.NETWORKS:
        read, single = (next(e for e in events if e['type'] == kind and e['mark'] == 5000 and e['network'] == name) for kind in ('read', 'single'))
        assert np.abs(np.float32(read['weights']) - shot.readings.nets[name].w[at].flatten().numpy()).max() < 2e-3
        assert read['acc'] == pytest.approx(shot.readings.acc[name][at].tolist(), abs=.4)
        assert np.array(single['single']).T == pytest.approx(shot.readings.single[name][at], abs=.8)

# The rule of the regimes

def hidden(values): return [None if np.isnan(v) else float(v) for v in values]

def cases(n=400):
    "Tables of one network per rate, with everything that can happen: NaN, chance, quiet tails, late convergence, short tails"
    rng = np.random.default_rng(5)
    for _ in range(n):
        k, tail = int(rng.integers(1, 24)), int(rng.choice([3, 8, 8, 8, 12]))
        plrs = sorted(float(p) for p in rng.choice(GRID, k, replace=False))
        losses = 10**np.sort(rng.uniform(-4, 1, k)) if rng.random() < .5 else 10**rng.uniform(-4, 1, k)
        centre, spread = rng.choice([50., 50.9, 51.2, 60., 75.], k), rng.choice([0., .3, .99, 1.01, 3.], k)
        tails = centre[:, None] + spread[:, None]*rng.standard_normal((k, tail))*(rng.random() < .8)
        lost = rng.random(k) < .1
        losses[lost & (rng.random(k) < .5)], tails[lost] = np.nan, np.nan
        yield dict(plrs=plrs, losses=losses, tails=tails)

def by_the_package(plrs, losses, tails):
    "Bounds, labels, names and slow rates as the explorer finds them (`explore.lines`)"
    import pandas as pd
    values = dict(train_loss=losses, test_acc_tail=tails.mean(1), test_acc_tail_std=tail_std(tails.T))
    rows = [pd.DataFrame(dict(plr=plrs, metric=m, value=v)) for m,v in values.items()]
    table = pd.concat(rows).assign(stage='pretrain', pair=None, data_seed=1, train_seed=1, readout_seed=1)
    bounds = boundaries(table, 50.)
    return bounds, network_regimes(table, 50.).regime.tolist(), [regime_of(p, bounds) for p in plrs], unconverged(table, bounds)

@needs_node
def test_the_regimes_are_those_of_the_package():
    tables = list(cases())
    answers = ask('regimes', cases=[dict(plrs=c['plrs'], losses=hidden(c['losses']), tails=[hidden(t) for t in c['tails']]) for c in tables])
    seen = set()
    for case,found in zip(tables, answers):
        bounds, labels, names, slow = by_the_package(**case)
        assert found['labels'] == labels and found['names'] == names
        assert found['slow'] == slow
        for name in ('lr_12', 'lr_23'): assert (found['bounds'][name]['lo'], found['bounds'][name]['hi']) == (bounds[name].lo, bounds[name].hi)
        assert [tuple(x) for x in found['spans']] == spans(bounds, case['plrs'][0]/1.2, case['plrs'][-1]*1.2)
        seen |= {*labels, *names}
    assert seen == {'1', '2', '3', 'unknown', 'not converged yet'} # nothing was left out

# Settings

TEXTS = ['{}', to_text(Settings()), '{"n_features": 3, "utility": [1, 0.5, 0]}', '{"lr": 0.0101}', '{"margin": 3}', '{"feature": 17}', '{', '[]', '{"shape": "tik"}',
         '{"utility": [1]}', '{"depth": 2.5}', '{"marginn": 1}', '{"seed": -1}', '{"lr": 0.02}', '{"utility": 1.5}', '{"network": "best"}', '{"width": true}',
         '{"lr": null}', *(to_text(t.settings) for t in explore.TOUR)]

@needs_node
def test_settings_are_those_of_the_explorer():
    steps = list(explore.CHOICES['steps'])
    found = ask('settings', texts=TEXTS, steps=steps)
    for text,one in zip(TEXTS, found['texts']):
        try: s = from_text(text)
        except explore.InputError:
            assert one.get('kind') == 'InputError' and '\n' not in one['error'], text
            continue
        assert from_text(one['text']) == s, text
    assert [set(e) for e in found['evals']] == [looks(n) for n in steps]
    assert found['GRID'] == list(GRID) and found['rates'] == [rate(p) for p in GRID] and found['MARKS'] == list(explore.MARKS)
    assert {k: tuple(v) for k,v in found['CHOICES'].items()} == {k: tuple(v) for k,v in explore.CHOICES.items()}
    assert {k: tuple(v) for k,v in found['RANGES'].items()} == explore.RANGES
    assert [t['title'] for t in found['TOUR']] == [t.title for t in explore.TOUR]
