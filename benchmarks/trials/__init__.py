"""One trial of a real task: by HF Trainer with PEFT and by the engine, on the same rows."""
