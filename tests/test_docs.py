"""Every notebook has its place on the site, and every public function stands in the reference with its parameters; nothing is imported for that."""
import ast, importlib.util, re, subprocess, sys
import pytest
from test_browser import browser, serious # noqa: F401

@pytest.fixture(scope='module')
def pages(root):
    spec = importlib.util.spec_from_file_location('pages', root/'docs/pages.py')
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module

@pytest.fixture(scope='module')
def made(pages, tmp_path_factory):
    folder = tmp_path_factory.mktemp('made')
    pages.write(folder)
    return {f.name: f.read_text() for f in folder.glob('*.md')}

def test_every_notebook_of_a_room_is_in_its_contents(root, pages, made):
    for room in pages.rooms():
        for page in (root/'nbs'/room).glob('[0-9]*.ipynb'): assert f'/nbs/{room}/{page.stem}\n' in made[f'room_{room}.md']

def test_the_rooms_are_those_of_the_package(root, pages):
    assert {*pages.rooms()} == {f.parent.name for f in (root/'understanding_lrs').glob('*/__init__.py')}

def test_every_public_function_is_in_the_reference_with_its_parameters(root, pages, made):
    lacking = []
    for room in pages.rooms():
        for module in (root/'understanding_lrs'/room).glob('[a-z]*.py'):
            tree = ast.parse(module.read_text())
            for node in tree.body:
                if not isinstance(node, ast.FunctionDef) or node.name not in pages.exported(tree): continue
                names = [a.arg for a in (*node.args.args, *node.args.kwonlyargs)]
                shown = re.findall(rf'### `{node.name}`\n(.*?)(?=\n###? |\Z)', made[f'api_{room}.md'], re.S) # rooms may share a name
                whole = any(all(re.search(rf'\b{n}\b', text) for n in names) for text in shown)
                if not whole: lacking.append(f'{room}.{module.stem}.{node.name}')
    assert lacking == []

def test_every_figure_is_in_the_gallery_with_its_words_and_tables(root, made):
    cards = made['gallery.md'].split(':::{grid-item-card}')[1:]
    for picture in (root/'figures').glob('*.svg'):
        card, = (c for c in cards if f'(/figures/{picture.name})' in c)
        alt, page = re.search(r'\[!\[(.+)\]\(/figures/.*\)\]\(/(.+)\)', card).groups()
        assert alt != picture.stem and (root/page).is_file(), picture.name
        if picture.stem not in ('explorer', 'digits_bands'): assert '{download}' in card, picture.name

def test_every_tutorial_opens_in_binder_and_colab(root, pages, made):
    "Statically: one row per tutorial with the addresses that the services document; nothing is promised without a repository"
    text = pages.elsewhere('https://github.com/someone/understanding-lrs')
    for page in (root/'nbs/tutorials').glob('*.ipynb'):
        at = f'someone/understanding-lrs/blob/main/nbs/tutorials/{page.name})'
        assert f'(https://colab.research.google.com/github/{at}' in text
        assert f'(https://mybinder.org/v2/gh/someone/understanding-lrs/main?urlpath=lab/tree/nbs/tutorials/{page.name})' in text
    assert "%pip install -q 'understanding-lrs[all] @ git+https://github.com/someone/understanding-lrs'" in text
    assert 'SOURCE_URL' in made['elsewhere.md'] and 'http' not in made['elsewhere.md'].replace('https://github.com/OWNER/NAME', '')

def test_the_page_of_citing_has_the_whole_file(root, made):
    assert (root/'CITATION.cff').read_text() in made['cite.md'] and '2410.22113' in made['cite.md']

def test_a_signature_keeps_its_comments(pages):
    source = 'def f(\n    a:int, # a number, >= 1\n) -> str: # a word\n    "What it does"\n    return str(a)\n'
    text = pages.entry(ast.parse(source).body[0], source.splitlines())
    assert '# a number, >= 1' in text and '# a word' in text and 'What it does' in text and 'return' not in text

def test_a_class_shows_its_fields_and_methods(pages):
    source = 'class A:\n    "One thing"\n    size:int # units\n\n    def grow(self, by:int): # units\n        "Make it larger"\n        self.size += by\n    def _hidden(self): pass\n'
    text = pages.entry(ast.parse(source).body[0], source.splitlines())
    assert 'size:int # units' in text and 'grow(self, by:int)' in text and 'Make it larger' in text and '_hidden' not in text and '+=' not in text

def test_the_site_reads_code_and_runs_none(root):
    "Torch is not imported by what makes the pages"
    code = "import sys; sys.path.insert(0, 'docs'); import pages, pathlib, tempfile; pages.write(pathlib.Path(tempfile.mkdtemp())); assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, '-c', code], cwd=root, check=True)

PAGES = 'docs/index', 'nbs/pages/00_claims', 'nbs/tutorials/schedules', 'docs/made/gallery', 'docs/made/api_core'

@pytest.mark.parametrize('scheme, width', [('light', 1280), ('dark', 390)])
def test_axe_finds_nothing_serious_on_the_site(root, browser, scheme, width):
    if not (root/'_site/html/docs/index.html').exists(): pytest.skip('the site is not built: make docs')
    for name in PAGES:
        page = browser.new_page(viewport=dict(width=width, height=900), color_scheme=scheme)
        page.goto((root/f'_site/html/{name}.html').as_uri())
        assert serious(page) == [], name
        page.close()
