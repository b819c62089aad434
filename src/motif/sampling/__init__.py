"""Samplers, and the one loop that grows trees and answers chats with them."""
