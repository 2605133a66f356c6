"""From an operator's globals to the files of a node and the facts of its container. Nothing is started here.

`rendering.render` is the way in; `keys` is the one table of what globals may say.
"""
