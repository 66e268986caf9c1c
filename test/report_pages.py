"""What a browser would make of a report."""

from html.parser import HTMLParser


class Links(HTMLParser):
    """Collects tags and everything that a browser would load."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.loaded: list[str] = []

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        self.loaded += [value for name, value in attrs if name in ('src', 'href')]
