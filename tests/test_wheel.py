"""The source distribution is the whole project, and the wheel works where there is no checkout: verbs in an empty folder."""
import os, re, shutil, subprocess, sys, tarfile, zipfile
from pathlib import Path
import pytest
import understanding_lrs

pytest.importorskip('setuptools', minversion='77') # what pyproject.toml builds with
JUNK = shutil.ignore_patterns('.venv', '.git', '__pycache__', '*.egg-info', 'build', 'dist', 'runs', '_site', 'node_modules', 'made')

def built(folder, what, out):
    "The path of what the build backend makes of a folder"
    code = f"import sys; from setuptools.build_meta import build_{what} as b; print(b(sys.argv[1]))"
    run = subprocess.run([sys.executable, '-c', code, out], cwd=folder, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr[-3000:]
    return Path(out)/run.stdout.splitlines()[-1]

def files_of(folder): return {str(f.relative_to(folder)) for f in folder.rglob('*') if f.is_file()}

def of_git(root):
    "Names of the files that git tracks or would; `None` where it does not answer"
    words = 'git', '-c', f'safe.directory={root}', 'ls-files', '-z', '--cached', '--others', '--exclude-standard'
    try: listed = subprocess.run(words, cwd=root, capture_output=True, text=True)
    except OSError: return None
    names = {n for n in listed.stdout.split('\0') if n and (root/n).is_file()}
    return names if not listed.returncode and 'pyproject.toml' in names else None

@pytest.fixture(scope='module')
def tree(root, tmp_path_factory):
    "A copy of the project without what is made in it"
    copy, names = tmp_path_factory.mktemp('tree')/'project', of_git(root)
    if names is None: return shutil.copytree(root, copy, ignore=JUNK)
    for name in names:
        (copy/name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(root/name, copy/name)
    return copy

@pytest.fixture(scope='module')
def unpacked(tree, tmp_path_factory):
    "What a source distribution holds"
    out = tmp_path_factory.mktemp('sdist')
    with tarfile.open(built(tree, 'sdist', out)) as tar: tar.extractall(out, filter='data')
    return next(f for f in out.iterdir() if f.is_dir())

@pytest.fixture(scope='module')
def site(unpacked, tmp_path_factory):
    "The wheel of the source distribution, as it is installed"
    out, site = tmp_path_factory.mktemp('wheel'), tmp_path_factory.mktemp('site')
    with zipfile.ZipFile(built(unpacked, 'wheel', out)) as wheel: wheel.extractall(site)
    return site

@pytest.fixture
def ulrs(site, tmp_path):
    "A verb of the installed package, in an empty folder"
    code = f"import sys, understanding_lrs as u; assert u.__file__.startswith({str(site)!r}), u.__file__\n"
    code += "from understanding_lrs.app.cli import main; sys.exit(main(sys.argv[1:]))"
    def call(words):
        env = os.environ | dict(PYTHONPATH=str(site), COLUMNS='200')
        run = subprocess.run([sys.executable, '-c', code, *words.split()], cwd=tmp_path, env=env, capture_output=True, text=True)
        return run.returncode, run.stdout, run.stderr
    return call

def test_the_source_distribution_is_complete(root, unpacked):
    names, there = of_git(root), files_of(unpacked)
    made = {'PKG-INFO', 'setup.cfg'} | {n for n in there if '.egg-info/' in n}
    for name in ('nbs/index.ipynb', 'tools/readme.py', 'tests/conftest.py', 'figures/data/synthetic/wide/tables.json',
                 'docs/conf.py', 'play/build.py', 'lab/queue.csv', 'setup.py', 'MANIFEST.in', '.ci/run'): assert name in there, name
    if names is None: pytest.skip('git does not answer')
    assert not sorted(names - there), "MANIFEST.in leaves these out"
    assert not sorted(there - made - names), "these are not tracked"

def test_the_wheel_carries_notebooks_and_tables(root, site):
    "Byte for byte, and nothing of tests or tools"
    shipped = site/'understanding_lrs/shipped'
    for folder in ('nbs/experiments', 'figures/data'):
        names = {n for n in files_of(root/folder) if '/.' not in f'/{n}'}
        assert files_of(shipped/folder) == names
        assert all((shipped/folder/n).read_bytes() == (root/folder/n).read_bytes() for n in names)
    assert {f.name for f in site.iterdir() if '.dist-info' not in f.name} == {'understanding_lrs'}
    modules = {n for n in files_of(root/'understanding_lrs') if not n.endswith('.pyc')}
    assert modules <= files_of(site/'understanding_lrs')

def described(tree, monkeypatch, out, source):
    "What a package index shows of the project"
    monkeypatch.setenv('SOURCE_URL', source)
    code = "import sys; from setuptools.build_meta import prepare_metadata_for_build_wheel as b; print(b(sys.argv[1]))"
    run = subprocess.run([sys.executable, '-c', code, out], cwd=tree, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr[-3000:]
    return (out/run.stdout.splitlines()[-1]/'METADATA').read_text()

def test_a_release_has_links_that_work_on_a_package_index(root, tree, monkeypatch, tmp_path):
    "README's links are relative; with the address of the repository they lead to the tag of the version"
    text = described(tree, monkeypatch, tmp_path, 'https://host.example/owner/name')
    links = re.findall(r'\]\(([^)]+)\)', text)
    assert len(links) > 20 and all(link.startswith('https://') for link in links)
    ours = [link for link in links if link.startswith('https://host.example/owner/name/')]
    for link in ours:
        kind, tag, path = link.removeprefix('https://host.example/owner/name/').split('/', 2)
        assert (root/path).exists() and kind == ('raw' if path.endswith('.svg') else 'blob')
        assert tag == f'v{understanding_lrs.__version__}'
    assert 'Project-URL: Source, https://host.example/owner/name\n' in text
    assert 'Description-Content-Type: text/markdown' in text

def test_links_stay_relative_where_no_address_is_known(root, tree, monkeypatch, tmp_path):
    text = described(tree, monkeypatch, tmp_path, '')
    assert (root/'README.md').read_text().strip() in text and 'Project-URL' not in text

def test_claims_are_judged_without_a_checkout(ulrs):
    code, out, err = ulrs('claims')
    assert code == 0, err
    assert {'C1', 'C25'} <= {line.split(' ')[0] for line in out.splitlines()} and 'reproduced' in out

def test_a_sweep_is_planned_and_refused_without_a_checkout(ulrs, tmp_path):
    code, out, err = ulrs('sweep synthetic --preset smoke --dry-run --skip-published')
    assert code == 0 and '3 to do' in out, err
    code, out, err = ulrs('sweep synthetic --preset smoke --workers 0')
    assert code == 2 and err.count('\n') == 1 and 'workers' in err
    assert not list(tmp_path.iterdir()) # no empty folder either

def test_a_sweep_runs_without_a_checkout(ulrs, tmp_path):
    code, out, err = ulrs('sweep synthetic --preset smoke --plr 1e-2 --inline')
    assert code == 0 and '1 ran' in out, err
    assert '1 done' in ulrs('status')[1]

def test_published_figures_are_drawn_without_a_checkout(ulrs, site, tmp_path):
    before = files_of(site)
    code, out, err = ulrs('figures synthetic_utilities --preset wide --published')
    assert code == 0, err
    assert out.split() and all((tmp_path/line).is_file() and line.startswith('figures/') for line in out.split())
    assert not {n for n in files_of(site) - before if not n.endswith('.pyc')} # nothing is written into the package

def test_the_page_of_runs_opens_without_a_checkout(site, tmp_path):
    code = "from understanding_lrs.app.run_pages import RunExplorer as R; x = R(); print(len(x.source.options), bool(x.image.value))"
    run = subprocess.run([sys.executable, '-c', code], cwd=tmp_path, env=os.environ | dict(PYTHONPATH=str(site)), capture_output=True, text=True)
    many, drawn = run.stdout.split()
    assert int(many) > 10 and drawn == 'True', run.stderr
