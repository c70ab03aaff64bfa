"""The model matrix: real classes in small sizes, and what every explanation of every one of them must hold.

`entry` says what a row of the matrix is, one file per family lists the rows, `check` has the invariants, and
`document` writes `docs/models.md` from a run over all of them (`make models`).
"""
