"""Layer 1: one vocabulary for every revision; no date appears in any name or field.

Records are frozen msgspec structs. Attributes are snake_case, the wire's members camelCase;
`meta` is the wire's `_meta`. A member that is left at its default is not written.
"""
