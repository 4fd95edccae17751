"""Sphinx's settings. The reference's pages are written anew from the code each time they are read."""

import sys
from pathlib import Path

from docutils import nodes
from sphinx import addnodes
from sphinx.application import Sphinx

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))

import reference  # noqa: E402

reference.write(HERE / "reference")

project = "ganlab"
extensions = ["myst_parser"]
html_theme = "furo"
html_title = "ganlab"
html_copy_source = False
html_domain_indices = False
html_show_copyright = False

nitpicky = True
nitpick_ignore = [
    *(
        # other people's, whose sites are not asked: a build needs no network
        ("py:class", name)
        for name in (
            "Tensor",
            "nn.Module",
            "nn.Parameter",
            "torch.optim.Optimizer",
            "np.ndarray",
            "np.dtype",
            "np.uint8",
            "np.float64",
            "Callable",
            "Iterable",
            "Mapping",
            "Sequence",
            "Path",
        )
    ),
    # a type variable
    ("py:class", "T"),
    # the core's own, which a watcher is handed
    ("py:class", "ganlab.folder.RunFolder"),
]
# of a type the last part of its name is shown
python_use_unqualified_type_names = True
# "ab" is what a spec says, quotes and all
smartquotes = False
myst_enable_extensions = ["fieldlist"]
myst_heading_anchors = 3


def link_code(app: Sphinx, page: nodes.document) -> None:
    """Inline code that is the name of something documented, and nothing more, leads there."""
    named = reference.named()
    for code in list(page.findall(nodes.literal)):
        elsewhere = isinstance(code.parent, addnodes.pending_xref | nodes.reference | nodes.title)
        if (target := named.get(code.astext())) and not elsewhere:
            place = {"refdomain": "py", "reftype": "obj", "reftarget": target, "refdoc": app.env.docname}
            link = addnodes.pending_xref("", refexplicit=True, refwarn=True, **place)
            code.replace_self(link)
            link += code


def setup(app: Sphinx) -> None:
    app.connect("doctree-read", link_code)
