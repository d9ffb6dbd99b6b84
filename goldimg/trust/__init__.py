"""What makes an image worth trusting: where it comes from, who signed it, how both are checked."""
