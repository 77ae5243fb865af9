"""Write the report of a search: one HTML file that can be opened anywhere, without a network.

``formats`` lists the formats. ``page`` fills the templates with the texts of ``headline``, ``notices``,
``trial_table`` and the other modules, and with the figures of ``charts``. All of them only read a
:class:`~search.records.record.SearchRecord`.
"""
