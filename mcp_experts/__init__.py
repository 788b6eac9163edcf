"""Lightweight wireless experts served over MCP."""
