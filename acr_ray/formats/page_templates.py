"""The templates of HTML pages: every text put into one is escaped, whoever wrote it."""

from __future__ import annotations

from jinja2 import Environment, PackageLoader, StrictUndefined


def page_templates(package: str) -> Environment:
    """Return the templates in the folder ``templates/`` of a package.

    Only a `markupsafe.Markup` goes in as it is: use it for what we made ourselves. A name that a template
    asks for and nobody gave is an error.
    """
    return Environment(
        loader=PackageLoader(package),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
