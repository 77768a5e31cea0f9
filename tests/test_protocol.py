"""A protocol that exists is valid; anything else is refused in one line: thing, expected, found."""
import math, pytest
from understanding_lrs.core.checks import check_settings, coerce, int_list, pick
from understanding_lrs.core.errors import InputError
from understanding_lrs.runs.protocol import Protocol

def refuses(part, call, *args, **kw):
    with pytest.raises(InputError) as e: call(*args, **kw)
    assert part in str(e.value) and '\n' not in str(e.value)

@pytest.mark.parametrize('bad', ['abc', '', 0, -1, '-1', math.nan, 'nan', math.inf, None, True, [1.]])
def test_lr_is_a_positive_number(bad):
    refuses('plr must be a positive number', Protocol, 'synthetic', bad)
    refuses('flrs', Protocol, 'synthetic', 1., flrs=[.1, bad])

@pytest.mark.parametrize('good', ['1e-3', ' 0.001 ', .001])
def test_text_becomes_a_number(good): assert Protocol('synthetic', good).plr == 1e-3

@pytest.mark.parametrize('kw,part', [
    (dict(data_seeds=[1, -1]), 'data_seeds: expected whole numbers of at least 0, got -1'),
    (dict(train_seeds=[1.5]), 'train_seeds: expected whole numbers'),
    (dict(train_seeds=[True]), 'train_seeds: expected whole numbers'),
    (dict(readout_seeds=[3, 3]), 'readout_seeds must be distinct'),
    (dict(data_seeds=3), 'data_seeds: expected a list'),
    (dict(flrs=[.1, '1e-1']), 'flrs must be distinct'),
    (dict(swa_k=[0]), 'swa_k: expected whole numbers of at least 1'),
    (dict(precision='fp16'), "unknown precision 'fp16'; did you mean"),
    (dict(numerics_version=-1), 'numerics_version'),
    (dict(settings=dict(noise=math.nan)), 'setting noise: expected a finite number'),
    (dict(settings=dict(path=object())), 'setting path'),
    (dict(settings=dict(plr=1)), 'have the name of a protocol field')])
def test_bad_fields(kw, part): refuses(part, Protocol, 'synthetic', .1, **kw)

def test_bad_study(): refuses('study: expected an id', Protocol, '../etc', .1)

def test_foreign_record_is_refused():
    refuses('expected the fields', Protocol.from_dict, Protocol('synthetic', .1).to_dict() | dict(elr=1))

@pytest.mark.parametrize('value,default,out', [
    ('3', 1, 3), ('1e4', 1, 10000), (3., 1, 3), ('1e-3', .1, .001), (2, .1, 2.), ('true', False, True),
    ('off', True, False), ('tick', 'line', 'tick'), ('1..3', [0], [1, 2, 3]), ('.5, 1', [1.], [.5, 1.]),
    ('[.5]', [1.], [.5]), ((1, 2), [0], [1, 2])])
def test_coerce(value, default, out):
    got = coerce('x', value, default)
    assert got == out and type(got) is type(out)

@pytest.mark.parametrize('value,default', [
    ('2.5', 1), ('x', 1), (True, 1), ('inf', .1), ('nan', .1), ('x', .1), (None, .1), (1, True), ('maybe', True),
    (1, 'a'), (1, [1]), ('a,b', [1]), (['a'], [1.]), ([[1]], [1])])
def test_wrong_types_are_refused(value, default): refuses('x: expected', coerce, 'x', value, default)

def test_unknown_settings():
    refuses("did you mean 'width'", check_settings, dict(widht=3), dict(width=1, depth=2))
    refuses('there are width, depth', check_settings, dict(zzz=3), dict(width=1, depth=2))
    assert check_settings(dict(width='3'), dict(width=1, depth=2)) == dict(width=3, depth=2)

@pytest.mark.parametrize('bad', ['', '3..1', 'a', '1,,2', '-1', '1.5', '1...3'])
def test_int_lists(bad): refuses('seeds', int_list, bad)

def test_pick_lists_or_suggests():
    assert pick('laptop', ['smoke', 'laptop']) == 'laptop'
    refuses("did you mean 'laptop'", pick, 'labtop', ['smoke', 'laptop'])
