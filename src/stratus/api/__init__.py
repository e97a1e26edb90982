"""The HTTP door: decode, ask control, encode. Async ends here."""
