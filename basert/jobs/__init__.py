"""Files that clients leave here, and batches of requests in them."""
