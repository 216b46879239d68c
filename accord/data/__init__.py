"""From files to batches: records, sources, chat rendering, batching."""
