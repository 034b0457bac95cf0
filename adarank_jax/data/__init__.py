"""Images, texts and batches: what models are judged and adapted on."""
