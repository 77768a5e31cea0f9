"""Every experiment notebook declares exactly its study's parameters, lives at smoke size, and its verdict there is 'reduced, so not comparable'."""
import ast, importlib.util, json, shutil
import nbformat, papermill as pm, pytest, torch
from understanding_lrs.runs.find import find_runs
from understanding_lrs.runs.protocol import Protocol, networks
from understanding_lrs.runs.store import Run
from understanding_lrs.training.stacked import evaluate
from understanding_lrs.studies.registry import STUDIES, protocols, protocol_of
from understanding_lrs.studies.trial import live
from understanding_lrs.analysis.tables import select
from understanding_lrs.sweep.checks import check_params
from understanding_lrs.sweep.sweep import sweep

TEMPLATES = {s.template: s for s in STUDIES.values()}

@pytest.mark.parametrize('study', STUDIES.values(), ids=lambda s: s.id)
def test_parameters_are_the_protocol_and_out(study, root):
    p = protocols(study.id, 'smoke')[0]
    known = pm.inspect_notebook(str(root/study.template))
    assert {name for name,q in known.items() if q['default'] != 'None'} <= {*p.params(), 'out'} <= set(known)
    check_params(root/study.template, p.params() | dict(out=''))

@pytest.mark.parametrize('template', TEMPLATES)
def test_a_page_by_itself_is_the_smoke_run_of_its_study(template, root):
    "A reader who runs it waits for seconds"
    known = {name: ast.literal_eval(q['default']) for name,q in pm.inspect_notebook(str(root/template)).items()}
    assert protocol_of(known) == protocols(known['study'], 'smoke', plrs=[known['plr']])[0]

def test_parameter_cells_are_written_from_the_settings(root, tmp_path):
    spec = importlib.util.spec_from_file_location('parameters', root/'tools'/'parameters.py')
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    assert tool.main(check=True) == 0
    stale = tmp_path/'images_plr.ipynb'
    stale.write_text((root/'nbs/experiments/images_plr.ipynb').read_text().replace('# channels of the first layer', '# something else'))
    assert tool.rewrite(stale, write=True) and not tool.rewrite(stale, write=False)

def test_every_template_has_a_study(root):
    assert {str(f.relative_to(root)) for f in (root/'nbs'/'experiments').glob('*.ipynb')} == {*TEMPLATES, 'nbs/experiments/tiny_plr.ipynb'} # the stand-in of tests and tutorials

@pytest.fixture(scope='module')
def swept(tmp_path_factory):
    folder = tmp_path_factory.mktemp('runs')
    return folder, sweep(protocols('synthetic', 'smoke', plrs=[1e-2]), root=folder, progress='none', keep_states=True)

def test_a_smoke_run(swept, root):
    folder, result = swept
    run, = find_runs(folder, 'synthetic')
    assert run.state().kind == 'done' and not result.failed
    page = nbformat.read(run.folder/'notebook.ipynb', 4)
    texts = [o.get('data', {}).get('text/plain', '') for c in page.cells for o in c.get('outputs', [])]
    assert 'reduced, so not comparable' in texts[-1]
    made = json.loads((run/'provenance.json').read_bytes())
    for value in (run.protocol.key, run.protocol.precision, *(made[k] for k in ('package', 'torch', 'device', 'peak_mib'))):
        assert str(value) in texts[-2] # it says by itself where it came from
    assert any('image/png' in o.get('data', {}) or 'image/svg+xml' in o.get('data', {}) for c in page.cells for o in c.get('outputs', []))

@pytest.fixture(scope='module')
def trial(swept, tmp_path_factory):
    "The same run, lived without its notebook; its networks are not kept"
    run, = find_runs(swept[0], 'synthetic')
    return live(run.protocol, Run(tmp_path_factory.mktemp('bare'), run.protocol))

def test_the_notebook_is_the_bare_life(swept, trial):
    "the tables of the notebook are the bytes of `live` without it"
    run, = find_runs(swept[0], 'synthetic')
    bare = trial.run
    for name in bare.tables(): assert (bare.folder/f'{name}.csv').read_bytes() == (run.folder/f'{name}.csv').read_bytes(), name

def test_kept_states_are_the_networks_of_the_run(swept, trial, tmp_path):
    "every stage and average, bit for bit; measured again they give the table; without the wish there are none"
    run, = find_runs(swept[0], 'synthetic')
    states, meta = run.load_states()
    assert meta['networks'] == [list(n) for n in networks(run.protocol)]
    assert states.keys() == trial.points.keys() == {'pretrain', 'swa2', 'swa5', *(f'flr={f!r}' for f in run.protocol.flrs)}
    assert all(torch.equal(states[k], trial.points[k].flat()) for k in states)
    acc = evaluate(trial.networks.at_flat(states['swa5']), trial.sets.x_test, trial.sets.y_test)[1]
    rows = select(run.table('metrics'), stage='average', swa_k=5, metric='test_acc')
    assert rows.value.tolist() == pytest.approx(acc.tolist(), rel=1e-5)
    assert run.state(deep=True).kind == 'done' and trial.run.load_states() is None
    copy = Run.open(shutil.copytree(run.folder, tmp_path/'synthetic'/run.folder.name))
    (copy/'states.safetensors').write_bytes(b'')
    assert 'states.safetensors has 0 bytes' in copy.state().why

def test_protocol_of_is_the_inverse_of_params():
    for p in protocols('synthetic', 'smoke') + protocols('synthetic_utilities', 'smoke'):
        again = protocol_of(p.params())
        assert again == p and isinstance(again, Protocol)
