"""Activations of the frozen prefix, kept in memory and in files that all processes of a machine share.

- ``activations``: the cache that trials use; ``reuse_policy`` decides whether keeping activations pays off
- ``prefix``, ``stages``: compute activations, one stage for each block; ``precision_probe`` measures the stages
- ``augmentation_views``: the few fixed views of augmented images that trials share
- ``key``, ``entry_file``, ``store``: entries on disk; ``memory``: entries in this process
- ``location``, ``machine_speed``: where the cache is, how large it may grow, and how fast it is
"""
