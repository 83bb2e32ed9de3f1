"""The Engine API's objects as msgspec structs, fields named exactly as the API names them.

Must never import anything of Longshore but `errors`, and holds no behaviour beyond (de)coding.
"""
