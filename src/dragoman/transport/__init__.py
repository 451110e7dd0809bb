"""Layer 4: links move frames; what a frame says is not their business."""
