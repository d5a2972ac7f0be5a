"""Pictures to train on and to show; made, not collected."""
