"""Every rule of the built-in pack is proved here, in every mode of `MODES` and with both bias policies.

`harness` runs one op as the engine does, `tensors` draws its arguments, `oracle` has the formulas as dense matrices,
`cases` has arguments for every row. The tests go by kind; `test_every_row` holds what all rows have in common.
"""
