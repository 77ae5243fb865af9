"""Activations on disk: files that all processes of a machine share.

- ``key``: what an entry's numbers depend on
- ``entryfile``: one entry as an Arrow file, written in pieces, checked row by row
- ``inuse``: who reads a file; none that is read is removed
- ``place``: where the cache is and how large it may grow
- ``store``: the folder of entries: locks, budget, what to do when the disk is full
- ``memory``: entries in this process
"""
