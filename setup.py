"""What pyproject.toml cannot say: a built package carries the experiment notebooks and the published tables.

They are copied while the package is built, so that git holds them once; `understanding_lrs.core.checkout` finds them.
"""
import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

ROOT = Path(__file__).resolve().parent
CARRIED = ('nbs/experiments', 'figures/data') # from the project's root
JUNK = shutil.ignore_patterns('.*', '__pycache__')

class BuildPy(build_py):
    "Python files, then what is carried; an editable installation has it in its checkout"
    def run(self):
        super().run()
        if self.editable_mode: return
        shipped = Path(self.build_lib)/'understanding_lrs/shipped'
        shutil.rmtree(str(shipped), ignore_errors=True) # what an earlier build left
        for folder in CARRIED: shutil.copytree(str(ROOT/folder), str(shipped/folder), ignore=JUNK)

setup(cmdclass={'build_py': BuildPy})
