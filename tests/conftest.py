"""What every test file may rely on: one thread (as the small-net runs have), the CPU, and the project's root.

Tests demand equal bits of whole runs, which cuDNN does not promise, so no test sees a GPU unless `ULRS_TEST_GPU=1` asks for
those that are about one; whole runs are lived on the CPU even then.
"""
import os
from pathlib import Path
os.environ.setdefault('OMP_NUM_THREADS', '1') # before torch is imported; child processes inherit it
GPU = bool(os.environ.get('ULRS_TEST_GPU'))
if not GPU: os.environ['CUDA_VISIBLE_DEVICES'] = '' # kernels and sweeps that tests start inherit it
import pytest

@pytest.fixture(autouse=True)
def on_the_cpu(monkeypatch):
    if not GPU: return
    from understanding_lrs.picture_lives import PictureLife
    monkeypatch.setattr(PictureLife, 'device', staticmethod(lambda: 'cpu'))

@pytest.fixture(scope='session')
def root(): return Path(__file__).resolve().parent.parent
