"""Where rows come from: PTransforms that give (Origin, record batch) pairs and receipts."""
