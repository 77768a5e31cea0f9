"""How plain is our code? `python tools/style.py [folder of notebooks]` counts, prints, and judges nothing; with `--missing` it lists
the definitions without a runnable cell right behind."""
import argparse, ast, json, re, statistics
from pathlib import Path

LONG = 110 # characters of a line
MANY = 6   # parameters of a function, `self` and `cls` not counted

def code_cells(path:Path) -> list[tuple[bool, str]]: # (exported?, source without directives)
    "The code cells of a notebook that hold code, in order"
    cells = []
    for cell in json.loads(path.read_text())['cells']:
        if cell['cell_type'] != 'code': continue
        source = ''.join(cell['source'])
        exported = re.search(r'^#\| *exporti?\b', source, re.M) is not None
        code = re.sub(r'^#\|.*\n?', '', source, flags=re.M).strip()
        if code: cells.append((exported, code))
    return cells

def is_definition(code:str) -> bool: # whether it holds a function or a class
    return any(isinstance(n, (ast.FunctionDef, ast.ClassDef)) for n in ast.parse(code).body)

def followed(cells:list) -> list[bool]: # one entry for each exported cell with a definition
    "Whether a runnable cell stands right behind"
    followers = [*cells[1:], (True, '')]
    return [not after for (exported, code), (after, _) in zip(cells, followers) if exported and is_definition(code)]

def missing(path:Path) -> list[str]: # names, one entry for each cell; several names are joined by commas
    "Definitions of a notebook without a runnable cell right behind"
    cells = code_cells(path)
    defined = [code for exported, code in cells if exported and is_definition(code)]
    kinds = ast.FunctionDef, ast.ClassDef
    names = [', '.join(n.name for n in ast.parse(code).body if isinstance(n, kinds)) for code in defined]
    return [name for name, yes in zip(names, followed(cells)) if not yes]

def parameters(function) -> int: # ast.FunctionDef or ast.Lambda
    a = function.args
    names = [p.arg for p in (*a.posonlyargs, *a.args, *a.kwonlyargs)]
    return len([n for n in names if n not in ('self', 'cls')])

def inside(node, kind) -> bool: # whether a node of this kind lies below
    return any(isinstance(n, kind) for child in ast.iter_child_nodes(node) for n in ast.walk(child))

def is_patch(statement) -> bool: # `Class.method = function`, in a module
    if not isinstance(statement, ast.Assign): return False
    targets = [t for target in statement.targets for t in (target.elts if isinstance(target, ast.Tuple) else [target])]
    return any(isinstance(t, ast.Attribute) and isinstance(t.value, ast.Name) and t.value.id[0].isupper() for t in targets)

def counts(code:str) -> dict: # what to count -> how often
    "What makes one exported cell hard to read"
    tree = ast.parse(code)
    nodes = list(ast.walk(tree))
    functions = [n for n in nodes if isinstance(n, (ast.FunctionDef, ast.AsyncFunctionDef))]
    return {
        f'lines over {LONG} characters': sum(len(line) > LONG for line in code.splitlines()),
        'conditional expressions inside others': sum(isinstance(n, ast.IfExp) and inside(n, ast.IfExp) for n in nodes),
        f'functions with more than {MANY} parameters': sum(parameters(f) > MANY for f in functions),
        'lambdas that assign': sum(isinstance(n, ast.Lambda) and inside(n, ast.NamedExpr) for n in nodes),
        'methods added from outside their class': sum(map(is_patch, tree.body)) + len(re.findall(r'^@patch', code, re.M)),
        'star imports': sum(isinstance(n, ast.ImportFrom) and n.names[0].name == '*' for n in nodes),
    }

def percentile(values:list, share:float): # the smallest value that at least this share does not exceed
    ordered = sorted(values)
    return ordered[min(int(share*len(ordered)), len(ordered) - 1)]

def pages_of(folder:Path) -> list[Path]: # of a folder and below
    return [path for path in sorted(folder.rglob('*.ipynb')) if '.ipynb_checkpoints' not in path.parts]

def table(folder:Path) -> dict: # what -> number or text
    "All that is counted, over the notebooks of a folder and below; experiments, which export nothing, do not count"
    pages = [code_cells(path) for path in pages_of(folder)]
    exports = [code for cells in pages for exported, code in cells if exported]
    lines = [len([line for line in code.splitlines() if line.strip()]) for code in exports]
    behind = [yes for cells in pages for yes in followed(cells)]
    total = {}
    for code in exports:
        for what, n in counts(code).items(): total[what] = total.get(what, 0) + n
    return {
        'exported cells': len(exports),
        'lines of exported code': sum(lines),
        'lines a cell, median': statistics.median(lines),
        'lines a cell, 90th percentile': percentile(lines, .9),
        'lines a cell, maximum': max(lines),
        'definitions with a runnable cell right behind': f'{sum(behind)} of {len(behind)} ({100*sum(behind)/len(behind):.0f} %)',
        **total,
    }

def main():
    about, *_ = __doc__.split(' `')
    parser = argparse.ArgumentParser(description=about)
    parser.add_argument('folder', nargs='?', type=Path, default=Path(__file__).resolve().parent.parent/'nbs', help='folder of notebooks')
    parser.add_argument('--missing', action='store_true', help='list the definitions without a runnable cell right behind')
    given = parser.parse_args()
    if not pages_of(given.folder): parser.error(f'there are no notebooks in {given.folder}')
    if not given.missing:
        for what, n in table(given.folder).items(): print(f'{what:48} {n}')
        return
    for page in pages_of(given.folder):
        for names in missing(page): print(f'{page.relative_to(given.folder)}: {names}')

if __name__ == '__main__': main()
