"""What the header's model has read before it reads a header; part of the format."""

PRIMER = b""
