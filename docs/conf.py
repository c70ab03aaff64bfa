from importlib.metadata import version as installed_version

project = "dlb"
author = "The dlb authors"
copyright = "2026, The dlb authors"
release = version = installed_version("dlb-core")

extensions = ["myst_parser"]
myst_enable_extensions = ["colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 3

html_theme = "furo"
html_title = f"dlb {release}"
