"""Figures are a function of the tables: equal tables, equal bytes; gaps, damage and regimes are drawn as they are, never passed over."""
import ast, hashlib, json, os, subprocess, sys
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree
import matplotlib, numpy as np, pandas as pd, pytest
from understanding_lrs.figures import dominance, drawing, fig05_feature_use, fig15_finetune_and_swa, fig16_geometry, one_run, overview, registry, training_curves
from understanding_lrs.figures.axis import spans
from understanding_lrs.figures.drawing import write
from understanding_lrs.figures.marks import BIN, swarm
from understanding_lrs.figures.registry import draw_study, figures_of
from understanding_lrs.figures.view import View, over_plr, preset_of, read_paper, stages
from understanding_lrs.analysis.regimes import Boundary
from understanding_lrs.core.errors import InputError, RunDamaged
from understanding_lrs.runs.find import find_runs
from understanding_lrs.runs.published import publish, read_published
from understanding_lrs.runs.store import Run
from understanding_lrs.studies.registry import STUDIES, protocols
from understanding_lrs.studies.trial import live
from understanding_lrs.analysis.tables import by_plr

STUDY = STUDIES['synthetic']
SYNTHETIC_FIGURES = figures_of(STUDY)

@pytest.fixture(scope='session')
def folder(tmp_path_factory):
    "Published tables of the smoke preset"
    root = tmp_path_factory.mktemp('figures')
    for p in protocols('synthetic', 'smoke'): live(p, Run(root/'runs', p))
    publish(find_runs(root/'runs'), root/'tables')
    return root/'tables'

@pytest.fixture(scope='session')
def tables(folder): return read_published(folder)

@pytest.fixture(scope='session')
def paper(root): return read_paper(root)

@pytest.fixture(scope='session')
def view(tables, paper):
    "The tables with the authors' values; its regimes are searched for once"
    return View(tables, STUDY, paper)

def like(view, tables, paper=None):
    "Other tables, the same regimes"
    new = View(tables, STUDY, paper, view.preset)
    new.bounds = view.bounds
    return new

@pytest.fixture(scope='session')
def drawn(folder, tmp_path_factory):
    "All figures as files, drawn under a reader's own style"
    out = tmp_path_factory.mktemp('drawn')
    with matplotlib.rc_context({'lines.linewidth': 9, 'svg.hashsalt': 'mine', 'font.size': 20}):
        draw_study('synthetic', folder, out)
        assert matplotlib.rcParams['lines.linewidth'] == 9 # it stays the reader's
    return out

def without(tables, plr):
    "The tables as if one rate had not been run"
    gone = set(tables['metrics'].run[tables['metrics'].plr == plr])
    return {k: t[~t.run.isin(gone)] for k,t in tables.items()}

def words(fig): return ' '.join(t.get_text() for t in fig.findobj(matplotlib.text.Text))
def lines(ax, label): return [line for line in ax.lines if line.get_label() == label]

def test_every_figure_draws(view):
    for name,f in SYNTHETIC_FIGURES.items(): assert isinstance(f(view), matplotlib.figure.Figure), name
    one = without(without(view.tables, 1e-3), 1e-1)
    assert isinstance(one_run.one_plr({k: t for k,t in one.items() if k != 'runs'}, STUDY), matplotlib.figure.Figure)

def test_runs_without_fine_tuning_and_averages(view):
    bare = like(view, live(protocols('synthetic', 'smoke', plrs=[1e-2], overrides=dict(flrs=[], swa_k=[]))[0]).tables)
    for f in (one_run.one_plr, fig15_finetune_and_swa.finetune_accuracy, fig15_finetune_and_swa.swa_accuracy, fig05_feature_use.single_features, dominance.dominance, training_curves.regimes):
        assert isinstance(f(bare), matplotlib.figure.Figure)
    with pytest.raises(InputError, match='no rows of geometry'): fig16_geometry.geometry(bare)

def test_a_single_fine_tuning_rate_is_the_low_one(view):
    one = live(protocols('synthetic', 'smoke', plrs=[1e-2], overrides=dict(flrs=[1e-4], swa_k=[5]))[0]).tables
    assert [short for short,*_ in stages(like(view, one))] == ['PT', 'SWA(5)', 'FT low']
    for f in (dominance.dominance, fig05_feature_use.single_features, one_run.one_plr): assert isinstance(f(like(view, one)), matplotlib.figure.Figure)

DRAW = """import sys
from understanding_lrs.figures.registry import draw
from understanding_lrs.figures.view import view_of
draw(view_of('synthetic', sys.argv[1]), sys.argv[2], names=sys.argv[3:])"""
def pictures(folder): return sorted(p for p in folder.iterdir() if p.name != '.ulrs') # without the checksums of what we wrote
def digests(folder): return {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in pictures(folder)}

def test_same_bytes_in_two_processes(folder, drawn, tmp_path):
    env = os.environ | dict(PYTHONHASHSEED='7')
    subprocess.run([sys.executable, '-c', DRAW, folder, tmp_path, 'data', 'dominance', 'geometry'], check=True, env=env)
    again = digests(tmp_path)
    assert len(again) == 3 and again.items() <= digests(drawn).items()

def test_bytes_change_with_the_numbers(view):
    m = view.tables['metrics']
    moved = view.tables | dict(metrics=m.assign(value=m.value.where(m.metric != 'test_acc', m.value + 1)))
    assert fig15_finetune_and_swa.finetune_accuracy(like(view, view.tables)).render() != fig15_finetune_and_swa.finetune_accuracy(like(view, moved)).render()

def test_files_are_small_and_undated(drawn):
    files = pictures(drawn)
    assert {p.stem for p in files} == {f'synthetic_{name}' for name in SYNTHETIC_FIGURES}
    for path in files:
        text = path.read_text()
        assert path.suffix == '.svg' and len(text) < drawing.LARGEST
        assert 'dc:date' not in text and 'matplotlib.org' not in text and '<text' in text

def test_a_large_figure_becomes_a_png(view, tmp_path, monkeypatch):
    fig = fig15_finetune_and_swa.finetune_accuracy(view)
    assert write(fig, tmp_path/'f').name == 'f.svg'
    monkeypatch.setattr(drawing, 'LARGEST', 1000)
    assert write(fig, tmp_path/'f').name == 'f.png' and [p.name for p in pictures(tmp_path)] == ['f.png']

def test_a_partial_grid_is_said(view):
    part = like(view, without(view.tables, 1e-2))
    for name in sorted(set(SYNTHETIC_FIGURES) - {'data'}):
        assert 'PARTIAL GRID: 1 of 3 PLRs missing or incomplete (1e-2)' in words(SYNTHETIC_FIGURES[name](part)), name
    assert 'PARTIAL' not in words(fig15_finetune_and_swa.finetune_accuracy(view))
    lost = {k: t[~((t.run == t.run.iloc[0]) & (t.data_seed == 2))] if k != 'runs' else t for k,t in view.tables.items()}
    assert like(view, lost).missing == [1e-3]

def test_a_line_stops_at_a_gap(tables):
    view = View(without(tables, 1e-2), STUDY)
    t = over_plr(view(stage='pretrain', metric='test_acc'), view.plrs)
    assert t.value.isna().tolist() == [False, True, False]

def test_a_damaged_table_is_refused(folder, tmp_path):
    for f in folder.iterdir(): (tmp_path/f.name).write_bytes(f.read_bytes())
    name = next(n for n in json.loads((tmp_path/'tables.json').read_text())['files'] if n.startswith('metrics'))
    data = bytearray((tmp_path/name).read_bytes())
    data[len(data)//2] ^= 1
    (tmp_path/name).write_bytes(data)
    with pytest.raises(RunDamaged): draw_study('synthetic', tmp_path, tmp_path/'out')
    assert not (tmp_path/'out').exists()

def test_a_foreign_ledger_is_refused(tables):
    with pytest.raises(InputError, match='disagree on 1 runs'): View(tables | dict(runs=tables['runs'].iloc[1:]), STUDY)
    mixed = tables['runs'].assign(settings=[*tables['runs'].settings[:-1], '{}'])
    with pytest.raises(InputError, match='one setting'): overview.overview(tables | dict(runs=mixed), STUDY)

def test_lines_stand_at_their_rates(tables):
    study = replace(STUDY, lines=(2e-3, None, 5e-2))
    view = View(tables, study)
    view.bounds = dict(lr_12=Boundary('lr_12', 1e-3, 1e-2, (1e-3, 1e-2), ''), lr_23=Boundary('lr_23', 1e-2, 1e-1, (1e-1, 1e-1), ''),
                       lr_2ab=Boundary('lr_2ab', 1e-2, 1e-1, (np.nan, np.nan), ''))
    ax = fig15_finetune_and_swa.finetune_accuracy(view).axes[0]
    at = lambda label: [line.get_xdata()[0] for line in lines(ax, label)]
    assert (at('_lr_12'), at('_lr_2ab'), at('_lr_23')) == ([1e-3], [1e-2], [1e-1]) # 2|3 belongs to the regime on its right
    assert at('_authors') == [2e-3, 5e-2] # none where they draw none
    assert list(lines(ax, '_lr_12 interval')[0].get_xdata()) == [1e-3, 1e-2]
    assert not lines(ax, '_lr_2ab interval') # unknown
    edges = [(left, right) for _,left,right in spans(view.bounds, 1e-4, 1)]
    assert edges == [(1e-4, 1e-3), (1e-3, 1e-2), (1e-2, 1e-1), (1e-1, 1)]
    assert {'1', '2A', '2B', '3'} <= {t.get_text() for t in ax.texts}

def test_a_grid_without_lines(tables):
    "every network converges: no line, one name"
    view = View(tables, replace(STUDY, lines=(None, None, None)))
    view.bounds = dict(lr_12=Boundary('lr_12', None, 1e-3, (np.nan, np.nan), ''), lr_23=Boundary('lr_23', 1e-1, None, (np.nan, np.nan), ''))
    ax = fig15_finetune_and_swa.finetune_accuracy(view).axes[0]
    assert not lines(ax, '_authors') and not lines(ax, '_lr_12') and [t.get_text() for t in ax.texts] == ['2']

def test_the_authors_values_are_drawn_where_they_are(view, paper):
    ax = fig15_finetune_and_swa.finetune_accuracy(view).axes[0]
    mark, = lines(ax, '_authors flr=7.499e-3')
    rows = paper['synthetic_sample_accuracy'].query("panel == 'finetune_test_acc' and series == 'flr=7.499e-3'")
    assert list(mark.get_xdata()) == list(rows.plr) and list(mark.get_ydata()) == list(rows.value)
    assert 'few seeds, read off a figure' in words(ax.figure)
    assert 'few seeds' not in words(fig15_finetune_and_swa.finetune_accuracy(like(view, view.tables))) # no marks, no legend for them

def test_intervals_are_those_of_by_plr(tables):
    rows = View(tables, STUDY)(stage='pretrain', metric='test_acc')
    pd.testing.assert_frame_equal(over_plr(rows, sorted(rows.plr.unique())), by_plr(rows)[['value', 'lo', 'hi']], check_names=False, rtol=1e-12)

def test_no_dot_of_a_swarm_leaves_its_rate():
    rng = np.random.default_rng(0)
    plr, gap = np.repeat([1e-3, 1e-2], 200), rng.random(400)*20
    x = swarm(plr, gap)
    assert (abs(np.log10(x/plr)) <= .05 + 1e-12).all() and len(set(zip(x, np.round(gap/BIN*1.5)))) == 400 # none hides another

def test_settings_younger_than_the_ledger_do_not_hide_the_preset(tables):
    cut = tables['runs'].settings.map(lambda s: json.dumps({k: v for k,v in json.loads(s).items() if k != 'width'}))
    assert preset_of(tables['runs'].assign(settings=cut), STUDY) == 'smoke'
    assert preset_of(tables['runs'].assign(data_seeds='1 2 77'), STUDY) == 'smoke', 'seeds that were added'
    assert preset_of(tables['runs'].assign(data_seeds='1 77'), STUDY) == '', 'other seeds'
    assert preset_of(tables['runs'].assign(plr=.123), STUDY) == ''

def test_the_authors_seeds_and_one_more_are_still_the_authors():
    ps = protocols('resnet18si_cifar10', 'authors')
    ledger = pd.DataFrame([dict(plr=p.plr, flrs=' '.join(map(repr, p.flrs)), settings=json.dumps(p.settings), data_seeds='', readout_seeds='',
                                train_seeds=f'{p.train_seeds[0]} 7') for p in ps])
    assert preset_of(ledger, STUDIES['resnet18si_cifar10']) == 'authors'
    assert preset_of(ledger.assign(train_seeds='1'), STUDIES['resnet18si_cifar10']) == 'paper'

def test_seeds_that_were_asked_for_are_the_whole_grid(tables):
    "not those of the preset: fewer are no partial grid, and more are expected at every rate"
    one = {k: t[t.data_seed == 1] if 'data_seed' in t else t for k,t in tables.items()}
    plrs = sorted(tables['metrics'].plr.unique())
    def missing(t, seeds): return View(t, STUDY, preset='smoke', wanted=protocols(STUDY.id, 'smoke', data_seeds=seeds)).missing
    assert missing(one, [1]) == [] != View(one, STUDY, preset='smoke').missing == plrs
    assert missing(tables, [1, 2, 3]) == plrs

def run_page(path, skip=None, **given): # skip: cells with this text
    "The cells of a figure notebook in this process, with parameters in place of those of its tagged cell"
    space, told = {'__name__': path.stem}, False
    for cell in json.loads(path.read_text())['cells']:
        if cell['cell_type'] != 'code' or (skip and skip in ''.join(cell['source'])): continue
        exec(compile(''.join(cell['source']), f'{path.name}', 'exec'), space)
        if 'parameters' in cell['metadata'].get('tags', ()):
            told = True
            assert set(given) <= set(space), path
            space.update(given)
    assert told, f'{path}: no cell tagged parameters'
    return space

def defaults(page) -> dict: # of the parameters of a page; {} where it has none
    for cell in json.loads(page.read_text())['cells']:
        if 'parameters' in cell['metadata'].get('tags', ()):
            return {n.target.id: ast.literal_eval(n.value) for n in ast.parse(''.join(cell['source'])).body}
    return {}

FOLDER = Path(__file__).resolve().parent.parent/'nbs/figures'
PAGES = {p.stem: known for p in sorted(FOLDER.glob('*.ipynb')) if (known := defaults(p)) and not p.stem.startswith(('images_', 'fig06'))}
SMOKE = [p for p,known in PAGES.items() if known.get('study', 'synthetic') == 'synthetic' and known.get('preset', 'wide') == 'wide']

@pytest.mark.filterwarnings('ignore:Mean of empty slice', 'ignore:All-NaN', 'ignore:invalid value')
@pytest.mark.parametrize('page', SMOKE)
def test_pages_of_the_synthetic_study_run_on_smoke_tables(folder, tmp_path, page):
    smoke = dict(preset='smoke', data=str(folder)) if 'preset' in PAGES[page] else {}
    run_page(FOLDER/f'{page}.ipynb', out=str(tmp_path), **smoke)
    assert list(tmp_path.glob('synthetic_*.svg'))

@pytest.mark.parametrize('page', sorted(set(PAGES) - set(SMOKE)))
def test_other_pages_draw_the_committed_figures(root, tmp_path, page):
    run_page(FOLDER/f'{page}.ipynb', out=str(tmp_path))
    files = list(tmp_path.glob('*.svg'))
    assert files and all(f.read_bytes() == (root/'figures'/f.name).read_bytes() for f in files)

def test_every_page_of_a_figure_has_parameters():
    "So that papermill can draw it from other tables"
    drawing = {p.stem for p in FOLDER.glob('*.ipynb') if 'on_page(' in p.read_text() and not p.stem[0].isdigit()}
    assert drawing and drawing <= {p.stem for p in FOLDER.glob('*.ipynb') if defaults(p)}

def test_a_new_figure_is_one_notebook(tables, tmp_path, monkeypatch):
    "what a module of the package registers is drawn with its study; a figure of the study alone takes the place of those of its kind"
    monkeypatch.setattr(registry, 'FIGURES', dict(registry.FIGURES))
    @registry.figure(of=[registry.SYNTHETIC])
    def mine(view): return drawing.canvas()[0]
    assert set(figures_of(STUDY)) == {*SYNTHETIC_FIGURES, 'mine'}
    @registry.figure('bands', of=['synthetic'])
    def alone(view): return drawing.canvas()[0]
    assert list(figures_of(STUDY)) == ['alone'] and 'factorial' in figures_of(STUDY, 'factorial')
    with pytest.raises(InputError, match='figure alone: no rows of bands'): alone(tables, STUDY)

@pytest.mark.parametrize('path', sorted((Path(__file__).parents[1]/'figures').glob('*.svg')), ids=lambda path: path.stem)
def test_a_published_figure_says_what_it_shows(path):
    "a title of one sentence, a description, text as text, and a font that is not needed"
    root = ElementTree.parse(path).getroot()
    assert root.get('role') == 'img'
    title, desc, *_ = root
    assert title.tag.endswith('}title') and len(title.text) > 30
    assert desc.tag.endswith('}desc') and len(desc.text) > 60
    texts = list(root.iter('{http://www.w3.org/2000/svg}text'))
    assert texts and 'sans-serif' in path.read_text()
