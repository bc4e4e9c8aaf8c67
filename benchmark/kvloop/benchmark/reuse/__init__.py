"""Chats with sampled answers, sent as text: is every full page of the earlier turns a hit?"""
