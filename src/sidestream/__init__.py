"""LLM streams that finish."""
