"""Pages of the site that are read from sources: a page per room with its notebooks, its public names with their parameters, and the gallery.

Nothing is imported: signatures are shown as they are written, with the comments that give shapes, units and ranges.
"""
import ast, html, json, os, re
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT/'understanding_lrs'

def rooms() -> dict: # name -> what it holds, as the architecture page says
    "The rooms, in the order in which they may import each other"
    cells = json.loads((ROOT/'nbs/architecture.ipynb').read_text())['cells']
    source = next(s for c in cells if 'rooms = {' in (s := ''.join(c['source'])))
    return ast.literal_eval(re.search(r'rooms = (\{.*?\n\})', source, re.S)[1])

def notebooks(room:str) -> list[Path]: return sorted((ROOT/'nbs'/room).glob('[0-9]*.ipynb'))

def module_of(notebook:Path) -> Path:
    "The module that a notebook exports; its name has no number"
    return PACKAGE/notebook.parent.name/f"{re.sub(r'^[0-9]+_', '', notebook.stem)}.py"

def exported(tree:ast.Module) -> set[str]: # names in `__all__`
    for node in tree.body:
        if isinstance(node, ast.Assign) and getattr(node.targets[0], 'id', '') == '__all__': return {*ast.literal_eval(node.value)}
    return set()

def has_docstring(node) -> bool: return ast.get_docstring(node) is not None

def signature(node, lines:list[str]) -> str: # of a function: from its decorators to the colon, as it is written
    first = min([node.lineno, *(d.lineno for d in node.decorator_list)])
    last = node.body[0].lineno - 1
    text = '\n'.join(lines[first - 1:max(last, node.lineno)])
    return text if last >= node.lineno else text.split(': ')[0]

def fields(node, lines:list[str]) -> str: # of a class: its head and what stands before its first method
    methods = [n for n in node.body if isinstance(n, ast.FunctionDef)]
    end = min([m.lineno - 1 - len(m.decorator_list) for m in methods], default=node.end_lineno)
    text = [*lines[node.lineno - 1:node.lineno], *lines[node.body[0].end_lineno if has_docstring(node) else node.lineno:end]]
    return '\n'.join(text).rstrip()

def entry(node, lines:list[str], level:int=3) -> str: # Markdown
    "A public function or class: name, docstring, signature, and of a class its public methods"
    is_class = isinstance(node, ast.ClassDef)
    code = fields(node, lines) if is_class else signature(node, lines)
    text = f"{'#'*level} `{node.name}`\n\n{ast.get_docstring(node) or ''}\n\n```python\n{code}\n```\n"
    if not is_class: return text
    methods = [n for n in node.body if isinstance(n, ast.FunctionDef) and not n.name.startswith('_') and has_docstring(n)]
    return '\n'.join([text, *(entry(m, lines, level + 1) for m in methods)])

def api(module:Path) -> str: # Markdown
    "The public names of a module, in the order in which they are defined"
    source = module.read_text()
    tree, lines = ast.parse(source), source.splitlines()
    public = exported(tree)
    nodes = [n for n in tree.body if isinstance(n, (ast.FunctionDef, ast.ClassDef)) and n.name in public]
    return '\n'.join(entry(n, lines) for n in nodes)

def room_page(room:str, holds:str) -> str: # Markdown
    pages = notebooks(room)
    toc = '\n'.join(f'/nbs/{room}/{page.stem}' for page in pages)
    return f"# {room}\n\n{holds[0].upper()}{holds[1:]}.\n\n```{{toctree}}\n:maxdepth: 1\n{toc}\n/docs/made/api_{room}\n```\n"

def api_page(room:str) -> str: # Markdown
    parts = [f'# Reference: {room}\n\nEvery public name, with its parameters as they are written.\n']
    for page in sorted((ROOT/'nbs'/room).glob('*.ipynb')):
        module = module_of(page)
        if not module.exists(): continue
        about = ast.get_docstring(ast.parse(module.read_text())) or ''
        parts.append(f'## {room}.{module.stem}\n\n{about} [The notebook](/nbs/{room}/{page.name}).\n\n{api(module)}')
    return '\n'.join(parts)

def drawn_names(module:Path) -> list[str]: # names of the figures that a module registers
    "Read from its decorators, as in figures.registry"
    names = []
    for node in ast.parse(module.read_text()).body:
        for decorator in getattr(node, 'decorator_list', ()):
            if getattr(getattr(decorator, 'func', None), 'id', '') != 'figure': continue
            given = [k.value.value for k in decorator.keywords if k.arg == 'name']
            names.append(given[0] if given else node.name)
    return names

def figure_notebooks() -> dict: # name of a figure -> the notebook that draws it
    found = {}
    for page in sorted((ROOT/'nbs/figures').glob('*.ipynb')):
        module = module_of(page)
        if module.exists(): found |= dict.fromkeys(drawn_names(module), page)
    return found

def title_of(page:Path) -> str: # the first heading of a notebook
    text = ''.join(json.loads(page.read_text())['cells'][0]['source'])
    return text.split('\n')[0].removeprefix('# ')

def in_picture(picture:Path, tag:str) -> str: # tag: title or desc
    "What a figure says of itself"
    found = re.search(rf'<{tag}>(.*?)</{tag}>', picture.read_text(), re.S)
    return html.unescape(found[1]) if found else ''

def tables_behind(folder:Path) -> str: # Markdown
    "Links to the tables of a folder"
    files = [f for f in sorted(folder.iterdir()) if f.suffix in ('.csv', '.parquet')]
    return ', '.join(f'{{download}}`{f.stem} </{f.relative_to(ROOT)}>`' for f in files)

def card(picture:Path, page:str, tables:dict) -> str: # page: from the root, without suffix; tables: name -> folder; -> Markdown
    "A figure that leads to its notebook, and the tables behind it"
    alt = re.sub(r'[\[\]]', '', in_picture(picture, 'title') or picture.stem)
    links = [f'[Notebook](/{page}.ipynb)', *(f'{name}: {tables_behind(folder)}' for name,folder in tables.items())]
    lines = '. '.join(links)
    return (f':::{{grid-item-card}} {title_of(ROOT/f"{page}.ipynb")}\n\n'
            f'[![{alt}](/figures/{picture.name})](/{page}.ipynb)\n\n{lines}\n:::\n')

OTHERS = {
    'explorer': ('nbs/tutorials/explore_synthetic', {}),
    'features_and_basin': ('nbs/figures/causes', {'Tables': ROOT/'figures/data/basin'}),
    'digits_bands': ('nbs/figures/fig06_frequency_bands', {}),
} # figures that are not of one study

def place_of(picture:Path, notebooks:dict) -> tuple|None: # (page, tables), as `card` takes them
    "Where a figure is drawn, and from what; the figure itself says of which preset it is"
    if picture.stem in OTHERS: return OTHERS[picture.stem]
    studies = [f.name for f in (ROOT/'figures/data').iterdir() if picture.stem.startswith(f'{f.name}_')]
    study = max(studies, key=len, default='')
    page = notebooks.get(picture.stem.removeprefix(f'{study}_'))
    if not page: return None
    presets = {f.parent.name: f.parent for f in sorted((ROOT/'figures/data'/study).glob('*/tables.json'))}
    said = re.search(r'preset (\w+)', in_picture(picture, 'desc'))
    if said and said[1] in presets: presets = {said[1]: presets[said[1]]}
    return f'nbs/figures/{page.stem}', {f'Tables of `{study}`, {name}': folder for name,folder in presets.items()}

def gallery() -> str: # Markdown
    "Every committed figure, with the notebook that draws it and the tables behind it"
    notebooks = figure_notebooks()
    places = {picture: place_of(picture, notebooks) for picture in sorted((ROOT/'figures').glob('*.svg'))}
    body = '\n'.join(card(picture, *place) for picture,place in places.items() if place)
    pages = '\n'.join(f'/nbs/figures/{p.stem}' for p in sorted((ROOT/'nbs/figures').glob('[a-z]*.ipynb')))
    return ('# Gallery\n\nEvery figure is drawn from committed tables, without training; the explorer trains for seconds. '
            'A click opens the notebook that draws it; the tables are below it.\n\n'
            f'::::{{grid}} 1 1 2 2\n:gutter: 3\n\n{body}\n::::\n\n```{{toctree}}\n:hidden:\n{pages}\n```\n')

BINDER = 'https://mybinder.org/v2/gh/{name}/main?urlpath=lab/tree/{page}'
COLAB = 'https://colab.research.google.com/github/{name}/blob/main/{page}'

def elsewhere(source:str) -> str: # address of the repository on GitHub, empty where it is not known; -> Markdown
    "The tutorials as live notebooks, with nothing installed on the reader's machine"
    head = '# Open a tutorial in Binder or Colab\n\n'
    if not source.startswith('https://github.com/'):
        return head + ('The links need the address of the repository, and this site was built without it: '
                       '`SOURCE_URL=https://github.com/OWNER/NAME make docs`.\n')
    name = source.removeprefix('https://github.com/').strip('/')
    def row(path):
        page = path.relative_to(ROOT).as_posix()
        binder, colab = (address.format(name=name, page=page) for address in (BINDER, COLAB))
        return f'| [{title_of(path)}](/{page}) | [Binder]({binder}) | [Colab]({colab}) |'
    rows = '\n'.join(map(row, sorted((ROOT/'nbs/tutorials').glob('[a-z]*.ipynb'))))
    return head + ('Binder starts with everything installed; that takes minutes when nobody has opened it lately. '
                   'Colab has torch and gets the rest by a first cell:\n\n'
                   f"```python\n%pip install -q 'understanding-lrs[all] @ git+{source}'\n```\n\n"
                   f'Then restart its session once.\n\n| tutorial | | |\n|---|---|---|\n{rows}\n')

def cite() -> str: # Markdown
    "How to cite, from the file that says it"
    about = (ROOT/'CITATION.cff').read_text()
    return ('# How to cite\n\nThe paper: I. Sadrtdinov, M. Kodryan, E. Pokonechny, E. Lobacheva, D. Vetrov: *Where Do Large Learning Rates Lead Us?* '
            'NeurIPS 2024, [arXiv 2410.22113](https://arxiv.org/abs/2410.22113).\n\nThis software, as `CITATION.cff` has it:\n\n'
            f'```yaml\n{about}```\n')

def write(folder:Path):
    "All pages that are made; those that are as before are not touched, so that the next build is quick"
    folder.mkdir(exist_ok=True)
    made = {'gallery.md': gallery(), 'elsewhere.md': elsewhere(os.environ.get('SOURCE_URL', '')), 'cite.md': cite()}
    for room, holds in rooms().items():
        made[f'room_{room}.md'] = room_page(room, holds)
        made[f'api_{room}.md'] = api_page(room)
    for old in folder.glob('*.md'):
        if old.name not in made: old.unlink()
    for name, text in made.items():
        path = folder/name
        if not path.exists() or path.read_text() != text: path.write_text(text)
