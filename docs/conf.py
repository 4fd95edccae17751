"""Sphinx's settings. Each build writes the reference's pages from the code."""

import sys
from pathlib import Path

from docutils import nodes
from sphinx import addnodes
from sphinx.application import Sphinx

sys.path.insert(0, str(Path(__file__).parent))

import reference

reference.write(Path(__file__).parent / "reference")

project = "ganlab"
extensions = ["myst_parser", "sphinx_copybutton"]
html_theme = "furo"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_title = "ganlab"
html_copy_source = False
html_domain_indices = False
html_show_copyright = False

nitpicky = True
nitpick_ignore = [
    *(
        # of other packages; their sites are not read, so that a build needs no network
        ("py:class", name)
        for name in (
            "Image.Image",
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
    # internal, though a resolved spec has them
    ("py:class", "ganlab.spec.models.ResolvedComponent"),
]
# show only the last part of a type's name
python_use_unqualified_type_names = True
# a spec says "ab" with straight quotes
smartquotes = False
myst_enable_extensions = ["fieldlist"]
myst_heading_anchors = 3


def link_code(app: Sphinx, page: nodes.document) -> None:
    """Links inline code that is the name of a documented object to its description."""
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
