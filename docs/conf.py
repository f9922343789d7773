"""The site of the documentation: ``make docs`` builds it, with warnings as errors."""

import logging
import os
import sys
import tempfile
from pathlib import Path

import scorefield

DOCS = Path(__file__).parent
sys.path.insert(0, str(DOCS))  # mathml and reference, beside this file

project = "scorefield"
version = release = scorefield.__version__
copyright = "the authors of scorefield"
html_title = "scorefield"

extensions = [
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "myst_nb",
    "mathml",
    "reference",
]
exclude_patterns = ["_build", "**.ipynb_checkpoints"]

# Markdown: links to headings, formulas between dollars, directives between colons.
myst_enable_extensions = ["colon_fence", "dollarmath"]
myst_heading_anchors = 3

# Pages in the format of notebooks are run, and an error in one ends the build.
nb_execution_mode = "force"
nb_execution_in_temp = True
nb_execution_raise_on_error = True
nb_execution_timeout = 300
nb_merge_streams = True

# The kernel of these pages has a profile of its own, which does not report its local connection.
logging.getLogger("traitlets").setLevel(logging.WARNING)
profile = Path(tempfile.mkdtemp(), "profile_default")
profile.mkdir()
(profile / "ipython_kernel_config.py").write_text("get_config().IPKernelApp.log_level = 40\n")
os.environ["IPYTHONDIR"] = str(profile.parent)

# Docstrings: Google style; a name in single backticks is a link where the reference has it.
default_role = "py:obj"
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
napoleon_use_rtype = False
napoleon_use_ivar = True
add_module_names = False
python_use_unqualified_type_names = True
python_maximum_signature_line_length = 88
toc_object_entries_show_parents = "hide"

html_theme = "furo"
pygments_dark_style = "github-dark"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_copy_source = False
html_show_sourcelink = False
html_math_renderer = "mathml"
html_theme_options = {"navigation_with_keys": True}
