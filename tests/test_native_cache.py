"""A compiled library is loaded only if this user has written it and nobody else could: anything else is compiled anew, in private."""
import os, stat
import pytest
from understanding_lrs.training import native

PLANTED, OURS = '#include <stdio.h>\nint who(void) { return 66; }\n', 'int who(void) { return 1; }\n'

@pytest.fixture
def cache(monkeypatch, tmp_path):
    "An empty cache, and kernels as in a new process"
    if not any(map(native.shutil.which, ('cc', 'gcc', 'clang'))): pytest.skip('there is no C compiler')
    monkeypatch.setenv('ULRS_CACHE', str(tmp_path/'cache'))
    native.load_kernel.cache_clear()
    yield tmp_path/'cache'
    native.load_kernel.cache_clear()

def who(): return native.load_kernel(OURS, 'who').who()
def again(): return native.load_kernel.cache_clear() or who()

def plant(lib):
    "Another library, and its checksum, in the place of the right one"
    native.keep_library(lib, native.compiled(PLANTED, native.compiler_words()))

@pytest.fixture
def kept(cache):
    "The library in the cache, once it was compiled"
    assert who() == 1
    lib, = (cache/'kernels').glob('*.so')
    return lib

@pytest.fixture
def compiles(monkeypatch):
    calls, plain = [], native.compiled
    monkeypatch.setattr(native, 'compiled', lambda *args: calls.append(1) or plain(*args))
    return calls

def test_it_is_compiled_once_and_private(kept, compiles):
    assert again() == 1 and not compiles
    assert stat.S_IMODE(kept.parent.stat().st_mode) == 0o700 and not kept.stat().st_mode & 0o022

def test_the_cache_is_used_at_all(kept):
    "so the refusals below mean something"
    plant(kept)
    assert again() == 66

def behind_a_link(lib):
    os.rename(lib, lib.with_name('elsewhere'))
    lib.symlink_to('elsewhere')
    lib.parent.chmod(0o1777)

SHARED = {
    'folder that all can write': lambda lib: lib.parent.chmod(0o777),
    'folder that a group can write': lambda lib: lib.parent.chmod(0o770),
    'file that all can write': lambda lib: lib.chmod(0o666),
    'link in such a folder': behind_a_link,
    'file of another user': lambda lib: os.chown(lib, 54321, 54321),
    'folder of another user': lambda lib: os.chown(lib.parent, 54321, 54321),
}

@pytest.mark.parametrize('how', SHARED)
def test_what_others_can_write_is_not_loaded(kept, compiles, how):
    if 'another user' in how and os.geteuid(): pytest.skip('only root can give files away')
    plant(kept)
    SHARED[how](kept)
    compiles.clear()
    assert again() == 1 and len(compiles) == 1

@pytest.mark.parametrize('damage', [lambda data: data[:1000], lambda data: b'', lambda data: data[:-1] + b'x'])
def test_a_damaged_library_is_compiled_again(kept, compiles, damage):
    whole = kept.read_bytes()
    kept.write_bytes(damage(whole))
    assert again() == 1 and len(compiles) == 1 and kept.read_bytes() == whole

def test_no_temporary_file_is_left(kept):
    assert sorted(f.suffix for f in kept.parent.iterdir()) == ['.sha256', '.so']

def test_a_cache_that_cannot_be_written_costs_a_compilation(cache, compiles):
    cache.write_text('a file stands in its place')
    assert who() == again() == 1 and len(compiles) == 2

# --- the compiler's command

@pytest.mark.parametrize('cc', ['gcc -O1', '  gcc   -DX=1 ', 'env gcc', "gcc '-DNAME=a b'"])
def test_the_compiler_may_have_arguments(cache, monkeypatch, cc):
    if not native.shutil.which('gcc'): pytest.skip('there is no gcc')
    monkeypatch.setenv('CC', cc)
    assert who() == 1

def test_a_path_with_spaces_is_one_word(cache, monkeypatch, tmp_path):
    tool = tmp_path/'my tools'/'cc'
    tool.parent.mkdir()
    tool.symlink_to(native.shutil.which('cc') or native.shutil.which('gcc'))
    monkeypatch.setenv('CC', str(tool))
    assert native.compiler_words() == [str(tool)] and who() == 1

def test_a_command_that_is_none_is_named(monkeypatch):
    monkeypatch.setenv('CC', 'gcc "-m64')
    with pytest.raises(RuntimeError, match='CC is'): native.compiler_words()
    monkeypatch.setenv('CC', ' ')
    assert native.compiler_words()[0] in ('cc', 'gcc', 'clang')
