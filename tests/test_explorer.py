"""frame: settings -> data of a picture, a function of nothing else; text(settings) and back; a mistake is one line, no other picture."""
import asyncio, json, shutil, threading, time
from dataclasses import replace
import numpy as np
import pytest
import torch

import ipywidgets as W
from understanding_lrs.app import explore_frames, explore_lessons, explorer
from understanding_lrs.app.explore_controls import PictureBox
from understanding_lrs.app.explore_frames import REACH, answers, how_far, frame, look, describe, origin, snapshot
from understanding_lrs.app.run_frames import _wide, open_source, run_frame, sources, contents
from understanding_lrs.core.stats import DOMINANT
from understanding_lrs.app.explore_lessons import Lesson, marks
from understanding_lrs.app.explore_panels import Page, strip
from understanding_lrs.app.explore_settings import NETWORKS, Settings, from_text, to_text, spelled
from understanding_lrs.app.explore_tour import TOUR
from understanding_lrs.app.explorer import Explorer
from understanding_lrs.app.run_pages import RunExplorer, RunPage, say_run
from understanding_lrs.core.errors import InputError
from understanding_lrs.studies.synthetic import GRID
from understanding_lrs.figures.images_bands import BANDS
from understanding_lrs.figures.view import View
from understanding_lrs.networks.mlp import MLPSpec
from understanding_lrs.runs.published import read_published
from understanding_lrs.runs.store import Run
from understanding_lrs.training.networks import make_networks
from understanding_lrs.training.stacked import SyntheticTask, stack_sets
from understanding_lrs.training.trainer import Schedule, Trainer
from understanding_lrs.studies.registry import protocols
from understanding_lrs.studies.trial import live
from understanding_lrs.data.synthetic import SHAPES, make_data

@pytest.fixture(autouse=True)
def at_once(monkeypatch): monkeypatch.setattr(explorer, 'FIRST', explorer.PAUSE) # no browser is waited for

TINY = Settings(steps=500, n_train=64, width=8, n_features=4, utility=1.)

def same(a, b): # two frames, every array of them
    def flat(v): return [x for k in v for x in flat(v[k])] if isinstance(v, dict) else [v]
    return all(np.array_equal(np.asarray(p), np.asarray(q), equal_nan=np.asarray(p).dtype.kind == 'f') for k in vars(a) if k != 'edges'
               for p,q in zip(flat(vars(a)[k]), flat(vars(b)[k])))

def test_a_frame_is_a_function_of_its_settings():
    a, b = frame(TINY), frame(TINY)
    assert same(a, b) and not same(a, frame(replace(TINY, seed=16))) # and the comparison can fail

def test_its_networks_are_those_of_a_plain_stage():
    lesson = Lesson(TINY)
    *_, shot = lesson.follow(TINY.flr)
    sets = stack_sets([make_data(TINY.config, TINY.seed)])
    stack = make_networks(MLPSpec(32, 8, 2), [TINY.seed]*23, readouts=[TINY.seed]*23, data=[0]*23)
    pre = Trainer(SyntheticTask(sets), stack, GRID, Schedule(500, evals=(), swa_k=(5,), swa_every=100)).run()
    fine = Trainer(SyntheticTask(sets), pre.networks, TINY.flr, Schedule(250, purpose='finetune_order', evals=())).run()
    for name,w in zip(NETWORKS, (pre.networks.flat(), pre.averages[5], fine.networks.flat())): assert torch.equal(shot.readings.nets[name].flat(), w)

def test_marks_leave_no_trace():
    s = replace(TINY, steps=5000, n_train=64)
    assert marks(5000) == [2000, 5000]
    *_, shot = Lesson(s).follow(s.flr)
    stack, sets = make_networks(MLPSpec(32, 8, 2), [15]*23, readouts=[15]*23, data=[0]*23), stack_sets([make_data(s.config, 15)])
    straight = Trainer(SyntheticTask(sets), stack, GRID, Schedule(5000, evals=(), swa_k=(5,), swa_every=100)).run()
    assert torch.equal(shot.readings.nets['averaged'].flat(), straight.averages[5])

def test_a_look_trains_nothing(monkeypatch):
    *_, shot = Lesson(TINY).follow(TINY.flr)
    monkeypatch.setattr(explore_lessons, 'Trainer', None)
    start = time.perf_counter()
    for lr in GRID[::4]:
        for network in NETWORKS: f = look(shot, replace(TINY, lr=lr, network=network, feature=2))
    assert f.settings.network == NETWORKS[-1] and (time.perf_counter() - start)/18 < .25

def test_answers_are_those_of_the_network():
    net, others = MLPSpec(32, 8, 2).build(1, 1), torch.randn(3, 32, generator=torch.Generator().manual_seed(0))
    region = answers(net, others, 4, n=5)
    x = others.clone()
    x[:, 4], x[:, 5] = -REACH, REACH # the first column of the last row
    assert region[-1, 0] == pytest.approx(float(net(x).sigmoid().mean().detach()), abs=1e-6)

def test_other_features_tell_nothing():
    "Seen from their labels, the places where the others are held are on their borders"
    lesson = Lesson(TINY)
    for k in range(0, 8, 2):
        at = lesson.others[:, k:k + 2].numpy()
        gap = np.minimum(abs(at[:, 1] - abs(at[:, 0])), abs(at[:, 1] - abs(at[:, 0]) + 2)) # of the tick
        assert gap.max() < 1e-5

@pytest.mark.parametrize('shape', SHAPES)
def test_every_shape(shape): assert frame(replace(TINY, shape=shape, n_features=2, utility=1.)).ranks.shape == (23, 2)

def test_one_feature_and_odd_sizes():
    f = frame(replace(TINY, n_features=1, utility=.5, depth=4, noise=.5))
    assert f.ranks.shape == (23, 1) and list(f.order) == [1] and 'regime' in describe(f)

# text

def test_text_and_back():
    for s in (Settings(), TINY, replace(TINY, utility=(1., .5, 0., .25), lr=GRID[-1], feature=4), *(t.settings for t in TOUR)):
        assert from_text(to_text(s)) == s
        assert '\n' not in to_text(s) and len(to_text(s)) < 400

BAD = {'{': 'not JSON', '[]': 'object', '{"marginn": 1}': "did you mean 'margin'", '{"margin": 3}': 'from 0 to 0.3',
       '{"margin": "0.1"}': 'margin', '{"n_features": 17}': '1 to 16', '{"utility": [2]}': 'utility', '{"utility": 1.5}': 'from 0 to 1',
       '{"n_features": 2, "utility": [1, 1, 1]}': 'utility needs one number or 2',
       '{"lr": 0.02}': 'lr must be one of', '{"lr": -1}': 'lr', '{"flr": 1}': 'flr', '{"lr": null}': 'lr',
       '{"depth": 2.5}': 'whole number', '{"seed": -1}': 'seed', '{"width": true}': 'width', '{"shape": "tik"}': "did you mean 'tick'",
       '{"network": "best"}': 'network', '{"n_features": 4, "feature": 5}': 'feature', '{"noise": NaN}': 'noise', '{"lr": NaN}': 'lr',
       '{"steps": 1e999}': 'steps', '{"seed": [1]}': 'seed', '{"utility": {}}': 'utility', '{"shape": ["tick"]}': 'shape'}

@pytest.mark.parametrize('text', BAD)
def test_bad_input_is_one_line(text):
    with pytest.raises(InputError) as e: from_text(text)
    assert BAD[text] in str(e.value) and '\n' not in str(e.value)

# the shell

def test_a_mistake_keeps_the_picture():
    x = Explorer(TINY)
    before = x.image.value
    for text in BAD:
        x.read(text)
        assert 'alert' in x.error.value and x.image.value == before and x.settings == TINY
    x.controls['lr'].value = GRID[3]
    assert 'alert' not in x.error.value and x.image.value != before

def test_the_picture_is_the_one_of_the_frame():
    x = Explorer(TINY)
    assert x.image.value == Page().show(frame(TINY)).png()
    moves = dict(margin=.2, n_features=3, lr=GRID[5], network='averaged', feature=2, flr=GRID[1], depth=1)
    for name,v in moves.items(): x.controls[name].value = v
    x.controls['utility'][1].value = .5
    s = x.settings
    assert (s.margin, s.n_features, s.utility, s.depth) == (.2, 3, (1., .5, 1.), 1)
    assert x.image.value == Page().show(frame(s)).png()

def test_reset_tour_and_fewer_features():
    x = Explorer(TINY)
    x.put(replace(TINY, feature=4))
    x.controls['n_features'].value = 2
    assert x.settings.feature == 2 and len(x.settings.utility) == 2
    x.tour(TOUR[0])
    assert x.settings == TOUR[0].settings and TOUR[0].answer in x.stop.value
    x.reset()
    assert x.settings == Settings() and x.stop.value == '' and x.aside.value == ''

def test_every_control_has_a_name():
    x = Explorer(TINY)
    assert all(w.description for k,w in x.controls.items() if k not in ('utility', 'network'))
    assert all(w.description for w in x.controls['utility'])

def run(coroutine): return asyncio.new_event_loop().run_until_complete(coroutine)

def test_training_is_left_when_settings_change():
    async def play():
        x = Explorer(TINY)
        for n in (512, 1024, 128): x.controls['n_train'].value = n
        left, last = x.task, replace(TINY, n_train=128)
        x.controls['margin'].value = .15
        await x.task
        assert left.cancelled() and len(x.lessons) <= explorer.KEPT
        return x, replace(last, margin=.15)
    x, s = run(play())
    assert x.settings == s and x.image.value == Page().show(frame(s)).png() and x.bar.value == 1

def test_messages_may_come_in_another_thread(monkeypatch):
    "as JupyterLab sends them, beside the loop that follows a lesson: no picture is drawn into another, the last one is that of the settings"
    inside, overlaps, png = [], [], Page.png
    def watched(page):
        overlaps.extend(inside)
        inside.append(1)
        try: return png(page)
        finally: inside.pop()
    wanted = Page().show(look([*Lesson(TINY).follow(TINY.flr)][-1], TINY)).png()
    monkeypatch.setattr(Page, 'png', watched)
    async def both():
        x, errors = Explorer(replace(TINY, seed=3)), []
        async def clicks(): # a loop of its own, as a subshell has
            for i in range(40):
                x.put(replace(TINY, seed=i % 3, n_features=(4, 2)[i % 2], utility=1., lr=GRID[i % 23]) if i % 4 else Settings(steps=500))
                await asyncio.sleep(.01*(i % 5))
            await asyncio.sleep(.5)
        def other():
            try: asyncio.new_event_loop().run_until_complete(clicks())
            except BaseException as e: errors.append(e)
        thread = threading.Thread(target=other)
        thread.start()
        for i in range(10**6): # and moves here
            if not thread.is_alive(): break
            x.controls['lr'].value = GRID[i % 23]
            await asyncio.sleep(.02)
        x.put(TINY)
        for _ in range(100):
            if x.image.value == wanted: break
            await asyncio.sleep(.1)
        return x, errors
    x, errors = run(both())
    assert not errors and not overlaps and x.settings == TINY and x.image.value == wanted

def test_it_goes_on_to_the_end():
    async def play():
        x = Explorer(replace(TINY, steps=5000))
        first = x.frame.mark
        await x.task
        return first, x.frame.mark, x.bar.value
    assert run(play()) == (2000, 5000, 1)

def test_a_failure_while_training_is_said(monkeypatch):
    async def play():
        x = Explorer(TINY)
        await x.task
        monkeypatch.setattr(explorer, 'Lesson', lambda *a: 1/0)
        before, x.controls['margin'].value = x.image.value, .2
        await x.task
        assert 'ZeroDivisionError' in x.error.value and x.image.value == before
    run(play())

def test_lessons_are_forgotten():
    x = Explorer(TINY)
    for k in range(1, 7): x.controls['seed'].value = k
    assert len(x.lessons) == explorer.KEPT

# one state

def pale(x): return 'ulrs-pale' in x.board._dom_classes

def test_a_picture_says_what_it_was_computed_from():
    "every setting is in the line below it, and the line is in the bytes"
    page, f = Page(), frame(TINY)
    page.show(f)
    assert page.caption.get_text() == origin(f)
    for name in ('shape', 'n_features', 'utility', 'margin', 'noise', 'n_train', 'width', 'depth', 'seed', 'lr', 'flr', 'network', 'feature', 'steps'):
        assert spelled(TINY, name) in origin(f)
    before = page.png()
    page.caption.set_text(origin(f).replace('seed 15', 'seed 1'))
    assert page.png() != before
    assert 'seed 15' in describe(f)
    mixed = replace(TINY, utility=(1., .5, .25, 0.))
    assert 'utility 1 0.5 0.25 0' in origin(frame(mixed))

def test_while_it_trains_the_old_picture_is_pale_and_says_whose_it_is():
    async def play():
        x = Explorer(TINY)
        await x.task
        assert not pale(x) and x.words.value
        before = x.image.value
        x.controls['seed'].value = 1
        assert pale(x) and x.image.value == before
        assert 'Training for seed 1' in x.board.note.value and 'still shows seed 15' in x.board.note.value
        assert describe(x.frame) not in x.words.value and 'converged' not in x.far.value # nothing is said of the new settings
        x.controls['lr'].value = GRID[3]
        assert 'PLR 1.8e-4' in x.board.note.value and x.image.value == before
        await x.task
        assert not pale(x) and x.board.note.value == '' and describe(x.frame) in x.words.value.replace('&#x27;', "'")
        assert (x.frame.settings.seed, x.frame.lr) == (1, GRID[3])
    run(play())

def test_another_fine_tuning_rate_is_not_shown_before_it_was_used():
    async def play():
        x = Explorer(TINY)
        await x.task
        x.controls['flr'].value = GRID[1]
        x.controls['lr'].value = GRID[4]
        await asyncio.sleep(3*explorer.SOON)
        assert x.frame.shown == x.settings or pale(x)
        await x.task
        assert not pale(x) and x.frame.flr == GRID[1] and x.frame.shown == x.settings
    run(play())

def test_after_a_failure_the_picture_stays_pale_until_it_is_right(monkeypatch):
    async def play():
        x, lesson = Explorer(TINY), Lesson
        await x.task
        monkeypatch.setattr(explorer, 'Lesson', lambda *a: 1/0)
        x.controls['margin'].value = .2
        await x.task
        assert pale(x) and 'ZeroDivisionError' in x.error.value and 'stopped for margin 0.2' in x.board.note.value
        monkeypatch.setattr(explorer, 'Lesson', lesson)
        x.controls['lr'].value = GRID[4] # the next move tries again
        await x.task
        assert not pale(x) and 'alert' not in x.error.value and x.frame.shown == x.settings
    run(play())

def test_a_failure_without_a_loop_is_said(monkeypatch):
    x = Explorer(TINY)
    monkeypatch.setattr(explorer, 'Lesson', lambda *a: 1/0)
    x.controls['margin'].value = .2
    assert pale(x) and 'ZeroDivisionError' in x.error.value

def test_a_loop_that_is_gone_does_not_leave_an_old_picture():
    x = []
    async def begin():
        x.append(Explorer(replace(TINY, steps=5000)))
        x[0].controls['seed'].value = 3 # and nobody waits for it
    async def go_on():
        x[0].controls['lr'].value = GRID[2]
        await x[0].task
    run(begin())
    assert pale(x[0]) and 'seed 3' in x[0].board.note.value
    run(go_on())
    assert not pale(x[0]) and (x[0].frame.settings.seed, x[0].frame.lr) == (3, GRID[2])

def test_the_tour_speaks_of_its_own_picture_only():
    async def play():
        x = Explorer(TINY)
        x.tour(luck := TOUR[4])
        assert luck.question in x.stop.value and luck.answer not in x.stop.value and 'comes with the picture' in x.aside.value
        while pale(x) or x.frame.mark < luck.mark: await asyncio.sleep(.05)
        assert luck.answer in x.stop.value and x.aside.value == ''
        x.controls['feature'].value = 3 # may be looked at meanwhile
        assert luck.answer in x.stop.value
        x.controls['lr'].value = GRID[3]
        assert luck.answer not in x.stop.value and 'moved on, to PLR 1.8e-4' in x.aside.value and 'PLR 1e-2' in x.aside.value
        x.read(to_text(TINY))
        assert x.stop.value == ''
        await x.task
    run(play())

def test_an_answer_about_later_steps_says_so():
    x = Explorer(TINY)
    x.tour(TOUR[1]) # without a loop: the picture of 2,000 steps
    assert 'about 10,000 steps and more; this picture is of 2,000' in x.aside.value

def test_the_answers_of_the_tour_hold():
    "at the steps that they speak of; the numbers that the texts name, by the rule of dominance"
    shots = {}
    for stop in TOUR[:4]: # of the last the answer is that one seed is no evidence
        s = stop.settings
        shots[s.taught] = shots.get(s.taught) or snapshot(s, stop.mark)
        f = look(shots[s.taught], s)
        best, second = f.single[s.network][:2]
        sparse = stop.title in ('Just above the threshold', 'Calm it down')
        assert (best >= 65 and best - second >= DOMINANT) == sparse

@pytest.mark.parametrize('seed', [99999, -1, 1.5, float('inf')])
def test_a_seed_out_of_range_is_said(seed):
    x = Explorer(TINY)
    before = x.image.value
    x.controls['seed'].value = seed
    assert 'alert' in x.error.value and 'from 0 to 999' in x.error.value and str(seed) in x.error.value
    assert x.controls['seed'].value == 15 and x.settings == TINY and x.image.value == before and not pale(x)

def test_no_control_clips_what_is_typed():
    "numeric sliders and bounded fields do, in the browser, without a word"
    x = Explorer(TINY)
    clip = W.IntSlider, W.FloatSlider, W.BoundedIntText, W.BoundedFloatText
    assert not [w for c in x.controls.values() for w in (c if isinstance(c, list) else [c]) if isinstance(w, clip)]

def test_controls_show_what_was_pasted():
    x = Explorer(TINY)
    x.read(to_text(replace(TINY, margin=.123, utility=(1., .37, 1., 1.))))
    assert x.controls['margin'].value == .123 and ('0.123', .123) in x.controls['margin'].options
    assert x.controls['utility'][1].value == .37 and x.settings.utility[1] == .37
    x.controls['margin'].value = .2
    assert x.settings.margin == .2 and x.settings.utility[1] == .37

def test_a_number_that_is_rounded_is_said():
    x = Explorer(TINY)
    x.read('{"lr": 0.01001, "n_features": 4, "steps": 500, "n_train": 64, "width": 8}')
    assert x.settings.lr == GRID[11] and 'lr 0.01001 is read as 1e-2' in x.error.value and 'alert' not in x.error.value
    x.put(replace(TINY, feature=4))
    x.controls['n_features'].value = 2
    assert 'feature 4 is gone' in x.error.value

def test_a_presentation_folds_all_but_one_rate_and_the_tour():
    x = Explorer(TINY, present=True)
    def open_widgets(w): # what is not in a folded part
        return [w, *(d for c in getattr(w, 'children', ()) if not isinstance(c, W.Accordion) for d in open_widgets(c))]
    def order(): return [type(c) for c in x.children if c.layout.display != 'none']
    seen = open_widgets(x)
    assert [w for w in seen if isinstance(w, W.SelectionSlider)] == [x.controls['lr']] and x.board in seen
    assert order()[0] is PictureBox and sum(isinstance(w, W.Button) for w in seen) == len(TOUR) + 1
    x.present.value = False
    assert x.controls['margin'] in open_widgets(x) and order()[0] is not PictureBox

@pytest.mark.parametrize('shape', ['circles', 'diamond', 'cross'])
def test_small_rates_that_are_slow_do_not_break_the_run_of_regime_1(shape):
    s = Settings(shape=shape, steps=5000, lr=GRID[0])
    f = frame(s, 5000)
    assert list(f.regimes) == sorted(f.regimes) and f.regimes[0] == '1'
    assert f.slow and f.slow == list(GRID[:len(f.slow)]) and f.slow[-1] < GRID[f.regimes.count('1') - 1]
    assert 'regime 1, not converged yet after 5,000' in describe(f) and 'not converged yet' in origin(f) and 'not converged yet' in how_far(f)
    page = Page().show(f, )
    losses, over = page.panels[3], page.panels[4]
    assert [line.get_linestyle() for line in losses.lines].count('--') == len(f.slow)
    assert len(over.slow.get_paths()) == 1 and any('not converged yet' in t.get_text() for t in losses.ax.get_legend().get_texts())
    assert 'not converged' not in describe(look(snapshot(replace(s, steps=500, shape='tick')), replace(s, steps=500, shape='tick', lr=GRID[-1])))

# finished runs

@pytest.fixture(scope='module')
def finished(tmp_path_factory):
    root = tmp_path_factory.mktemp('runs')
    for p in protocols('synthetic', 'smoke'): live(p, Run(root, p))
    return root/'synthetic'

def test_a_run_frame_holds_what_the_tables_hold(finished):
    view = open_source(finished)
    f, m = run_frame(view, .01, view.flrs[0]), view.metrics
    assert f.acc['pre-trained'][1] == pytest.approx(m[(m.plr == .01) & (m.stage == 'pretrain') & (m.metric == 'test_acc')].value.mean())
    assert f.acc['fine-tuned'][1] == pytest.approx(m[(m.plr == .01) & (m.flr == view.flrs[0]) & (m.metric == 'test_acc')].value.mean())
    assert {k: v[1].shape[0] for k,v in f.loss.items()} == dict(pretrain=2, finetune=2) and f.loss['pretrain'][0][-1] == 200
    assert {k: v.shape for k,v in f.ranks.items()} == {k: (2, 16) for k in NETWORKS} and (np.diff(f.ranks['averaged']) <= 0).all()
    for wrong in ((.5, view.flrs[0]), (.01, .5)):
        with pytest.raises(InputError, match='not in these tables; they have'): run_frame(view, *wrong)

def test_the_page_of_runs(finished, tmp_path):
    one = sorted(finished.iterdir())[0]
    x = RunExplorer({'sweep': finished, 'one': one})
    before = x.image.value
    x.plr.value = x.plr.options[0][1]
    assert x.image.value != before and x.image.value == RunPage(x.view).show(run_frame(x.view, x.plr.value, x.flr.value), None).png()
    x.source.value = one
    assert [v for _,v in x.plr.options] == list(x.view.found) and len(x.view.found) == 1 and 'pre-trained' in x.words.value
    before = x.image.value
    x.turn_to(tmp_path)
    assert 'alert' in x.error.value and 'found neither' in x.error.value and x.image.value == before
    assert x.source.value == one and not pale(x) # controls and picture are of one source

def test_any_folder_of_runs_opens_and_runs_are_named_by_what_they_are(finished, tmp_path):
    for p in protocols('synthetic', 'smoke', overrides=dict(width=8))[:2]: live(p, Run(tmp_path/'mine', p))
    shutil.copytree(finished, tmp_path/'mine'/'synthetic', dirs_exist_ok=True)
    found = sources(tmp_path)
    assert [name.split(':')[0] for name in found] == ['synthetic, smoke', 'synthetic, smoke with width=8']
    assert all('PLR' in name and 'network' in name for name in found) and not [n for n in found if 'plr=' in n]
    x = RunExplorer(tmp_path)
    assert list(x.source.options) == list(found.items()) and len(x.view.found) == len(list(finished.iterdir()))
    x.source.value = list(found.values())[1]
    assert len(x.view.found) == 2 and 'synthetic' in x.frame.source
    opened = x.image.value
    for wrong,why in ((tmp_path/'nothing', 'no such folder'), (tmp_path/'mine'/'empty', 'neither finished runs')):
        (tmp_path/'mine'/'empty').mkdir(exist_ok=True)
        x.folder.value = str(wrong)
        assert 'alert' in x.error.value and why in x.error.value and x.image.value == opened
    one = next(finished.iterdir())
    for folder in (finished, one, tmp_path/'mine', tmp_path/'mine'/'synthetic'):
        x.folder.value = str(folder)
        assert 'alert' not in x.error.value and x.image.value and len(x.source.options) == len(sources(folder)) > 0

def test_one_damaged_run_does_not_hide_the_others(finished, tmp_path):
    shutil.copytree(finished, tmp_path/'synthetic')
    first, *others = sorted((tmp_path/'synthetic').iterdir())
    (first/'metrics.csv').write_text('broken')
    x = RunExplorer(tmp_path)
    assert len(x.view.found) == len(others) and first.name in x.words.value and 'damaged' in x.words.value
    for folder in others: (folder/'metrics.csv').write_text('broken')
    x.folder.value = str(tmp_path/'synthetic')
    assert 'no run can be read' in x.error.value and 'alert' in x.error.value

def test_only_rates_that_were_run_are_tinted(finished):
    "a hole in the grid is a hole in the tints"
    runs = sorted(finished.iterdir())
    view = open_source((runs[0], runs[-1]))
    page = RunPage(view).show(run_frame(view, min(view.found), view.flrs[0]))
    over = page.panels[3]
    missing = [p for p in view.plrs if p not in view.found]
    boxes = [path.vertices[:, 0] for band in over.bands.values() for path in band.get_paths()]
    assert missing and boxes and not [p for p in missing for v in boxes if v.min() < p < v.max()]
    assert contents(view) in page.caption.get_text()

@pytest.fixture(scope='module')
def pictures(root): return open_source(root/'figures/data/convnetsi32_cifar10/laptop')

def cases(view): return [(p, f) for p in sorted(view.found) for f in view.flrs or [None]]

def outside(ax, points): # how many finite points of a line are not within the axes
    (x, y), inside = np.asarray(points, float).T, lambda v, ends: (v >= ends[0]) & (v <= ends[1])
    return int((np.isfinite(y) & ~(inside(x, ax.get_xlim()) & inside(y, ax.get_ylim()))).sum())

def test_a_page_of_pictures_holds_all_values(root):
    "within axes that stay, below the legends"
    for study in ('convnetsi32_cifar10', 'resnet18si_cifar10_basin', 'resnet18si_cifar10_two_stage'):
        view = open_source(root/'figures/data'/study/'laptop')
        page, ends, n = RunPage(view), set(), view.metrics.train_seed.nunique()
        page.show(run_frame(view, *cases(view)[0]), None).png() # which gives legends their places
        for case in cases(view):
            f = run_frame(view, *case)
            page.show(f, None)
            *paths, parts, acc, barrier, angle = page.panels
            for p in paths: assert sum(outside(p.lines.axes, s) for s in p.lines.get_segments()) == 0 and len(p.lines.get_segments()) == n >= 3
            for lines in parts.lines.values(): assert sum(outside(lines.axes, s) for s in lines.get_segments()) == 0
            for p in (acc, barrier, angle): assert sum(outside(line.axes, line.get_xydata()) for line in p.lines.values()) == 0
            for p in (acc, barrier, parts): # the legend, and the names of regimes above it
                ax = next(iter(p.lines.values())).axes
                low = ax.get_legend().get_window_extent().y0
                top = max(np.nanmax(np.r_[v]) for v in {'acc': f.acc, 'barrier': f.barrier, 'bands': f.bands}[p.field].values() if np.isfinite(v).any())
                assert ax.transData.transform((1, top))[1] < low
            ends.add(tuple(ax.get_xlim() + ax.get_ylim() for ax in page.fig.axes))
        assert len(ends) == 1 and {p.lines.axes.get_xlabel() for p in paths} == {'epoch + 1'}

def test_the_band_panel_holds_what_the_table_holds(pictures):
    t, page, n = pictures.tables['bands'], RunPage(pictures), pictures.metrics.train_seed.nunique()
    for plr,flr in cases(pictures):
        f = run_frame(pictures, plr, flr)
        page.show(f, None)
        for name,rows in zip(NETWORKS, (t[t.stage == 'pretrain'], t[(t.stage == 'average') & (t.swa_k == 5)], t[(t.stage == 'finetune') & (t.flr == flr)])):
            rows = rows[(rows.metric == 'band_acc_band') & (rows.plr == plr)]
            drawn = [s[:, 1] for s in page.panels[2].lines[name].get_segments()]
            assert len(drawn) == n >= 3 and f.bands[name].shape == (n, 4)
            for i,band in enumerate(BANDS): assert sorted(d[i] for d in drawn) == sorted(rows[rows.band == band].value)
    names = [label.get_text() for label in page.fig.axes[2].get_xticklabels()]
    assert names == ['background 0', 'low 1-4', 'mid 5-12', 'high 13-16'] # of 16 x 16 pixels
    assert f"pre-trained {np.mean(f.bands['pre-trained'][:, 2]):.1f} %" in say_run(f).split('mid band')[1] and 'dominant' not in say_run(f)

def test_two_protocols_have_no_common_mean(root):
    folder = root/'figures/data/resnet18si_cifar10_two_stage/laptop'
    view, tables = open_source(folder), read_published(folder)
    plain = [r for r,s in zip(tables['runs'].run, tables['runs'].settings) if json.loads(s)['then_plr'] == 0]
    m = tables['metrics'][tables['metrics'].run.isin(plain) & (tables['metrics'].metric == 'test_acc') & (tables['metrics'].band.fillna('') == '')]
    for plr,flr in cases(view):
        f = run_frame(view, plr, flr)
        assert len(plain) == 4 and {k: len(v[1]) for k,v in f.loss.items()} == dict(pretrain=10, finetune=10)
        assert f.acc['fine-tuned'][list(f.plrs).index(plr)] == pytest.approx(m[(m.plr == plr) & (m.flr == flr)].value.mean())
        assert say_run(f).endswith('Runs with a second rate are left out (2 of 6).')
    rows = tables['bands'].query("metric == 'band_acc_band' and stage == 'pretrain' and plr == plr.max()")
    with pytest.raises(ValueError, match='duplicate'): _wide(rows, 'band')

def test_other_settings_are_left_out_too(root):
    f = run_frame(v := open_source(root/'figures/data/synthetic_utilities/wide'), .01, v.flrs[0])
    assert 'another shape are left out' in say_run(f) and len(f.ranks['pre-trained']) == 20
    assert {json.loads(s)['shape'] for s in v.tables['runs'].settings} == {'tick'}

def test_pictures_of_which_little_was_read(pictures):
    m = pictures.tables['metrics']
    bare = View(dict(metrics=m[m.stage == 'pretrain'], runs=pictures.tables['runs']), pictures.study)
    f = run_frame(bare, .01, None)
    assert len(RunPage(bare).show(f, None).png()) > 10_000 and not f.bands and not f.loss and 'mid band' not in say_run(f)
    lost = View(dict(pictures.tables, curves=pictures.tables['curves'].assign(value=np.nan)), pictures.study) # a training that diverged at once
    assert len(RunPage(lost).show(run_frame(lost, .01, lost.flrs[0]), None).png()) > 10_000

def test_the_first_source_is_the_synthetic_study(root):
    found = sources(root)
    first, second, *_ = found
    assert first.startswith('published: synthetic, laptop: 23 PLRs') and found[first] == root/'figures/data/synthetic/laptop'
    assert list(found[second].glob('curves.*'))

def test_nothing_to_open_is_said(): assert 'first: ulrs sweep' in RunExplorer({}).error.value

# the pages

@pytest.mark.parametrize('name,pictures', [('explore_synthetic', 2), ('explore_runs', 1)])
def test_the_saved_notebook_shows_a_picture(root, name, pictures):
    nb = json.loads((root/'nbs'/'tutorials'/f'{name}.ipynb').read_text())
    kinds = [set(o.get('data', {})) for c in nb['cells'] for o in c.get('outputs', [])]
    assert sum('image/png' in k for k in kinds) >= pictures
    assert not any('application/vnd.jupyter.widget-view+json' in k for k in kinds) # it would hide the picture where there is no kernel

def test_no_notebook_keeps_the_state_of_widgets(root):
    "Hundreds of kilobytes, other at every run; without it readers see the pictures"
    assert [p.name for p in (root/'nbs').rglob('*.ipynb') if 'widgets' in json.loads(p.read_text())['metadata']] == []

def test_the_strip_is_light_and_repeatable():
    s = replace(TINY, n_features=16, utility=1.)
    a, b = (strip(s=s).render('svg') for _ in range(2))
    assert a == b and len(a) < 200_000

def test_a_strip_of_what_was_trained_trains_nothing(monkeypatch):
    shot = snapshot(replace(TINY, n_features=16, utility=1.))
    drawn = strip(s=shot.lesson.settings).render('svg')
    monkeypatch.setattr(explore_frames, 'Lesson', None)
    assert strip(shot=shot).render('svg') == drawn
