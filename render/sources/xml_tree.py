"""XML from strangers as a tree: nothing outside the file is read, no entity grows, depth and size are limited."""

from __future__ import annotations

from typing import NoReturn
from xml.etree.ElementTree import Element, TreeBuilder
from xml.parsers import expat

from render.errors import InputError

_MOST_BYTES = 64 << 20
_MOST_ELEMENTS = 500_000
_MOST_DEPTH = 100


def parse_xml(content: bytes, where: str) -> Element:
    """The root of a document; names lose their namespaces.

    A DOCTYPE that names a file (GE MUSE writes one) is passed over, and that file never opened.
    Raises `InputError` for damage, own entities and declarations, and documents that are too large or deep.
    """
    if len(content) > _MOST_BYTES:
        raise InputError(f"{where}: more than {_MOST_BYTES >> 20} MiB of XML; export the record alone")
    tree = _Tree(where)
    parser = expat.ParserCreate(namespace_separator="}")
    parser.buffer_text = True
    parser.StartElementHandler, parser.EndElementHandler = tree.start, tree.end
    parser.CharacterDataHandler = tree.builder.data
    parser.StartDoctypeDeclHandler = tree.doctype
    parser.EntityDeclHandler = tree.entity
    try:
        parser.Parse(content, True)
        root: Element = tree.builder.close()
    except (expat.ExpatError, AssertionError, ValueError, LookupError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{where}: not whole XML ({error}); export it again") from error
    return root


def text_at(element: Element, path: str) -> str:
    """The text of the first element at a path such as "a/b", without blanks around it; "" where none is."""
    return (element.findtext(path) or "").strip()


class _Tree:
    """What the parser reports, checked and built."""

    def __init__(self, where: str) -> None:
        self.builder = TreeBuilder()
        self._where = where
        self._elements = 0
        self._depth = 0

    def start(self, name: str, attributes: dict[str, str]) -> None:
        self._elements += 1
        self._depth += 1
        if self._elements > _MOST_ELEMENTS or self._depth > _MOST_DEPTH:
            raise InputError(f"{self._where}: too many or too deeply nested XML elements; export the record alone")
        local = {key.rpartition("}")[2]: value for key, value in attributes.items()}
        self.builder.start(name.rpartition("}")[2], local)

    def end(self, name: str) -> None:
        self._depth -= 1
        self.builder.end(name.rpartition("}")[2])

    def doctype(self, name: str, system: str | None, public: str | None, has_internal_subset: int) -> None:
        if has_internal_subset:
            self.entity()

    def entity(self, *_: object) -> NoReturn:
        raise InputError(f"{self._where}: the XML declares entities or types of its own; remove its DOCTYPE")
