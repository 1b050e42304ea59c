"""Side tasks: what an agent asks a model for beside its main conversation.

One package per task. Each has a pure core and takes the model as a function, so it works without one.
"""
