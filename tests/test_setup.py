"""Set-up refuses in one line, with exit code 2 and before any work; and the kernel `python3` is the environment's own."""
import ast, importlib.util, os, shutil, subprocess, sys
from collections import namedtuple
from pathlib import Path
import pytest
from conftest import patience

Usage = namedtuple('Usage', 'total used free')

@pytest.fixture(scope='module')
def setup(root):
    spec = importlib.util.spec_from_file_location('setup_env', root/'tools'/'setup_env.py')
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module

@pytest.fixture
def clone(root, tmp_path):
    "As much of a fresh clone as set-up looks at before it works"
    (tmp_path/'tools').mkdir()
    for f in ('Makefile', 'pyproject.toml', 'constraints.txt', 'tools/setup_env.py'): shutil.copy(root/f, tmp_path/f)
    return tmp_path

def run(clone, before='', **env):
    "Run set-up in `clone` by a Python that first runs `before`; it must not get as far as installing"
    code = f"import runpy, sys, shutil, importlib.util as u\n{before}\nsys.argv = ['x']\n"
    code += "runpy.run_path('tools/setup_env.py', run_name='__main__')"
    return subprocess.run([sys.executable, '-c', code], cwd=clone, env={**os.environ, **env}, capture_output=True, text=True)

def one_line(r, *words):
    assert r.returncode == 2 and r.stdout == '' and len(r.stderr.splitlines()) == 1 and r.stderr.startswith('setup: '), r
    assert all(w in r.stderr for w in words), r.stderr

NO_DISK = "import collections; shutil.disk_usage = lambda p: collections.namedtuple('U', 'free')(2.5e9)"
@pytest.mark.parametrize('before,env,words', [
    ("sys.version_info = (3, 8, 18, 'final', 0)", {}, ['3.8.18', 'too old', '3.11', 'PYTHON=']),
    ("real = u.find_spec; u.find_spec = lambda m, *a: None if m == 'ensurepip' else real(m, *a)", {}, ['ensurepip', 'python3-venv']),
    (NO_DISK, {}, ['2.5 GB free', '8 GB', 'TORCH=cpu']),
    (NO_DISK, {'TORCH': 'cpu'}, ['2.5 GB free', '3 GB']),
    ("", {'TORCH': 'gpu'}, ['TORCH=gpu', 'cpu']),
], ids=['old', 'no-venv', 'no-disk', 'no-disk-cpu', 'torch'])
def test_one_line_and_exit_code_2(clone, before, env, words):
    one_line(run(clone, before, **{'TORCH': '', **env}), *words)
    assert not (clone/'.venv').exists()

def test_a_broken_environment_is_named(clone):
    (clone/'.venv/bin').mkdir(parents=True)
    (clone/'.venv/bin/python').symlink_to(clone/'gone')
    one_line(run(clone, TORCH=''), str(clone/'.venv'), 'make clean')

def test_good_values_pass(setup, tmp_path):
    setup.check_python((3, 11, 0)); setup.check_python((4, 0, 0))
    setup.check_venv(lambda m: object())
    setup.check_disk('', tmp_path, lambda p: Usage(0, 0, 8e9))
    setup.check_old_venv(tmp_path)

def test_temporary_folder_counts(setup, tmp_path):
    small = lambda p: Usage(0, 0, 100e9 if Path(p) == tmp_path else 1e9)
    with pytest.raises(setup.Refused, match='TMPDIR'): setup.check_disk('', tmp_path, small)

def test_an_installed_torch_needs_no_room(setup, tmp_path):
    torch = tmp_path/'.venv/lib/python3.11/site-packages/torch'
    torch.mkdir(parents=True)
    (torch/'version.py').touch()
    setup.check_disk('', tmp_path, lambda p: Usage(0, 0, 0))

def test_an_old_python_can_read_it(root):
    ast.parse((root/'tools'/'setup_env.py').read_text(), feature_version=(3, 8))

@pytest.mark.skipif(not shutil.which('make'), reason="make is not installed")
def test_make_names_a_missing_python(clone):
    r = subprocess.run(['make', 'setup', 'PYTHON=no-such-python'], cwd=clone, capture_output=True, text=True)
    assert r.returncode == 2 and r.stderr.startswith('setup: no-such-python not found') and not (clone/'.venv').exists()

@pytest.mark.parametrize('torch, uv, words', [
    ('', None, 'PY -m pip --disable-pip-version-check install -c constraints.txt -e .[all,test]'),
    ('cpu', None, 'PY -m pip --disable-pip-version-check install -c constraints.txt -e .[all,test] '
                  '--extra-index-url https://download.pytorch.org/whl/cpu'),
    ('', 'uv', 'uv pip install --python PY -c constraints.txt -e .[all,test]'),
    ('cpu', 'uv', 'uv pip install --python PY --torch-backend cpu -c constraints.txt -e .[all,test]'),
], ids=['pip', 'pip-cpu', 'uv', 'uv-cpu'])
def test_what_installs(setup, torch, uv, words): assert ' '.join(setup.installer('PY', torch, uv)) == words

def test_uv_is_used_where_it_is_installed(setup, tmp_path, monkeypatch):
    monkeypatch.setenv('PATH', str(tmp_path))
    assert setup.find_uv('') is None and setup.find_uv('uv') is None
    (tmp_path/'uv').write_text('#!/bin/sh\n')
    (tmp_path/'uv').chmod(0o755)
    assert setup.find_uv('') == setup.find_uv('uv') == str(tmp_path/'uv') and setup.find_uv('no') is None

def test_the_kernel_is_our_python(setup):
    assert setup.kernel_prefix(sys.executable) == Path(sys.prefix).resolve()

def test_a_started_kernel_is_our_python():
    import nbclient, nbformat
    nb = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell('import sys; sys.prefix')])
    nbclient.NotebookClient(nb, kernel_name='python3', timeout=int(patience(60))).execute()
    assert Path(ast.literal_eval(nb.cells[0].outputs[0].data['text/plain'])).resolve() == Path(sys.prefix).resolve()

def test_the_kernel_of_the_environment(setup, root):
    python = root/'.venv'/'bin'/'python'
    if not python.exists(): pytest.skip("no .venv here: these tests run in another environment")
    assert setup.kernel_prefix(python) == (root/'.venv').resolve()

def test_a_foreign_kernel_is_seen(setup, tmp_path, monkeypatch):
    spec, fake = tmp_path/'kernels'/'python3', tmp_path/'python'
    spec.mkdir(parents=True)
    fake.write_text('#!/bin/sh\necho /elsewhere\n')
    fake.chmod(0o755)
    (spec/'kernel.json').write_text('{"argv": ["%s"], "display_name": "x", "language": "python"}' % fake)
    monkeypatch.setenv('JUPYTER_PATH', str(tmp_path))
    assert setup.kernel_prefix(sys.executable) == Path('/elsewhere')
