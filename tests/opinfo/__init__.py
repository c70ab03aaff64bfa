"""PyTorch's own operator database replayed through the rows: every operator, every float32 sample it brings.

    make opinfo                                      all of it (a few minutes)
    python -m opinfo --op cat --op nn.functional.pad  some operators (tests/ on PYTHONPATH)
    python -m opinfo --limit 40                      every so-many-th operator, 40 in all

Nobody here chose the arguments, so they are an outside witness. A sample's ATen calls are recorded below autograd,
where composite ops are still whole; a composite op without a row is opened into what it is made of. For every call
with a row the forward must be what torch returned, and every mode must account for all units of a random seed on the
call's real inputs. Calls with NaN or infinities in them are counted and left out: their relevance is refused by design.

It runs in a process of its own: importing the database freezes torch's backend flags and changes hypothesis' settings.

recorder.py records, check.py judges one call, tally.py counts, __main__.py walks the database.
"""
