"""Other tools' relevance beside ours, on the same models; run by `make parity`, and by `make test` where installed.

Called by their public names alone. Where theirs differs, the reason stands next to the test, and what does hold is
tested. A tool that is not installed is skipped with that reason.
"""
