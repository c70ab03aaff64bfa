"""Graphs: a program folded by module, and how it is drawn.

`flow` reads nodes and edges off a ledger or a program, `modules` folds them into levels that can be drilled into,
`ways` keeps only the nodes that matter most, `picture` writes DOT, and `render` makes files of it.
"""
