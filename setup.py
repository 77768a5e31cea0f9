"""What pyproject.toml cannot say: what a built package carries, and where its links lead.

The experiment notebooks and the published tables are copied while the package is built, so that git holds them once;
`understanding_lrs.core.checkout` finds them. README's links are relative, so that they work in every checkout and on
every host. A package index shows README without the files, so a release is built with `SOURCE_URL`, the address of
the repository, and then the links of its description lead there, to the tag of the version.
"""
import os, re, shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

ROOT = Path(__file__).resolve().parent
CARRIED = ('nbs/experiments', 'figures/data') # from the project's root
JUNK = shutil.ignore_patterns('.*', '__pycache__')
LINK = re.compile(r'\]\((?!https?:|#)([^)]+)\)') # of Markdown, relative
VERSION = re.search(r"__version__ = ['\"]([^'\"]+)", (ROOT/'understanding_lrs/__init__.py').read_text())[1]

def absolute(text:str, source:str) -> str: # source: https://host/owner/name, or '' to leave links as they are
    "Markdown whose relative links lead to the repository at the tag of this version"
    if not source: return text
    def to(link):
        kind = 'raw' if link[1].endswith('.svg') else 'blob'
        return f']({source}/{kind}/v{VERSION}/{link[1]})'
    return LINK.sub(to, text)

class BuildPy(build_py):
    "Python files, then what is carried; an editable installation has it in its checkout"
    def run(self):
        super().run()
        if self.editable_mode: return
        shipped = Path(self.build_lib)/'understanding_lrs/shipped'
        shutil.rmtree(str(shipped), ignore_errors=True) # what an earlier build left
        for folder in CARRIED: shutil.copytree(str(ROOT/folder), str(shipped/folder), ignore=JUNK)

SOURCE = os.environ.get('SOURCE_URL', '').rstrip('/')
setup(
    cmdclass={'build_py': BuildPy},
    long_description=absolute((ROOT/'README.md').read_text(), SOURCE),
    long_description_content_type='text/markdown',
    project_urls={'Source': SOURCE, 'Changelog': f'{SOURCE}/blob/v{VERSION}/CHANGELOG.md'} if SOURCE else {},
)
