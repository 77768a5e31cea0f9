"""The same tables, bit for bit, of every kind of study: in pieces in this process, or whole in the kernels of two workers, or of one."""
import pytest
from understanding_lrs.core.errors import OutOfTime
from understanding_lrs.runs.find import find_runs
from understanding_lrs.runs.store import Run
from understanding_lrs.studies.registry import protocols, resolved
from understanding_lrs.studies.trial import live
from understanding_lrs.sweep.sweep import sweep

KINDS = 'synthetic', 'synthetic_removed', 'convnetsi32_cifar10', 'resnet18_practical_cifar10', 'vit_cifar10'
IN_C = 'synthetic', 'convnetsi32_cifar10' # trained by kernels that may have threads

def tables(root): # (key, table) -> bytes
    return {(r.protocol.key, t): (r/f'{t}.csv').read_bytes() for r in find_runs(root) for t in r.tables()}

def swept(asked, root, workers):
    assert sweep(asked, root, workers=workers, progress='none').exit_code == 0
    return tables(root)

def in_pieces(protocol, root):
    "Every call ends at its first chance to stop"
    run, calls = Run(root, protocol), 0
    while run.state().kind != 'done':
        try: live(protocol, run, time_limit=0)
        except OutOfTime: calls += 1
    assert calls > 2
    return tables(root)

@pytest.mark.parametrize('study', KINDS)
def test_processes_workers_and_interruptions_do_not_show(tmp_path, study):
    pytest.importorskip('sklearn') # its digits are the pictures
    first, second = resolved(protocols(study, 'smoke'))[:2]
    two = swept([first, second], tmp_path/'two', workers=2)
    mine = {k: v for k, v in two.items() if k[0] == first.key}
    assert mine and mine == in_pieces(first, tmp_path/'pieces')
    if study in IN_C: assert mine == swept([first], tmp_path/'one', workers=1)
    assert {key for key, _ in two} == {first.key, second.key}, 'and the other rate has tables of its own'
