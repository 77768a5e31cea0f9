"""What every test file may rely on: one thread (as the small-net runs have), and the project's root."""
import os
from pathlib import Path
os.environ.setdefault('OMP_NUM_THREADS', '1') # before torch is imported; child processes inherit it
import pytest

@pytest.fixture(scope='session')
def root(): return Path(__file__).resolve().parent.parent
