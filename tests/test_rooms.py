"""Imports go down: a module of one room imports its own room and the rooms before it, never those after it."""
import ast
from pathlib import Path
import pytest

ROOMS = 'core', 'data', 'networks', 'training', 'probes', 'runs', 'studies', 'sweep', 'analysis', 'finder', 'figures', 'app'
PACKAGE = Path(__file__).resolve().parent.parent/'understanding_lrs'

def imported_rooms(source:str, room:str) -> set[str]: # rooms of this package that a module of `room` imports
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {a.name.split('.')[1] for a in node.names if a.name.startswith('understanding_lrs.')}
        if not isinstance(node, ast.ImportFrom): continue
        if not node.level and node.module == 'understanding_lrs': found |= {a.name for a in node.names} & {*ROOMS}
        if node.level == 1: found.add(room)
        if node.level == 2: found |= {node.module.split('.')[0]} if node.module else {a.name for a in node.names}
        if not node.level and (node.module or '').startswith('understanding_lrs.'): found.add(node.module.split('.')[1])
    return found

def wrong_way(source:str, room:str) -> set[str]: # rooms that come after `room`
    return {other for other in imported_rooms(source, room) if ROOMS.index(other) > ROOMS.index(room)}

def test_every_module_has_a_room():
    assert {f.parent.name for f in PACKAGE.rglob('*.py') if f.parent != PACKAGE} == {*ROOMS}
    assert {f.name for f in PACKAGE.glob('*.py')} == {'__init__.py', '_modidx.py'}

def test_imports_go_down_only():
    assert not {(f'{room}/{f.name}', other) for room in ROOMS for f in (PACKAGE/room).glob('*.py') for other in wrong_way(f.read_text(), room)}

@pytest.mark.parametrize('line', ['from ..analysis.claims import CLAIMS', 'from ..app import cli', 'import understanding_lrs.app.cli', 'from understanding_lrs import app', 'from understanding_lrs.figures.registry import draw'])
def test_the_check_can_fail(line): assert wrong_way(line, 'studies') and not wrong_way('from ..core.seeds import stream', 'studies')

def test_the_finder_needs_the_core_only():
    found = set().union(*(imported_rooms(f.read_text(), 'finder') for f in (PACKAGE/'finder').glob('*.py')))
    assert found <= {'core', 'analysis', 'finder'}
