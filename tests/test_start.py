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
    ('claims', 'C25'),
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
