"""The documentation site: our notebooks as they are, built by `make docs`, which reads the code and imports none of it."""
import json, re, shutil, sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))
import pages # writes the pages that are read from tables and sources

project, author, copyright = 'understanding-lrs', 'understanding-lrs contributors', 'understanding-lrs contributors'
extensions = ['myst_nb', 'sphinx_design', 'sphinx-mathjax-offline']
root_doc = 'docs/index'
include_patterns = ['docs/index.md', 'docs/made/**', 'nbs/**', 'figures/data/**/README.md', 'lab/README.md', 'CONTRIBUTING.md', 'CHANGELOG.md']
exclude_patterns = ['**/.ipynb_checkpoints', 'nbs/index.ipynb', 'nbs/experiments/tiny_plr.ipynb']

html_theme = 'sphinx_book_theme'
html_title = 'Where do large learning rates lead us?'
html_static_path = ['_static']
html_css_files = ['site.css']
html_js_files = ['names.js'] # names for what the theme leaves without one
html_theme_options = dict(show_toc_level=2, home_page_in_toc=True, use_download_button=False, use_fullscreen_button=False,
                          navbar_persistent=[]) # one search field is enough
html_show_sourcelink = False

nb_execution_mode = 'off' # outputs are committed
nb_render_markdown_format = 'myst'
nb_mime_priority_overrides = [('html', 'application/vnd.jupyter.widget-view+json', None)]
myst_enable_extensions = ['dollarmath', 'colon_fence']
myst_heading_anchors = 3
nitpicky = False
suppress_warnings = ['mystnb.unknown_mime_type', 'myst.header']

STORIES = 'nbs/tutorials/', 'nbs/figures/', 'nbs/pages/' # here the text comes first and code is folded

def tags_of(source:str, story:bool) -> list[str]: # of a code cell
    "How the directives of nbdev read in the words of MyST-NB"
    if re.search(r'^#\| *(hide|default_exp)\b', source, re.M): return ['remove-cell']
    if re.search(r'^#\| *echo: *false', source, re.M): return ['remove-input']
    return ['hide-input'] if story else []

def without_directives(source:str) -> str: return re.sub(r'^#\|.*\n?', '', source, flags=re.M)

def read_notebook(app, name, content):
    "Take nbdev's directives out of a page, and fold code where the text is the story"
    if not str(app.env.doc2path(name)).endswith('.ipynb'): return
    notebook = json.loads(content[0])
    for cell in notebook['cells']:
        if cell['cell_type'] != 'code': continue
        source = ''.join(cell['source'])
        cell['metadata'] = dict(cell['metadata'], tags=tags_of(source, name.startswith(STORIES)))
        cell['source'] = without_directives(source)
    content[0] = json.dumps(notebook)

def add_pages(app, error):
    "Beside ours: the page that trains in the browser, and a first page that leads to ours"
    if error or app.builder.format != 'html': return
    out = Path(app.outdir)
    left_out = shutil.ignore_patterns('*.py', '*.json', '*.md', 'src', 'wasm', 'node_modules')
    shutil.copytree(HERE.parent/'play', out/'play', dirs_exist_ok=True, ignore=left_out)
    shutil.copy(HERE/'start.html', out/'index.html')

def setup(app):
    pages.write(HERE/'made')
    app.connect('source-read', read_notebook)
    app.connect('build-finished', add_pages)
    return dict(parallel_read_safe=True)
