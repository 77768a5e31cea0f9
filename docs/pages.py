"""Pages of the site that are read from sources: a page per room with its notebooks, its public names with their parameters, and the gallery.

Nothing is imported: signatures are shown as they are written, with the comments that give shapes, units and ranges.
"""
import ast, json, re
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

def card(picture:Path, study:str, page:Path) -> str: # Markdown
    presets = sorted(f.parent.name for f in (ROOT/'figures/data'/study).glob('*/tables.json'))
    tables = ' and '.join(presets)
    return (f':::{{grid-item-card}} {title_of(page)}\n:link: /nbs/figures/{page.stem}\n:link-type: doc\n'
            f':img-bottom: /figures/{picture.name}\n:img-alt: {title_of(page)}, study {study}\n`{study}`: {tables}\n:::\n')

def gallery() -> str: # Markdown
    "Every committed figure, with the notebook that draws it and the tables behind it"
    notebooks = figure_notebooks()
    studies = sorted((f.name for f in (ROOT/'figures/data').iterdir() if f.is_dir()), key=len, reverse=True)
    cards = []
    for picture in sorted((ROOT/'figures').glob('*.svg')):
        study = next((s for s in studies if picture.stem.startswith(f'{s}_')), '')
        page = notebooks.get(picture.stem.removeprefix(f'{study}_')) if study else None
        if page: cards.append(card(picture, study, page))
    pages = '\n'.join(f'/nbs/figures/{p.stem}' for p in sorted((ROOT/'nbs/figures').glob('[a-z]*.ipynb')))
    body = '\n'.join(cards)
    return ('# Gallery\n\nEvery figure is drawn from committed tables, without training. A click opens the notebook that draws it.\n\n'
            f'::::{{grid}} 1 1 2 2\n:gutter: 3\n\n{body}\n::::\n\n```{{toctree}}\n:hidden:\n{pages}\n```\n')

def write(folder:Path):
    "All pages that are made; those that are as before are not touched, so that the next build is quick"
    folder.mkdir(exist_ok=True)
    made = {'gallery.md': gallery()}
    for room, holds in rooms().items():
        made[f'room_{room}.md'] = room_page(room, holds)
        made[f'api_{room}.md'] = api_page(room)
    for old in folder.glob('*.md'):
        if old.name not in made: old.unlink()
    for name, text in made.items():
        path = folder/name
        if not path.exists() or path.read_text() != text: path.write_text(text)
