#!/usr/bin/env python3
"""Holds the links of a book: each that leads to a file leads to one that is there, and to a place that it has."""

import html.parser
import pathlib
import sys
import urllib.parse


class Page(html.parser.HTMLParser):
    def __init__(self, path):
        super().__init__()
        self.links, self.places = [], set()
        self.feed(path.read_text())

    def handle_starttag(self, tag, attributes):
        for name, value in attributes:
            if name in ("href", "src"):
                self.links.append(value)
            if name == "id" or (name == "name" and tag == "a"):
                self.places.add(value)


book = pathlib.Path(sys.argv[1]).resolve()
pages = {path: Page(path) for path in book.rglob("*.html")}
checked, broken = 0, []
for path, page in pages.items():
    # These refer to the book's own files from wherever they are shown.
    if path.name in ("404.html", "print.html", "toc.html"):
        continue
    for link in page.links:
        url = urllib.parse.urlsplit(link)
        if url.scheme or url.netloc:
            continue
        checked += 1
        to = (path.parent / urllib.parse.unquote(url.path)).resolve() if url.path else path
        # A browser shows a file of another kind, or a directory only if a server lists it.
        if not to.is_file() or to.suffix == ".md":
            broken.append(f"{path.relative_to(book)}: {link}: there is no such file in the book, or beside it")
        elif url.fragment and to in pages and urllib.parse.unquote(url.fragment) not in pages[to].places:
            broken.append(f"{path.relative_to(book)}: {link}: the page has no such heading")
if broken or checked == 0:
    sys.exit("\n".join(broken) or f"{book} has no links")
print(f"{len(pages)} pages, {checked} links, none broken")
