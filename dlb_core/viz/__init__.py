"""Pictures of an explanation: plots, coloured text, graphs, the report; nothing here computes relevance.

`view` says what there is to draw (kind, units, labels), the other rooms draw it. What only some pictures need
(matplotlib, Pillow, Graphviz) is imported where it is used; the report and coloured text need none of them.
"""
