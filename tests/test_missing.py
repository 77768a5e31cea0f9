"""missing(p, done) covers exactly the networks of p that no finished protocol holds: nothing else, nothing twice."""
import dataclasses, random
import pytest
from understanding_lrs.runs.protocol import Protocol, missing, networks

P = Protocol('synthetic', .1, flrs=[.01], data_seeds=range(1, 5), train_seeds=range(1, 4), settings=dict(width=3))
def seeds(d, t=(1, 2, 3), r=(), p=P): return dataclasses.replace(p, data_seeds=d, train_seeds=t, readout_seeds=r)

def exact(p, done):
    "The property itself"
    found = [n for q in missing(p, done) for n in networks(q)]
    have = {n for q in done if q.family == p.family for n in networks(q)}
    return len(found) == len(set(found)) and set(found) == set(networks(p)) - have

def test_more_seeds_run_only_the_new_ones():
    assert missing(seeds(range(1, 7)), [P]) == [seeds((5, 6))]
    assert missing(seeds((1, 2), (1, 2, 3, 4)), [P]) == [seeds((1, 2), (4,))]

def test_nothing_and_everything():
    assert missing(P, [P]) == missing(seeds((2, 3)), [P]) == []
    assert missing(P, []) == [P]

@pytest.mark.parametrize('field', [
    dict(plr=.2), dict(flrs=(.02,)), dict(precision='bf16'), dict(settings=dict(width=4)), dict(numerics_version=2)])
def test_other_families_do_not_count(field): assert missing(P, [dataclasses.replace(P, **field)]) == [P]

def test_readout_seed_defaults_to_the_data_seed():
    crossed = [seeds((1,), (1,), (2,)), seeds((2,), (1,), (1,))]
    assert missing(seeds((1, 2), (1,), (1, 2)), [seeds((1, 2), (1,))]) == crossed

def test_studies_without_a_role():
    p = Protocol('images', .1, train_seeds=[1, 2])
    assert missing(p, [dataclasses.replace(p, train_seeds=[1])]) == [dataclasses.replace(p, train_seeds=[2])]

@pytest.mark.parametrize('case', range(60))
def test_exact_cover(case):
    rng = random.Random(case)
    some = lambda least=1: rng.sample(range(5), rng.randint(least, 4))
    draw = lambda: seeds(some(), some(), some(0))
    assert exact(draw(), [draw() for _ in range(rng.randint(0, 4))])

def test_the_property_can_fail(monkeypatch):
    monkeypatch.setitem(globals(), 'missing', lambda p, done: [p])
    assert not exact(P, [seeds((1,))])
