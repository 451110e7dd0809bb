"""dragoman held against the official conformance suite; see conformance/README.md."""
