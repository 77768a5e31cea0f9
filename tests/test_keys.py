"""Equal protocols have equal keys, in whatever order or form they were typed; any change of a field changes the key."""
import dataclasses, os, subprocess, sys
import numpy as np, pytest
from understanding_lrs.runs.protocol import Protocol

BASE = dict(study='synthetic', plr=1e-2, flrs=[1e-4, 1e-3], swa_k=[2, 5], data_seeds=[1, 2, 3], train_seeds=[1],
            readout_seeds=[], precision='fp32', numerics_version=1,
            settings=dict(width=32, shape='tick', utility=[1., .5]))

def same():
    yield BASE | dict(plr='1e-2')
    yield BASE | dict(plr=np.float64(1e-2), data_seeds=np.arange(1, 4))
    yield BASE | dict(flrs=(1e-3, 1e-4), swa_k=(5, 2), data_seeds=range(3, 0, -1))
    yield BASE | dict(settings=dict(utility=(1., .5), shape='tick', width=np.int64(32)))

def other():
    yield BASE | dict(study='images')
    yield BASE | dict(plr=float(np.nextafter(1e-2, 1)))
    yield BASE | dict(flrs=[1e-4])
    yield BASE | dict(swa_k=[2])
    yield BASE | dict(data_seeds=[1, 2])
    yield BASE | dict(train_seeds=[2])
    yield BASE | dict(readout_seeds=[1])
    yield BASE | dict(precision='tf32')
    yield BASE | dict(settings=dict(width=33, shape='tick', utility=[1., .5]))
    yield BASE | dict(numerics_version=2)

@pytest.mark.parametrize('form', list(same()))
def test_same_key(form):
    a, b = Protocol(**BASE), Protocol(**form)
    assert (a, a.key, hash(a)) == (b, b.key, hash(b))

def test_other_key():
    keys = {Protocol(**form).key for form in [BASE, *other()]}
    assert len(keys) == 1 + len(list(other()))

def test_key_does_not_depend_on_the_process():
    code = f"from understanding_lrs.runs.protocol import Protocol; print(Protocol(**{BASE!r}).key)"
    for seed in '12':
        env = os.environ | {'PYTHONHASHSEED': seed}
        seen = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, env=env).stdout.strip()
        assert seen == Protocol(**BASE).key

def test_golden_key():
    "Changing how keys are made orphans every finished run"
    assert Protocol(**BASE).key == '60b6b7ff74c2c096633b874947603ef41853e763bfa8ab17718aa4c7442a9818'

def test_name_is_readable_and_short():
    p = Protocol(**BASE)
    assert p.name == f'plr=1.000e-02_d1-3_t1_{p.key[:8]}'
    many = dataclasses.replace(p, data_seeds=range(0, 200, 3), readout_seeds=(4, 9))
    assert many.name == f'plr=1.000e-02_d67seeds_t1_r4+9_{many.short}'

def test_params_are_plain_and_complete():
    params = Protocol(**BASE).params()
    assert set(params) == set(BASE) - {'settings', 'numerics_version'} | set(BASE['settings'])
    assert all(type(v) in (str, int, float, bool, list) for v in params.values())
