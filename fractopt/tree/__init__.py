"""The typed face of the C++ core.

`BoxTree` holds the partition of the unit cube that SOO and its relatives grow. The searches of the
partition family (`SooSearch` and so on) are the optimizer contract in C++: `decide`, `apply`, and the
loop of the fast path, `run`, whose events an `EventBlock` keeps. The algorithms are told in
`fractopt.optimizer`, the methods in `_native.pyi`.
"""

from __future__ import annotations

try:
    from fractopt.tree._native import (
        BoxTree,
        DirectSearch,
        EventBlock,
        FdaSearch,
        IlsSearch,
        Search,
        SectionSearch,
        SequoolSearch,
        SooSearch,
        sequool_depth,
    )
except ModuleNotFoundError as error:
    if error.name != "fractopt.tree._native":
        raise
    # After a plain `pip install .` this happens in the repository's root, where `python -m ...` and
    # `python -c ...` put the source folder, which has no compiled module, before the installed package.
    raise ImportError(
        f"fractopt's compiled core is not beside {__file__}. In a checkout of the sources, install with "
        "`pip install -e .` (developers), or keep the source folder off the path: run from another "
        "folder, or set PYTHONSAFEPATH=1."
    ) from error

__all__ = [
    "BoxTree",
    "DirectSearch",
    "EventBlock",
    "FdaSearch",
    "IlsSearch",
    "Search",
    "SectionSearch",
    "SequoolSearch",
    "SooSearch",
    "sequool_depth",
]
