"""Sphinx configuration: everything is built from local files, without the network."""

import importlib.metadata
import os
import re
from pathlib import Path

import latex2mathml.converter
from docutils import nodes

# The matrices of these pages are small: one thread is as fast, and does not fight over the cores.
for variable in ("NPROC", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(variable, "1")
os.environ.setdefault("JAX_PLATFORMS", "cpu")

project = "constrainednn"
author = "the constrainednn authors"
release = version = importlib.metadata.version("constrainednn")

extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["_build", "jupyter_execute"]
nitpicky = False

html_theme = "furo"
html_title = "constrainednn"
html_static_path = ["_static"]
html_css_files = ["tables.css"]
# MathML, which browsers draw: MathJax would be fetched from elsewhere.
html_math_renderer = "mathml"
html_show_copyright = False
html_show_sourcelink = False
html_copy_source = False

myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3

# Pages with code cells are run anew at every build; a cache would not see a changed package.
nb_execution_mode = "force"
nb_execution_in_temp = True
nb_execution_raise_on_error = True
nb_execution_show_tb = True
nb_execution_timeout = 300
nb_merge_streams = True
nb_output_stderr = "remove-warn"

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
python_use_unqualified_type_names = True
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True
napoleon_custom_sections = ["Source"]

# Docstrings are plain text: `name` is code, |r| is a length and no substitution, and indented
# lines after a colon are code.
default_role = "code"


# What a user knows as jax.Array and jnp.tanh has these names inside.
_ARRAY = re.compile(r"\b(jax\.)?jaxlib\._jax\.Array\b")
_COMPILED = re.compile(r"<PjitFunction of <function (\w+)[^>]*>>")


def _short_types(app, what, name, obj, options, signature, returned):
    if signature:
        signature = _COMPILED.sub(r"jax.numpy.\1", _ARRAY.sub("Array", signature))
    return signature, returned and _ARRAY.sub("Array", returned)


def _plain_text(app, what, name, obj, options, lines):
    text = []
    for index, line in enumerate(lines):
        after = next((later for later in lines[index + 1 :] if later.strip()), "")
        indent, indent_after = (len(some) - len(some.lstrip()) for some in (line, after))
        sentence = line.strip() and line.strip()[0] not in ":."
        if sentence and line.endswith(":") and not lines[index + 1] and indent_after > indent:
            line += ":"
        text.append(_ARRAY.sub("Array", line).replace("|", "\\|"))
    lines[:] = text


def _set(display):
    def visit(translator, node):
        translator.body.append(latex2mathml.converter.convert(node.astext(), display=display))
        raise nodes.SkipNode

    return visit, None


# Executed pages that take about half of all time.
_LONG = "inverse", "lesson", "ode", "pde", "plane"


def _in_balance(app, env, docnames):
    """The longest first and the others that are executed last: each of two processes has half."""

    def place(name):
        executed = "{code-cell}" in (Path(app.srcdir) / f"{name}.md").read_text()
        return (name not in _LONG) * (1 + executed)

    docnames.sort(key=place)


def setup(app):
    app.connect("env-before-read-docs", _in_balance)
    app.add_html_math_renderer("mathml", _set("inline"), _set("block"))
    app.connect("autodoc-process-docstring", _plain_text)
    app.connect("autodoc-process-signature", _short_types)
