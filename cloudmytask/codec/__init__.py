"""The one codec: values of the model as documents, and documents as JSON text, for the wire, the store and people.

A new field of a class needs nothing here: its name, type, limits and default are declared in the model, once.
"""

from cloudmytask.codec.decoding import decode
from cloudmytask.codec.encoding import Document, encode
from cloudmytask.codec.text import body_digest, dump, from_text, load, to_text

__all__ = ["Document", "body_digest", "decode", "dump", "encode", "from_text", "load", "to_text"]
