"""One fact, one value: pyproject.toml, settings.ini, constraints.txt, environment.yml and CITATION.cff say the same."""
import ast, configparser, re, sys, tomllib
import pytest, yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from nbdev.config import get_config, read_version

@pytest.fixture(scope='module')
def toml(root): return tomllib.loads((root/'pyproject.toml').read_text())

@pytest.fixture(scope='module')
def ini(root):
    cfg = configparser.ConfigParser(interpolation=None)
    cfg.read(root/'settings.ini')
    return dict(cfg['DEFAULT'])

@pytest.fixture(scope='module')
def pins(root):
    lines = [o.split('#')[0].strip() for o in (root/'constraints.txt').read_text().splitlines()]
    return {canonicalize_name(r.name): r for r in map(Requirement, filter(None, lines))}

def wanted(toml):
    "All direct dependencies; an extra that only joins others is left out"
    project = toml['project']
    extras = [r for many in project['optional-dependencies'].values() for r in many]
    return [r for r in [*project['dependencies'], *extras] if Requirement(r).name != project['name']]

def as_ini(v):
    "A TOML value as settings.ini writes it"
    return ' '.join(map(as_ini, v)) if isinstance(v, list) else str(v)

def differing(table, ini): return {k:(v, ini[k]) for k,v in table.items() if k in ini and as_ini(v) != ini[k]}

def test_nbdev_keys(toml, ini):
    table = toml['tool']['nbdev']
    assert set(table) <= set(ini) and not differing(table, ini)

def test_the_comparison_can_fail(toml, ini):
    assert differing({**toml['tool']['nbdev'], 'allowed_cell_metadata_keys': []}, ini) == {'allowed_cell_metadata_keys': ([], 'tags')}

def test_project_keys(root, toml, ini):
    p = toml['project']
    assert ini['lib_name'] == ini['repo'] == p['name']
    assert ini['description'] == p['description']
    assert ini['keywords'].split(', ') == p['keywords']
    assert ini['author'] == p['authors'][0]['name']
    assert '>=' + ini['min_python'] == p['requires-python']
    assert (ini['license'], p['license']) == ('apache2', 'Apache-2.0')
    assert ini['requirements'].split() == p['dependencies']
    assert ini['dev_requirements'].split() == p['optional-dependencies']['test']
    assert ini['console_scripts'].split() == [f'{k}={v}' for k,v in p['scripts'].items()]

def test_version(root, ini):
    cite = yaml.safe_load((root/'CITATION.cff').read_text())
    assert read_version(root/'understanding_lrs') == ini['version'] == cite['version']

def test_nbdev_reads_it(root, toml):
    cfg = get_config(root)
    assert cfg.config_file == root/'pyproject.toml' and cfg.nbs_path == root/'nbs' and cfg.lib_path == root/'understanding_lrs'
    assert cfg.allowed_cell_metadata_keys == ['tags'] # a list: nbdev would read the string as four keys

def test_every_dependency_is_pinned_within_its_range(toml, pins):
    for r in map(Requirement, wanted(toml)):
        pin = pins.get(canonicalize_name(r.name))
        assert pin is not None, f"constraints.txt has no {r.name}"
        (spec,) = pin.specifier
        assert spec.operator == '==' and r.specifier.contains(spec.version), f"{pin} is outside {r}"

def test_pins_are_exact_and_portable(root, pins):
    assert all(len(r.specifier) == 1 and next(iter(r.specifier)).operator == '==' and not r.url for r in pins.values())
    assert not re.search(r'://|^-|@', (root/'constraints.txt').read_text(), re.M)
    assert (str(pins['torch']), str(pins['torchvision'])) == ('torch==2.11.0', 'torchvision==0.26.0') # a matching pair

def test_all_is_all_but_what_has_a_command_of_its_own(toml):
    extras = toml['project']['optional-dependencies']
    (all_of,) = map(Requirement, extras['all'])
    assert all_of.name == toml['project']['name'] and all_of.extras == {*extras} - {'all', 'test', 'bench', 'app', 'docs'}

def test_conda_gets_the_same(root, toml):
    env = yaml.safe_load((root/'environment.yml').read_text())
    plain = [o for o in env['dependencies'] if isinstance(o, str)]
    (pip,) = [o['pip'] for o in env['dependencies'] if isinstance(o, dict)]
    assert env['name'] == toml['project']['name']
    assert Requirement(plain[0]).specifier == SpecifierSet(toml['project']['requires-python']) and plain[1:] == ['pip']
    assert pip == ['-c constraints.txt', '-e .[all,test]']

def third_party(path):
    "Top-level names that a Python file imports, the standard library's and our own left out"
    nodes = list(ast.walk(ast.parse(path.read_text())))
    names = [a.name for n in nodes if isinstance(n, ast.Import) for a in n.names]
    names += [n.module for n in nodes if isinstance(n, ast.ImportFrom) and not n.level]
    return {o.split('.')[0] for o in names} - set(sys.stdlib_module_names) - {'understanding_lrs'}

PACKAGE = {'PIL': 'pillow', 'sklearn': 'scikit-learn', 'traitlets': 'ipywidgets'} # where the module has another name

def test_what_is_imported_is_declared(root, toml):
    declared = {canonicalize_name(Requirement(r).name) for r in wanted(toml)}
    used = {m: f.name for f in (root/'understanding_lrs').rglob('*.py') for m in third_party(f)}
    missing = {m: f for m,f in used.items() if canonicalize_name(PACKAGE.get(m, m)) not in declared}
    assert not missing, f"imported but not in pyproject.toml: {missing}"

def test_an_error_names_the_extra_that_has_a_module(root, toml):
    "Every module that the package imports and the base installation lacks is known to `EXTRAS`, under the right extra"
    from understanding_lrs.app.terminal import EXTRAS
    base = {canonicalize_name(Requirement(r).name) for r in toml['project']['dependencies']}
    used = {m for f in (root/'understanding_lrs').rglob('*.py') for m in third_party(f)}
    extras = toml['project']['optional-dependencies']
    for module in used:
        name = canonicalize_name(PACKAGE.get(module, module))
        if name in base: continue
        assert name in {canonicalize_name(Requirement(r).name) for r in extras[EXTRAS[module]]}, module
    assert set(EXTRAS) <= used

def test_oldest_python_agrees(root, toml):
    oldest = re.search(r'^OLDEST = \((\d+), (\d+)\)', (root/'tools'/'setup_env.py').read_text(), re.M)
    assert '>=' + '.'.join(oldest.groups()) == toml['project']['requires-python']
