"""HTTP as the client links need it: one small protocol, two libraries behind it."""
