"""README.md from nbs/index.ipynb: `python tools/readme.py` runs the notebook, cleans it, and writes README.md.

Links in the notebook are relative to `nbs/` (`../figures/a.svg`, `../nbs/core/01_sphere.ipynb`); in README they lose `../`.
A cell that starts with `#| hide` or `#| default_exp` is left out; `#| echo: false` hides the code and keeps its output.
"""
import re, subprocess, sys
from pathlib import Path
import nbformat
from nbconvert import MarkdownExporter
from nbconvert.preprocessors import ExecutePreprocessor, RegexRemovePreprocessor
from traitlets.config import Config

ROOT = Path(__file__).resolve().parent.parent
INDEX, README = ROOT/'nbs'/'index.ipynb', ROOT/'README.md'
HIDE = r'^#\| *(hide|default_exp)'

def render(nb):
    "The text of README for an executed index notebook"
    cfg = Config()
    cfg.RegexRemovePreprocessor.patterns = [HIDE]
    exporter = MarkdownExporter(config=cfg)
    exporter.register_preprocessor(RegexRemovePreprocessor(config=cfg), enabled=True)
    for c in nb.cells:
        if re.search(r'^#\| *echo: *false', c.source, re.M): c.metadata['transient'] = {'remove_source': True}
        c.source = re.sub(r'^(#\|.*\n)+', '', c.source) if not re.match(HIDE, c.source) else c.source
    text, resources = exporter.from_notebook_node(nb)
    if resources['outputs']:
        raise ValueError(f"index.ipynb holds pictures as outputs {sorted(resources['outputs'])}: link files of figures/ instead")
    text = re.sub(r'(\]\(|src="|href=")\.\./', r'\1', text)
    return re.sub(r'\n{3,}', '\n\n', text).strip() + '\n'

def main():
    nb = nbformat.read(INDEX, as_version=4)
    ExecutePreprocessor(timeout=600, kernel_name='python3').preprocess(nb, {'metadata': {'path': str(INDEX.parent)}})
    for c in nb.cells: c.metadata.pop('execution', None)
    text = render(nbformat.from_dict(nb))
    nbformat.write(nb, INDEX)
    subprocess.run([str(Path(sys.executable).with_name('nbdev-clean')), '--fname', str(INDEX)], cwd=ROOT, check=True)
    README.write_text(text)
    print(f'{README.name}: {len(text.splitlines())} lines from {INDEX.relative_to(ROOT)}')

if __name__ == '__main__': main()
