"""HTML pages: one file each that loads nothing, whose style and script are those of this package alone.

A page is made from `templates/<name>.html`, with the style of `base.css` and `<name>.css` and the script of
`<name>.js`, as far as they exist. Every value is escaped. The page's Content-Security-Policy
(https://www.w3.org/TR/CSP3/) names the hashes of style and script, so that a browser runs and loads nothing else.
Attributes `style=` would be refused too: use classes, or attributes of SVG.
"""

import base64
import functools
import hashlib
from pathlib import Path
from typing import Any

from deeplift_fast.report import formats
from deeplift_fast.report.colour_classes import css

TEMPLATES = Path(__file__).parent / "templates"

NEEDS_JINJA2 = 'pages need jinja2: pip install "deeplift_fast[report]"'


def render(name: str, **context: Any) -> str:
    """A page.

    Args:
        name: name of the template, without `.html`.
        **context: what the template shows. A missing name is an error of jinja2.

    Returns:
        The file's text.

    Raises:
        ImportError: if jinja2 is not installed.
    """
    environment = _environment()
    from markupsafe import Markup

    style = _text("base.css") + css() + _text(f"{name}.css")
    script = _text(f"{name}.js")
    inside = {"style": Markup(style), "script": Markup(script), "policy": policy(style, script)}
    text: str = environment.get_template(f"{name}.html").render(**context, **inside)
    return text


def policy(style: str, script: str) -> str:
    """The Content-Security-Policy of a page with this style and this script, "" for none."""
    scripts = f"script-src {_hash(script)}; " if script else ""
    return f"default-src 'none'; style-src {_hash(style)}; {scripts}base-uri 'none'; form-action 'none'"


@functools.cache
def _environment() -> Any:
    try:
        import jinja2
    except ImportError as error:
        raise ModuleNotFoundError(NEEDS_JINJA2, name="jinja2") from error
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "name": formats.name,
        "day": formats.day,
        "count": formats.count,
        "cut": formats.cut,
        "sig": formats.sig,
    }
    return environment


@functools.cache
def _text(name: str) -> str:
    """A style or a script of the package; empty where there is none."""
    path = TEMPLATES / name
    text = path.read_text(encoding="utf-8") if path.is_file() else ""
    assert "</" not in text, f"{name} would end its element"
    return text


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
