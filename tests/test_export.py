"""export(notebooks) = modules, byte for byte; clean(notebook) = notebook; and cleaning keeps papermill's `parameters` tag."""
import json, os, re, shutil, subprocess, sys
from importlib.metadata import version
from pathlib import Path
import pytest

def nbdev(command, cwd, *args):
    env = {k:v for k,v in os.environ.items() if k != 'IN_TEST'} # under IN_TEST nbdev-export does nothing
    exe = Path(sys.executable).with_name(command)
    return subprocess.run([exe, *args], cwd=cwd, env=env, capture_output=True, text=True, check=True)

@pytest.fixture
def copy(root, tmp_path):
    "The tree that nbdev sees, in a folder of its own"
    pinned = dict(re.findall(r'^(nbdev|fastcore)==(\S+)', (root/'constraints.txt').read_text(), re.M))
    found = {k: version(k) for k in pinned}
    if found != pinned: pytest.skip(f"the text of modules and notebooks depends on the release: pinned {pinned}, found {found}")
    junk = shutil.ignore_patterns('.*', '__pycache__')
    for d in ('nbs', 'understanding_lrs'): shutil.copytree(root/d, tmp_path/d, ignore=junk)
    shutil.copy(root/'pyproject.toml', tmp_path)
    return tmp_path

def modules(tree): return {str(p.relative_to(tree)): p.read_bytes() for p in (tree/'understanding_lrs').rglob('*.py')}
def notebooks(tree): return {str(p.relative_to(tree)): p.read_bytes() for p in (tree/'nbs').rglob('*.ipynb')}
def differing(a, b): return sorted(k for k in a.keys() | b.keys() if a.get(k) != b.get(k))
def tags(path): return [c['metadata'].get('tags') for c in json.loads(path.read_text())['cells']]

def tagged(path):
    "A notebook as papermill wants it, with a metadata key that cleaning drops"
    cell = dict(cell_type='code', execution_count=3, id='c0ffee00', metadata={'tags': ['parameters'], 'collapsed': True},
                outputs=[], source=['seed: int = 0'])
    path.write_text(json.dumps(dict(cells=[cell], metadata={}, nbformat=4, nbformat_minor=5)))
    return path

def test_modules_are_the_export(copy):
    before = modules(copy)
    nbdev('nbdev-export', copy)
    changed = differing(before, modules(copy))
    assert not changed, "run nbdev-export and commit the modules"

def test_a_change_by_hand_is_seen(copy):
    seeds = copy/'understanding_lrs'/'core'/'seeds.py'
    seeds.write_text(seeds.read_text() + '\nextra = 1\n')
    before = modules(copy)
    nbdev('nbdev-export', copy)
    assert 'understanding_lrs/core/seeds.py' in differing(before, modules(copy))

def test_export_leaves_the_settings_alone(copy):
    before = (copy/'pyproject.toml').stat().st_mtime_ns
    nbdev('nbdev-export', copy)
    assert (copy/'pyproject.toml').stat().st_mtime_ns == before

def test_notebooks_are_clean(copy):
    before = notebooks(copy)
    nbdev('nbdev-clean', copy)
    changed = differing(before, notebooks(copy))
    assert not changed, "run nbdev-clean and commit the notebooks"

def test_cleaning_keeps_the_parameters(copy):
    had = {p: tags(p) for p in (copy/'nbs').rglob('*.ipynb')} | {tagged(copy/'nbs'/'z.ipynb'): [['parameters']]}
    nbdev('nbdev-clean', copy)
    assert {p: tags(p) for p in had} == had
    assert 'collapsed' not in (copy/'nbs'/'z.ipynb').read_text() # it did clean

def test_without_the_setting_they_are_lost(copy):
    toml, path = copy/'pyproject.toml', tagged(copy/'nbs'/'z.ipynb')
    toml.write_text(toml.read_text().replace('allowed_cell_metadata_keys = ["tags"]', ''))
    nbdev('nbdev-clean', copy, '--fname', str(path))
    assert tags(path) == [None]

def sources(path): return [''.join(c['source']) for c in json.loads(path.read_text())['cells'] if c['cell_type'] == 'code']

def test_no_notebook_exports_by_itself(root):
    "Run All reads a page; the modules are written by `nbdev-export` alone"
    pages = list((root/'nbs').rglob('*.ipynb'))
    assert pages and not [p.name for p in pages if any(re.search(r'nbdev[_-](export|prepare)', s) for s in sources(p))]

def test_run_all_in_a_copied_folder_changes_no_module(root, tmp_path):
    import papermill
    page = shutil.copy(root/'nbs/core/00_seeds.ipynb', tmp_path)
    before = {p: p.stat().st_mtime_ns for p in (root/'understanding_lrs').rglob('*.py')}
    papermill.execute_notebook(page, str(tmp_path/'out.ipynb'), cwd=tmp_path, progress_bar=False, kernel_name='python3')
    assert {p: p.stat().st_mtime_ns for p in (root/'understanding_lrs').rglob('*.py')} == before
