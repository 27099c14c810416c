"""The servers of the local stack: how to get each program, configure it and probe it.

Starting and watching them is for `processes/`.
"""
