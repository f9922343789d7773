"""Work over many items: in parts, in shards, and merged again."""
