"""How faithful the modes are, on models that are really trained: `make faithfulness` writes docs/faithfulness.md.

data -> networks -> training -> problems: what is explained. methods, rivals: who explains. curves, randomisation: how
good it is. report, document: the table. tuning: how the recommended modes were chosen, on other samples and models.
"""
