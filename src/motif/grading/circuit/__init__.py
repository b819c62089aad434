"""Circuits in Verilog, judged by proof."""
