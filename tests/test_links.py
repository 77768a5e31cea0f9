"""Every link of README and notebooks that stays in the project leads to a file, and every numbered notebook that is named is there."""
import json, re
from urllib.parse import unquote
import pytest

LINK = re.compile(r'\]\(\s*<?([^)\s>]+)[^)]*\)|(?:src|href)=["\']([^"\']+)')
FENCED = re.compile(r'```.*?```|``.*?``|`[^`\n]*`', re.S)
ROOM = re.compile(r'\b([012]\d_[a-z_]+)(?:\.ipynb)?\b')
PAGES = ['*.md', 'lab/*.md', 'play/*.md', 'nbs/*.ipynb', 'nbs/*/*.ipynb', 'figures/data/**/*.md']

def prose(path):
    "What a reader of a page sees as text: Markdown cells and Markdown that cells print"
    if path.suffix != '.ipynb': return path.read_text()
    cells = json.loads(path.read_text())['cells']
    shown = [o['data'].get('text/markdown', '') for c in cells for o in c.get('outputs', []) if 'data' in o]
    return '\n\n'.join(''.join(t) for t in [*(c['source'] for c in cells if c['cell_type'] == 'markdown'), *shown])

def dead(path):
    "Links of a page that lead nowhere"
    links = [a or b for a, b in LINK.findall(FENCED.sub('', prose(path)))]
    inside = [l for l in links if not re.match(r'[a-z]+:|#', l)]
    return [l for l in inside if not (path.parent/unquote(l.split('#')[0])).exists()]

def pages(root): return sorted({f for p in PAGES for f in root.glob(p)})

def test_there_are_links(root): assert sum(len(LINK.findall(prose(f))) for f in pages(root)) > 20

def test_no_link_is_dead(root):
    assert {str(f.relative_to(root)): d for f in pages(root) if (d := dead(f))} == {}

def test_rooms_that_are_named_are_there(root):
    "In prose, code and comments: rooms are renumbered now and then"
    rooms = {f.stem for f in (root/'nbs').rglob('*.ipynb')}
    texts = [*pages(root), *root.glob('understanding_lrs/**/[a-z]*.py'), *root.glob('tools/*.py'), root/'Makefile']
    named = {(str(f.relative_to(root)), n) for f in texts for n in ROOM.findall(prose(f))}
    assert sorted(x for x in named if x[1] not in rooms) == []

@pytest.mark.parametrize('text,lost', [('[a](gone.md)', ['gone.md']), ('![a](x.md "title")', []), ('<img src="gone.svg">', ['gone.svg']),
    ('`[a](gone.md)`', []), ('[a](x.md#part) [b](https://a.org/b) [c](#here)', [])])
def test_the_check_can_fail(tmp_path, text, lost):
    (tmp_path/'x.md').touch()
    (tmp_path/'page.md').write_text(text)
    assert dead(tmp_path/'page.md') == lost

def test_no_two_notebooks_of_a_room_have_one_number(root):
    for room in (f for f in (root/'nbs').iterdir() if f.is_dir()):
        numbers = [re.match(r'\d\d(?=_)', f.name) for f in room.glob('*.ipynb')]
        numbers = [m[0] for m in numbers if m]
        assert len(numbers) == len({*numbers}), room.name
