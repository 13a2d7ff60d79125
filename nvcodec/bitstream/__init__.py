"""The file as bytes: bit fields, sections, the container, and what can be saved of a damaged one."""
