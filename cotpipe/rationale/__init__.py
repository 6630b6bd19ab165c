"""Rationales: format, answers, step graph, masks, prompts, rewards and lengths.

Pure text processing: nothing here reads files or loads torch.
"""
