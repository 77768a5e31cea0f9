__version__ = "0.1.0"

_LATE = dict(find_regimes='find', Closures='training', RegimeReport='result', Policy='policy') # name -> module of the room `finder`

def __getattr__(name):
    "What needs torch is imported when it is asked for"
    if name not in _LATE: raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module
    return getattr(import_module(f'{__name__}.finder.{_LATE[name]}'), name)
