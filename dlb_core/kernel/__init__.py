"""The kernel: trace, passes, bind, plan, run, ledger. It knows no op by name.

Data flows one way: `trace` makes a `Program`, passes rewrite it, `activity` and packs note facts on its
nodes, `plan` binds every node to one rule, `run` executes forward and relevance, `ledger` keeps the books.
Packs never import from here; what they need is public in `dlb_core.rules`.
"""
