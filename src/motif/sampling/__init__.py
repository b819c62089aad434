"""Samplers, and the loops that grow trees and answer chats with them."""
