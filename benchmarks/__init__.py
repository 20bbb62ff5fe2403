"""Speed against peers: ratios measured in one interleaved run."""
