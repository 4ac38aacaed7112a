"""The engine's optimiser step on drawn tokens: what it computes, how fast, in how much memory."""
