"""Whatever the C compiler does, training works: without its kernel the stack runs in batched PyTorch, and says so once."""
import warnings
import pytest, torch
from understanding_lrs.training import native
from understanding_lrs.networks.mlp import MLPSpec
from understanding_lrs.training.networks import make_networks
from understanding_lrs.training.stacked import SyntheticTask, stack_sets
from understanding_lrs.training.trainer import Schedule, Trainer
from understanding_lrs.data.synthetic import SyntheticConfig, make_data

GARBAGE = '#!/bin/sh\nwhile [ $# -gt 0 ]; do [ "$1" = -o ] && echo garbage > "$2"; shift; done\n'

@pytest.fixture
def fresh(monkeypatch, tmp_path):
    "As in a new process with an empty cache"
    monkeypatch.setenv('ULRS_CACHE', str(tmp_path/'cache'))
    native.load_kernel.cache_clear()
    yield
    native.load_kernel.cache_clear()

def trained(**kw):
    sets = stack_sets([make_data(SyntheticConfig(n_train=64, n_test=20), 1)])
    return Trainer(SyntheticTask(sets, **kw), make_networks(MLPSpec(), [1, 2], readouts=[1, 1], data=[0, 0]), 1e-3, Schedule(20, evals=())).run().networks.flat()

def told(f): # messages of the warnings of a call, and its value
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter('always')
        return f(), [str(w.message) for w in seen]

@pytest.mark.parametrize('compiler', ['false', 'true', 'no-such-compiler', 'garbage', 'two "words'])
def test_any_failure_is_said_once_and_training_goes_on(fresh, monkeypatch, tmp_path, compiler):
    (tmp_path/'garbage').write_text(GARBAGE)
    (tmp_path/'garbage').chmod(0o755)
    monkeypatch.setenv('CC', str(tmp_path/compiler) if compiler == 'garbage' else compiler)
    w, words = told(lambda: [trained() for _ in range(2)])
    assert len(words) == 1 and 'falls back to PyTorch' in words[0] and '\n' not in words[0]
    assert torch.equal(w[0], trained(engine='torch'))
    with pytest.raises(ValueError, match='needs a C compiler'): trained(engine='native')

def test_it_can_be_asked_for_in_silence(fresh, monkeypatch):
    monkeypatch.setenv('ULRS_NATIVE', '0')
    w, words = told(trained)
    assert not words and torch.equal(w, trained(engine='torch'))
