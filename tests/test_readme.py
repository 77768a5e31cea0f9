"""README.md = render(nbs/index.ipynb), without running anything."""
import importlib.util
import nbformat, pytest

@pytest.fixture(scope='module')
def readme(root):
    spec = importlib.util.spec_from_file_location('readme', root/'tools'/'readme.py')
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module

def notebook(*cells):
    v4 = nbformat.v4
    return v4.new_notebook(cells=[v4.new_markdown_cell(c) if isinstance(c, str) else
        v4.new_code_cell(c[0], outputs=[v4.new_output('execute_result', data=c[1])] if c[1] else []) for c in cells])

def test_committed_readme_is_the_notebook(root, readme):
    assert readme.render(nbformat.read(readme.INDEX, as_version=4)) == readme.README.read_text(), "run `make readme`"

def test_hidden_cells_stay_hidden(readme):
    text = readme.render(notebook('# T', ('#| default_exp x', None), ('#| hide\nimport nbdev', None), ('1 + 1', {'text/plain': '2'})))
    assert 'nbdev' not in text and 'default_exp' not in text and '1 + 1' in text and '2' in text

def test_echo_false_keeps_the_output_only(readme):
    text = readme.render(notebook(('#| echo: false\nsecret()', {'text/markdown': '| a |\n|---|\n| 1 |'})))
    assert 'secret' not in text and 'echo' not in text and '| a |' in text

def test_links_start_at_the_root(readme):
    text = readme.render(notebook('![f](../figures/a.svg) [s](../nbs/core/01_sphere.ipynb) <img src="../figures/b.svg">'))
    assert text == '![f](figures/a.svg) [s](nbs/core/01_sphere.ipynb) <img src="figures/b.svg">\n'

def test_pictures_in_outputs_are_refused(readme):
    with pytest.raises(ValueError, match='figures/'): readme.render(notebook(('fig', {'image/png': 'aGk='})))
