"""Verbs that train nothing start without torch, which costs seconds and half a gigabyte."""
import os, subprocess, sys
import pytest

CODE = """
import sys
from understanding_lrs.app.cli import main
code = main(sys.argv[1:])
heavy = sorted({'torch', 'torchvision', 'distributed', 'nbdev', 'matplotlib'} & sys.modules.keys())
print('heavy:', *heavy, file=sys.stderr)
sys.exit(code)
"""

def heavy(words, folder):
    "Exit code, output, and which heavy libraries a verb imported"
    run = subprocess.run([sys.executable, '-c', CODE, *words.split()], cwd=folder, env=os.environ | dict(COLUMNS='200'), capture_output=True, text=True)
    last = run.stderr.splitlines()[-1]
    assert last.startswith('heavy:'), run.stderr
    return run.returncode, run.stdout, set(last.split()[1:])

DRY = '{} --preset smoke --dry-run'

@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    "Holds one run that was begun"
    from understanding_lrs.runs.store import Run
    from understanding_lrs.studies.registry import protocols
    root = tmp_path_factory.mktemp('start')
    Run(root/'runs', protocols('synthetic', 'smoke')[0]).start()
    return root

@pytest.mark.parametrize('words, part', [
    ('--help', 'Commands'),
    ('studies', 'synthetic_removed'),
    ('status', '1 partial'),
    ('show plr=1.000e-03', 'partial'),
    ('sweep ' + DRY.format('synthetic'), '3 to do'),
    ('sweep synthetic --preset smoke --seeds 5..6 --plr 1e-2 --dry-run --skip-published', '1 to do'),
    ('sweep ' + DRY.format('synthetic_implanted'), 'to do'),
    ('claims C25', 'C25'),
    ('sweep ' + DRY.format('convnetsi32_cifar10'), '2 to do'),
    ('sweep vit_cifar10 --preset laptop --dry-run', '10 to do'),
])
def test_no_torch(words, part, folder):
    code, out, found = heavy(words, folder)
    assert code == 0 and part in out and not found

def test_it_would_be_seen(folder):
    "A setting that the user changed is asked of torch, and so is what runs"
    code, out, found = heavy('sweep ' + DRY.format('synthetic') + ' --set width=8', folder)
    assert code == 0 and 'torch' in found
    assert heavy('sweep ' + DRY.format('synthetic') + ' --set width=1', folder)[0] == 2

def test_impossible_networks_of_a_preset_are_refused_before_they_run():
    from dataclasses import replace
    from understanding_lrs.core.errors import InputError
    from understanding_lrs.studies.registry import STUDIES, protocols, resolved
    study = STUDIES['synthetic']
    smoke = study.presets['smoke']
    wrong = replace(study, presets=dict(smoke=replace(smoke, settings=smoke.settings | dict(width=1))))
    STUDIES['synthetic'] = wrong
    try:
        planned = protocols('synthetic', 'smoke')
        with pytest.raises(InputError, match='width must be an integer >= 2'): resolved(planned)
    finally: STUDIES['synthetic'] = study

def test_networks_of_all_presets_are_possible():
    from understanding_lrs.studies.registry import STUDIES, protocols
    for study in STUDIES.values():
        for name in study.presets:
            for p in protocols(study.id, name): study.check(p)

BLOCK = """
import sys
class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.split('.')[0] in blocked: raise ModuleNotFoundError(f'No module named {name!r}', name=name)
blocked = sys.argv.pop(1).split(',')
sys.meta_path.insert(0, Blocked())
from understanding_lrs.app.cli import main
sys.exit(main(sys.argv[1:]))
"""
EXTRA = 'papermill,distributed,jupyter_client,ipykernel,linearmodels,torchvision,PIL,sklearn,ipywidgets,traitlets,anywidget,jupyterlab,nbdev,fastcore'

@pytest.mark.parametrize('words, extra', [
    ('sweep synthetic --preset smoke', 'sweep'), ('figures convnetsi32_cifar10 --preset smoke --set data=digits --set n_train=1297', 'images')])
def test_what_is_missing_is_one_line_that_names_the_extra(words, extra, tmp_path):
    env = os.environ | dict(ULRS_CACHE=str(tmp_path/'cache')) # decoded images of earlier runs need no reader
    run = subprocess.run([sys.executable, '-c', BLOCK, EXTRA, *words.split()], cwd=tmp_path, env=env, capture_output=True, text=True)
    assert run.returncode == 2 and run.stdout == '' and run.stderr.count('\n') == 1, run.stderr
    assert run.stderr.rstrip().endswith(f"pip install 'understanding-lrs[{extra}]'") and not (tmp_path/'runs').exists()

@pytest.mark.parametrize('words', ['studies', 'status', 'sweep synthetic --preset smoke --dry-run', 'tables --help', 'claims'])
def test_the_base_installation_is_enough(words, folder):
    run = subprocess.run([sys.executable, '-c', BLOCK, EXTRA, *words.split()], cwd=folder, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
