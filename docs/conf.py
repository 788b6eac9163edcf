"""Sphinx settings of the documentation: `make docs` builds it into build/docs, without the network."""

from __future__ import annotations

import os
import re
import textwrap
from pathlib import Path
from typing import Any

import latex2mathml.converter
from docutils.nodes import SkipNode, math, math_block
from sphinx.application import Sphinx
from sphinx.ext.napoleon import Config, GoogleDocstring
from sphinx.writers.html5 import HTML5Translator

import geoml

#: A bar outside of code, which would begin a substitution; what is in backticks before it is kept.
BAR = re.compile(r"((?:`[^`]*`|[^`|])*)\|")

project = "geoml"
author = "The geoml authors"
copyright = "The geoml authors, Apache-2.0"
version = release = geoml.__version__

extensions = ["myst_nb", "sphinx.ext.autodoc"]
exclude_patterns = ["_build"]
nitpicky = False

# Formulas are MathML, which browsers draw themselves: MathJax would come from the network.
html_math_renderer = "mathml"

html_theme = "furo"
html_title = "geoml"
html_show_sphinx = False
html_copy_source = False

# Pages are Markdown; ::: opens a directive, so that ``` stays for what is typed or run.
myst_enable_extensions = ["colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 3
# Settings such as region=melanesia, and tables of results, are no language that could be highlighted.
highlight_language = "text"
# Annotations are plain names, some of which two domains share.
suppress_warnings = ["misc.highlighting_failure", "ref.python"]

# Notebooks are run where their text changed, and kept: a second build runs none of them.
nb_execution_mode = os.environ.get("GEOML_NOTEBOOKS", "cache")
nb_execution_cache_path = str(Path(__file__).parent.parent / "build" / "notebooks")
nb_execution_timeout = 300
nb_execution_raise_on_error = True
nb_execution_in_temp = True
nb_merge_streams = True

# Docstrings name code in single backticks, and shapes as (batch, channel, *space).
default_role = "code"
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
autodoc_inherit_docstrings = False
python_use_unqualified_type_names = True
maximum_signature_line_length = 88


def readable(app: Sphinx, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """Docstrings are prose with code in single backticks: sections, tables and bars are put as reStructuredText.

    `Args:` and the like are read in functions and classes; in other docstrings a colon is only a colon.
    """
    text = "\n".join(lines)
    if what in ("function", "method", "class", "exception"):
        text = str(GoogleDocstring(text, Config(napoleon_use_ivar=True), app, what, name, obj, options))
    lines[:] = "\n\n".join(map(_paragraph, text.split("\n\n"))).splitlines()


def _paragraph(text: str) -> str:
    """A paragraph of a docstring; doctests stay as they are."""
    if ">>>" in text:
        return text
    if text.startswith("|"):
        return "::\n\n" + textwrap.indent(text, "    ")
    return "\n".join(BAR.sub(r"\1\\|", line) for line in text.split("\n"))


def formula(translator: HTML5Translator, node: math | math_block) -> None:
    """A formula as MathML, inline or as a block."""
    block = isinstance(node, math_block)
    made = latex2mathml.converter.convert(node.astext(), display="block" if block else "inline")
    scrolled = 'style="overflow: auto hidden; padding: 0.2em 0"'  # where the page is narrower
    translator.body.append(f'<div class="math" {scrolled}>{made}</div>' if block else made)
    raise SkipNode


def setup(app: Sphinx) -> None:
    """What Sphinx calls."""
    app.connect("autodoc-process-docstring", readable)
    app.add_html_math_renderer("mathml", (formula, None), (formula, None))
