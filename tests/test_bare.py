"""The training path needs torch, numpy and the table library only: it imports with everything above them blocked."""
import json, os, subprocess, sys
from pathlib import Path
import pytest

PACKAGE = Path(__file__).resolve().parent.parent/'understanding_lrs'
ROOMS = 'core', 'data', 'networks', 'training', 'probes', 'runs', 'studies' # what trains one run; above it are sweeps and faces
BARE = [f'{room}.{f.stem}' for room in ROOMS for f in sorted((PACKAGE/room).glob('[a-z]*.py'))]
BLOCKED = ['papermill', 'pydantic', 'fastcore', 'dask', 'distributed', 'nbdev', 'typer', 'rich', 'matplotlib', 'IPython',
           'torchvision', 'PIL', 'sklearn']

CODE = """
import importlib, json, sys, traceback
class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.split('.')[0] in blocked: raise ModuleNotFoundError(f'{name} is blocked', name=name)
blocked, names = map(json.loads, sys.argv[1:])
sys.meta_path.insert(0, Blocked())
found = {}
for name in names:
    try: found[name] = importlib.import_module(name) and None
    except BaseException: found[name] = traceback.format_exc(limit=-4)
print(json.dumps(found))
"""

def errors_of(names, path=''):
    "What each module says when it is imported with `BLOCKED` out of reach; None where it is content"
    env = {**os.environ, 'PYTHONPATH': str(path)}
    run = subprocess.run([sys.executable, '-c', CODE, json.dumps(BLOCKED), json.dumps(names)], env=env, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    return json.loads(run.stdout.splitlines()[-1])

@pytest.fixture(scope='module')
def errors(root): return errors_of([f'understanding_lrs.{n}' for n in BARE], root)

@pytest.mark.parametrize('name', BARE)
def test_imports_bare(errors, name):
    assert errors[f'understanding_lrs.{name}'] is None, errors[f'understanding_lrs.{name}']

def test_all_of_them_are_meant(): assert {'core.seeds', 'runs.store', 'training.stacked', 'studies.registry'} <= set(BARE)

def test_the_block_holds(tmp_path):
    (tmp_path/'laden.py').write_text('import json\nfrom fastcore.basics import first\n')
    (tmp_path/'light.py').write_text('import json\n')
    errors = errors_of(['laden', 'light', *BLOCKED], tmp_path)
    assert errors.pop('light') is None and all('is blocked' in e for e in errors.values())
