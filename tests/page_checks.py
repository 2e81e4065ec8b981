"""What every HTML page must keep to, read out of its text."""

import base64
import hashlib
import re
from html.parser import HTMLParser

OUTSIDE = {"src", "srcset", "href", "data", "action", "poster", "background", "xlink:href", "formaction"}


class Parsed(HTMLParser):
    """The elements of a page, with their attributes, and the text that a reader sees."""

    def __init__(self, text):
        super().__init__()
        self.elements, self.texts, self._inside = [], [], None
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))
        self._inside = tag if tag in ("style", "script") else None

    def handle_endtag(self, tag):
        self._inside = None

    def handle_data(self, data):
        if self._inside is None:
            self.texts.append(data)

    @property
    def shown(self):
        return " ".join("".join(self.texts).split())


def check(text):
    """The page is one file: nothing is loaded or run but its own style and script, and nobody indexes it."""
    parsed = Parsed(text)
    for tag, attributes in parsed.elements:
        assert tag not in ("link", "iframe", "object", "embed", "img", "base", "form", "audio", "video"), tag
        for name, value in attributes.items():
            assert not name.startswith("on"), (tag, name)
            assert name != "style", (tag, value)
            assert name not in OUTSIDE or re.fullmatch(r"#[\w-]+|(?:[\w%-]+/)?[\w-]+\.html", value or ""), (
                tag,
                name,
                value,
            )
    metas = [attributes for tag, attributes in parsed.elements if tag == "meta"]
    (policy,) = [each["content"] for each in metas if each.get("http-equiv") == "Content-Security-Policy"]
    assert policy.startswith("default-src 'none'; ")
    assert "unsafe" not in policy
    for kind in ("style", "script"):
        inside = re.findall(rf"<{kind}>(.*?)</{kind}>", text, re.DOTALL)
        digests = {base64.b64encode(hashlib.sha256(each.encode()).digest()).decode() for each in inside}
        assert set(re.findall(r"'sha256-([^']+)'", "".join(re.findall(rf"{kind}-src ([^;]*)", policy)))) == digests
    assert "noindex" in next(each["content"] for each in metas if each.get("name") == "robots")
    assert "url(" not in text
    assert "@import" not in text
    assert "atient data" in parsed.shown
    ids = [attributes["id"] for _, attributes in parsed.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    for _, attributes in parsed.elements:
        for name in ("aria-labelledby", "href"):
            if name in attributes and not attributes[name].endswith(".html"):
                assert set(attributes[name].replace("#", "").split()) <= set(ids), attributes
    return parsed
