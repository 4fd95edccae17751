"""Sphinx's settings. The reference's pages are written anew from the code each time they are read."""

import sys
from pathlib import Path

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
