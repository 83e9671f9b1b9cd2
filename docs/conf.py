"""Sphinx configuration of the documentation site: `make docs`."""

project = "catlog"
extensions = ["myst_parser"]
exclude_patterns = ["examples"]

# Headings of these levels can be linked to: page.md#the-heading.
myst_heading_anchors = 4

html_theme = "furo"
html_title = "catlog"
html_copy_source = False
html_show_sphinx = False
html_show_copyright = False
# Nothing on the site may come from another host.
html_theme_options = {"source_view_link": "", "footer_icons": []}
